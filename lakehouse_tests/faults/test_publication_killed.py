"""kill -9 at random moments of a run that commits three marts and publishes them, again and again: readers see three marts of one
round, whole, and the next run goes on."""

import multiprocessing
import random
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from lakehouse.core import publications
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named, published
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged

pytestmark = pytest.mark.faults
KILLS, SEED = 30, 7
MARTS = tuple(TableRef("gold", name) for name in ("dias", "meses", "paises"))
COLUMNS = {"rodada": "bigint"}


def storage_of(folder: str) -> Storage:
    return Storage(root=folder, landing=f"{folder}/landing")


def rounds(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    """Commit the marts of one round after the other, and publish each round, until something ends the process."""
    storage, number = storage_of(folder), seen(folder)
    with duckdb_session(memory_limit="200MB", spill=f"{folder}/.spill", folders=[folder]) as session:
        ready.set()
        while True:
            number += 1
            moved = {}
            for ref in MARTS:
                rows = [{"rodada": number}] * 3
                write = Write(frame=lambda s, rows=rows: s.table(rows, COLUMNS), columns=COLUMNS, mode="overwrite")
                commit_staged(stage_write(session, storage.uri(ref), write))
                table = open_existing(storage.uri(ref))
                assert table is not None
                moved[ref] = Named(table.id, table.version)
            publications.publish(lambda: nullcontext(session), storage, moved, run_id=f"r{number}")


def seen(folder: str) -> int:
    """The round that readers see; 0 before the first. All of it is of that round."""
    storage, found = storage_of(folder), set()
    if not publications.newest(storage).number:
        return 0
    with duckdb_session(memory_limit="200MB", spill=f"{folder}/.spill_reader", folders=[folder]) as session:
        for ref in MARTS:
            table = published(storage, ref)
            assert table is not None
            table.check()
            found |= {(ref, row) for row in session.rows(session.read(table.paths(), COLUMNS))}
    numbers = {row[0] for _, row in found}
    assert len(found) == len(MARTS) and len(numbers) == 1, f"readers see marts of several rounds: {found}"
    return int(numbers.pop())


def test_readers_see_the_marts_of_one_round_whenever_the_process_dies(tmp_path: Path) -> None:
    context, random_ = multiprocessing.get_context("spawn"), random.Random(SEED)
    before, torn = 0, 0
    for _ in range(KILLS):
        ready = context.Event()
        process = context.Process(target=rounds, args=(str(tmp_path), ready))
        process.start()
        assert ready.wait(60)
        time.sleep(random_.uniform(0.05, 1.2))
        process.kill()
        process.join()
        now = seen(str(tmp_path))
        assert now >= before, "what was published was taken back"
        last = publications.newest(storage_of(str(tmp_path))).tables
        newest = {ref: table.version for ref in MARTS if (table := open_existing(storage_of(str(tmp_path)).uri(ref)))}
        torn += any(version > last[ref].version for ref, version in newest.items() if ref in last)
        before = now
    assert before >= 3 and torn >= 5, f"{before} rounds; {torn} kills between the first mart and the publication"
