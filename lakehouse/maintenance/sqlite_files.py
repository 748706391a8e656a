"""Dagster's SQLite files: what deleted runs leave there goes, and the space is given back to the disk.

    history/runs/<run id>.db    the log of one run: deleting the run empties it, 130 KB of it stay
    history/runs/index.db       events of all runs; what checks found of a run stays when the run is deleted
    history/runs.db, schedules/schedules.db

SQLite never makes a file smaller by itself. VACUUM does, and has the file's write lock meanwhile: it begins only where nobody
writes, and ends by itself long before Dagster's writers give up (they wait for 30 s). Readers see the file as it was. An instance
on PostgreSQL has no such files, and autovacuum.
"""

import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from lakehouse.observability.eventlog import index, run_files
from lakehouse.runtime.dagster_private import check_executions_table

#: Less than that is left where it is, and so is less than a tenth of the file.
_WORTH, _SHARE = 1_000_000, 0.1
#: Seconds that VACUUM waits for a writer, and that it takes: a file for which that is too short stays as it is.
_WAIT, _TAKES = 2.0, 10.0
#: A log that belongs to no run and was not written for so long.
_ABANDONED = timedelta(days=1)


@dataclass(frozen=True)
class Vacuumed:
    """What became of one file. `left` tells why it is as it was, empty where it needed nothing or was made smaller."""

    path: Path
    before: int
    after: int
    left: str = ""

    @property
    def freed(self) -> int:
        return self.before - self.after


def forget_runs(instance: dg.DagsterInstance, *, now: datetime) -> int:
    """Remove what runs that are no longer there have left: their logs, and what their checks found but for the newest result of
    each check. Returns the bytes of the logs."""
    _forget_checks(instance)
    there, freed = set(instance.get_run_ids()), 0
    for path in run_files(instance):
        if path.stem in there or now.timestamp() - path.stat().st_mtime < _ABANDONED.total_seconds():
            continue
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            freed += file.stat().st_size if file.exists() else 0
            file.unlink(missing_ok=True)
    return freed


def _forget_checks(instance: dg.DagsterInstance) -> None:
    from sqlalchemy import func, select

    table = check_executions_table()
    with index(instance) as connection:
        newest = {
            row[0] for row in connection.execute(select(func.max(table.c.id)).group_by(table.c.asset_key, table.c.check_name))
        }
        found = connection.execute(select(table.c.id, table.c.run_id).where(table.c.run_id != "")).fetchall()
        there = set(instance.get_run_ids())  # after what checks found: a run that begins meanwhile has its own
        gone = [number for number, run in found if run not in there and number not in newest]
        for start in range(0, len(gone), 500):  # SQLite takes 999 values in a query in its older builds
            connection.execute(table.delete().where(table.c.id.in_(gone[start : start + 500])))


def vacuum_all(home: Path, *, logs: Sequence[Path] = ()) -> list[Vacuumed]:
    """Vacuum the files below Dagster's home that are worth it, but for the logs of runs: nothing is deleted from those."""
    skipped = set(logs)
    return [vacuum(path) for path in _files(home) if path not in skipped]


def vacuum(path: Path, *, wait: float = _WAIT, takes: float = _TAKES) -> Vacuumed:
    """Vacuum one file, unless somebody writes or it would take too long."""
    before = path.stat().st_size
    with closing(sqlite3.connect(path, timeout=wait, isolation_level=None)) as database:
        size, pages, free = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
        if free * size < _WORTH or free < _SHARE * pages:
            return Vacuumed(path, before, before)
        if shutil.disk_usage(path.parent).free < 2 * before:
            return Vacuumed(path, before, before, "the disk has no room for a second copy")
        end = time.monotonic() + takes
        database.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        try:
            database.execute("VACUUM")
        except sqlite3.OperationalError as error:
            why = f"it would take more than {takes:.0f} s" if "interrupt" in str(error) else f"SQLite reports: {error}"
            return Vacuumed(path, before, before, why)
        database.set_progress_handler(None, 0)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # of a reader's old pages: the next checkpoint
    return Vacuumed(path, before, path.stat().st_size)


def _files(home: Path) -> Iterator[Path]:
    for path in sorted(home.rglob("*.db")):
        with path.open("rb") as file:
            if file.read(15) == b"SQLite format 3":
                yield path
