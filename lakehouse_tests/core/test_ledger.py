"""Nothing planned is forgotten, nothing committed goes uncounted, and neither is written twice."""

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.bronze.ingest import stage_batch
from lakehouse.core import ledger
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.ledger import Entry, PlannedFile
from lakehouse.core.names import TableRef
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver.refresh import stage_refresh
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake

TABLE, OTHER = TableRef("bronze", "vendas"), TableRef("bronze", "produtos")
FILES = [PlannedFile("raw/vendas/a'\"é.csv", 10, "10-1", "ab"), PlannedFile("raw/vendas/b.csv", 20, "20-2", "cd")]
SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def committed(uri: str) -> Snapshot:
    found = open_existing(uri)
    assert found is not None
    return found


def test_a_batch_is_planned_once_and_found_again(session: DuckDBSession, uri: str) -> None:
    assert ledger.planned_files(session, uri, TABLE) == (0, [])
    assert ledger.plan(session, uri, table=TABLE, batch=1, files=FILES, run_id="a")
    assert not ledger.plan(session, uri, table=TABLE, batch=1, files=FILES[:1], run_id="b"), "another run was first"
    assert ledger.plan(session, uri, table=OTHER, batch=1, files=FILES[:1], run_id="a"), "tables do not mind each other"
    planned, files = ledger.planned_files(session, uri, TABLE)
    assert planned == 1 and sorted(files, key=lambda item: item[1].path) == [(1, file) for file in FILES]
    assert ledger.plan(session, uri, table=TABLE, batch=2, files=FILES, run_id="a")
    assert ledger.planned_files(session, uri, TABLE)[0] == 2


def test_compaction_of_the_plan_changes_nothing(session: DuckDBSession, uri: str) -> None:
    for batch in (1, 2, 3):
        ledger.plan(session, uri, table=TABLE, batch=batch, files=FILES, run_id="a")
    before = ledger.planned_files(session, uri, TABLE)
    DeltaTable(uri).optimize.compact()
    after = ledger.planned_files(session, uri, TABLE)
    assert after[0] == before[0] == 3 and sorted(map(str, after[1])) == sorted(map(str, before[1]))


@pytest.mark.parametrize(("planned", "done"), [(0, 0), (1, 0), (7, 7), (8, 7)])
def test_numbers_that_belong_together(planned: int, done: int) -> None:
    ledger.check_numbers(TABLE, planned=planned, done=done)


@pytest.mark.parametrize(("planned", "done"), [(0, 1), (2, 0), (7, 9)])
def test_numbers_that_do_not(planned: int, done: int) -> None:
    with pytest.raises(BrokenTableError, match="restore both from the same backup"):
        ledger.check_numbers(TABLE, planned=planned, done=done)


@pytest.mark.parametrize(
    ("entry", "balanced"),
    [
        (Entry(batch_from=0, batch_to=1, records_in=10, written=4, deduplicated=3, deleted=2, quarantined=1, rows_after=4), True),
        (
            Entry(batch_from=0, batch_to=1, records_in=10, written=4, deduplicated=3, deleted=2, quarantined=2, rows_after=4),
            False,
        ),
        (Entry(batch_from=0, batch_to=1, records_in=0, written=0, rows_after=0), True),
    ],
)
def test_every_record_has_one_outcome(entry: Entry, balanced: bool) -> None:
    assert entry.balanced is balanced


def _commit(uri: str, records: int) -> None:
    figures = Entry(batch_from=0, batch_to=1, records_in=records, written=records, rows_after=records)
    commit_staged(Transaction(table=committed(uri), add=(), provenance=Provenance(run_id=f"run-{records}", figures=figures)))


