"""What a delivered text becomes: the same value, or null. Nothing is rounded to an integer, nothing is guessed.

The texts are those that break casts elsewhere; the list is the contract that another engine has to meet.
"""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import narwhals as nw
import pytest

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.expressions import parse

MAX = 9_223_372_036_854_775_807

CASTS: dict[str, dict[str, Any]] = {
    "bigint": {
        "7": 7,
        "-7": -7,
        "+7": 7,
        " 7 ": 7,
        "007": 7,
        "-0": 0,
        "7.0": 7,
        "7.": 7,
        "1e3": 1000,
        "1E3": 1000,
        "1.5e1": 15,
        "1e16": 10**16,
        str(MAX): MAX,
        str(-MAX - 1): -MAX - 1,
        "6.7": None,
        "15e-1": None,
        "1e-3": None,
        f"{MAX}.5": None,
        "9007199254740993.5": None,
        str(MAX + 1): None,
        "1e400": None,
        "0x1F": None,
        "0b11": None,
        "1_000": None,
        "1,000": None,
        "NaN": None,
        "inf": None,
        "true": None,
        "abc": None,
        "": None,
        "--1": None,
        "٣": None,
    },
    "int": {"7": 7, "2147483647": 2147483647, "2147483648": None, "6.7": None},
    "decimal(12,4)": {
        "1.5": Decimal("1.5000"),
        "-0": Decimal("0.0000"),
        "1e3": Decimal("1000.0000"),
        "2.55555": Decimal("2.5556"),
        "0.30000000000000004": Decimal("0.3000"),
        "99999999.9999": Decimal("99999999.9999"),
        "99999999.99995": None,
        "123456789": None,
        "1_0.5": None,
        "1,5": None,
        "NaN": None,
        "inf": None,
        "0x1": None,
        "": None,
    },
    "decimal(38,0)": {"1" * 38: Decimal("1" * 38), "1" * 39: None},
    "double": {
        "1.5": 1.5,
        "1e308": 1e308,
        "-1e-400": -0.0,
        "1e400": None,
        "-1e400": None,
        "Infinity": float("inf"),
        "-inf": float("-inf"),
        "1_0.5": None,
        "abc": None,
        "": None,
    },
    "boolean": {"true": True, "TRUE": True, "false": False, "1": True, "0": False, "2": None, "": None, "sim": None},
    "date": {
        "2026-01-31": dt.date(2026, 1, 31),
        "2026-01-31T10:00:00Z": dt.date(2026, 1, 31),
        "0001-01-01": dt.date(1, 1, 1),
        "9999-12-31": dt.date(9999, 12, 31),
        "2026-02-30": None,
        "10000-01-01": None,
        "infinity": None,
        "0044-03-15 (BC)": None,
        "01/02/2026": None,
        "today": None,
        "": None,
    },
    "timestamp": {
        "2026-01-31T10:00:00Z": dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC),
        "2026-01-31 10:00:00": dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC),
        "2026-01-31": dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
        "2026-01-31T10:00:00.123456Z": dt.datetime(2026, 1, 31, 10, 0, 0, 123456, tzinfo=dt.UTC),
        "2026-01-31T10:00:00-03:00": dt.datetime(2026, 1, 31, 13, tzinfo=dt.UTC),
        "0001-01-01T00:00:00Z": dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        "9999-12-31T23:59:59Z": dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
        "10000-01-01T00:00:00Z": None,
        "infinity": None,
        "-infinity": None,
        "0044-03-15 (BC)": None,
        "2026-13-01": None,
        "1767225600000": None,
        "now": None,
        "": None,
    },
    "string": {"": "", " a ": " a ", "NULL": "NULL", "q\"'\\\x00é😀": "q\"'\\\x00é😀"},
}


