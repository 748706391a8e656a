"""What the commands of this folder print: text for people, or one JSON object for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.core.text import span


def document(value: Any) -> str:
    """JSON, with instants in UTC as ISO 8601."""
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    raise TypeError(type(value).__name__)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns; the first is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def local(at: datetime | None) -> str:
    """An instant in the schedules' time zone, `-` for none."""
    return f"{at.astimezone(zone()):%Y-%m-%d %H:%M %Z}" if at else "-"


def length(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s" if seconds < 10 else span(timedelta(seconds=seconds))


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what is waited for while the block runs, on a terminal alone."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def emit(value: Mapping[str, Any], *, text: str, as_json: bool) -> None:
    print(document(value) if as_json else text)
