"""Measuring: a fresh process per run, both sides in turn, and of each side its least disturbed run.

Other load only ever adds to a time, so the shortest of several runs is the nearest to what the work itself takes.

Of every process: wall time, user + system CPU, and peak resident memory, as the kernel accounts for it when it ends (wait4, so
that a process that measures nothing itself cannot be wrong about it). `seconds` is the time the process itself reports as
that of the work, without interpreter and imports; a process that reports none is taken whole.

This module imports the standard library only. A child's peak starts at its parent's, so the parent must stay small; and all
work, generation and comparison included, is done in children.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
BENCH = PROJECT / "data" / "bench"
#: Settings of the caller's shell that would make the two sides differ from one machine to the next.
_FOREIGN = ("LAKEHOUSE_", "DAGSTER_", "DBT_")
_INHERITED = ("LAKEHOUSE_MEMORY_LIMIT",)


class BenchmarkError(RuntimeError):
    """A run failed, or its result is not what it must be: there is no figure to print."""


@dataclass(frozen=True)
class Run:
    """One measured process. Times in seconds, `peak` in bytes, `output` is the JSON object of its last line."""

    seconds: float
    wall: float
    cpu: float
    peak: int
    output: Mapping[str, Any] = field(default_factory=dict)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every child: byte code is cached, as it is for an installed package; own settings only."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(_FOREIGN) or n in _INHERITED}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**inherited, "PYTHONPYCACHEPREFIX": str(BENCH / "pycache"), **(extra or {})}


def run(arguments: Sequence[str], *, env: Mapping[str, str] | None = None, python: str = sys.executable) -> Run:
    """Run `python <arguments>` in the project's folder to its end and measure it.

    Raises:
        BenchmarkError: it exits with another code than 0; the message holds the end of what it wrote.
    """
    os.sync()  # what another run wrote is on disk before this one starts
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.perf_counter()
        command = [python, *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=PROJECT, env=environment(env))
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        text, errors = (_text(file) for file in (out, err))
    if process.returncode != 0:
        end = "\n".join([*text.splitlines()[-5:], *errors.splitlines()[-15:]])
        raise BenchmarkError(f"python {' '.join(arguments)} ended with {process.returncode}:\n{end}")
    output = _last_object(text)
    return Run(
        seconds=float(output.get("seconds", wall)),
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss * 1024,
        output=output,
    )


def alternate(sides: Mapping[str, Callable[[], Run]], *, rounds: int) -> dict[str, Run]:
    """Run the sides in turn, so that what the machine does meanwhile meets both; the shortest times of each."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            runs[name].append(side())
    return {name: _least(found) for name, found in runs.items()}


def _least(runs: Sequence[Run]) -> Run:
    """Shortest times; the highest peak; the output of the last run."""
    return Run(
        seconds=min(r.seconds for r in runs),
        wall=min(r.wall for r in runs),
        cpu=min(r.cpu for r in runs),
        peak=max(r.peak for r in runs),
        output=runs[-1].output,
    )


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    if lines and lines[-1].startswith("{"):
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    return {}
