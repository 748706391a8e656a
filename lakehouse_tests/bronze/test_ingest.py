"""A landed file is taken in once: not twice when nothing changed, not never when something went wrong in between."""

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.bronze import ingest
from lakehouse.bronze.ingest import stage_batch
from lakehouse.core import ledger
from lakehouse.core.errors import ConflictError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import commit_staged
from lakehouse.landing.readers.files.stage import Staged, stage
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range
from lakehouse_tests.conftest import LANDING_FILES, LEDGER, Lake, Row, file_content, touch

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    rules=(in_range("id", minimum=0),),
)


def item(number: int, name: str = "a") -> Row:
    return {"id": number, "nome": name, "em": "2026-01-01T00:00:00Z"}


def ids(lake: Lake) -> list[int]:
    return sorted(int(row["id"]) for row in lake.rows(SPEC.bronze, "id"))


def tree(lake: Lake) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in (lake.folder / "lake").rglob("*") if file.is_file()}


def test_a_second_run_finds_nothing_to_do_and_changes_nothing(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(2), item(-3)])
    lake.put("itens", "b.jsonl", "{no record\n")
    lake.put("itens", "c.csv.gz", "no gzip")
    lake.run(SPEC)
    versions, files = lake.versions(), tree(lake)
    assert set(versions) >= {
        "bronze/itens",
        "silver/itens",
        "quarantine/itens",
        "ops/ledger",
        "ops/landing_files",
        "ops/deletes_itens",
    }
    for _ in range(2):
        assert lake.ingest(SPEC).transaction is None
        assert lake.refresh(SPEC).transaction is None
    assert lake.versions() == versions and tree(lake) == files


def test_a_touched_file_is_not_taken_in_again(lake: Lake) -> None:
    path = lake.land("itens", "a", [item(1)])
    lake.run(SPEC)
    versions = lake.versions()
    touch(path)
    lake.run(SPEC)
    assert lake.versions() == versions and ids(lake) == [1]


