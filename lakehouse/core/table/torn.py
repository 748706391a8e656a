"""Torn: what a power cut left of the newest commits of a table on this machine, of which nobody was told.

A commit is reported when it is on the disk (`core/store/durability.py`), and then a mark in the table's folder names it. Above
the mark there may be a commit that is empty, cut off or missing, or a checkpoint that is. The table continues without them: they
are set aside in its folder `.torn`. A commit that the mark covers is never set aside, whatever is wrong with it; a checkpoint is
where the commits hold what it held.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lakehouse.core.names import is_remote
from lakehouse.core.store import durability
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import lock
from lakehouse.core.table import recovery

_MARK = ".reported"
#: The folder in a table's folder.
ASIDE = ".torn"


@dataclass(frozen=True)
class SetAside:
    """A file of a log that a power cut had torn."""

    name: str
    at: datetime


def create_mark(uri: str) -> None:
    """Say of a table that is about to be made that nothing of it was reported."""
    if not is_remote(uri):
        durability.put(f"{uri}/{_MARK}", b"-1")


def report(uri: str) -> None:
    """See that the log is on the disk, as far as this process's writes are to be, and mark its newest commit as reported.

    Another writer may have marked a newer one meanwhile, which must not be taken back: so it is looked again."""
    newest = durability.sync_log(uri)
    while newest is not None:
        durability.put(f"{uri}/{_MARK}", str(newest).encode(), named=False)
        newest = durability.sync_log(uri) if durability.newest_version(uri) != newest else None


def prepare(uri: str) -> None:
    """See that there is a mark before the next commit: a table of an earlier release has none."""
    if not is_remote(uri) and not Path(uri, _MARK).exists():
        report(uri)


def reported(uri: str) -> int | None:
    """The newest version that was reported, -1 for none; None where nobody has noted it."""
    with suppress(FileNotFoundError, ValueError):
        return int(Path(uri, _MARK).read_bytes())
    return None


def put_back(uri: str) -> bool:
    """Let a table be its newest whole version, where all that is torn was not reported. Whether anything was set aside."""
    if is_remote(uri) or (known := reported(uri)) is None:
        return False
    try:
        with lock(f"{uri}/_delta_log"):  # whoever opens the table may have locked it
            torn = _torn(uri, known)
            for path in torn:
                durability.make_folder(f"{uri}/{ASIDE}")
                path.rename(f"{uri}/{ASIDE}/{time.time_ns()}_{path.name}")
            durability.sync(map(str, torn))
    except OSError:  # a folder that may be read only, or none
        return False
    if torn:
        names = ", ".join(path.name for path in torn)
        logging.getLogger(__name__).warning(
            "%s: %s was torn, as by a power cut. It is in %s/%s; all that was reported of the table is there without it.",
            *(uri, names, uri, ASIDE),
        )
    return bool(torn)


def is_alone(uri: str, version: int) -> bool:
    """Whether a version is known by a checkpoint, and its commit is missing: Delta reads it, and cannot write the next."""
    return not is_remote(uri) and not Path(uri, "_delta_log", f"{version:020}.json").exists()


def set_aside(uri: str) -> list[SetAside]:
    """What was set aside of a table, oldest first."""
    names = [] if is_remote(uri) else stored.names_in(f"{uri}/{ASIDE}")
    stamped = sorted(name.split("_", 1) for name in names if "_" in name)
    return [SetAside(name, datetime.fromtimestamp(int(ns) / 1e9, tz=UTC)) for ns, name in stamped if ns.isdigit()]


def _torn(uri: str, known: int) -> list[Path]:
    """The files of the log to set aside; none where what is left would not be a table, or less than was reported."""
    commits, checkpoints = recovery.listed(uri)
    alone = {version for version in checkpoints if version > known and version not in commits}  # nothing can be written upon it
    damaged = {path for paths in checkpoints.values() for path in paths if not recovery.is_whole(path)}
    damaged |= {path for version in alone for path in checkpoints[version]}
    whole = [version for version, paths in checkpoints.items() if not damaged & {*paths}]
    begin = max([known, *whole])  # what a checkpoint holds needs no commit
    unusable = (v for v in range(begin + 1, max(commits, default=-1) + 1) if v not in commits or recovery.problem(commits[v]))
    end = next(unusable, max(commits, default=-1) + 1)
    base = max((version for version in whole if version < end), default=-1)
    if end <= known or any(version not in commits for version in range(base + 1, end)):
        return []
    gone = {path for version, path in commits.items() if version >= end} | damaged
    pointer = Path(uri, "_delta_log", "_last_checkpoint")
    if pointer.exists() and recovery.pointed(str(pointer)) not in whole:
        gone.add(str(pointer))
    return sorted(map(Path, gone))