def test_the_figures_of_a_commit_are_copied_once_whoever_comes_by(session: DuckDBSession, uri: str, tmp_path: Path) -> None:
    location = str(tmp_path / "ledger")
    open_table(uri, {"id": "bigint"})
    assert ledger.finalise(session, location, table=TABLE, snapshot=committed(uri)) == []
    for records in (1, 2, 3):
        _commit(uri, records)
    stale = committed(uri)
    _commit(uri, 4)
    assert [row["records_in"] for row in ledger.finalise(session, location, table=TABLE, snapshot=stale)] == [1, 2, 3]
    assert ledger.finalise(session, location, table=TABLE, snapshot=stale) == []
    assert [row["records_in"] for row in ledger.finalise(session, location, table=TABLE, snapshot=committed(uri))] == [4]
    assert ledger.finalise(session, location, table=TABLE, snapshot=stale) == []
    rows = session.rows(
        session.read(committed(location).paths(), ledger.LEDGER).sort("version").select("version", "records_in", "run_id")
    )
    assert rows == [(n, n, f"run-{n}") for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("layer", ["bronze", "silver"])
def test_a_run_that_ended_between_commit_and_ledger_is_counted_by_the_next(lake: Lake, layer: str) -> None:
    lake.land("itens", "a", [{"id": 1, "nome": "a", "em": "2026-01-01"}])
    if layer == "silver":
        lake.ingest(SPEC)
    with lake.session() as session:  # commit, and then the process is gone
        stage = stage_batch if layer == "bronze" else stage_refresh
        candidate = stage(session, lake.storage, SPEC, run_id="lost").transaction  # type: ignore[operator]
        commit_staged(candidate.with_provenance(run_id="lost"))
    before = [row for row in lake.ledger() if row["layer"] == layer]
    lake.run(SPEC)
    lake.run(SPEC)
    after = [row for row in lake.ledger() if row["layer"] == layer]
    assert before == [] and [(row["run_id"], row["records_in"], row["written"]) for row in after] == [("lost", 1, 1)]
    assert after[0]["committed_at"].astimezone(dt.UTC) <= dt.datetime.now(dt.UTC)


def test_a_table_that_was_removed_and_made_again_is_counted_from_its_start(lake: Lake) -> None:
    """Its versions begin at zero again; the check that every bronze row was read must not be misled by those before."""
    for n in range(2):
        lake.land("itens", f"f{n}", [{"id": n, "nome": "a", "em": "2026-01-01"}])
        lake.run(SPEC)
    shutil.rmtree(lake.storage.uri(SPEC.silver))
    for n in range(2, 5):
        lake.land("itens", f"f{n}", [{"id": n, "nome": "a", "em": "2026-01-01"}])
        refresh = lake.run(SPEC)
        assert not refresh.stopped
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == list(range(5))
    silver = sorted((row for row in lake.ledger() if row["layer"] == "silver"), key=lambda row: row["committed_at"])
    assert [(row["version"], row["batch_from"], row["records_in"]) for row in silver] == [
        (1, 0, 1),
        (2, 1, 1),
        (1, 0, 3),
        (2, 3, 1),
        (3, 4, 1),
    ]


def test_bronze_without_its_plan_or_the_other_way_round_stops(lake: Lake) -> None:
    for name in ("a", "b"):
        lake.land("itens", name, [{"id": 1, "nome": "a", "em": "2026-01-01"}])
        lake.run(SPEC)
    shutil.move(lake.storage.uri(SPEC.bronze), lake.folder / "away")
    with pytest.raises(BrokenTableError):
        lake.ingest(SPEC)
    shutil.rmtree(lake.storage.uri(SPEC.bronze))
    shutil.move(lake.folder / "away", lake.storage.uri(SPEC.bronze))
    assert lake.ingest(SPEC).transaction is None


def test_figures_that_two_writers_copy_at_once_are_there_once(
    lake: Lake, session: DuckDBSession, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looked at an older version of the table, and was between our look at the ledger and our commit."""
    for name in "ab":
        lake.land("itens", name, [{"id": 1}])
        batch = stage_batch(session, lake.storage, SPEC, run_id="r")
        assert batch.transaction is not None
        commit_staged(batch.transaction)
    newest = committed(lake.storage.uri(SPEC.bronze))
    older = open_existing(newest.uri, version=newest.version - 1)
    assert older is not None
    append_to = ledger._append_to

    def after_the_other(*args: Any, **named: Any) -> None:
        monkeypatch.setattr(ledger, "_append_to", append_to)
        assert ledger.finalise(session, uri, table=SPEC.bronze, snapshot=older)
        append_to(*args, **named)

    monkeypatch.setattr(ledger, "_append_to", after_the_other)
    assert [row["batch_to"] for row in ledger.finalise(session, uri, table=SPEC.bronze, snapshot=newest)] == [2]
    rows = session.read(committed(uri).paths(), ledger.LEDGER).select("batch_to", "records_in")
    assert sorted(session.rows(rows)) == [(1, 1), (2, 1)]
