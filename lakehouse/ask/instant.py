"""Instants: which version each table had at one moment, so that all tables of a question belong together.

`versions` is the seam: whatever answers `(table, its newest snapshot) -> version` can take its place, as the versions that a run
or a publication read.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import Snapshot

#: The version to read of a table, from its newest snapshot.
Versions = Callable[[TableRef, Snapshot], int]


def instant(text: str) -> datetime:
    """`2026-11-20` is the end of that day in UTC; `2026-11-20T14:30` that instant, in UTC unless it has an offset.

    Raises:
        DeclarationError: it is neither.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return datetime.combine(day, time(), UTC) + timedelta(days=1) - timedelta(microseconds=1)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise DeclarationError(
            f"AT={text[:60]!r} is no instant.", remedy="Write a day, 2026-11-20, or an instant, 2026-11-20T14:30-03:00."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def versions_at(moment: datetime) -> Versions:
    """The newest version of each table that was committed at or before a moment.

    Raises:
        BrokenTableError: (the answer) the table did not exist then, or its log no longer reaches so far back.
    """

    def version(ref: TableRef, newest: Snapshot) -> int:
        return _newest_before(ref, newest, moment)

    return version


def _newest_before(ref: TableRef, newest: Snapshot, moment: datetime) -> int:
    """Commits of a log are in the order of their instants, so halves are asked; mostly the newest is the one."""
    if _is_before(newest, newest.version, moment):
        return newest.version
    low, high = -1, newest.version  # the one sought is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_before(newest, middle, moment) else (low, middle)
    shown = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    if low < 0:
        raise BrokenTableError(f"The table {ref} did not exist at {shown}.", remedy="Ask for a later instant.")
    if newest.committed_at(low) is None:
        raise BrokenTableError(
            f"The log of {ref} no longer reaches back to {shown}.", remedy="Ask for a later instant, or restore a backup."
        )
    return low


def _is_before(newest: Snapshot, version: int, moment: datetime) -> bool:
    """Whether a version was committed by then; one whose commit was cleaned up is older than all that are there."""
    at = newest.committed_at(version)
    return at is None or at <= moment
