"""Reading: how pages ask the lake. An answer is kept for some seconds and asked for once, however many look.

A query is a plain function `(Lake, ...) -> answer`; it reads through DuckDB, over the files that the Delta logs name. A bucket is
asked first whether it answers at all, since delta-rs would wait for minutes and hold every page meanwhile.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse.core import publications
from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef, is_remote
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.observability import outbox
from lakehouse.reports.publish import rows
from lakehouse.settings import Settings, load_settings

if TYPE_CHECKING:
    import narwhals as nw

T = TypeVar("T")
Row = dict[str, Any]
#: Seconds for which an answer is good.
FRESH = 10.0
_MOST = 200


@dataclass(frozen=True)
class Lake:
    """What a query works with; `made` is what was drawn of tables that may not have changed since."""

    settings: Settings
    storage: Storage
    session: Session
    made: dict[str, tuple[Hashable, Any]]

    def opened(self, ref: TableRef) -> Snapshot | None:
        """A table as it is now, a mart as it is published; None when there is none."""
        if ref.layer == "gold":
            return publications.published(self.storage, ref, self.publication)
        return open_input(self.storage, ref)

    @cached_property
    def publication(self) -> publications.Publication:
        """What readers see while this question is answered."""
        return publications.newest(self.storage)

    def rows(self, ref: TableRef) -> list[Row]:
        """All rows of a small table; none of one that is not there."""
        return rows(self.session, self.opened(ref))

    def select(self, frame: "nw.LazyFrame[Any]", *names: str) -> list[Row]:
        """These columns of a small frame."""
        return self.session.dicts(frame, *names)

    def once(self, name: str, snapshots: Sequence[Snapshot | None], make: Callable[[], T]) -> T:
        """What is made of tables, made again when one of them has changed."""
        versions = tuple((found.id, found.version) if found else None for found in snapshots)
        cached = self.made.get(name)
        if cached is None or cached[0] != versions:
            cached = self.made[name] = (versions, make())
        answer: T = cached[1]
        return answer


class Reader:
    """Asks one lake; shared by all pages of the process."""

    def __init__(self, settings: Settings, *, fresh: float = FRESH) -> None:
        self.settings = settings
        self.storage = settings.storage
        self._fresh = fresh
        self._made: dict[str, tuple[Hashable, Any]] = {}
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def ask(self, query: Callable[..., T], *arguments: Hashable) -> T:
        """The answer of a query, as it was some seconds ago or as it is now.

        Raises:
            StoreError: the lake's store does not answer.
            BrokenTableError: a table cannot be read.
        """
        key = (query, *arguments)
        if len(self._answers) > _MOST:  # every choice of filters is one
            self._answers.clear()
        with self._locks.setdefault(key, threading.Lock()):
            cached = self._answers.get(key)
            if cached is None or time.monotonic() - cached[0] > self._fresh:
                for location in sorted({location for location in self._locations() if is_remote(location)}):
                    files.ask(location)
                with outbox.small_session(self.storage) as session:
                    lake = Lake(self.settings, self.storage, session, self._made)
                    cached = (time.monotonic(), query(lake, *arguments))
                self._answers[key] = cached
        answer: T = cached[1]
        return answer

    def forget(self) -> None:
        """Ask again next time: something was changed here."""
        self._answers.clear()

    def _locations(self) -> list[str]:
        locations = (self.storage.root, *self.storage.layers.values())
        return [files.bucket(location) if is_remote(location) else location for location in locations]


@cache
def reader() -> Reader:
    """The lake that the settings name."""
    return Reader(load_settings())


def since(snapshot: Snapshot, column: str, bound: Any) -> list[DataFile]:
    """The files that may hold a value of a column from `bound` on."""
    return [file for file in snapshot.files if file.upper.get(column) is None or file.upper[column] >= bound]
