"""Dagster's SQLite files become smaller once runs are deleted, and nobody who reads or writes them meanwhile is disturbed."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.past_runs import PastRun, put
from lakehouse.maintenance import sqlite_files
from lakehouse.maintenance.sqlite_files import forget_runs, vacuum, vacuum_all
from lakehouse.observability.eventlog import run_files

OPTIONS = {"isolation_level": None, "timeout": 0}


@pytest.fixture
def file(tmp_path) -> Path:
    """A file in Dagster's mode, of which most was deleted."""
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path, **OPTIONS)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, event TEXT)")
        fill(database, 1000, "x" * 4000)
        database.execute("DELETE FROM t WHERE id > 10")
    return path


def fill(database: sqlite3.Connection, rows: int, event: str) -> None:
    database.execute("BEGIN")
    database.executemany("INSERT INTO t (event) VALUES (?)", [(event,) for _ in range(rows)])
    database.execute("COMMIT")


def count(path: Path) -> int:
    with closing(sqlite3.connect(path, **OPTIONS)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        return database.execute("SELECT count(*) FROM t").fetchone()[0]


def test_a_file_of_which_most_is_deleted_becomes_as_small_as_what_is_left(file):
    found = vacuum(file)
    assert found.before > 4_000_000 and found.after == file.stat().st_size < 100_000 and not found.left
    assert count(file) == 10
    assert vacuum(file).freed == 0  # nothing is worth it any more


def test_a_file_that_somebody_writes_stays_as_it_is_and_the_writer_goes_on(file):
    with closing(sqlite3.connect(file, **OPTIONS)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t (event) VALUES ('new')")
        began = time.monotonic()
        found = vacuum(file, wait=0.2)
        assert time.monotonic() - began < 2
        assert (found.freed, found.left) == (0, "SQLite reports: database is locked")
        writer.execute("COMMIT")
    assert count(file) == 11
    assert vacuum(file).freed > 4_000_000


def test_a_reader_sees_the_file_as_it_was_and_a_writer_waits_no_longer_than_is_allowed(file):
    with closing(sqlite3.connect(file, **OPTIONS)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (10,)
        assert not vacuum(file, wait=0.2).left
        with closing(sqlite3.connect(file, isolation_level=None, timeout=1)) as writer:
            writer.execute("INSERT INTO t (event) VALUES ('new')")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (10,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (11,)
    assert count(file) == 11
    assert sqlite_files._TAKES + sqlite_files._WAIT < 30 / 2  # Dagster's own writers wait for 30 s


def test_a_file_that_takes_too_long_stays_whole(file):
    with closing(sqlite3.connect(file, **OPTIONS)) as database:
        fill(database, 200_000, "yyy")
    found = vacuum(file, takes=0.0)
    assert (found.freed, found.left) == (0, "it would take more than 0 s")
    assert count(file) == 200_010


def test_a_process_that_is_killed_in_the_middle_leaves_a_whole_file(file):
    with closing(sqlite3.connect(file, **OPTIONS)) as database:
        fill(database, 100_000, "y" * 300)
    program = f"import sqlite3; print(1, flush=True); sqlite3.connect({str(file)!r}, isolation_level=None).execute('VACUUM')"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    process.stdout.read(1)
    time.sleep(0.03)
    process.kill()
    process.wait()
    assert count(file) == 100_010


def test_logs_and_checks_of_deleted_runs_go_and_the_newest_result_of_a_check_stays(tmp_path):
    now = datetime.now(UTC)
    runs = [PastRun(now + timedelta(seconds=n), 1.0, passed=("a",), failed=()) for n in range(3)]
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        put(instance, runs)
        key = dg.AssetCheckKey(dg.AssetKey(["silver", "vendas"]), "a")
        for run in (runs[0], runs[2]):
            instance.delete_run(run.run_id)
        logs = {path.stem: path for path in run_files(instance)}
        assert set(logs) == {run.run_id for run in runs}  # deleting a run leaves its file
        assert forget_runs(instance, now=now) == 0  # it was written just now
        old = (now - timedelta(days=2)).timestamp()
        for path in logs.values():
            os.utime(path, (old, old))
        assert forget_runs(instance, now=now) > 100_000
        assert [path.stem for path in run_files(instance)] == [runs[1].run_id]
        assert instance.all_logs(runs[1].run_id)
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert [record.run_id for record in history] == [runs[2].run_id, runs[1].run_id]  # the newest of the check, and of a run
        found = {vacuumed.path.name for vacuumed in vacuum_all(tmp_path, logs=run_files(instance))}
        assert found == {"runs.db", "index.db", "schedules.db"}
        assert instance.get_run_by_id(runs[1].run_id)
