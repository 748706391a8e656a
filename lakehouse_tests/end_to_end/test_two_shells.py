"""Two shells on one table: one after the other, or one is refused and told by whom; kill -9 of the holder lets both go on.

Not here: commits that race (`core/table/test_delta.py`), the lock alone (`core/store/test_storage.py`), killed runs
(`faults/test_kills.py`).
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from lakehouse import __main__
from lakehouse.commands import tables
from lakehouse.core.store.storage import lock
from lakehouse.sample.landing import SampleTruth, write_sample_landing
from lakehouse.settings import project_folder
from lakehouse.tables.spec import history_ref
from lakehouse.tables.vendas import TABLES, VENDAS
from lakehouse_tests.conftest import Lake

LOCK = """
import sys, time
from lakehouse.core.store.storage import lock
with lock(sys.argv[1], wait=0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def environment(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(lake.folder / "lake"))
    monkeypatch.setenv("LAKEHOUSE_LANDING", str(lake.folder / "landing"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get():  # two processes that make Dagster's SQLite files at once get in each other's way
        pass


@pytest.fixture
def truth(lake: Lake) -> SampleTruth:
    """Bronze of the sample; nothing is in silver."""
    truth = write_sample_landing(lake.folder / "landing", lines=2_500)
    for spec in TABLES:
        lake.ingest(spec)
    return truth


@pytest.fixture
def owner(lake: Lake) -> "Iterator[subprocess.Popen[str]]":
    """Another process that holds silver/vendas."""
    command = [sys.executable, "-c", LOCK, lake.storage.uri(VENDAS.silver)]
    with subprocess.Popen(command, cwd=project_folder(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def waits(process: "subprocess.Popen[str]", folder: str) -> bool:
    """Whether a process has a folder open, as it has while it waits for it."""
    try:
        return any(handle.readlink() == Path(folder) for handle in Path(f"/proc/{process.pid}/fd").iterdir())
    except FileNotFoundError:
        return False


@pytest.mark.stack
def test_two_shells_wait_for_an_owner_that_is_killed_and_then_for_each_other(
    lake: Lake, truth: SampleTruth, environment: None, owner: "subprocess.Popen[str]"
) -> None:
    uri = lake.storage.uri(VENDAS.silver)
    command = [sys.executable, "-m", "lakehouse", "trigger", "bronze_to_silver"]
    shells = [
        subprocess.Popen(command, cwd=project_folder(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        deadline = time.monotonic() + 120
        while not all(waits(shell, uri) for shell in shells) and time.monotonic() < deadline:
            ended = [shell.communicate()[0] for shell in shells if shell.poll() is not None]
            assert not ended, f"none passes the holder: {ended}"
            time.sleep(0.05)
        assert all(waits(shell, uri) for shell in shells)
        assert not (Path(uri) / "_delta_log").exists()
        owner.kill()
        output = [shell.communicate(timeout=120)[0] for shell in shells]
    finally:
        for shell in shells:
            shell.kill()
    assert [shell.returncode for shell in shells] == [0, 0], output
    assert "Traceback" not in "".join(output)
    # Each table and each history was made by one of the two, and the other found nothing left to do.
    names = [spec.name for spec in TABLES]
    histories = [history_ref(spec).table for spec in TABLES if spec.history]
    for spec in TABLES:
        assert DeltaTable(lake.storage.uri(spec.silver)).version() == 1, spec.name
        assert sum(f"silver/{spec.name} version 1: " in text for text in output) == 1
        assert sum(f"No new batches for version 1 of silver/{spec.name}." in text for text in output) == 1
        assert len(lake.rows(spec.silver, *spec.key)) == getattr(truth, spec.name).live
    made = [(row["layer"], row["table"]) for row in lake.ledger()]
    assert sorted(made) == sorted([*(("bronze", name) for name in names), *(("silver", name) for name in [*names, *histories])])
    assert lake.stray_files() == []


def test_a_shell_that_waited_long_enough_is_refused_and_told_by_whom(
    lake: Lake,
    environment: None,
    owner: "subprocess.Popen[str]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tables, "lock", partial(lock, wait=0.2))
    monkeypatch.setattr(sys, "argv", ["lakehouse", "rebuild", "vendas"])
    assert __main__.main() == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {lake.storage.uri(VENDAS.silver)} is being written by another run (process {owner.pid});")
    assert "Wait for that run to end, or end it, and start this one again." in output
    assert output.count("\n") == 1
    assert list(Path(lake.storage.uri(VENDAS.silver)).iterdir()) == []
