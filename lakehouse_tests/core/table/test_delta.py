"""A commit is all or nothing, comes after nobody else's, and is known to be ours even when its answer was lost.

And what is written is Delta: a second reader finds the same values, types and rows behind every filter.
"""

import datetime as dt
import json
import math
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, DeltaError

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import BrokenTableError, ConflictError, DeclarationError, RefusedWriteError
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict, restore_version
from lakehouse_tests.conftest import Lake

COLUMNS = {"id": "bigint", "nome": "string"}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def rows(session: DuckDBSession, uri: str, *ids: int) -> list[DataFile]:
    frame = session.table([{"id": n, "nome": f"n{n}"} for n in ids], COLUMNS)
    return session.write(frame, uri, columns=COLUMNS)


def ids(uri: str) -> list[int]:
    return sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


def existing(uri: str) -> Snapshot:
    found = open_existing(uri)
    assert found is not None
    return found


def commit(table: Snapshot, **staged: Any) -> int:
    return commit_staged(Transaction(table=table, **staged)).version


# --- commits ---------------------------------------------------------------------------------------------------------


def test_nothing_is_visible_before_the_commit_and_all_is_after(session: DuckDBSession, uri: str) -> None:
    table = open_table(uri, COLUMNS)
    files = rows(session, uri, 1, 2)
    assert ids(uri) == [] and table.version == 0
    assert commit(table, add=files, watermarks={"app": 7}, provenance=Provenance(operation="test")) == 1
    after = existing(uri)
    assert (ids(uri), after.version, after.rows, after.watermark("app"), after.watermark("other")) == ([1, 2], 1, 2, 7, 0)
    assert after.provenance.operation == "test" and after.columns == COLUMNS


@pytest.mark.parametrize("operation", ["append", "replace"])
def test_whoever_comes_second_is_refused_and_changes_nothing(session: DuckDBSession, uri: str, operation: str) -> None:
    first = open_table(uri, COLUMNS)
    commit(first, add=rows(session, uri, 1))
    mine, other = existing(uri), existing(uri)
    commit(other, add=rows(session, uri, 2))
    candidate = Transaction(table=mine, add=rows(session, uri, 3), remove=mine.files if operation == "replace" else ())
    with pytest.raises(ConflictError) as conflict:
        commit_staged(candidate)
    assert conflict.value.retryable and "run it again" in str(conflict.value)
    assert ids(uri) == [1, 2] and existing(uri).version == 2
    assert not (Path(uri) / candidate.add[0].path).exists(), "what was staged is gone"


def test_a_replacement_may_not_take_the_other_writers_rows_with_it(session: DuckDBSession, uri: str) -> None:
    """Where delta-rs would rebase an overwrite silently."""
    commit(open_table(uri, COLUMNS), add=rows(session, uri, 1))
    mine = existing(uri)
    commit(existing(uri), add=rows(session, uri, 2))
    wider = {**COLUMNS, "valor": "double"}
    candidate = Transaction(table=mine, add=(), remove=mine.files, columns=wider)
    with pytest.raises(ConflictError):
        commit_staged(candidate)
    assert ids(uri) == [1, 2] and existing(uri).columns == COLUMNS


