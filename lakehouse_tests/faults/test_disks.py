"""Disks that are full and files that cannot be read: an error that says so, tables as they were, the next run recovers.

A full disk is a small tmpfs, where mounting one is permitted; everywhere it is a limit on the size of the process's files,
which the same writes meet as `File too large`.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.core.store.storage import STAGING
from lakehouse_tests.conftest import LANDING_FILES
from lakehouse_tests.faults import oracle
from lakehouse_tests.faults.campaign import Layers
from lakehouse_tests.faults.driver import BROKEN, ITENS, RETRYABLE, Driver, KillPoint

#: When the disk is full, and how many bytes still fit then: a commit is 1 kB, a checkpoint 13 kB.
WHEN = {"data files": ("write", 1_024), "commit": ("commit", 0), "checkpoint": ("commit", 8_192)}
SOME = [("data files", "bronze/itens"), ("commit", "silver/itens"), ("checkpoint", "bronze/itens")]
OTHERS = [
    ("data files", "ops/landing_files"),
    ("data files", "silver/itens"),
    ("data files", "ops/ledger"),
    ("commit", "ops/landing_files"),
    ("commit", "quarantine/itens"),
    ("commit", "bronze/itens"),
    ("commit", "ops/deletes_itens"),
    ("commit", "ops/ledger"),
    ("checkpoint", "silver/itens"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Mounts a disk of 8 MB where the lake will be."""
    mounted = []

    def mount() -> Path:
        point = tmp_path / "lake"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", point], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", point], check=True)


def left_behind(lane: Layers) -> list[str]:
    root = lane.lake.folder / "lake"
    return lane.lake.stray_files() + [str(path) for path in root.rglob("*") if path.name.startswith(STAGING)]


def run_out_of_space(driver: Driver, folder: Path, *, when: str, table: str, disk: Path | None) -> None:
    call, room = WHEN[when]
    lane = Layers(driver, folder, seed=1)
    uri = str(folder / "lake" / table)
    if when == "checkpoint":
        DeltaTable(uri).alter.set_table_properties({"delta.checkpointInterval": "1"})
    before, version = oracle.readable(lane.lake, lane.tables), DeltaTable(uri).version()
    lane.land()
    act = "limit" if disk is None else "fill"
    point = KillPoint(call=call, about=table, before=True, act=act, bytes=room or (0 if disk else 256), path=str(disk or ""))
    end = driver.run(folder, "layers", point=point)
    if when == "checkpoint":  # the commit came first, and stands: a checkpoint only makes reading faster
        newest = DeltaTable(uri).version()
        assert newest > version and not list(Path(uri, "_delta_log").glob(f"{newest:020}.checkpoint*"))
        assert end.code in (0, BROKEN)
    else:
        assert end.code == BROKEN and uri in end.output, "the error names the table"
    if end.code:
        assert ("No space left on device" if disk else "File too large") in end.output
    after, seen = oracle.to_be_read(lane.lake, lane.tables), oracle.readable(lane.lake, lane.tables)
    assert all(now in (old, new) for now, old, new in zip(seen, before, after, strict=True))
    assert left_behind(lane) == []
    if disk:
        (disk / "filler").unlink()
    lane.recover()
    assert lane.tally.clean, lane.tally


@pytest.mark.parametrize(("when", "table"), SOME)
def test_no_room_for(driver: Driver, tmp_path: Path, when: str, table: str) -> None:
    run_out_of_space(driver, tmp_path, when=when, table=table, disk=None)


@pytest.mark.faults
@pytest.mark.parametrize(("when", "table"), OTHERS)
def test_no_room_in_other_tables_for(driver: Driver, tmp_path: Path, when: str, table: str) -> None:
    run_out_of_space(driver, tmp_path, when=when, table=table, disk=None)


@pytest.mark.faults
@pytest.mark.parametrize(("when", "table"), [*SOME, *OTHERS])
def test_no_room_on_a_real_disk_for(
    driver: Driver, small_disk: Callable[[], Path], tmp_path: Path, when: str, table: str
) -> None:
    run_out_of_space(driver, tmp_path, when=when, table=table, disk=small_disk())


# --- landing ---------------------------------------------------------------------------------------------------------


def test_a_read_error_while_planning_ends_the_run_and_plans_nothing(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=1)
    planned = lane.lake.rows(LANDING_FILES, "path")
    lane.land()
    end = driver.run(tmp_path, "layers", point=KillPoint(call="checksum", before=True, act="eio"))
    assert end.code == BROKEN and "Input/output error" in end.output
    assert lane.lake.rows(LANDING_FILES, "path") == planned
    lane.recover()
    assert lane.tally.clean, lane.tally


def test_a_file_that_vanishes_while_it_is_read_is_taken_in_when_it_is_back(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=1)
    lane.land()
    path = max((tmp_path / "landing" / "raw" / "itens").iterdir())
    content, before = path.read_bytes(), lane.lake.versions()["bronze/itens"]
    end = driver.run(tmp_path, "layers", point=KillPoint(call="stage", before=True, act="vanish", path=str(path)))
    assert end.code == RETRYABLE and "changed while it was read" in end.output
    assert lane.lake.versions()["bronze/itens"] == before and left_behind(lane) == []
    assert driver.run(tmp_path, "layers").code == 0
    named = [row["source_file"] for row in lane.lake.quarantined(ITENS) if row["record"] is None]
    assert named == [f"raw/itens/{path.name}"]
    path.write_bytes(content)
    lane.recover()
    assert not lane.tally.lost, lane.tally.where


def test_a_folder_that_is_named_like_a_file_is_none(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=1)
    (tmp_path / "landing" / "raw" / "itens" / "9999.jsonl").mkdir()
    versions = lane.lake.versions()
    assert driver.run(tmp_path, "layers").code == 0
    assert lane.lake.versions() == versions
