"""Versions follow from the set of records: whatever arrives when and together, they are those of plain Python."""

import datetime as dt
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import narwhals as nw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.engines.session import Session
from lakehouse.silver.merge import silver_columns
from lakehouse.silver.validate import DELETED
from lakehouse.silver.versions import INSTANT, ORIGIN, instant_of, overlapping, versions
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, history_table, tracked
from lakehouse_tests.conftest import Row, plain
from lakehouse_tests.silver.model import history

BY_INSTANT = TableSpec(
    name="clientes",
    source=AirbyteStream("clientes"),
    columns=(Column("id", "bigint"), Column("segmento", "string"), Column("pais", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    history=True,
)
BY_NUMBER = replace(BY_INSTANT, columns=(*BY_INSTANT.columns[:3], Column("lsn", "bigint")), order=("lsn",))
PARTLY = replace(BY_INSTANT, history=("segmento",))
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
#: Ties, neighbours, and what comes years late.
INSTANTS = [BEGIN + dt.timedelta(days=days) for days in (-4000, -700, 0, 1, 2, 3)]


def records(spec: TableSpec) -> st.SearchStrategy[list[Row]]:
    """Records that collide in every way there is."""
    at = {"em": st.sampled_from([None, *INSTANTS])} if "em" in spec.order else {"lsn": st.sampled_from([None, 1, 2, 3, 4])}
    fields = {
        "id": st.sampled_from([1, 2]),
        "segmento": st.sampled_from([None, "a", "b"]),
        "pais": st.sampled_from([None, "BR", "PT"]),
        **at,
        "_extracted_at": st.sampled_from(INSTANTS),
        DELETED: st.sampled_from([False, False, False, True]),
    }
    return st.lists(st.fixed_dictionaries(fields), max_size=14)


def instant(spec: TableSpec, row: Row) -> Any:
    return row["em"] or row["_extracted_at"] if "em" in spec.order else row["_extracted_at"]


def expected(spec: TableSpec, rows: Sequence[Row]) -> list[str]:
    known = [{**row, "_instant": instant(spec, row)} for row in rows]
    columns = [column.name for column in spec.columns] + ["_extracted_at"]
    return texts(history(known, key=spec.key, order=spec.order, columns=columns, tracked=tracked(spec)))


def texts(rows: Sequence[Row]) -> list[str]:
    return sorted(json.dumps(plain(row), sort_keys=True, default=str) for row in rows)


def increments(session: Session, spec: TableSpec, batches: Sequence[Sequence[Row]]) -> "nw.LazyFrame[Any]":
    """The versions after the batches one by one, each computed from what the one before has left and the new records."""
    columns = silver_columns(spec)
    known: nw.LazyFrame[Any] | None = None
    found: Any = None
    for batch in batches:
        frame = session.table(batch, {**columns, DELETED: "boolean"})
        frame = frame.with_columns(instant_of(spec).alias(INSTANT), nw.lit(1).alias(ORIGIN))
        found = versions(session, spec, frame if known is None else nw.concat([known, frame], how="vertical"))
        parts = [found.rows.select(*frame.collect_schema().names()), found.hidden]
        known = session.persist(nw.concat(parts, how="vertical").with_columns(nw.lit(1).alias(ORIGIN)))
        assert overlapping(session, spec.key, found.rows) == 0
    return found.rows.select(*silver_columns(history_table(spec)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("spec", [BY_INSTANT, BY_NUMBER, PARTLY], ids=["instant", "number", "some columns"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_grouping_gives_the_versions_of_plain_python(
    session: DuckDBSession, spec: TableSpec, data: st.DataObject
) -> None:
    rows = data.draw(records(spec))
    arriving = data.draw(st.permutations(rows))
    again = data.draw(st.lists(st.sampled_from(rows), max_size=4)) if rows else []
    arriving = [*arriving, *again]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arriving)), max_size=4)))
    batches = [arriving[a:b] for a, b in zip([0, *cuts], [*cuts, len(arriving)], strict=True)]
    wanted = expected(spec, rows)
    assert texts(session.dicts(increments(session, spec, [rows]))) == wanted
    assert texts(session.dicts(increments(session, spec, batches))) == wanted


def version(day: int, segmento: str | None = "a", *, deleted: bool = False, **other: Any) -> Row:
    em = BEGIN + dt.timedelta(days=day)
    return {"id": 1, "segmento": segmento, "pais": "BR", "em": em, "_extracted_at": em, DELETED: deleted, **other}


def days(found: Sequence[Row]) -> list[tuple[Any, ...]]:
    """Value, first day, last day and number of each version, in order."""

    def day(at: dt.datetime | None) -> int | None:
        return None if at is None else (at.astimezone(dt.UTC) - BEGIN).days

    rows = sorted(found, key=lambda row: row["valid_from"])
    return [(row["segmento"], day(row["valid_from"]), day(row["valid_to"]), row["version"]) for row in rows]


CASES: dict[str, tuple[list[Row], list[tuple[Any, ...]]]] = {
    "one version": ([version(1)], [("a", 1, None, 1)]),
    "the same again makes none": ([version(1), version(5)], [("a", 1, None, 1)]),
    "a late record splits what was one": (
        [version(1), version(5), version(3, "b")], [("a", 1, 3, 1), ("b", 3, 5, 2), ("a", 5, None, 3)],
    ),
    "a record years late is the first": ([version(1), version(-3000, "b")], [("b", -3000, 1, 1), ("a", 1, None, 2)]),
    "a delete ends the interval": ([version(1), version(4, deleted=True)], [("a", 1, 4, 1)]),
    "back after a delete": ([version(1), version(4, deleted=True), version(6)], [("a", 1, 4, 1), ("a", 6, None, 2)]),
    "a delete before what comes late": ([version(4, deleted=True), version(1)], [("a", 1, 4, 1)]),
    "a delete that is alone": ([version(4, deleted=True)], []),
    "of one instant the newest counts": (
        [version(1), version(2, "b"), version(2, "c", _extracted_at=INSTANTS[-1])], [("a", 1, 2, 1), ("c", 2, None, 2)],
    ),
    "null is a value": ([version(1), version(2, None), version(3, None)], [("a", 1, 2, 1), (None, 2, None, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_intervals(session: DuckDBSession, case: str) -> None:
    rows, wanted = CASES[case]
    for seed in range(3):
        arriving = random.Random(seed).sample(rows, len(rows))
        assert days(session.dicts(increments(session, BY_INSTANT, [[row] for row in arriving]))) == wanted


def test_other_columns_open_none_and_are_those_of_the_opening(session: DuckDBSession) -> None:
    rows = [version(1), version(2, pais="PT"), version(3, "b", pais="FR"), version(4, "b", pais="ES")]
    found = session.dicts(increments(session, PARTLY, [rows]))
    assert days(found) == [("a", 1, 3, 1), ("b", 3, None, 2)]
    assert sorted(row["pais"] for row in found) == ["BR", "FR"]


def test_an_overlap_is_found(session: DuckDBSession) -> None:
    columns = {"id": "bigint", "valid_from": "timestamp", "valid_to": "timestamp", "is_current": "boolean"}
    one, two, three = INSTANTS[2:5]

    def count(*rows: tuple[Any, Any, bool]) -> int:
        found = [dict(zip(columns, (1, *row), strict=True)) for row in rows]
        return overlapping(session, ["id"], session.table(found, columns))

    assert count((one, two, False), (two, None, True)) == 0
    assert count((one, three, False), (two, None, True)) == 1
    assert count((one, None, True), (two, None, True)) == 1
    assert count((two, one, False)) == count((one, None, False)) == count((one, two, True)) == 1
