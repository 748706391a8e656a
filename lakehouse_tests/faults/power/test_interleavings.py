"""Writers of one table in every order: an asset that appends batches, a command that deletes rows, maintenance that compacts.

Each runs the real code: it opens the table, stages files, commits with compare-and-swap, and begins again when another was first.
Their threads have one baton, which changes hands between opening, staging and committing, inside the commit before and after the
log is written, and while the commit is marked as reported. Who has it next is drawn from a seed, so a schedule can be run again.

A schedule is right when its outcome is that of the commits one after the other, each between its writer's begin and end, and
what was reported is marked. The control commits onto whatever is newest, and must be found wrong.
"""

import io
import os
import random
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.core.table import torn, transaction
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict

pytestmark = pytest.mark.power
COLUMNS = {"id": "bigint"}
#: How many distinct schedules are tried.
SCHEDULES = 10_000
#: The control needs few: without compare-and-swap a fault is found within a dozen.
_CONTROL = 200
_SEED = 23
_FIRST, _BATCHES, _GONE = (0, 1, 2, 3), ((10, 11), (12,)), (1, 10)


class Baton:
    """One thread at a time goes on; at every `pass_on` the seed chooses the next."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._queues: dict[str, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self.schedule: list[str] = []

    def run(self, writers: dict[str, Callable[[], None]]) -> None:
        """Run all writers to their end; the first error is raised."""
        failed: list[BaseException] = []
        over: set[str] = set()

        def work(name: str) -> None:
            self._queues[name].acquire()
            try:
                writers[name]()
            except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
                failed.append(error)
            over.add(name)
            self._back.release()

        threads = []
        for name in writers:
            self._queues[name] = threading.Semaphore(0)
            threads.append(threading.Thread(target=work, args=(name,), name=name, daemon=True))
            threads[-1].start()
        while waiting := sorted({*writers} - over):
            chosen = self._random.choice(waiting)
            self.schedule.append(chosen)
            self._queues[chosen].release()
            assert self._back.acquire(timeout=60), f"{chosen} does not go on"
        for thread in threads:
            thread.join(60)
        if failed:
            raise failed[0]

    def pass_on(self) -> None:
        """Let the seed choose who goes on; outside a schedule nothing happens."""
        name = threading.current_thread().name
        if name in self._queues:
            self._back.release()
            self._queues[name].acquire()


@dataclass
class History:
    """What was committed: by version the change of the rows, and the versions that were reported when a commit began."""

    changes: dict[int, Callable[[list[int]], list[int]]] = field(default_factory=dict)
    after: dict[int, int] = field(default_factory=dict)
    reported: int = 0


@dataclass
class Writers:
    """The three writers of a table; `fenced` is False for the control."""

    uri: str
    contents: dict[str, tuple[int, ...]]
    baton: Baton
    fenced: bool = True
    history: History = field(default_factory=History)

    def asset(self) -> None:
        """Append each batch once: the watermark says which is next."""
        for number, rows in enumerate(_BATCHES, start=1):
            self._commit(
                lambda table, rows=rows, number=number: ([rows], [], {"batches": number}), lambda before, r=rows: [*before, *r]
            )

    def command(self) -> None:
        """Delete rows, where they are."""
        for gone in _GONE:

            def staged(table: Snapshot, gone: int = gone) -> "tuple[list[tuple[int, ...]], list[DataFile], dict[str, int]]":
                affected = [file for file in table.files if gone in self.contents[file.path]]
                left = [tuple(row for row in self.contents[file.path] if row != gone) for file in affected]
                return [rows for rows in left if rows], affected, {}

            self._commit(staged, lambda before, gone=gone: [row for row in before if row != gone])

    def maintenance(self) -> None:
        """Put all rows into one file."""
        self._commit(lambda table: ([tuple(row for f in table.files for row in self.contents[f.path])], [*table.files], {}), list)

    def rows(self, table: Snapshot) -> list[int]:
        """The rows of a version, in their order."""
        return sorted(row for file in table.files for row in self.contents[file.path])

    def _commit(self, staged: Callable, change: Callable[[list[int]], list[int]]) -> None:
        begun = self.history.reported

        def work() -> None:
            table = open_table(self.uri, COLUMNS)
            self.baton.pass_on()
            contents, remove, watermarks = staged(table)
            add = [self.write(rows) for rows in contents]
            self.baton.pass_on()
            if not self.fenced:
                table = open_table(self.uri, COLUMNS)
            made = Transaction(
                table=table, add=add, remove=remove, watermarks=watermarks, provenance=Provenance(operation="append")
            )
            version = commit_staged(made).version
            self.history.changes[version] = change
            self.history.after[version] = begun
            self.history.reported = max(self.history.reported, version)

        redo_on_conflict(work, attempts=50)

    def write(self, rows: tuple[int, ...]) -> DataFile:
        """A data file with these rows."""
        name = f"{uuid.uuid4().hex}.parquet"
        content = _parquet(rows)
        Path(self.uri, name).write_bytes(content)
        self.contents[name] = rows
        stats = f'{{"numRecords":{len(rows)},"minValues":{{"id":{min(rows)}}},"maxValues":{{"id":{max(rows)}}}}}'
        return DataFile(name, len(content), len(rows), {"id": min(rows)}, {"id": max(rows)}, stats)


_written: dict[tuple[int, ...], bytes] = {}


def _parquet(rows: tuple[int, ...]) -> bytes:
    if rows not in _written:
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": pa.array(rows, pa.int64())}), sink)
        _written[rows] = sink.getvalue()
    return _written[rows]


def _faults(writers: Writers) -> list[str]:
    """What is wrong with the outcome of a schedule."""
    table, history, found = open_existing(writers.uri), writers.history, []
    assert table is not None
    expected, first = [*_FIRST], table.version - len(history.changes)
    if sorted(history.changes) != [*range(first + 1, table.version + 1)]:
        found.append(f"the versions {sorted(history.changes)} were reported, and the newest is {table.version}")
    for version in sorted(history.changes):
        expected = history.changes[version](expected)
        if version <= history.after[version]:
            found.append(f"version {version} began after {history.after[version]} was reported")
    if writers.rows(table) != sorted(expected):
        found.append(f"the rows are {writers.rows(table)} instead of {sorted(expected)}")
    if table.watermark("batches") != len(_BATCHES):
        found.append(f"batch {table.watermark('batches')} is the last")
    if (torn.reported(writers.uri) or 0) < history.reported:
        found.append(f"version {history.reported} was reported, and {torn.reported(writers.uri)} is marked")
    return found


@contextmanager
def _inside(monkeypatch: pytest.MonkeyPatch, baton: list[Baton]) -> Iterator[None]:
    """Pass the baton on inside the commit, too."""
    report, prepare, put = torn.report, torn.prepare, torn.durability.put

    def around(function: Callable, *, after: bool) -> Callable:
        def called(*arguments: object, **named: object) -> object:
            baton[0].pass_on()
            done = function(*arguments, **named)
            if after:
                baton[0].pass_on()
            return done

        return called

    with monkeypatch.context() as patch:
        patch.setattr(transaction.torn, "prepare", around(prepare, after=True))
        patch.setattr(transaction.torn, "report", around(report, after=False))
        patch.setattr(torn.durability, "put", around(put, after=False))
        patch.setattr("tenacity.nap.time.sleep", lambda _seconds: baton[0].pass_on())
        yield


@pytest.fixture
def template(tmp_path, monkeypatch) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """A table with a few rows in two files, to be copied for every schedule."""
    monkeypatch.setenv("LAKEHOUSE_DURABILITY", "process")
    uri, contents = str(tmp_path / "template"), dict[str, tuple[int, ...]]()
    writers = Writers(uri, contents, Baton(0))
    table = open_table(uri, COLUMNS)
    commit_staged(Transaction(table=table, add=[writers.write(_FIRST[:2]), writers.write(_FIRST[2:])]))
    return Path(uri), contents


def _tried(monkeypatch, template, folder: Path, *, wanted: int, fenced: bool) -> Iterator[tuple[int, tuple[str, ...], list[str]]]:
    """Distinct schedules, each with its seed, and what is wrong after it."""
    seen: set[tuple[str, ...]] = set()
    source, contents = template
    current = [Baton(0)]
    with _inside(monkeypatch, current):
        for seed in range(_SEED, _SEED + 4 * wanted):
            uri = folder / "table"
            shutil.copytree(source, uri)
            current[0] = Baton(seed)
            writers = Writers(str(uri), dict(contents), current[0], fenced)
            current[0].run({"asset": writers.asset, "command": writers.command, "maintenance": writers.maintenance})
            schedule = tuple(current[0].schedule)
            faults = _faults(writers)
            shutil.rmtree(uri)
            if schedule not in seen:
                seen.add(schedule)
                yield seed, schedule, faults
            if len(seen) >= wanted:
                return


def test_writers_in_any_order_are_as_if_one_came_after_the_other(monkeypatch, template, tmp_path, capsys):
    wanted, began, tried = int(os.environ.get("LAKEHOUSE_POWER_STATES", SCHEDULES)), time.monotonic(), 0
    for seed, schedule, faults in _tried(monkeypatch, template, tmp_path, wanted=wanted, fenced=True):
        assert not faults, f"seed {seed}: {'; '.join(faults)} after {' '.join(schedule)}"
        tried += 1
    with capsys.disabled():
        print(f"\ninterleavings: {tried} distinct schedules of three writers, none wrong, in {time.monotonic() - began:.0f} s")
    assert tried == wanted


def test_without_compare_and_swap_a_schedule_is_found_wrong(monkeypatch, template, tmp_path):
    monkeypatch.setattr(Snapshot, "check", lambda *_: None)  # nor is a file missed that another writer has replaced
    tried = _tried(monkeypatch, template, tmp_path, wanted=_CONTROL, fenced=False)
    assert any("the rows are" in fault for _, _, faults in tried for fault in faults)
