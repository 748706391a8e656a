"""What the DuckDB session makes of values: expressions, JSON objects, files, what comes back. Casts are in `test_casts.py`."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import narwhals as nw
import pytest

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.expressions import parse

MAX = 9_223_372_036_854_775_807


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


def test_a_text_that_an_expression_makes_is_a_number_by_the_grammar(session: Session) -> None:
    columns = {"n": "bigint", "t": "string"}
    texts = ["1.5", "1.555", "2", " 3 ", "1,25", "x", None]
    values = {
        "whole": (parse("trim(t)", columns=columns), "bigint"),
        "money": (parse("replace(t, ',', '.')", columns=columns), "decimal(12,2)"),
    }
    frame = session.table([{"n": n, "t": text} for n, text in enumerate(texts)], columns)
    frame = session.compute(frame, values, failed="bad_")
    found = session.rows(frame.sort("n").select("whole", "bad_whole", "money", "bad_money"))
    assert found == [
        (None, True, Decimal("1.50"), False),
        (None, True, None, True),
        (2, False, Decimal("2.00"), False),
        (3, False, Decimal("3.00"), False),
        (None, True, Decimal("1.25"), False),
        (None, True, None, True),
        (None, False, None, False),
    ]


def test_a_comparison_that_cannot_be_made_is_marked_too(session: DuckDBSession) -> None:
    columns = {"n": "bigint", "text": "string"}
    frame = session.table([{"n": 1, "text": "1"}, {"n": 2, "text": "x"}, {"n": 3, "text": "4"}], columns)
    frame = session.compute(frame, {"same": (parse("n = text", columns=columns), "boolean")}, failed="bad_")
    assert session.rows(frame.sort("n").select("same", "bad_same")) == [(True, False), (None, True), (False, False)]


@pytest.mark.parametrize(
    "text", ["n * 2 + n * 2", "nullif(n * 2, 5)", "CASE WHEN n * 2 IN (1, 2) THEN n * 2 ELSE 4 END", "nullif(CAST(t AS INT), 1)"]
)
def test_a_part_that_occurs_twice_fails_on_its_own_rows(session: DuckDBSession, text: str) -> None:
    """DuckDB computes it once for both, and did so outside of what catches the failure: the run ended."""
    columns = {"n": "bigint", "t": "string"}
    frame = session.table([{"n": MAX, "t": "x"}, {"n": 1, "t": "2"}], columns)
    frame = session.compute(frame, {"v": (parse(text, columns=columns), "bigint")}, failed="bad_")
    found = session.rows(frame.sort("n").select("v", "bad_v"))
    assert found[1] == (None, True) and found[0][1] is False and found[0][0] is not None


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


def test_rows_are_counted_and_named(session: DuckDBSession) -> None:
    frame = session.table([{"id": 2, "nome": "b"}, {"id": 1, "nome": None}], {"id": "bigint", "nome": "string"})
    assert (session.count(frame), session.count(frame.filter(nw.col("id") > 2))) == (2, 0)
    assert session.dicts(frame.sort("id")) == [{"id": 1, "nome": None}, {"id": 2, "nome": "b"}]
    assert session.dicts(frame.sort("id"), "nome") == [{"nome": None}, {"nome": "b"}]


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


#: A value, its type, the type that it is written as, and what it is there; None where it is none.
WRITTEN: dict[str, tuple[Any, str, str, Any]] = {
    "a decimal without digits after the mark": (Decimal("2.00"), "decimal(6,2)", "bigint", 2),
    "one with": (Decimal("2.50"), "decimal(6,2)", "bigint", None),
    "one beyond the type": (Decimal(2**31), "decimal(12,0)", "int", None),
    "a double": (2.0, "double", "int", 2),
    "a double with a part": (2.5, "double", "int", None),
    "no number": (float("nan"), "double", "int", None),
    "zeros at the end": (Decimal("1.250"), "decimal(6,3)", "decimal(6,2)", Decimal("1.25")),
    "a digit too many": (Decimal("1.255"), "decimal(6,3)", "decimal(6,2)", None),
    "all digits of the widest": (Decimal("9.999999999"), "decimal(38,9)", "decimal(38,0)", None),
    "a double as a decimal": (0.1, "double", "decimal(6,2)", Decimal("0.10")),
    "null": (None, "decimal(6,2)", "int", None),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_number_is_written_as_it_is_or_not_at_all(
    session: Session, tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    value, source, kind, there = WRITTEN[case]
    folder = str(tmp_path_factory.mktemp("files"))
    frame = session.table([{"a": value}], {"a": source})
    if value is not None and there is None:
        with pytest.raises(Exception, match=r"Could not convert|out of range|[Ff]ailed to cast|can't be cast"):
            session.write(frame, folder, columns={"a": kind})
        return
    (file,) = session.write(frame, folder, columns={"a": kind})
    assert session.rows(session.read([f"{folder}/{file.path}"], {"a": kind})) == [(there,)]


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
    assert session.key_ranges([str(folder / file.path) for file in files], ["n"]) is not None
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
        assert session.rows(session.persist(frame).select(nw.len()))[0][0] == 1_500_000
        assert any(file.stat().st_size for file in spill.rglob("*") if file.is_file())
    finally:
        session.close()
    assert list(spill.iterdir()) == []
