"""The view of a run: every step reads the same versions, whatever others commit meanwhile."""

import warnings
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.core import publications
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.observability.outbox import small_session
from lakehouse.resources import build_resources
from lakehouse.runtime import view
from lakehouse.settings import Settings

COLUMNS = {"id": "bigint"}
SOURCE, OWN, MART = TableRef("silver", "source"), TableRef("ml", "own"), TableRef("gold", "mart")


class Lake:
    def __init__(self, root: Path) -> None:
        self.settings = Settings(root=str(root))
        self.storage = self.settings.storage
        self.read: dict[str, list[int]] = {}

    def commit(self, ref: TableRef, *ids: int) -> None:
        """A commit of another writer: these rows and no others."""
        with small_session(self.storage) as session:
            commit_staged(stage_write(session, self.storage.uri(ref), _rows(*ids)))

    def publish(self, ref: TableRef) -> None:
        table = open_existing(self.storage.uri(ref))
        assert table is not None
        named = {ref: Named(table.id, table.version)}
        publications.publish(lambda: small_session(self.storage), self.storage, named, run_id="other")

    def reader(self, name: str, of: TableRef, *, then: Callable[[], None] = lambda: None, after: str = "") -> dg.AssetsDefinition:
        """An asset that notes which rows it reads, and what happens when it has."""

        @dg.asset(
            key=["reports", name],
            ins={"table": dg.AssetIn(of.key)},
            deps=[["reports", after]] if after else [],
            io_manager_key=None,
        )
        def read(table) -> dg.MaterializeResult:
            self.read[name] = sorted(table.collect(backend="pyarrow").get_column("id").to_list())
            then()
            return dg.MaterializeResult()

        return read

    def run(self, *assets: dg.AssetsDefinition, instance: dg.DagsterInstance) -> str:
        """Run these assets over the tables of others; its id."""
        made = {asset.key for asset in assets}
        outside = [dg.AssetSpec(ref.key) for ref in (SOURCE, OWN, MART) if dg.AssetKey(ref.key) not in made]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = dg.materialize([*assets, *outside], resources=build_resources(self.settings), instance=instance)
        assert result.success
        return result.run_id


def _rows(*ids: int) -> Write:
    return Write(frame=lambda session: session.table([{"id": n} for n in ids], COLUMNS), columns=COLUMNS, mode="overwrite")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_two_steps_read_one_version_though_another_writer_commits_between(lake, instance):
    lake.commit(SOURCE, 1)
    first = lake.reader("first", SOURCE, then=lambda: lake.commit(SOURCE, 1, 2))
    run = lake.run(first, lake.reader("second", SOURCE, after="first"), instance=instance)
    assert lake.read == {"first": [1], "second": [1]}
    assert '"silver/source": 1' in instance.get_run_by_id(run).tags[view.TAG]
    lake.run(lake.reader("next", SOURCE), instance=instance)
    assert lake.read["next"] == [1, 2]


def test_a_table_that_the_run_writes_is_read_as_it_has_committed_it(lake, instance):
    lake.commit(OWN, 1)

    @dg.asset(key=OWN.key)
    def own() -> Write:
        return _rows(7)

    first = lake.reader("first", OWN, then=lambda: lake.commit(OWN, 8))
    lake.run(own, first, lake.reader("second", OWN, after="first"), instance=instance)
    assert lake.read == {"first": [7], "second": [7]}


def test_a_table_that_the_run_makes_is_read_though_it_was_not_there_at_the_start(lake, instance):
    @dg.asset(key=OWN.key)
    def own() -> Write:
        return _rows(7)

    lake.run(
        own, lake.reader("first", OWN, then=lambda: lake.commit(OWN, 8)), lake.reader("b", OWN, after="first"), instance=instance
    )
    assert lake.read == {"first": [7], "b": [7]}


def test_a_mart_is_read_as_it_is_published(lake, instance):
    lake.commit(MART, 1)
    lake.publish(MART)
    lake.commit(MART, 2)
    lake.run(lake.reader("a", MART), instance=instance)
    assert lake.read == {"a": [1]}
    lake.publish(MART)
    lake.run(lake.reader("a", MART), instance=instance)
    assert lake.read == {"a": [2]}


def test_a_run_that_repeats_another_reads_what_that_had_read_and_made(lake, instance, monkeypatch):
    lake.commit(SOURCE, 1)

    @dg.asset(key=OWN.key)
    def own() -> Write:
        return _rows(7)

    parent = lake.run(own, lake.reader("a", SOURCE), instance=instance)
    lake.commit(SOURCE, 1, 2)
    lake.commit(OWN, 8)
    make = instance.create_run_for_job
    repeats = {"parent_run_id": parent, "root_run_id": parent}
    monkeypatch.setattr(instance, "create_run_for_job", lambda *given, **named: make(*given, **named, **repeats))
    child = lake.run(lake.reader("b", SOURCE), lake.reader("c", OWN), instance=instance)
    assert lake.read == {"a": [1], "b": [1], "c": [7]}
    runs = {run.run_id: run for run in instance.get_runs()}
    assert runs[child].parent_run_id == parent and runs[child].tags[view.TAG] == runs[parent].tags[view.TAG]


def test_a_commit_that_a_power_cut_had_torn_is_no_version_of_a_view(lake, instance):
    lake.commit(SOURCE, 1)
    torn = Path(lake.storage.uri(SOURCE), "_delta_log", f"{2:020}.json")
    torn.write_bytes(b"")
    lake.run(lake.reader("a", SOURCE), instance=instance)
    assert lake.read == {"a": [1]}