@pytest.mark.parametrize("error", [CommitFailedError, OSError, DeltaError])
def test_a_commit_whose_answer_was_lost_is_a_success(
    session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    table = open_table(uri, COLUMNS)
    files = rows(session, uri, 1)
    apply = DeltaTable.create_write_transaction

    def applied_then_lost(self: DeltaTable, *args: Any, **kwargs: Any) -> None:
        apply(self, *args, **kwargs)
        raise error("timeout")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", applied_then_lost)
    assert commit_staged(Transaction(table=table, add=files, watermarks={"app": 1})).version == 1
    assert ids(uri) == [1] and existing(uri).version == 1


def test_a_restore_whose_answer_was_lost_is_a_success(session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        table = open_table(uri, {"n": "bigint"})
        add = session.write(session.table([{"n": number}], {"n": "bigint"}), uri, columns={"n": "bigint"})
        commit_staged(Transaction(table=table, add=add))
    restore = DeltaTable.restore

    def applied_then_lost(self: DeltaTable, *args: Any, **kwargs: Any) -> None:
        restore(self, *args, **kwargs)
        raise OSError("lost")

    monkeypatch.setattr(DeltaTable, "restore", applied_then_lost)
    table = open_existing(uri)
    assert table is not None
    after = restore_version(table, 1, watermarks={"a": 1}, provenance=Provenance(operation="rollback"))
    assert (after.version, after.rows, after.watermark("a")) == (3, 1, 1)
    stale = open_existing(uri, version=2)
    assert stale is not None
    monkeypatch.setattr(DeltaTable, "restore", restore)
    with pytest.raises(ConflictError):
        restore_version(stale, 0, watermarks={}, provenance=Provenance(operation="rollback"))


def test_a_lost_answer_is_recognised_behind_the_commits_of_others(
    session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, files, later = open_table(uri, COLUMNS), rows(session, uri, 1), rows(session, uri, 2)
    apply = DeltaTable.create_write_transaction

    def applied_overtaken_lost(self: DeltaTable, *args: Any, **kwargs: Any) -> None:
        apply(self, *args, **kwargs)
        monkeypatch.setattr(DeltaTable, "create_write_transaction", apply)
        commit(existing(uri), add=later)
        raise CommitFailedError("lost")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", applied_overtaken_lost)
    assert commit(table, add=files) == 1
    assert ids(uri) == [1, 2]


@pytest.mark.parametrize("error", [OSError, DeltaError])
def test_a_commit_that_failed_by_itself_states_why(
    session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    table, files = open_table(uri, COLUMNS), rows(session, uri, 1)

    def fail(*_: Any, **__: Any) -> None:
        raise error("no space left on device")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", fail)
    with pytest.raises(error, match="no space left on device") as failed:
        commit(table, add=files)
    assert f"Nothing was committed to {uri}." in failed.value.__notes__[0]
    assert ids(uri) == []
    assert list(Path(uri).glob("*.parquet")) == [], "what was staged is gone"


def test_the_files_of_a_commit_that_may_have_been_applied_stay(
    session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost, and the log cannot be read to see."""
    table, files = open_table(uri, COLUMNS), rows(session, uri, 1)
    apply = DeltaTable.create_write_transaction

    def applied_then_lost(self: DeltaTable, *args: Any, **kwargs: Any) -> None:
        apply(self, *args, **kwargs)
        raise OSError("timeout")

    def unreadable(self: Snapshot, **_: Any) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", applied_then_lost)
        patch.setattr(Snapshot, "commits", unreadable)
        with pytest.raises(OSError, match="input/output error"):
            commit_staged(Transaction(table=table, add=files))
    assert ids(uri) == [1]


def test_no_more_rows_may_go_than_declared(session: DuckDBSession, uri: str) -> None:
    commit(open_table(uri, COLUMNS), add=rows(session, uri, 1, 2, 3, 4))
    table = existing(uri)
    candidate = Transaction(table=table, add=rows(session, uri, 1), remove=table.files, max_loss=0.5)
    assert candidate.rows == 1
    with pytest.raises(RefusedWriteError, match="would leave 1 of 4 rows, and at most 50% may go"):
        commit_staged(candidate)
    assert ids(uri) == [1, 2, 3, 4] and len(list(Path(uri).glob("*.parquet"))) == 1
    half = Transaction(table=table, add=rows(session, uri, 1, 2), remove=table.files, max_loss=0.5)
    assert commit_staged(half).version == 2
    table = existing(uri)
    commit_staged(Transaction(table=table, add=(), remove=table.files))
    assert ids(uri) == []


def test_a_candidate_shows_the_table_as_it_would_be(session: DuckDBSession, uri: str) -> None:
    empty = open_table(uri, COLUMNS)
    first, second = rows(session, uri, 1), rows(session, uri, 2, 3)
    commit(empty, add=[*first, *second])
    table = existing(uri)
    new = rows(session, uri, 4)
    candidate = Transaction(table=table, add=new, remove=[f for f in table.files if f.path == first[0].path])
    assert candidate.rows == 3
    frame = session.read(table.paths(candidate.files), COLUMNS)
    assert sorted(row[0] for row in session.rows(frame)) == [2, 3, 4]
    candidate.abandon()
    assert not (Path(uri) / new[0].path).exists() and ids(uri) == [1, 2, 3]


def test_columns_are_added_and_old_files_read_as_null(session: DuckDBSession, uri: str) -> None:
    commit(open_table(uri, COLUMNS), add=rows(session, uri, 1))
    wider = existing(uri).add_columns({"valor": "decimal(12,4)"})
    assert wider.columns == {**COLUMNS, "valor": "decimal(12,4)"} and wider.add_columns({}) is wider
    assert DeltaTable(uri).to_pyarrow_table().to_pylist() == [{"id": 1, "nome": "n1", "valor": None}]


def test_two_that_add_a_column_at_once(uri: str) -> None:
    open_table(uri, COLUMNS)
    mine, other = existing(uri), existing(uri)
    other.add_columns({"valor": "double"})
    with pytest.raises(ConflictError):
        mine.add_columns({"valor": "double"})


def test_two_makers_get_the_same_table(tmp_path: Path) -> None:
    for attempt in range(10):
        uri, found = str(tmp_path / f"t{attempt}"), []
        barrier = threading.Barrier(4)

        def make(uri: str = uri, barrier: threading.Barrier = barrier, found: list[str] = found) -> None:
            barrier.wait()
            found.append(open_table(uri, COLUMNS).id)

        threads = [threading.Thread(target=make) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(found) == 4 and len(set(found)) == 1 and existing(uri).version == 0


def test_a_broken_log_is_reported_as_broken(session: DuckDBSession, uri: str) -> None:
    commit(open_table(uri, COLUMNS), add=rows(session, uri, 1))
    with pytest.raises(BrokenTableError, match="at version 9"):
        open_existing(uri, version=9)
    (Path(uri) / "_delta_log" / "00000000000000000001.json").write_text("{rubbish")
    with pytest.raises(BrokenTableError, match="Put it back from a backup"):
        existing(uri).files  # noqa: B018


def test_there_is_no_table_where_there_is_none(tmp_path: Path) -> None:
    assert open_existing(str(tmp_path / "nothing")) is None


def test_old_versions_stay_readable(session: DuckDBSession, uri: str) -> None:
    commit(open_table(uri, COLUMNS), add=rows(session, uri, 1))
    table = existing(uri)
    commit(table, add=rows(session, uri, 2), remove=table.files)
    old = open_existing(uri, version=1)
    assert old is not None and [row[0] for row in session.rows(session.read(old.paths(), COLUMNS))] == [1]


def test_a_conflict_is_worked_on_again_from_the_start(session: DuckDBSession, uri: str) -> None:
    open_table(uri, COLUMNS)
    seen: list[int] = []

    def work() -> int:
        table = existing(uri)
        seen.append(table.version)
        if len(seen) < 3:
            commit(existing(uri), add=rows(session, uri, -len(seen)))
        return commit(table, add=rows(session, uri, 1))

    assert redo_on_conflict(work) == 3
    assert seen == [0, 1, 2] and ids(uri) == [-2, -1, 1]


def test_what_no_retry_fixes_is_not_retried() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise DeclarationError("It is wrong.", remedy="Fix it.")

    with pytest.raises(DeclarationError):
        redo_on_conflict(work)
    assert len(calls) == 1


def test_the_log_states_whose_commit_it_was(session: DuckDBSession, uri: str) -> None:
    table = open_table(uri, COLUMNS)
    commit(table, add=rows(session, uri, 1), provenance=Provenance(run_id="a"))
    commit(existing(uri), add=rows(session, uri, 2), provenance=Provenance(run_id="b"))
    DeltaTable(uri).optimize.compact()
    found = existing(uri)
    assert [c.provenance.run_id for c in found.commits() if c.provenance.run_id] == ["a", "b"]
    assert [c.version for c in found.commits(since=1)] == [2, 3]
    assert found.provenance.run_id == "b", "maintenance does not hide it"


# --- a second reader -------------------------------------------------------------------------------------------------

TYPES = {
    "n": "bigint",
    "i": "int",
    "s": "string",
    "d": "decimal(12,4)",
    "w": "decimal(38,0)",
    "f": "double",
    "b": "boolean",
    "e": "date",
    "t": "timestamp",
}
AT = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.UTC)
VALUES: list[dict[str, Any]] = [
    {"n": 9_223_372_036_854_775_807, "i": 2_147_483_647, "s": "é" * 50, "d": Decimal("99999999.9999"), "w": Decimal("9" * 38)},
    {"n": -9_223_372_036_854_775_808, "i": -2_147_483_648, "s": "", "d": Decimal("-99999999.9999"), "w": Decimal("-" + "9" * 38)},
    {"n": 0, "i": 0, "s": "q\"'\\\n\t\x01\x00😀", "d": Decimal("0.0001"), "w": Decimal(0)},
    {"n": 1, "s": "a" * 32 + "b", "f": -0.0, "b": True, "e": dt.date(1, 1, 1), "t": dt.datetime(1, 1, 1, tzinfo=dt.UTC)},
    {"n": 2, "s": "a" * 400, "f": 1.7976931348623157e308, "b": False, "e": dt.date(9999, 12, 31), "t": AT},
    {"n": 3, "s": "é" * 20_000, "f": 5e-324, "b": True, "e": dt.date(2026, 3, 1), "t": AT + dt.timedelta(microseconds=1)},
    {"n": 4, "s": "\U0010fffe" * 40, "f": 0.1, "t": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)},
    {"n": 5},
    {"n": 6, "f": -1e300, "b": False, "t": dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)},
]


@pytest.fixture(scope="module", params=["one file", "a file per row", "in a checkpoint"])
def typed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    lake = Lake(tmp_path_factory.mktemp("typed"))
    uri = str(lake.folder / "table")
    table = open_table(uri, TYPES)
    parts = [VALUES] if request.param == "one file" else [[row] for row in VALUES]
    with lake.session() as session:
        commit(table, add=[file for part in parts for file in session.write(session.table(part, TYPES), uri, columns=TYPES)])
    if request.param == "in a checkpoint":
        DeltaTable(uri).create_checkpoint()
        for log in Path(uri, "_delta_log").glob("*.json"):
            log.unlink()
    return uri


def full(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in TYPES}


def test_another_reader_sees_the_same_values_and_types(session: DuckDBSession, typed: str) -> None:
    table = DeltaTable(typed)
    found = table.to_pyarrow_table().sort_by("n")
    expected = [full(row) for row in sorted(VALUES, key=lambda row: row["n"])]
    assert [{k: v.astimezone(dt.UTC) if k == "t" and v else v for k, v in row.items()} for row in found.to_pylist()] == expected
    assert found.schema.field("t").type == pa.timestamp("us", "UTC")
    assert found.schema.field("d").type == pa.decimal128(12, 4) and found.schema.field("i").type == pa.int32()
    own = existing(typed)
    assert own.columns == TYPES
    back = session.rows(session.read(own.paths(), TYPES).sort("n"))
    assert [dict(zip(TYPES, row, strict=True)) for row in back] == expected
    assert math.copysign(1, found.filter(ds.field("n") == 1)["f"][0].as_py()) == -1, "a negative zero stays one"


def test_filters_on_statistics_lose_no_row(typed: str) -> None:
    """Each value must be found by itself, by a range, and not by a range beside it: that is what the bounds are for."""
    dataset = DeltaTable(typed).to_pyarrow_dataset()
    for name in TYPES:
        column = ds.field(name)
        for value in {row[name] for row in VALUES if row.get(name) is not None}:
            same = [row for row in VALUES if row.get(name) == value]
            assert dataset.to_table(filter=column == value).num_rows == len(same), (name, value)
            if name != "b":
                above = sum(row.get(name) is not None and row[name] >= value for row in VALUES)
                assert dataset.to_table(filter=column >= value).num_rows == above, (name, value)
        nulls = sum(row.get(name) is None for row in VALUES)
        assert dataset.to_table(filter=column.is_null()).num_rows == nulls, name


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("n = 9223372036854775807", 1),
        ("n > 4", 3),
        ("s = ''", 1),
        (f"s = '{'é' * 50}'", 1),
        (f"s > '{'a' * 32}'", 6),
        ("d = CAST('99999999.9999' AS DECIMAL(12,4))", 1),
        ("w = arrow_cast('99999999999999999999999999999999999999', 'Decimal128(38,0)')", 1),
        ("f = 0", 1),
        ("f < 0", 1),
        ("b", 2),
        ("NOT b", 2),
        ("e = DATE '9999-12-31'", 1),
        ("t = TIMESTAMP '2026-03-01T12:30:15.123456Z'", 1),
        ("t > TIMESTAMP '2026-03-01T12:30:15.123456Z'", 2),
        ("t < TIMESTAMP '1970-01-01T00:00:00Z'", 2),
        ("i IS NULL", 6),
    ],
)
def test_a_query_engine_prunes_to_the_same_rows(typed: str, where: str, count: int) -> None:
    query = QueryBuilder().register("t", DeltaTable(typed)).execute(f"SELECT count(*) AS n FROM t WHERE {where}")
    assert pa.table(query).to_pylist() == [{"n": count}]


@pytest.mark.parametrize("values", [[float("nan"), 1.0], [float("inf"), 1.0], [float("-inf"), float("nan")], [None, None]])
def test_doubles_that_json_cannot_represent_leave_a_readable_log(
    session: DuckDBSession, uri: str, values: list[float | None]
) -> None:
    columns = {"n": "bigint", "f": "double"}
    table = open_table(uri, columns)
    files = session.write(session.table([{"n": n, "f": f} for n, f in enumerate(values)], columns), uri, columns=columns)
    commit(table, add=files)
    log = Path(uri, "_delta_log", "00000000000000000001.json").read_text()
    stats = [
        json.loads(json.loads(line)["add"]["stats"], parse_constant=pytest.fail) for line in log.splitlines() if '"add"' in line
    ]
    assert "f" not in stats[0]["minValues"] and stats[0]["numRecords"] == 2
    back = DeltaTable(uri).to_pyarrow_table().sort_by("n")["f"].to_pylist()
    assert [str(value) for value in back] == [str(value) for value in values]
    query = QueryBuilder().register("t", DeltaTable(uri)).execute("SELECT count(*) AS n FROM t WHERE f = 1.0")
    assert pa.table(query).to_pylist() == [{"n": values.count(1.0)}]
