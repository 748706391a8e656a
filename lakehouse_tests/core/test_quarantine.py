"""A record is in quarantine or in the table, never in both, however often its batch is worked on."""

from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.quarantine import COLUMNS, replace_after
from lakehouse.core.table.snapshot import open_existing


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "quarantine")


def put(session: DuckDBSession, uri: str, layer: str, batches: list[int], *, after: int, until: int, mark: str = "") -> int:
    rows = [{"layer": layer, "rules": "r", "record": f"{layer}{n}{mark}", "batch_id": n} for n in batches]
    frame = session.table(rows, COLUMNS) if rows else None
    return replace_after(session, uri, layer=layer, batch=after, until=until, records=frame)


def content(session: DuckDBSession, uri: str) -> list[Any]:
    table = open_existing(uri)
    assert table is not None
    return sorted(row[0] for row in session.rows(session.read(table.paths(), COLUMNS).select("record")))


def test_a_batch_worked_on_again_replaces_what_it_put_there(session: DuckDBSession, uri: str) -> None:
    assert put(session, uri, "bronze", [1, 1, 1], after=0, until=1) == 3
    assert put(session, uri, "bronze", [1], after=0, until=1, mark="again") == 1
    assert content(session, uri) == ["bronze1again"]
    assert put(session, uri, "bronze", [], after=0, until=1) == 0
    assert content(session, uri) == []


def test_layers_and_other_batches_are_left_alone(session: DuckDBSession, uri: str) -> None:
    put(session, uri, "bronze", [1], after=0, until=1)
    put(session, uri, "bronze", [2], after=1, until=2)
    put(session, uri, "silver", [1, 2], after=0, until=2)
    put(session, uri, "silver", [], after=1, until=2)
    assert content(session, uri) == ["bronze1", "bronze2", "silver1"]
    put(session, uri, "bronze", [1], after=0, until=1, mark="x")
    assert content(session, uri) == ["bronze1x", "bronze2", "silver1"]


def test_a_run_that_was_overtaken_does_not_remove_what_came_after(session: DuckDBSession, uri: str) -> None:
    put(session, uri, "bronze", [1], after=0, until=1)
    put(session, uri, "bronze", [2], after=1, until=2)
    put(session, uri, "bronze", [1], after=0, until=1, mark="late")
    assert content(session, uri) == ["bronze1late", "bronze2"]


def test_nothing_to_put_and_nothing_to_remove_is_no_commit(session: DuckDBSession, uri: str) -> None:
    put(session, uri, "bronze", [1], after=0, until=1)
    before = open_existing(uri)
    put(session, uri, "silver", [], after=0, until=5)
    put(session, uri, "bronze", [], after=1, until=2)
    after = open_existing(uri)
    assert before is not None and after is not None and before.version == after.version
