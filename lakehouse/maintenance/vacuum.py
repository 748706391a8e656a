"""Vacuum that protects: removes data files that no kept version has, and proves that each kept one can still be read.

    listing of the folder  -  files of every kept version  -  files named by a commit within the floor  -  young files

delta-rs's own vacuum (1.6.6, `full`, `keep_versions`) is right about kept versions, and a test compares the two. It is not
used because its floor rests on tombstones, which a checkpoint drops after a week whatever our floor is, and because it commits
twice to every table every time, so that all that is downstream would be computed again. Pure: no dagster.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import unquote

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.store import files as stored
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.maintenance.optimise import since
from lakehouse.maintenance.protect import readable


@dataclass(frozen=True)
class Vacuum:
    """What a vacuum may remove (a dry run), or has: paths below the table, with their bytes.

    `retained` are the protected versions with their reasons, `lost` those that could not be read before anything was done.
    """

    files: Mapping[str, int]
    retained: Mapping[int, str]
    lost: Mapping[int, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def plan(snapshot: Snapshot, *, retained: Mapping[int, str], floor: timedelta, now: datetime) -> Vacuum:
    """The dry run: which files could go.

    Args:
        retained: versions that must stay besides those within the floor, with their reasons.

    Raises:
        BrokenTableError: the current version, or that at the floor's beginning, cannot be opened.
    """
    begin = now - floor
    oldest, live = since(snapshot, begin)
    reasons = {oldest: "within the retention floor", **retained}
    lost: dict[int, str] = {}
    for version in sorted(reasons):
        try:
            found = snapshot if version == snapshot.version else open_existing(snapshot.uri, version=version)
            if found is not None:
                live.update(file.path for file in found.files)
        except BrokenTableError as error:
            if version in (snapshot.version, oldest):
                raise
            lost[version] = str(error)
    live |= {unquote(path) for path in live}
    free = {
        path: file.size
        for path, file in stored.listing(snapshot.uri, below=True).items()
        if path.endswith(".parquet") and path not in live and file.modified < begin.timestamp() and not _is_hidden(path)
    }
    return Vacuum(free, {v: reason for v, reason in reasons.items() if v not in lost}, lost)


def vacuum(snapshot: Snapshot, planned: Vacuum) -> dict[int, int]:
    """Remove what was planned, then open each kept version and count it: `{version: rows}`.

    Raises:
        BrokenTableError: a kept version that was whole before is not.
    """
    whole = {version: _count(snapshot.uri, version) for version in planned.retained}
    stored.remove([f"{snapshot.uri}/{path}" for path in sorted(planned.files)])
    counted = {version: readable(snapshot.uri, version) for version, rows in whole.items() if rows is not None}
    if counted != {version: rows for version, rows in whole.items() if rows is not None}:
        raise BrokenTableError(
            f"A kept version of {snapshot.uri} has another number of rows after the vacuum.",
            remedy="Put the table back from the newest backup: make restore, and report it.",
        )
    return counted


def _count(uri: str, version: int) -> int | None:
    """Rows of a version; None when a data file of it was missing before."""
    try:
        return readable(uri, version)
    except BrokenTableError:
        return None


def _is_hidden(path: str) -> bool:
    """Not a data file to Delta's readers: staging folders, leases, logs."""
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))
