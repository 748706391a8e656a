"""A lake of other writers: the Delta tables below a folder or a prefix of a bucket, and what their logs tell of each.

    tables_below(location) ─▶ URIs ─▶ look(uri) ─▶ Found: version, rows, bytes, features; or why it is refused

Nothing is written there, and no row is read. Not here: rows (`foreign.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError, LakehouseError, StoreError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.table.foreign import ForeignTable, require_foreign

_LOG = "_delta_log"
_BUCKET = re.compile(r"(s3|gs|az)://[^/]+(/.*)?")
_DELETED = "deletionVectors"


@dataclass(frozen=True)
class Found:
    """A Delta table of a location.

    Args:
        path: below the location; the folder's own name for a location that is a table itself.
        table: None where it is refused.
        rows: those of the log's statistics; None where a file has none, or rows are deleted from files that stay.
        size: of its live files, in bytes.
        refusal: why it is not read.
    """

    uri: str
    path: str
    table: ForeignTable | None = None
    rows: int | None = None
    size: int = 0
    refusal: LakehouseError | None = None

    @property
    def feature(self) -> str:
        """What it is refused for, in the words of the protocol; empty where it is damaged, or read."""
        return self.refusal.feature if isinstance(self.refusal, ForeignTableError) else ""


def location_of(text: str, *, setting: str) -> str:
    """A folder or a prefix of a bucket, without a slash at its end.

    Raises:
        DeclarationError: it is neither.
    """
    if is_remote(text):
        location = text.replace("s3a://", "s3://").rstrip("/")
        if _BUCKET.fullmatch(location):
            return location
    elif text.strip() and (path := Path(text).expanduser()).is_absolute():
        return str(path)
    raise DeclarationError(
        f"{text!r:.200} is not an absolute folder.", remedy=f"Give {setting}=/path/to/lake or {setting}=s3://bucket/path."
    )


def tables_below(location: str) -> Iterator[str]:
    """The URIs of the Delta tables in a folder and in those below it, in the order of their paths. What is below a table is its
    own; folders whose names begin with `.` or `_` are not looked into.

    Raises:
        StoreError: the store does not answer, or refuses, or a folder cannot be read.
    """
    yield from _below(location, set())


def look(uri: str, *, location: str, timezone: str = "") -> Found:
    """What the log of a table tells, and whether the table is read.

    Args:
        timezone: of instants in its partition values that have none.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    path = path_of(uri, location)
    try:
        table = require_foreign(uri, timezone=timezone, remedy="Its folder has _delta_log, and no commit in it.")
        table.check()
        rows, size = _counted(table)
    except (BrokenTableError, ForeignTableError) as refusal:
        return Found(uri, path, refusal=refusal)
    return Found(uri, path, table, rows, size)


def path_of(uri: str, location: str) -> str:
    """The path of a table below a location; its folder's name where it is the location."""
    return uri.removeprefix(location).lstrip("/") or uri.rpartition("/")[2]


def _below(location: str, seen: set[Path]) -> Iterator[str]:
    if not is_remote(location):
        real = Path(location).resolve()
        if real in seen:  # links may lead in a circle
            return
        seen.add(real)
    try:
        names = stored.folders_in(location)
    except OSError as error:
        raise StoreError(f"The folder {location} cannot be read: {error.strerror}.", remedy="Check its permissions.") from error
    if _LOG in names:
        yield location
        return
    for name in names:
        if not name.startswith((".", "_")):
            yield from _below(f"{location.rstrip('/')}/{name}", seen)


def _counted(table: ForeignTable) -> tuple[int | None, int]:
    """The rows, as far as statistics have them, and the bytes of the live files."""
    found = table.actions()
    rows = found.column("num_records").to_pylist() if "num_records" in found.schema.names else [None]
    size = sum(number or 0 for number in found.column("size_bytes").to_pylist())
    known = _DELETED not in table.features and all(number is not None for number in rows)
    return (sum(rows) if known else None), size