@pytest.mark.parametrize("kind", CASTS)
def test_casts(session: DuckDBSession, kind: str) -> None:
    frame = session.table([{"n": n, "text": text} for n, text in enumerate(CASTS[kind])], {"n": "bigint", "text": "string"})
    rows = session.rows(session.cast(frame, {"value": ("text", kind)}).sort("n").select("text", "value"))
    assert dict(rows) == CASTS[kind]


def test_null_stays_null_in_every_type(session: DuckDBSession) -> None:
    frame = session.table([{"text": None}], {"text": "string"})
    frame = session.cast(frame, {f"c{n}": ("text", kind) for n, kind in enumerate(CASTS)})
    assert set(session.rows(frame)[0]) == {None}


def test_a_calculated_value_that_cannot_be_is_marked_and_the_others_stand(session: DuckDBSession) -> None:
    columns = {"n": "bigint", "q": "bigint", "p": "decimal(12,4)"}
    rows = [
        {"n": 1, "q": 2, "p": Decimal("1.5")},
        {"n": 2, "q": MAX, "p": Decimal("99999999.9999")},
        {"n": 3, "q": None, "p": Decimal("1.5")},
    ]
    frame = session.compute(
        session.table(rows, columns),
        {"total": (parse("q * p", columns=columns), "decimal(18,4)"), "twice": (parse("n + n", columns=columns), "bigint")},
        failed="bad_",
    )
    found = session.rows(frame.sort("n").select("n", "total", "bad_total", "twice", "bad_twice"))
    assert found == [(1, Decimal("3.0000"), False, 2, False), (2, None, True, 4, False), (3, None, False, 6, False)]


def test_a_comparison_that_cannot_be_made_is_marked_too(session: DuckDBSession) -> None:
    columns = {"n": "bigint", "text": "string"}
    frame = session.table([{"n": 1, "text": "1"}, {"n": 2, "text": "x"}, {"n": 3, "text": "4"}], columns)
    frame = session.compute(frame, {"same": (parse("n = text", columns=columns), "boolean")}, failed="bad_")
    assert session.rows(frame.sort("n").select("same", "bad_same")) == [(True, False), (None, True), (False, False)]


def test_later_values_may_read_earlier_ones(session: DuckDBSession) -> None:
    frame = session.table([{"n": 2}], {"n": "bigint"})
    values = {
        "a": (parse("n + 1", columns=["n"]), "bigint"),
        "b": (parse("a * 10", columns=["n", "a"]), "bigint"),
    }
    assert session.rows(session.compute(frame, values, failed="x_").select("n", "a", "b")) == [(2, 3, 30)]


def test_a_record_becomes_one_json_object(session: DuckDBSession) -> None:
    columns = {"a": "string", "order": "string", "c": "string"}
    frame = session.table([{"a": 'q"\\\n\x01', "order": "é", "c": None}], columns)
    (text,) = session.rows(session.documents(frame, "record", list(columns)).select("record"))[0]
    assert text == '{"a":"q\\"\\\\\\n\\u0001","order":"é","c":null}'


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_python_values_come_back(session: DuckDBSession, count: int) -> None:
    columns = {"i": "bigint", "s": "string", "d": "decimal(12,2)", "t": "timestamp", "b": "boolean", "f": "double", "e": "date"}
    at = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    rows = [
        {"i": n, "s": f"x\x00'{n}", "d": Decimal("1.25"), "t": at, "b": n % 2 == 0, "f": n / 4, "e": at.date()}
        for n in range(count)
    ]
    rows += [{"i": -1}] if count else []
    back = session.rows(session.table(rows, columns).sort("i"))
    assert back == [tuple(row.get(name) for name in columns) for row in sorted(rows, key=lambda row: row["i"])]


