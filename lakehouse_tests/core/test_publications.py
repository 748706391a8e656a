"""Publications: readers see the versions that the newest one names, of all tables at once."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from lakehouse.core import publications
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named, published
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged

A, B = TableRef("gold", "a"), TableRef("gold", "b")
COLUMNS = {"id": "bigint"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "lake"), landing=str(tmp_path / "lake" / "landing"))


@pytest.fixture
def session(storage: Storage) -> Iterator[DuckDBSession]:
    with duckdb_session(memory_limit="200MB", spill=f"{storage.root}/.spill", folders=[storage.root]) as opened:
        yield opened


def commit(session: DuckDBSession, storage: Storage, ref: TableRef, rows: int) -> Snapshot:
    """A table of so many rows, as it is then."""
    write = Write(frame=lambda s: s.table([{"id": n} for n in range(rows)], COLUMNS), columns=COLUMNS, mode="overwrite")
    commit_staged(stage_write(session, storage.uri(ref), write))
    return seen(storage, ref, now=True)


def seen(storage: Storage, ref: TableRef, *, now: bool = False) -> Snapshot:
    found = open_existing(storage.uri(ref)) if now else published(storage, ref)
    assert found is not None
    return found


def publish(session: DuckDBSession, storage: Storage, *tables: tuple[TableRef, Snapshot], run_id: str = "r") -> int:
    named = {ref: Named(table.id, table.version) for ref, table in tables}
    return publications.publish(lambda: nullcontext(session), storage, named, run_id=run_id).number


def test_readers_see_what_is_published_and_not_what_is_committed(session, storage):
    assert published(storage, A) is None
    first = commit(session, storage, A, 1)
    assert seen(storage, A).version == first.version, "nothing was ever published: an earlier release made it"
    assert publish(session, storage, (A, first)) == 1
    second = commit(session, storage, A, 2)
    assert (seen(storage, A).version, seen(storage, A).rows) == (first.version, 1)
    assert publish(session, storage, (A, second)) == 2
    assert seen(storage, A).rows == 2


def test_a_publication_names_every_table_and_moves_only_what_is_newer(session, storage):
    a, b = commit(session, storage, A, 1), commit(session, storage, B, 1)
    publish(session, storage, (A, a))
    publish(session, storage, (B, b))
    newer = commit(session, storage, A, 2)
    publish(session, storage, (A, newer))
    assert publish(session, storage, (A, a), (B, b)) == 3, "a slower run takes nothing back, and writes nothing"
    last = publications.newest(storage)
    assert dict(last.tables) == {A: (newer.id, newer.version), B: (b.id, b.version)}
    assert [found.number for found in publications.all_of(storage)] == [1, 2, 3]
    assert (last.run_id, last.at is not None) == ("r", True)
    assert publications.naming(storage, A, a) == 2 and publications.naming(storage, A, newer) == 3


def test_a_table_that_was_made_anew_is_another_one(session, storage, tmp_path):
    for rows in (1, 2, 3):
        old = commit(session, storage, A, rows)
    publish(session, storage, (A, old))
    Path(storage.uri(A)).rename(tmp_path / "away")
    new = commit(session, storage, A, 4)
    assert new.version < old.version and seen(storage, A).rows == 4
    publish(session, storage, (A, new))
    commit(session, storage, A, 5)
    assert seen(storage, A).rows == 4


def test_a_table_that_was_restored_from_a_backup_is_published_again_from_there(session, storage, tmp_path):
    first = commit(session, storage, A, 1)
    shutil.copytree(storage.uri(A), tmp_path / "backup")
    for rows in (2, 3, 4):
        newer = commit(session, storage, A, rows)
    publish(session, storage, (A, newer))
    shutil.rmtree(storage.uri(A))
    shutil.copytree(tmp_path / "backup", storage.uri(A))
    assert seen(storage, A).version == first.version
    again = commit(session, storage, A, 7)
    assert publish(session, storage, (A, again)) == 2
    commit(session, storage, A, 8)
    assert seen(storage, A).rows == 7


def test_maintenance_that_rewrites_what_readers_see_is_followed_and_nothing_else(session, storage):
    first = commit(session, storage, A, 1)
    publish(session, storage, (A, first))
    second = commit(session, storage, A, 2)
    third = commit(session, storage, A, 3)
    publications.follow(session, storage, A, before=second, after=third)
    assert seen(storage, A).version == first.version, "readers do not see what it has rewritten"
    publications.follow(session, storage, A, before=first, after=third)
    assert seen(storage, A).version == third.version


def test_runs_that_publish_at_once_lose_nothing(session, storage):
    refs = [TableRef("gold", f"t{number}") for number in range(4)]
    made = {ref: commit(session, storage, ref, 1) for ref in refs}

    def one(ref: TableRef) -> int:
        with duckdb_session(memory_limit="200MB", spill=f"{storage.root}/.spill_{ref.table}", folders=[storage.root]) as own:
            return publish(own, storage, (ref, made[ref]), run_id=ref.table)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, refs)) == [1, 2, 3, 4]
    assert set(publications.newest(storage).tables) == set(refs)