def test_the_same_name_with_other_content_is_new(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    lake.ingest(SPEC)
    path = lake.land("itens", "a", [item(2)])
    touch(path)
    lake.ingest(SPEC)
    assert ids(lake) == [1, 2]
    lake.land("itens", "a", [item(3), item(4)])
    lake.ingest(SPEC)
    assert ids(lake) == [1, 2, 3, 4] and lake.ingest(SPEC).transaction is None


def test_the_same_content_under_another_name_is_another_delivery(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    lake.ingest(SPEC)
    lake.land("itens", "b", [item(1)])
    lake.run(SPEC)
    assert ids(lake) == [1, 1] and len(lake.rows(SPEC.silver)) == 1


def test_a_deleted_file_stays_taken_in(lake: Lake) -> None:
    path = lake.land("itens", "a", [item(1)])
    lake.run(SPEC)
    versions = lake.versions()
    content = path.read_bytes()
    path.unlink()
    lake.run(SPEC)
    path.write_bytes(content)
    lake.run(SPEC)
    assert lake.versions() == versions, "neither when it goes nor when it comes back"


def test_batches_are_numbered_and_their_files_named(lake: Lake) -> None:
    for n in (1, 2, 3):
        lake.land("itens", f"f{n}", [item(n)])
        lake.ingest(SPEC)
    rows = lake.rows(SPEC.bronze, "_batch_id", "_source_file", "id")
    assert [tuple(row.values()) for row in rows] == [(n, f"raw/itens/f{n}.jsonl", str(n)) for n in (1, 2, 3)]
    planned = lake.rows(LANDING_FILES, "batch_id", "path", "table")
    assert [tuple(row.values()) for row in planned] == [(n, f"raw/itens/f{n}.jsonl", "bronze/itens") for n in (1, 2, 3)]


def test_an_empty_landing_is_nothing_to_do(lake: Lake) -> None:
    batch = lake.ingest(SPEC)
    assert batch.transaction is None and batch.version == 0 and batch.findings == []


def test_a_discarded_batch_is_taken_in_by_the_next_run(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(2)])
    with lake.session() as session:
        batch = stage_batch(session, lake.storage, SPEC, run_id="a")
        assert batch.transaction is not None
        batch.transaction.abandon()
    lake.land("itens", "b", [item(3)])
    lake.ingest(SPEC)
    assert ids(lake) == [1, 2], "the planned batch first, as it was planned"
    lake.ingest(SPEC)
    assert ids(lake) == [1, 2, 3] and lake.ingest(SPEC).transaction is None


def test_one_run_takes_in_what_a_killed_run_has_left_and_what_landed_since(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    from lakehouse.bronze.assets import bronze_asset
    from lakehouse.resources import build_resources
    from lakehouse.settings import Settings

    resources = build_resources(Settings(root=lake.storage.root, landing_dir=lake.storage.landing))
    lake.land("itens", "a", [item(1), item(2)])
    lake.put("itens", "b.jsonl", "{no record\n")
    plan_and_die(lake, monkeypatch)
    lake.land("itens", "c", [item(3)])
    with dg.instance_for_test() as instance:
        done = dg.materialize([bronze_asset(SPEC)], resources=resources, instance=instance)
        assert done.success and ids(lake) == [1, 2, 3]
        checks = {each.check_name: each for each in done.get_asset_check_evaluations()}
        assert not checks["readable_records"].passed and checks["ledger"].passed, "of the batch that was left"
        assert [r["records_in"] for r in lake.rows(LEDGER, "batch_to", "records_in")] == [3, 1]
        made = [commit.provenance for commit in open_existing(lake.storage.uri(SPEC.bronze)).commits()]  # type: ignore[union-attr]
        assert {each.run_id for each in made if each.figures} == {done.run_id}
        done = dg.materialize([bronze_asset(SPEC)], resources=resources, instance=instance)
        assert done.success and len(lake.rows(LEDGER)) == 2


def test_a_batch_that_was_left_is_as_any_other_where_nothing_landed_since(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.land("itens", "a", [item(1)])
    plan_and_die(lake, monkeypatch)
    assert not lake.ingest(SPEC).more and ids(lake) == [1]


# --- what happens to a planned file ----------------------------------------------------------------------------------


def plan_and_die(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends right after it has planned its batch."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, lake.session() as session:
        patch.setattr(ingest, "stage", die)
        with pytest.raises(KeyboardInterrupt):
            stage_batch(session, lake.storage, SPEC, run_id="dead")


def test_a_planned_file_that_was_touched_is_still_taken_in(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lake.land("itens", "a", [item(1)])
    plan_and_die(lake, monkeypatch)
    touch(path)
    lake.ingest(SPEC)
    lake.ingest(SPEC)
    assert ids(lake) == [1] and lake.ingest(SPEC).transaction is None


def test_a_planned_file_that_vanished_is_named_and_is_new_when_it_comes_back(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount of the landing zone is away for one run: then all of it seems gone."""
    lake.land("itens", "a", [item(1)])
    lake.land("itens", "b", [item(2)])
    plan_and_die(lake, monkeypatch)
    away = lake.folder / "away"
    shutil.move(lake.folder / "landing", away)
    batch = lake.ingest(SPEC)
    assert batch.entry is not None and (batch.entry.records_in, batch.entry.balanced) == (0, True)
    gone = lake.quarantined(SPEC)
    assert [row["source_file"] for row in gone] == ["raw/itens/a.jsonl", "raw/itens/b.jsonl"]
    assert all("no longer there" in row["reason"] for row in gone)
    assert lake.ingest(SPEC).transaction is None
    shutil.move(away, lake.folder / "landing")
    lake.run(SPEC)
    assert ids(lake) == [1, 2] and len(lake.rows(SPEC.silver)) == 2
    versions = lake.versions()
    lake.run(SPEC)
    assert lake.versions() == versions


def test_a_planned_file_that_was_replaced_is_taken_in_as_it_is_now(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_content([item(1)])
    path = lake.put("itens", "a.jsonl", first)
    lake.land("itens", "b", [item(9)])
    plan_and_die(lake, monkeypatch)
    path.write_bytes(file_content([item(2), item(3)]))
    lake.ingest(SPEC)
    assert ids(lake) == [9]
    lake.ingest(SPEC)
    assert ids(lake) == [2, 3, 9]
    path.write_bytes(first)
    touch(path)
    lake.ingest(SPEC)
    assert ids(lake) == [1, 2, 3, 9], "the content that was never read was never spoken for"
    assert lake.ingest(SPEC).transaction is None


@pytest.mark.parametrize("change", ["grow", "vanish"])
def test_a_file_that_changes_while_it_is_read_is_read_again(lake: Lake, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = lake.land("itens", "a", [item(1)])
    lake.land("itens", "b", [item(5)])

    def meanwhile(*args: object, **kwargs: object) -> Staged:
        staged = stage(*args, **kwargs)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes() + file_content([item(2)])) if change == "grow" else path.unlink()
        return staged

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "stage", meanwhile)
        with pytest.raises(ConflictError, match="changed while it was read"):
            lake.ingest(SPEC)
    assert lake.rows(SPEC.bronze) == [] and lake.stray_files() == []
    lake.ingest(SPEC)
    lake.ingest(SPEC)
    assert ids(lake) == ([1, 2, 5] if change == "grow" else [5])


def test_a_file_that_vanishes_before_it_is_planned_is_not_planned(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lake.land("itens", "a", [item(1)])
    lake.land("itens", "b", [item(2)])
    checksum = ingest._checksum

    def vanish(name: str) -> str | None:
        path.unlink(missing_ok=True)
        return checksum(name)

    monkeypatch.setattr(ingest, "_checksum", vanish)
    lake.ingest(SPEC)
    assert ids(lake) == [2] and lake.quarantined(SPEC) == []


def test_an_error_after_staging_leaves_no_staged_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.land("itens", "a", [item(1)])

    def fail(*_: object, **__: object) -> int:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_quarantine", fail)
        with pytest.raises(OSError, match="disk full"):
            lake.ingest(SPEC)
    assert lake.stray_files() == []
    lake.ingest(SPEC)
    assert ids(lake) == [1]


def test_two_runs_of_one_batch_are_one_batch(lake: Lake) -> None:
    """Both plan, both read, both stage; one commits."""
    lake.land("itens", "a", [item(1), item(2)])
    with lake.session() as one, lake.session() as two:
        first = stage_batch(one, lake.storage, SPEC, run_id="1").transaction
        second = stage_batch(two, lake.storage, SPEC, run_id="2").transaction
        assert first is not None and second is not None
        commit_staged(first)
        with pytest.raises(ConflictError):
            commit_staged(second)
    assert ids(lake) == [1, 2] and lake.stray_files() == [] and lake.ingest(SPEC).transaction is None


def test_a_run_that_was_overtaken_does_not_disturb_what_came_after(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up when its batch, and the next, are long in the table: also their quarantine must stay."""
    lake.put("itens", "a.jsonl", "{bad 1\n" + file_content([item(1)]).decode())

    def overtaken(*args: object, **kwargs: object) -> Staged:
        staged = stage(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setattr(ingest, "stage", stage)
        lake.ingest(SPEC)
        lake.put("itens", "b.jsonl", "{bad 2\n" + file_content([item(2)]).decode())
        lake.ingest(SPEC)
        return staged

    monkeypatch.setattr(ingest, "stage", overtaken)
    with pytest.raises(ConflictError):
        lake.ingest(SPEC)
    assert ids(lake) == [1, 2] and sorted(row["record"] for row in lake.quarantined(SPEC)) == ["{bad 1", "{bad 2"]
    assert lake.ingest(SPEC).transaction is None


def test_tables_of_one_lake_do_not_mind_each_other(lake: Lake) -> None:
    other = TableSpec(name="outros", source=AirbyteStream("outros"), columns=SPEC.columns, key=("id",), order=("em",))
    for stream, spec, number in (("itens", SPEC, 1), ("outros", other, 2)):
        lake.land(stream, "a", [item(number)])
        lake.run(spec)
    lake.land("itens", "b", [item(3)])
    assert lake.run(other).transaction is None
    lake.run(SPEC)
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1, 3] and [r["id"] for r in lake.rows(other.silver, "id")] == [
        2
    ]


def test_maintenance_in_between_changes_nothing(lake: Lake) -> None:
    """Compaction, checkpoint, vacuum and log clean-up of every table, between any two runs."""
    for n in range(1, 4):
        lake.land("itens", f"f{n}", [item(n), item(100, f"v{n}"), item(-n)])
        lake.run(SPEC)
        for name in lake.versions():
            table = DeltaTable(str(lake.folder / "lake" / name))
            table.optimize.compact()
            table.create_checkpoint()
            table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
            table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
            DeltaTable(str(lake.folder / "lake" / name)).cleanup_metadata()
    assert not Path(lake.storage.uri(SPEC.bronze), "_delta_log", f"{0:020}.json").exists(), "the log was cleaned up"
    assert ids(lake) == [-3, -2, -1, 1, 2, 3, 100, 100, 100]
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1, 2, 3, 100]
    assert len(lake.quarantined(SPEC)) == 3 and sorted(
        row["records_in"] for row in lake.ledger() if row["layer"] == "silver"
    ) == [3, 3, 3]
    lake.run(SPEC)
    assert not any(
        finding.failed for finding in lake.refresh(SPEC, rebuild=True).findings if finding.rule in ("ledger", "complete")
    )


def test_the_ledger_of_a_batch(lake: Lake) -> None:
    lake.put("itens", "a.jsonl", "{no record\n" + file_content([item(1), item(2), item(1, "b")]).decode())
    lake.put("itens", "b.csv.gz", "no gzip")
    lake.run(SPEC)
    bronze, silver = lake.ledger()
    figures = ("layer", "batch_from", "batch_to", "records_in", "written", "deduplicated", "deleted", "quarantined", "rows_after")
    assert [bronze[name] for name in figures] == ["bronze", 0, 1, 4, 3, 0, 0, 1, 3]
    assert [silver[name] for name in figures] == ["silver", 0, 1, 3, 2, 1, 0, 0, 2]
    snapshot = open_existing(lake.storage.uri(SPEC.bronze))
    assert snapshot is not None and snapshot.watermark(ledger.ingest_app(SPEC.bronze)) == 1


def test_two_streams_in_one_folder_are_told_apart(lake: Lake) -> None:
    path = lake.land("itens", "a", [item(1)])
    shutil.copytree(path.parent, lake.folder / "landing" / "raw" / "itens_2")
    lake.ingest(SPEC)
    assert ids(lake) == [1]
    assert Path(lake.storage.landed_path("raw/itens_2/a.jsonl")).is_file()