def test_a_column_that_a_file_lacks_is_null_and_files_may_differ(
    session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    first = session.write(session.table([{"a": 1}], {"a": "bigint"}), str(folder), columns={"a": "bigint"})
    both = {"a": "bigint", "b": "string"}
    second = session.write(session.table([{"a": 2, "b": "x"}], both), str(folder), columns=both)
    paths = [str(folder / file.path) for file in (*first, *second)]
    frame = session.read(paths, {**both, "c": "timestamp"}, path_column="path")
    assert session.rows(frame.sort("a")) == [(1, None, None, paths[0]), (2, "x", None, paths[1])]


def test_columns_may_be_called_like_keywords(session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    columns = dict.fromkeys(("order", "select", "group", "table", "from", "end", "null", "all", "key"), "bigint")
    frame = session.table([dict.fromkeys(columns, 3), dict.fromkeys(columns, 1)], columns)
    files = session.write(frame, str(folder), columns=columns, sort_by=("order", "select"))
    back = session.read([str(folder / files[0].path)], columns)
    assert session.rows(back) == [(1,) * 9, (3,) * 9]
    assert files[0].lower == dict.fromkeys(columns, 1) and files[0].upper == dict.fromkeys(columns, 3)


def test_no_rows_make_no_file(session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    frame = session.table([], {"a": "bigint"})
    assert session.write(frame, str(folder), columns={"a": "bigint"}) == []
    assert list(folder.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    frame = session.table([{"a": "1"}] * 10 + [{"a": "x"}], {"a": "string"})
    with pytest.raises(Exception, match="Could not convert"):
        session.write(frame, str(folder), columns={"a": "bigint"})
    assert list(folder.iterdir()) == []


def test_a_partition_has_files_of_its_own_in_order_and_a_row_of_none_is_refused(
    session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    columns = {"data": "date", "n": "bigint"}
    days = [dt.date(2025, 10, 26) + dt.timedelta(days=n) for n in range(3)]
    # More than DuckDB has in a block, so that it would read them side by side.
    rows = [{"data": days[n % 3], "n": n * 7919 % 300_007} for n in range(300_000)]
    files = session.write(session.table(rows, columns), str(folder), columns=columns, sort_by=["n"], partition="data")
    assert [file.partition for file in files] == [{"data": str(day)} for day in days]
    for day, file in zip(days, files, strict=True):
        assert Path(file.path).parent.name == f"data={day}"
        there = session.rows(session.read([str(folder / file.path)], columns))
        assert there == sorted((row["data"], row["n"]) for row in rows if row["data"] == day)
    assert session.stretches([str(folder / file.path) for file in files], ["n"]) is not None
    some = session.table([{"data": days[0], "n": 1}, {"n": 2}], columns)
    with pytest.raises(RefusedWriteError, match="have no 'data'"):
        session.write(some, str(folder), columns=columns, partition="data")
    assert len([*folder.rglob("*.parquet")]) == len(files)


def test_sorted_files_hardly_overlap(session: DuckDBSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    frame = nw.from_native(
        session.connection.sql("SELECT (range * 7919) % 900001 AS id, md5(range::VARCHAR) AS t FROM range(900000)")
    )
    files = session.write(frame, str(folder), columns={"id": "bigint", "t": "string"}, sort_by=("id",), file_mb=3)
    bounds = sorted((file.lower["id"], file.upper["id"]) for file in files)
    assert len(files) > 2 and sum(file.rows for file in files) == 900_000
    # DuckDB now and then puts one row group into the file after the next; pruning loses little, correctness nothing.
    assert sum(upper - lower for lower, upper in bounds) < 2 * 900_001


def test_a_session_that_outgrows_its_memory_spills_and_leaves_no_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    spill = tmp_path_factory.mktemp("spill")
    session = DuckDBSession(memory_limit="60MB", spill=str(spill), folders=[], threads=2)
    try:
        frame = nw.from_native(session.connection.sql("SELECT range AS id, md5(range::VARCHAR) AS t FROM range(1500000)"))
        assert session.rows(session.keep(frame).select(nw.len()))[0][0] == 1_500_000
        assert any(file.stat().st_size for file in spill.rglob("*") if file.is_file())
    finally:
        session.close()
    assert list(spill.iterdir()) == []
