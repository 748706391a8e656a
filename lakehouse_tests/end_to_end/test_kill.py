"""kill -9 of the process that runs the job, at seeded random moments while it works; then one run puts everything right.

Every run is `lakehouse.runs.trigger`, in a child that a warmed-up process forks: what is killed is what
`python -m lakehouse trigger medallion_etl` does once its imports are done, without waiting five seconds for these each time.
"""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from lakehouse.core.storage import STAGING
from lakehouse.sample.landing import write_sample_landing
from lakehouse.settings import project_folder

LAYERS = ("bronze", "silver", "gold", "reports")
#: About as many seconds go by between the first file that a run writes to a layer and the last; gold's include the report's.
WORKS = {"bronze": 0.6, "silver": 0.6, "gold": 2.0}
#: What differs between two lakes that took in the same files at other times.
OWN = {"bronze": ("_batch_id", "_ingested_at")}
WARM = """
import os, sys
import altair, dbt.adapters.duckdb.connections, dbt.cli.main, deltalake, duckdb, narwhals, obstore, sqlglot.lineage, vl_convert
from lakehouse import runs
from lakehouse.gold.project import ensure_manifest
from lakehouse.silver import refresh
ensure_manifest()
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(int(rest[0]), 0)[1]), flush=True)
        continue
    os.environ["LAKEHOUSE_ROOT"], os.environ["DAGSTER_HOME"] = rest
    child = os.fork()
    if not child:
        try:
            code = runs.trigger("medallion_etl")
        finally:
            os._exit(locals().get("code", 3))
    print(child, flush=True)
"""


class Nursery:
    """The warmed-up process, whose children run the job over the lake that they are given."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WARM],
            env=environment,
            cwd=project_folder(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ready(self) -> "Nursery":
        assert self._line() == "ready"
        return self

    def start(self, lake: "Lake") -> int:
        """The process id of a run."""
        return self._ask(f"run {lake.root} {lake.home}")

    def ended(self, child: int) -> int:
        """The exit code of a child, negative for a signal; waits for its end."""
        return self._ask(f"wait {child}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def _ask(self, question: str) -> int:
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        return self.process.stdout.readline().strip()


@dataclass(frozen=True)
class Lake:
    """A lake with a Dagster home of its own, and a store of files that have not landed yet."""

    root: Path
    home: Path
    store: Path

    def land(self, share: float) -> None:
        """Land the first `share` of the files, in the order in which they were delivered, each under its name at once."""
        files = sorted((path for path in (self.store / "raw").rglob("*.*") if path.is_file()), key=lambda path: path.name)
        for path in files[: round(len(files) * share)]:
            target = self.root / "landing" / path.relative_to(self.store)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)

    def files(self, layer: str) -> set[str]:
        return {name for _, _, names in os.walk(self.root / layer) for name in names}

    def tables(self) -> list[str]:
        return sorted(str(log.parent.relative_to(self.root)) for log in self.root.rglob("_delta_log"))

    def rows(self, table: str) -> list[tuple]:
        """All rows of a table, without what is a lake's own, read with delta-rs."""
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("t", DeltaTable(str(self.root / table)).to_pyarrow_table())
            own = ", ".join(OWN.get(table.split("/", maxsplit=1)[0], ()))
            chosen = f"SELECT * EXCLUDE ({own})" if own else "SELECT *"
            return connection.execute(f"{chosen} FROM t ORDER BY ALL").fetchall()

    def ledger(self) -> list[tuple]:
        with duckdb.connect() as connection:
            connection.register("t", DeltaTable(str(self.root / "ops" / "ledger")).to_pyarrow_table())
            sums = "sum(records_in), sum(written + deduplicated + deleted + quarantined), sum(written) - sum(deleted)"
            return connection.execute(f'SELECT layer, "table", {sums} FROM t GROUP BY ALL ORDER BY ALL').fetchall()


