"""Optimise and vacuum: few files instead of many, the same rows, and every protected version readable."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import lock
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance import optimise, vacuum
from lakehouse.maintenance.protect import PINS, Protection, pin, pins, protection, unpin
from lakehouse.maintenance.upkeep import Maintained, maintain, tasks
from lakehouse.ml.registry import Registry
from lakehouse.tables.spec import AirbyteStream, Column, Health, TableSpec
from lakehouse_tests.conftest import Filled, Lake, Row

HOUR = timedelta(hours=1)
SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("em", "timestamp"), Column("dia", "date", source="dia")),
    key=("id",),
    order=("em",),
    max_loss=1.0,
    health=Health(max_files=1),
)
PARTED = replace(SPEC, name="partidos", source=AirbyteStream("itens"), partition="dia")


def item(number: int, name: str = "a", day: int = 1) -> Row:
    return {"id": number, "nome": name, "em": f"2026-01-{day:02}T00:00:00Z", "dia": f"2026-01-{1 + number % 2:02}"}


def later(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


def maintained(
    lake: Lake, *specs: TableSpec, guard: Protection | None = None, now: datetime | None = None
) -> dict[str, Maintained]:
    """Everything of a lake, two hours later, with a floor of one."""
    found = maintain(
        tasks(lake.storage, specs or (SPEC,)),
        storage=lake.storage,
        protected=guard if guard is not None else Protection(),
        session=lake.session,
        floor=HOUR,
        now=now or later(hours=2),
        wait=0.2,
    )
    return {str(one.ref): one for one in found}


def rows_at(uri: str, version: int) -> list[Any]:
    return sorted(map(str, DeltaTable(uri, version=version).to_pyarrow_table().to_pylist()))


@pytest.mark.parametrize("spec", [pytest.param(SPEC, marks=pytest.mark.slow), PARTED])
def test_optimise_and_vacuum_between_syncs_change_no_row(make_lake: Callable[[], Lake], spec: TableSpec) -> None:
    alone, looked_after = make_lake(), make_lake()
    for n in range(1, 4):
        rows = [item(n, day=n), item(n + 10, day=n), item(100, f"v{n}", day=n), item(101, f"w{n}", day=n)]
        for lake in (alone, looked_after):
            lake.land("itens", f"f{n}", rows)
            refresh = lake.run(spec)
            assert refresh.entry is not None and refresh.entry.batch_from == n - 1 and refresh.entry.records_in == 4
        found = maintained(looked_after, spec)
        assert {one.outcome for one in found.values()} <= {"done", "nothing"}, found
        for ref in (spec.bronze, spec.silver, spec.quarantine):
            assert looked_after.rows(ref, *[c for c in _columns(alone, ref) if c != "_ingested_at"]) == alone.rows(
                ref, *[c for c in _columns(alone, ref) if c != "_ingested_at"]
            )
    bronze, silver = (open_existing(looked_after.storage.uri(ref)) for ref in (spec.bronze, spec.silver))
    assert bronze is not None and silver is not None
    assert len(bronze.files) == 1 and len(silver.files) == (2 if spec.partition else 1)
    assert looked_after.refresh(spec).transaction is None, "nothing is new"
    assert not any(f.failed for f in looked_after.refresh(spec, rebuild=True).findings if f.rule in ("ledger", "complete"))


def _columns(lake: Lake, ref: TableRef) -> list[str]:
    found = open_existing(lake.storage.uri(ref))
    return [*found.columns] if found is not None else []


def six_versions(lake: Lake) -> None:
    """A silver table of six versions, each with other files; version 0 is empty."""
    for n in range(1, 6):
        lake.land("itens", f"f{n}", [item(1, f"v{n}"), item(n, f"v{n}")])
        lake.run(SPEC)


@pytest.fixture
def history(lake: Lake, fill_once: Filled) -> str:
    return fill_once(lake, six_versions).storage.uri(SPEC.silver)


def test_every_protected_version_stays_and_delta_rs_would_remove_the_same(lake: Lake, history: str) -> None:
    before = {version: rows_at(history, version) for version in range(6)}
    pin(lake.storage, SPEC.silver, version=2, reason="audit of June")
    backed_up = {(SPEC.silver, DeltaTable(history).metadata().id): {3: "in the backup of today"}}
    guard = replace(protection(lake.storage, Registry(f"sqlite:///{lake.folder}/none.db")), backups=backed_up)
    assert not guard.unknown, "a registry that was never used has no model"
    snapshot = open_existing(history)
    assert snapshot is not None
    planned = vacuum.plan(snapshot, retained=guard.of(SPEC.silver, snapshot), floor=timedelta(), now=later(minutes=1))
    oracle = DeltaTable(history).vacuum(0, True, False, full=True, keep_versions=[2, 3])
    assert sorted(planned.files) == sorted(oracle) and planned.files
    assert planned.retained[2] == "pinned: audit of June" and planned.retained[3] == "in the backup of today"
    counted = vacuum.vacuum(snapshot, planned)
    assert counted == {2: 2, 3: 3, snapshot.version: 5}
    for version in (2, 3, 5):
        assert rows_at(history, version) == before[version]
    with pytest.raises(FileNotFoundError):
        rows_at(history, 1)
    assert not any(Path(history, path).exists() for path in oracle)


@pytest.mark.slow
def test_nothing_within_the_floor_goes(lake: Lake, history: str) -> None:
    before = {version: rows_at(history, version) for version in range(6)}
    Path(history, "left-behind.parquet").write_bytes(b"of a killed writer")
    found = maintained(lake, replace(SPEC, health=Health()), now=later())["silver/itens"]
    assert found.vacuumed_files == 0 and found.outcome == "nothing"
    assert {version: rows_at(history, version) for version in range(6)} == before
    snapshot = open_existing(history)
    assert snapshot is not None
    (at,) = [commit.at.timestamp() for commit in snapshot.commits() if commit.version == 3]
    # An hour and a moment after version 3: what a reader began then reads version 3.
    for path in Path(history).glob("*.parquet"):
        os.utime(path, (at - 60, at - 60))
    planned = vacuum.plan(snapshot, retained={}, floor=HOUR, now=datetime.fromtimestamp(at + 0.001, UTC) + HOUR)
    vacuum.vacuum(snapshot, planned)
    assert [rows_at(history, version) for version in (3, 4, 5)] == [before[version] for version in (3, 4, 5)]
    assert "left-behind.parquet" in planned.files


def test_every_file_of_gold_stays_while_it_is_unknown_what_models_use(lake: Lake, history: str) -> None:
    gold = TableRef("gold", "vendas_diarias")
    Path(lake.storage.uri(gold)).parent.mkdir(parents=True)
    Path(history).rename(lake.storage.uri(gold))
    database = lake.folder / "mlflow.db"
    database.write_text("no database")
    guard = protection(lake.storage, Registry("http://127.0.0.1:9"))
    assert "models use" in guard.unknown
    before = sorted(Path(lake.storage.uri(gold)).glob("*.parquet"))
    found = maintained(lake, guard=guard)
    assert found[str(gold)].outcome == "refused" and "MLFLOW_TRACKING_URI" in found[str(gold)].message
    assert sorted(Path(lake.storage.uri(gold)).glob("*.parquet")) == before
    assert found["bronze/itens"].outcome == "done" and found["bronze/itens"].vacuumed_files


def test_a_registry_whose_extra_is_not_installed_is_unknown_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    database = lake.folder / "mlflow.db"
    database.write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "not installed" in protection(lake.storage, Registry(f"sqlite:///{database}")).unknown


@pytest.mark.slow
def test_pins(lake: Lake, history: str) -> None:
    pin(lake.storage, SPEC.silver, version=2, reason="one")
    pin(lake.storage, SPEC.silver, version=4, reason="two")
    pin(lake.storage, SPEC.silver, version=2, reason="again")
    assert [(p["version"], p["reason"]) for p in pins(lake.storage)] == [(2, "again"), (4, "two")]
    unpin(lake.storage, SPEC.silver, version=2)
    with pytest.raises(DeclarationError, match=r"Version 2 of silver/itens is not pinned.*silver/itens 4"):
        unpin(lake.storage, SPEC.silver, version=2)
    with pytest.raises(DeclarationError, match="REASON"):
        pin(lake.storage, SPEC.silver, version=3, reason=" ")
    with pytest.raises(BrokenTableError, match="its newest is"):
        pin(lake.storage, SPEC.silver, version=99, reason="no such")
    with pytest.raises(BrokenTableError, match="The table silver/nada does not exist"):
        pin(lake.storage, TableRef("silver", "nada"), version=0, reason="no such")
    assert open_existing(lake.storage.uri(PINS)) is not None


@pytest.mark.slow
def test_a_pin_outlives_the_table_s_log_but_not_the_table(lake: Lake, history: str) -> None:
    pin(lake.storage, SPEC.silver, version=3, reason="kept")
    before = rows_at(history, 3)
    snapshot = open_existing(history)
    assert snapshot is not None
    DeltaTable(history, version=2).create_checkpoint()
    snapshot.table.create_checkpoint()
    late = later(days=400)
    assert optimise.clean_log(snapshot, retained=[3, snapshot.version], now=late) == 2, "versions 0 and 1"
    assert rows_at(history, 3) == before
    assert optimise.clean_log(snapshot, retained=[snapshot.version], now=later()) == 0, "too young"
    assert lake.refresh(SPEC).transaction is None and not lake.refresh(SPEC, rebuild=True).stopped


@pytest.mark.slow
def test_a_version_that_is_lost_already_is_named(lake: Lake, history: str) -> None:
    guard = Protection({(SPEC.silver, DeltaTable(history).metadata().id): {1: "pinned: old"}})
    DeltaTable(history).create_checkpoint()
    Path(history, "_delta_log", f"{0:020}.json").unlink()
    found = maintained(lake, guard=guard)["silver/itens"]
    assert found.outcome == "broken" and "version 1 was kept and cannot be read" in found.message


def test_what_is_damaged_locked_or_out_of_disk_is_named_and_the_rest_goes_on(
    lake: Lake, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silver = open_existing(history)
    assert silver is not None
    Path(history, silver.files[0].path).unlink()
    newest = max(Path(lake.storage.uri(TableRef("ops", "ledger")), "_delta_log").glob("*.json"))  # no checkpoint holds it yet
    newest.write_text("garbled")
    with lock(lake.storage.uri(TableRef("ops", "landing_files"))):
        found = maintained(lake, replace(SPEC, name="outro", silver_name="outro"))
    assert found["silver/itens"].outcome == "broken" and silver.files[0].path in found["silver/itens"].message
    assert found["ops/ledger"].outcome == "broken" and "garbled" in found["ops/ledger"].message
    assert found["ops/landing_files"].outcome == "busy"
    assert found["ops/deletes_itens"].outcome in ("nothing", "done")


def test_a_full_disk_during_compaction_loses_nothing(lake: Lake, history: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.core.engines.duckdb import DuckDBSession

    def full(self: Any, *given: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    before = lake.rows(SPEC.bronze)
    with monkeypatch.context() as patched:
        patched.setattr(DuckDBSession, "write", full)
        found = maintained(lake)["bronze/itens"]
    assert found.outcome == "failed" and "No space left" in found.message
    assert lake.rows(SPEC.bronze) == before and not lake.stray_files()
    assert maintained(lake)["bronze/itens"].outcome == "done" and lake.rows(SPEC.bronze) == before


def test_another_writer_that_commits_first_is_not_lost(lake: Lake, history: str) -> None:
    """Its rows stay, and the compaction begins again from them."""
    calls = []

    def session() -> Any:
        if not calls:
            calls.append(1)
            from deltalake import write_deltalake

            write_deltalake(foreign, there.to_pyarrow_table().slice(0, 1), mode="append")
        return lake.session()

    foreign = lake.storage.uri(SPEC.bronze)
    there = DeltaTable(foreign)
    count = there.to_pyarrow_table().num_rows
    wanted = [task for task in tasks(lake.storage, [SPEC]) if task.ref == SPEC.bronze]
    (found,) = maintain(wanted, storage=lake.storage, protected=Protection(), session=session, floor=HOUR, wait=1)
    assert found.outcome == "done" and found.rows == count + 1 and found.files_after == 1
    assert DeltaTable(foreign).to_pyarrow_table().num_rows == count + 1


@pytest.mark.slow
def test_the_figures_are_those_of_an_independent_count(lake: Lake, history: str) -> None:
    def counted() -> tuple[int, int]:
        files = [path for path in Path(history).rglob("*.parquet") if "_delta_log" not in path.parts]
        return len(files), sum(path.stat().st_size for path in files)

    before = counted()
    found = maintained(lake)["silver/itens"]
    assert (found.stored_files_before, found.stored_bytes_before) == before
    after = counted()
    assert (found.stored_files_after, found.stored_bytes_after) == after
    now = DeltaTable(history)
    assert found.files_after == len(now.file_uris()) and found.version_after == now.version()
    assert found.vacuumed_files and found.vacuumed_bytes
    again = maintained(lake)["silver/itens"]
    assert again.outcome == "nothing" and again.version_after == found.version_after, "no need, no commit"
