"""What the cases share: a figure beside its bound, one call of the suite, lakes and servers of their own.

Nothing is measured here.

Standard library only, as `benchmarks/measure.py`: the peak memory of a child begins at its parent's.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.cases.graph import MEDALLION
from benchmarks.measure import BENCH, PROJECT, BenchmarkError, Run, environment, run

GB, KB = 1_000_000_000, 1_000
#: What is promised of `full` and `increment` is promised of this size; below it fixed costs decide.
BOUND_ROWS = 10_000_000
FULL_PEAK = 2.5 * GB
_SMALL_LINES = 5_000


@dataclass(frozen=True)
class Figure:
    """One line of the result. `limit` bounds `value`; None where nothing was promised. `unit` is s, /s, GB, KB, x or files."""

    case: str
    what: str
    ours: float
    bare: float | None = None
    unit: str = "s"
    value: float | None = None
    limit: float | None = None
    bound: str = ""

    @property
    def missed(self) -> bool:
        return self.limit is not None and (self.ours if self.value is None else self.value) > self.limit


@dataclass
class Bench:
    """One call of the suite."""

    rows: int
    rounds: int
    work: Path = BENCH / "work"
    full: dict[str, Run] = field(default_factory=dict)
    raw: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def sales(self) -> Path:
        return BENCH / f"sales-{self.rows}"

    def silver(self, side: str, state: str) -> Path:
        folder = self.work / f"{side}-{state}"
        return folder / "silver" / "vendas" if side == "ours" else folder

    def fresh(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def persist(self, case: str, found: dict[str, Run]) -> dict[str, Run]:
        self.raw[case] = {side: asdict(measured) for side, measured in found.items()}
        return found


def work_figures(case: str, found: dict[str, Run], *, ratio: float | None = None, peak: float | None = None) -> Iterator[Figure]:
    ours, bare = found["ours"], found["bare"]
    bound = "" if ratio is None else f"<= {ratio} x"
    yield Figure(case, "work", ours.seconds, bare.seconds, value=ours.seconds / bare.seconds, limit=ratio, bound=bound)
    yield Figure(case, "CPU of the process", ours.cpu, bare.cpu)
    bound = "" if peak is None else f"<= {peak / GB} GB"
    limit = None if peak is None else peak / GB
    yield Figure(case, "peak memory", ours.peak / GB, bare.peak / GB, unit="GB", limit=limit, bound=bound)


def ratio_figure(case: str, what: str, found: dict[str, Run], limit: float | None) -> Figure:
    ours, bare = found["ours"].wall, found["bare"].wall
    bound = "" if limit is None else f"<= {limit} x"
    return Figure(case, what, ours, bare, value=ours / bare, limit=limit, bound=bound)


def same_rows(ours: Path, bare: Path, *columns: str) -> None:
    try:
        run(["-m", "benchmarks.compare", "rows", str(ours), str(bare), *columns])
    except BenchmarkError as error:
        raise BenchmarkError(f"The two sides made different tables of {ours.name}.\n{error}") from error


def same_text(ours: Sequence[str], bare: Sequence[str], *, env: Mapping[str, str]) -> None:
    """Two programs that print the same.

    Raises:
        BenchmarkError: they do not.
    """
    texts = [
        subprocess.check_output([sys.executable, *words], env=environment(env), text=True, cwd=PROJECT) for words in (ours, bare)
    ]
    if texts[0] != texts[1]:
        raise BenchmarkError(f"The two sides gave other answers:\n{texts[0]}\n{texts[1]}")


def sample_landing(lines: int | None) -> Path:
    folder = BENCH / f"landing-{lines or 'all'}"
    run(["-m", "lakehouse.sample", str(folder), *(["--lines", str(lines)] if lines else [])])
    return folder


def fresh_home(bench: Bench, name: str, *, landing: Path | None = None) -> dict[str, str]:
    """A fresh lake and Dagster instance, configured as the project's own, and the environment that points there."""
    folder = bench.fresh(name)
    (folder / "dagster").mkdir(parents=True)
    with suppress(FileNotFoundError):
        shutil.copy(PROJECT / "dagster.yaml", folder / "dagster")
    locations = {"DAGSTER_HOME": str(folder / "dagster"), "LAKEHOUSE_ROOT": str(folder / "lake")}
    return {**locations, "LAKEHOUSE_LANDING": str(landing or folder / "landing")}


def prepared_home(bench: Bench, name: str) -> dict[str, str]:
    """A small lake in which everything has been done."""
    home = fresh_home(bench, name, landing=sample_landing(_SMALL_LINES))
    run(["-m", "lakehouse", "trigger", MEDALLION.job], env=home)
    return home


@contextmanager
def running_stack(part: str) -> Iterator[dict[str, str]]:
    """A part of `make stack` of our own, and the variables that lead to it."""
    stack = ["-m", "deploy.stack"]
    home = {"STACK_HOME": str(BENCH / "stack"), "STACK_TOOLS": str(PROJECT / ".stack" / "tools")}
    run([*stack, "install", part], env=home)
    try:
        run([*stack, "up", part], env=home)
        exports = subprocess.check_output([sys.executable, *stack, "env"], env={**environment(), **home}, text=True, cwd=PROJECT)
        yield dict(re.findall(r"^export ([A-Z_]+)='(.*)'$", exports, flags=re.MULTILINE))
    finally:
        run([*stack, "down"], env=home)
