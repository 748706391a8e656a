"""Power cuts at every moment of commits, captures, clean-up, bronze and silver: nothing that was reported is lost, nothing is
there twice, and nothing is stuck.

The work runs on a filesystem of this process that notes each operation (`filesystem.py`). At every moment the states that a
disk may be in are made (`states.py`), each once, and the work goes on from it. The control runs the same work without the syncs,
and must lose something.

LAKEHOUSE_POWER_STATES bounds how many states are tried, evenly over all: so many of the commits', and fewer of the dearer work.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.engines.session import Session
from lakehouse.core.store import durability, files
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.settings import project_folder
from lakehouse_tests.conftest import Lake, with_parent
from lakehouse_tests.faults.oracle import LAYERS, validate
from lakehouse_tests.faults.power.states import Disk, State, journal
from lakehouse_tests.faults.power.work import COLUMNS, LANDINGS, land

pytestmark = pytest.mark.power
#: How many states are tried: of the commits all that there are.
STATES = 4_000
#: One of so many for the work that takes a second or more.
SHARES = {"tables": 1, "layers": 20, "control": 40}
_SEED = 14


@dataclass
class Reported:
    """What had been reported at a moment."""

    versions: dict[str, int] = field(default_factory=dict)
    rows: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    captures: list[int] = field(default_factory=list)
    landed: int = 0
    silver: int = 0

    def add(self, what: dict[str, Any]) -> None:
        if "table" in what:
            self.versions[what["table"]] = what["version"]
            self.rows.setdefault(what["table"], {})[what["version"]] = what["rows"]
        elif "capture" in what:
            self.captures.append(what["capture"])
        elif "landed" in what:
            self.landed = what["landed"] + 1
        else:
            self.silver = what["rows"]


@contextmanager
def mounted(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The filesystem, and its journal."""
    mount, notes = folder / "mount", folder / "journal"
    mount.mkdir()
    command = with_parent(sys.executable, "-m", "lakehouse_tests.faults.power.filesystem", str(mount), str(notes))
    server = subprocess.Popen(command, cwd=project_folder())
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mount):
            assert server.poll() is None, "the filesystem ended"
            assert time.monotonic() < deadline, "the filesystem did not mount"
            time.sleep(0.05)
        yield mount, notes
    finally:
        subprocess.run(["fusermount", "-u", "-z", str(mount)], check=False)
        server.wait(20)


def noted(folder: Path, work: str, mode: str) -> list[tuple[Any, ...]]:
    """Do the work, and give what the filesystem noted."""
    with mounted(folder) as (mount, notes):
        command = [sys.executable, "-m", "lakehouse_tests.faults.power.work", work, str(mount), mode]
        subprocess.run(command, cwd=project_folder(), check=True, timeout=300)
    return journal(notes)


def moments(operations: list[tuple[Any, ...]]) -> Iterator[tuple[State, Reported]]:
    """The distinct states of every moment, each with what had been reported."""
    disk, reported, chance = Disk(), Reported(), random.Random(_SEED)
    seen: set[tuple[int, int]] = set()
    marks = 0
    for operation in operations:
        if operation[0] == "mark":
            reported.add(json.loads(bytes.fromhex(operation[1])))
            marks += 1
        else:
            disk.do(operation)
        for state in disk.states(chance):
            if (key := (hash(state), marks)) not in seen:
                seen.add(key)
                yield state, reported


def bound(work: str) -> int:
    """How many states of a kind of work are tried at most."""
    return int(os.environ.get("LAKEHOUSE_POWER_STATES", STATES)) // SHARES[work]


def problems_of(
    operations: list[tuple[Any, ...]], folder: Path, check: "Callable[[Path, Reported], str]", most: int
) -> tuple[int, list[str]]:
    """How many states were tried, evenly over all, and what was wrong with them."""
    total = sum(1 for _ in moments(operations))
    step = max(total / most, 1.0)
    tried, found, due = 0, [], 0.0
    for number, (state, reported) in enumerate(moments(operations)):
        if number < due:
            continue
        due += step
        tried += 1
        target = folder / f"state{number}"
        target.mkdir()
        try:
            state.write(target)
            problem = check(target, reported)
        except Exception as error:  # noqa: BLE001 # whatever it is, the table is stuck
            problem = f"stuck: {type(error).__name__}: {str(error)[:300]}"
        if problem:
            found.append(f"state {number} of {total}: {problem}")
        shutil.rmtree(target)
    return tried, found


