"""Instants: which version each table had at one moment, so that all tables of a question belong together.

2026-11-20, 2026-11-20T14:30   the newest version that was committed by then, of a mart the one that readers saw then
p12                            a publication: its marts, the other tables as they were when it was made
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from lakehouse.core import publications
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
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
            f"AT={text[:60]!r} is no instant.",
            remedy="Write a day, 2026-11-20, an instant, 2026-11-20T14:30-03:00, a publication, p12, or the id of a run.",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def as_of(storage: Storage, text: str) -> Versions:
    """The versions at what a person names: a day, an instant or a publication.

    Raises:
        DeclarationError: it is not one of them, or there is no such publication.
        BrokenTableError: (the answer) the table did not exist then, or its log no longer reaches so far back.
    """
    if re.fullmatch(r"p[0-9]{1,9}", text):
        return _published(storage, int(text[1:]))
    return versions_at(storage, instant(text))


def versions_at(storage: Storage, moment: datetime) -> Versions:
    """The newest version of each table that was committed at or before a moment, of a mart the one that was published by then.

    Raises:
        BrokenTableError: (the answer) the table did not exist then, or its log no longer reaches so far back.
    """
    found: list[publications.Publication] = []

    def version(ref: TableRef, newest: Snapshot) -> int:
        if ref.layer == "gold":
            if not found:  # read when the first mart is asked for
                last = publications.newest(storage)
                before = last.at is None or last.at <= moment
                known = [last] if before else [p for p in publications.all_of(storage) if p.at is not None and p.at <= moment]
                found.append(known[-1] if known else publications.Publication())
            named = found[0].tables.get(ref)
            if named is not None and named.id == newest.id and named.version <= newest.version:
                return named.version
        return _newest_before(ref, newest, moment)

    return version


def _published(storage: Storage, number: int) -> Versions:
    known = publications.all_of(storage)
    chosen = next((publication for publication in known if publication.number == number), None)
    if chosen is None or chosen.at is None:
        newest = f"The newest is p{known[-1].number}." if known else "There is none yet: make run."
        raise DeclarationError(f"There is no publication {number}.", remedy=newest)
    return versions_at(storage, chosen.at)


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
