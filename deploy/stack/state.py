"""What the supervisors report: one small file a process, `<home>/state/<process>.json`, which its supervisor alone writes."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from deploy.stack.part import Env, Part
from lakehouse.core.text import span

#: A process that ran for so long starts again after one second, as after its first end.
STABLE_SECONDS = 60.0
LONGEST_PAUSE = 60.0
#: So many ends in a row, each before the process was stable, are a loop.
LOOP = 3


@dataclass(frozen=True)
class State:
    """A process of the Procfile, as its supervisor last saw it.

    Args:
        supervisor: the supervisor's process id, and when it started.
        process: the same of the process, while it runs.
        since: when it was started, or will be started: seconds since 1970.
        starts: how often it was started.
        failures: how often in a row it ended before it was stable, or could not be started.
        problem: why it ended last, or could not be started.
        waits: the parts that it needs and that do not answer.
    """

    supervisor: dict[int, int]
    process: dict[int, int] = field(default_factory=dict)
    since: float = 0.0
    starts: int = 0
    failures: int = 0
    problem: str = ""
    waits: tuple[str, ...] = ()

    def started(self, process: dict[int, int], now: float) -> "State":
        return replace(self, process=process, since=now, starts=self.starts + 1)

    def failed(self, problem: str, now: float) -> "State":
        """The state after an end: the next start is 1, 2, 4 … 60 seconds away."""
        failures = 1 if self._is_stable(now) else self.failures + 1
        pause = min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
        return replace(self, process={}, since=now + pause, failures=failures, problem=problem)

    def is_looping(self, now: float) -> bool:
        return self.failures >= LOOP and not self._is_stable(now)

    def _is_stable(self, now: float) -> bool:
        return bool(self.process) and now - self.since >= STABLE_SECONDS

    def report(self, now: float) -> str:
        """What a person needs to know; empty for a process that runs and never ended."""
        last = f"; last problem: {self.problem}" if self.problem else ""
        loop = f"crash looping ({self.failures} in a row), " if self.is_looping(now) else ""
        restarts = f"{loop}restarts: {max(self.starts - 1, 0)}{last}"
        if self.waits:
            return f"waits for {', '.join(self.waits)}; {restarts}"
        if not self.process:
            return f"starts in {span(timedelta(seconds=max(self.since - now, 0)))}; {restarts}"
        return f"runs for {span(timedelta(seconds=max(now - self.since, 0)))}; {restarts}" if self.problem else ""


def write(home: Path, process: str, state: State) -> None:
    """Replace the file in one step.

    Raises:
        OSError: it cannot be written, e.g. on a full disk.
    """
    target = _file(home, process)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    new.write_text(json.dumps(asdict(state)))
    new.replace(target)


def read(home: Path, process: str) -> State | None:
    """None when its supervisor has not reported yet."""
    file = _file(home, process)
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    for name in ("supervisor", "process"):
        found[name] = {int(pid): start for pid, start in found[name].items()}
    return State(**{**found, "waits": tuple(found["waits"])})


def read_all(home: Path, processes: Iterable[str]) -> dict[str, State]:
    """Of those that were reported."""
    return {process: state for process in processes if (state := read(home, process))}


def answers(home: Path, part: Part, env: Env) -> bool:
    """Whether the part serves, and its processes are ours: on its port another server could answer."""
    states = read_all(home, part.processes)
    if len(states) < len(part.processes) or not all(state.process for state in states.values()):
        return False
    return part.answers({**env, "STACK_STARTED": str(max(state.since for state in states.values()))})


def _file(home: Path, process: str) -> Path:
    return home / "state" / f"{process}.json"