def _lake(folder: Path, store: Path) -> Lake:
    home = folder / "dagster"
    home.mkdir(parents=True)
    shutil.copy(project_folder() / "dagster.yaml", home)
    return Lake(folder / "lake", home, store)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    process = Nursery()
    yield process
    process.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory, nursery) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_sample_landing(folder, lines=2_500)  # while the imports go on
    nursery.ready()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, nursery, store) -> Callable[[], Lake]:
    """A lake that takes in everything in one run that nobody disturbs, while the first kills go on; asked for when it is done."""
    lake = _lake(tmp_path_factory.mktemp("whole"), store)
    lake.land(1)
    child = nursery.start(lake)

    @cache
    def done() -> Lake:
        assert nursery.ended(child) == 0
        return lake

    return done


def _kill(nursery: Nursery, lake: Lake, *, layer: str, delay: float) -> bool:
    """Start the job and kill it `delay` seconds after it wrote its first file to `layer`. Whether it was still running."""
    before = lake.files(layer)
    child = nursery.start(lake)
    deadline = time.monotonic() + 120
    while lake.files(layer) <= before and time.monotonic() < deadline and _lives(child):
        time.sleep(0.002)
    time.sleep(delay)
    if _lives(child):
        os.kill(child, signal.SIGKILL)
    code = nursery.ended(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _lives(child: int) -> bool:
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kills(nursery: Nursery, lake: Lake, *, times: int, seed: int, layers: tuple[str, ...]) -> list[str]:
    """Kill the job `times` times while files land in between; the layers in whose work it was killed."""
    chance = random.Random(seed)
    killed: list[str] = []
    for attempt in range(2 * times):  # some runs are done before their moment has come
        lake.land((attempt + 1) / (2 * times))
        layer = layers[attempt % len(layers)]
        if _kill(nursery, lake, layer=layer, delay=chance.uniform(0, WORKS[layer])):
            killed.append(layer)
        if len(killed) == times:
            return killed
    pytest.fail(f"only {len(killed)} of {times} runs were still working when they were to be killed")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _as_if_nothing_had_happened(nursery: Nursery, lake: Lake, whole: Callable[[], Lake]) -> None:
    """One run, and the lake is the undisturbed one, row by row; nothing of the killed runs is in the way."""
    for table in lake.tables():
        with _held(lake.root / table):
            pass
    lake.land(1)
    assert nursery.ended(nursery.start(lake)) == 0
    whole = whole()
    assert [t for t in lake.tables() if t.split("/")[0] in LAYERS] == [t for t in whole.tables() if t.split("/")[0] in LAYERS]
    for table in whole.tables():
        if table.split("/")[0] in LAYERS:
            assert lake.rows(table) == whole.rows(table), table
    for layer, table, arrived, accounted, _ in lake.ledger():
        assert arrived == accounted == len(whole.rows(f"bronze/{table}")), (layer, table)
    planned = {(row[0], row[2]) for row in lake.rows("ops/landing_files")}
    assert len(planned) == len(lake.rows("ops/landing_files")) == len([p for p in store_files(lake)])
    pages = {path.relative_to(lake.root / "reports"): path for path in (lake.root / "reports").rglob("index.html")}
    assert set(pages) >= {path.relative_to(whole.root / "reports") for path in (whole.root / "reports").rglob("index.html")}
    left = [path for path in lake.root.rglob("*") if path.name.startswith(STAGING)]
    assert left == []
    assert list((lake.root / ".spill").iterdir()) == []
    for table in lake.tables():
        with _held(lake.root / table):
            pass


def store_files(lake: Lake) -> list[Path]:
    return [path for path in (lake.store / "raw").rglob("*.*") if path.is_file()]


def test_three_kills_and_one_run_are_as_if_nothing_had_happened(nursery, store, whole, tmp_path):
    lake = _lake(tmp_path, store)
    _kills(nursery, lake, times=3, seed=3, layers=("bronze", "silver", "gold"))
    _as_if_nothing_had_happened(nursery, lake, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 20, 30])
def test_ten_kills_and_one_run_are_as_if_nothing_had_happened(nursery, store, whole, tmp_path, seed):
    lake = _lake(tmp_path, store)
    _kills(nursery, lake, times=10, seed=seed, layers=("bronze", "silver", "gold", "silver"))
    _as_if_nothing_had_happened(nursery, lake, whole)
