"""What runs have read and made stays readable for some days, and no longer; not of what is captured by the minute."""

from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.replays import replayable
from lakehouse.observability.outbox import small_session
from lakehouse.tables import ALL

SILVER, MART, BUSES = TableRef("silver", "vendas"), TableRef("gold", "vendas_diarias"), TableRef("gold", "brt_frota_atual")
FEED = TableRef("silver", "brt_gps")
COLUMNS = {"id": "bigint"}


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(root=str(tmp_path), landing=str(tmp_path / "landing"))


def commit(storage: Storage, ref: TableRef, *, of: Snapshot | None = None, name: str = "", run: str = "r") -> Snapshot:
    inputs = {name: of.version} if of is not None else {}
    ids = {name: of.id} if of is not None else {}
    made = Provenance(run_id=run, inputs=inputs, input_ids=ids)
    write = Write(frame=lambda s: s.table([{"id": 1}], COLUMNS), columns=COLUMNS, mode="overwrite", provenance=made)
    with small_session(storage) as session:
        commit_staged(stage_write(session, storage.uri(ref), write))
    found = open_existing(storage.uri(ref))
    assert found is not None
    return found


def test_versions_that_a_run_has_read_and_made_are_protected_for_so_many_days(storage):
    first = commit(storage, SILVER)
    made = commit(storage, MART, of=first, name=str(SILVER))
    newest = commit(storage, SILVER)
    commit(storage, MART, of=newest, name=str(SILVER))
    now = datetime.now(UTC)
    found = replayable(storage, ALL, days=14, now=now)
    assert set(found) == {(SILVER, first.id), (MART, made.id)}
    guard = Protection(replays=found)
    assert guard.of(SILVER, newest) == {1: f"replay of a run of {now.date()}", 2: "current"}
    assert guard.of(SILVER, newest, replays=False) == {2: "current"}
    assert replayable(storage, ALL, days=0, now=now) == {}
    assert replayable(storage, ALL, days=14, now=now + timedelta(days=15)) == {}


def test_the_minutes_captures_and_what_is_made_of_them_are_not(storage):
    feed = commit(storage, FEED)
    commit(storage, BUSES, of=feed, name=str(FEED))
    commit(storage, MART, run="")
    assert replayable(storage, ALL, days=14, now=datetime.now(UTC)) == {}