def check_tables(folder: Path, reported: Reported) -> str:
    """Every table has what was reported of it, and takes the next commit; every capture is whole."""
    for number in reported.captures:
        if files.read(f"{folder}/captures/{number}.json") != body(number):
            return f"lost: capture {number}"
    for name in files.names_in(f"{folder}/captures"):
        if name[0] != "." and files.read(f"{folder}/captures/{name}") != body(int(name.partition(".")[0])):
            return f"torn: capture {name}"
    state = folder / "state.json"
    if state.exists() and state.read_bytes() not in [body(number) for number in range(20)]:
        return "torn: state.json"
    with Lake(folder).session() as session:
        found = [check_table(session, folder, name, reported) for name in ("silver/t", "silver/p")]
    return "; ".join(filter(None, found))


def check_table(session: Session, folder: Path, name: str, reported: Reported) -> str:
    uri, version = f"{folder}/{name}", reported.versions.get(name)
    found = open_existing(uri)
    if version is not None:
        if found is None or found.version < version:
            return f"lost: {name} is at {found.version if found is not None else None}, {version} was reported"
        rows = values(session, found)
        if missing := [value for value in reported.rows[name][version] if value not in rows]:
            return f"lost: {name} has no {missing}"
        if found.version == version and rows != reported.rows[name][version]:
            return f"doubled: {name} has {rows}"
    parts = ("dia",) if name.endswith("p") else ()
    table = open_table(uri, COLUMNS, partition_by=parts)
    row = session.table([{"a": 99, "dia": "x"}], COLUMNS)
    made = session.write(row, uri, columns=COLUMNS, partition=parts[0] if parts else "")
    commit_staged(Transaction(table=table, add=made))
    after = open_existing(uri)
    took = after is not None and after.rows == table.rows + 1 == len(values(session, after))
    return "" if took else f"stuck: {name} took no row"


def values(session: Session, table: Snapshot) -> list[int]:
    rows = session.rows(session.read(table.paths(), {"a": "bigint"}))
    return sorted(value for (value,) in rows)


def body(number: int) -> bytes:
    return f"capture {number}".encode() * 50


def check_layers(folder: Path, reported: Reported) -> str:
    """Silver has what was reported, and what landed is in every table exactly once when the work goes on."""
    lake = Lake(folder)
    for left in (folder / "landing").rglob("*.jsonl"):  # a landing that was not whole yet is landed again
        if int(left.stem[1:]) >= reported.landed:
            left.unlink()
    silver = open_existing(lake.storage.uri(LAYERS[0].spec.silver))
    if reported.silver and (silver is None or silver.rows < reported.silver):
        return f"lost: {silver.rows if silver is not None else 0} of {reported.silver} rows of silver"
    for number in range(reported.landed, LANDINGS):
        land(lake, number)
    for _ in range(2):  # the first finishes a batch that was begun
        lake.run(LAYERS[0].spec)
    losses = validate(lake, LAYERS)
    return f"lost {losses.lost}, doubled {losses.doubled}: {losses.where}" if losses.lost or losses.doubled else ""


@pytest.fixture(autouse=True)
def _durable() -> Iterator[None]:
    durability.use("process")  # the states are looked at on a disk that does not fail
    yield


@pytest.mark.parametrize(("work", "check"), [("tables", check_tables), ("layers", check_layers)])
def test_nothing_that_was_reported_is_lost(
    tmp_path: Path, work: str, check: "Callable[[Path, Reported], str]", capsys: pytest.CaptureFixture[str]
) -> None:
    operations = noted(tmp_path, work, "power")
    tried, found = problems_of(operations, tmp_path, check, bound(work))
    with capsys.disabled():
        print(f"\n{work}: {len(operations):,} operations, {tried:,} distinct states tried, {len(found)} lost, doubled or stuck")
    assert found == []
    assert tried >= min(bound(work), 100)


def test_without_the_syncs_something_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operations = noted(tmp_path, "tables", "process")
    tried, found = problems_of(operations, tmp_path, check_tables, max(bound("control"), 20))
    with capsys.disabled():
        print(f"\ncontrol: {tried:,} distinct states tried, {len(found)} lost, doubled or stuck")
    assert any("lost" in problem or "stuck" in problem for problem in found)
