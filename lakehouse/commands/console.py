"""The console of `make run`: what it shows of parts that run one after the other, at a terminal and elsewhere.

    begin(part) ─▶ beat()* ─▶ end(part) ─▶ … ─▶ what was found, and where to go on

At a terminal it is one progress view (rich). Elsewhere each part is a line that grows by a dot every two seconds, so that whoever
reads a log knows that it lives, and the log stays short. Pure: it knows no job and no lake.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

#: Seconds between two signs of life.
BEAT = 2.0


@dataclass
class Part:
    """One part of the work: how long it is expected to take, and what was seen of it."""

    name: str
    text: str
    expected: float
    began: float = 0.0
    took: float = 0.0
    step: str = ""
    records: int = 0
    skipped: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self.took or time.monotonic() - self.began

    @property
    def figures(self) -> str:
        """What there is to report: seconds, records, records a second, steps that had nothing to do."""
        found = [f"{self.seconds:.0f} s"]
        if self.records:
            found.append(f"{self.records:,} records, {self.records / max(self.seconds, 1):,.0f} a second")
        if self.skipped:
            found.append(f"{self.skipped} steps skipped")
        return ", ".join(found)


def remaining(parts: Sequence[Part], now: int) -> float:
    """Seconds that are left: what the parts from the present one on are expected to take, on a machine as fast as so far."""
    past = [part for part in parts[:now] if part.took]
    speed = sum(part.took for part in past) / max(sum(part.expected for part in past), 1) if past else 1.0
    left = parts[now].expected * speed - parts[now].seconds if now < len(parts) else 0.0
    return max(left, 0.0) + speed * sum(part.expected for part in parts[now + 1 :])


class Console(Protocol):
    """What shows the parts."""

    def begin(self, number: int) -> None:
        """The part of this number begins."""
        ...

    def beat(self) -> None:
        """It lives, and may have a new step or more records."""
        ...

    def end(self, *, failed: bool) -> None:
        """It has ended."""
        ...

    def close(self) -> None:
        """Nothing more is shown, also where the work was interrupted."""
        ...


class Lines:
    """A line for each part, for logs and pipes."""

    def __init__(self, parts: Sequence[Part], out: TextIO) -> None:
        self.parts, self.out, self.number = parts, out, 0

    def begin(self, number: int) -> None:
        self.number = number
        part = self.parts[number]
        self._write(f"[{number + 1}/{len(self.parts)}] {part.name}: {part.text} ")

    def beat(self) -> None:
        self._write(".")

    def end(self, *, failed: bool) -> None:
        part = self.parts[self.number]
        self._write(f" {'FAILED after ' if failed else ''}{part.figures}\n")

    def close(self) -> None:
        pass

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


class View:
    """One view at a terminal: the parts that are done above, a bar with the present step and the time that is left below."""

    def __init__(self, parts: Sequence[Part]) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self.parts, self.number = parts, 0
        columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[more]}")]
        self.progress = Progress(*columns, transient=True)
        self.task = self.progress.add_task("", total=sum(part.expected for part in parts), more="")
        self.progress.start()

    def begin(self, number: int) -> None:
        self.number = number
        self.beat()

    def beat(self) -> None:
        part = self.parts[self.number]
        done = sum(each.expected for each in self.parts[: self.number]) + min(part.seconds, part.expected * 0.95)
        left = remaining(self.parts, self.number)
        more = f"{part.step or part.text} · {part.figures} · about {left:.0f} s left"
        name = f"[{self.number + 1}/{len(self.parts)}] {part.name}"
        self.progress.update(self.task, description=name, completed=done, more=more)

    def end(self, *, failed: bool) -> None:
        part = self.parts[self.number]
        mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
        self.progress.console.print(f"{mark} {part.name}: {part.text}, {part.figures}", highlight=False)

    def close(self) -> None:
        self.progress.stop()


def console_for(parts: Sequence[Part]) -> Console:
    """The one that fits what stdout is."""
    return View(parts) if sys.stdout.isatty() else Lines(parts, sys.stdout)
