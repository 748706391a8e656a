"""The window of one extraction: what a person asks a source for, where that is not what is new.

    no window           from the cursor on, and the overlap before it
    full                everything the source has
    since, until        from an instant on (inclusive), up to another one (exclusive)
    aside               everything, or from an instant on, of another source than the stream's own

A window lands what is not there yet, as any extraction does, and moves the cursor only over what was taken without a gap: to
the newest record before `until`, and not at all when it begins after the cursor or is of another source. Records without a
readable instant are in every window.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lakehouse.core.clock import TIMEZONE, zone
from lakehouse.core.errors import DeclarationError

#: What a cursor counts in: instants, or whole numbers.
Point = datetime | int


@dataclass(frozen=True)
class Window:
    """What one extraction asks for; without anything, what is new."""

    full: bool = False
    since: datetime | None = None
    until: datetime | None = None
    #: It is of another source, of which the stream's cursor tells nothing.
    aside: bool = False

    def __bool__(self) -> bool:
        return self != Window()

    def __str__(self) -> str:
        parts = ["everything"] if self.all else []
        parts += [f"from {self.since.isoformat()}"] if self.since is not None else []
        return " ".join([*parts, *([f"until {self.until.isoformat()}"] if self.until is not None else [])]) or "what is new"

    @property
    def all(self) -> bool:
        """Whether it begins where the source does."""
        return self.full or (self.aside and self.since is None)

    def begin(self, cursor: datetime | None, *, overlap: timedelta) -> datetime | None:
        """From when on a source is asked; None for everything.

        Args:
            cursor: how far complete extractions came.
        """
        if self.all:
            return None
        if self.since is not None:
            return self.since
        return None if cursor is None else cursor - overlap

    def reach(self, cursor: Point | None, taken: Iterable[Point]) -> Point | None:
        """The cursor after an extraction, given the newest instants or numbers that it took.

        Args:
            cursor: the one before it.
        """
        if self.aside:
            return cursor
        if self.since is not None and (cursor is None or (isinstance(cursor, datetime) and self.since > cursor)):
            return cursor  # what lies between was not asked for
        return max([*taken, *([cursor] if cursor is not None else [])], default=None)


def window(*, full: bool, since: str, until: str) -> Window:
    """A window as people write it: dates (the day's beginning) and instants, in `TIMEZONE` where they have no zone of their own.

    Raises:
        DeclarationError: a text is no instant, or the window is empty.
    """
    if full and since:
        raise DeclarationError("A full extraction has no beginning.", remedy="Give FULL=1, or FROM.")
    found = Window(full, _instant(since, "FROM (since)"), _instant(until, "UNTIL (until)"))
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise DeclarationError(f"The window {found} is empty.", remedy="Let it end after it begins.")
    return found


def _instant(text: str, what: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise DeclarationError(
            f"{what} is {text[:80]!r}, which is no date and no instant.",
            remedy=f"Write 2026-01-31, or 2026-01-31T08:00 ({TIMEZONE}), or with a zone 2026-01-31T08:00Z.",
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=zone())).astimezone(UTC)
