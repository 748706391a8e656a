"""Durability: what is written into a folder of this machine is on its disk before anybody is told.

    data files ─▶ their folders ─▶ commit ─▶ the log's folder ─▶ reported

A kill loses nothing that a process has written; a power cut loses what the kernel has not. An object store is durable by its
own word. delta-rs, DuckDB and obstore sync no local file (strace), so whoever gives a file its name calls this.

Here: that what was reported stays. Not here: what a power cut leaves of what was not (`core/table/torn.py`).
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

from lakehouse.core.errors import StoreError
from lakehouse.core.names import is_remote

#: What what was reported survives: a power cut, or no more than the end of the process.
Durability = Literal["power", "process"]
_LOG = "_delta_log"
_POINTER = "_last_checkpoint"
_OF_VERSION = re.compile(r"\d{20}\.(json|checkpoint.*\.parquet)")


class _Disk:
    """How durable this process's writes are."""

    mode: Durability = "power"


def use(mode: Durability) -> None:
    """Let this process's writes survive a power cut, or the end of the process only."""
    _Disk.mode = mode


def sync(paths: Iterable[str]) -> None:
    """See that files are on the disk, then their names in their folders. Those of an object store are."""
    local = [path for path in paths if not is_remote(path)]
    for path in local:
        _sync_content(path)
    for folder in dict.fromkeys(os.path.dirname(path) for path in local):  # noqa: PTH120 - a Path for each of thousands costs more
        _sync_names(folder)


def put(path: str, content: bytes | Path, *, new: bool = False, named: bool = True) -> None:
    """Write a whole file of this machine: it is on the disk before it has its name.

    Args:
        named: its name is on the disk too; without, a power cut may leave the file that had the name before.

    Raises:
        FileExistsError: it was to be `new`, and is there.
    """
    target = Path(path)
    make_folder(target.parent)
    made = target.with_name(f".{uuid.uuid4().hex}")  # nobody takes such a name for data
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, made)
        else:
            made.write_bytes(content)
        _sync_content(str(made))
        if new:
            target.hardlink_to(made)
        else:
            made.replace(target)
    finally:
        made.unlink(missing_ok=True)
        if named:  # also where it was there: whoever put it may have died before this
            _sync_names(str(target.parent))


def move(made: Path, target: Path) -> None:
    """Give a whole file of this machine its name: it is on the disk before it has it."""
    make_folder(target.parent)
    _sync_content(str(made))
    made.replace(target)
    _sync_names(str(target.parent))


def make_folder(folder: str | Path) -> None:
    """Make a folder and those above it, each with its name on the disk.

    Raises:
        StoreError: a file has the name of one, or a link that leads nowhere.
    """
    missing = []
    path = Path(folder)
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        try:
            path.mkdir(exist_ok=True)
        except FileExistsError as error:  # a file, or a link to a disk that is not there
            raise StoreError(
                f"{path} is no folder, and something is there.", remedy="Mount the disk that it leads to, or remove it."
            ) from error
        _sync_names(str(path.parent))


def sync_log(uri: str) -> int | None:
    """See that the log of a table is on the disk: its newest checkpoint, and every commit since, whoever wrote it.

    Also those of others: what is computed from a commit may not outlive it.

    Returns:
        the newest version of the log; None of an object store, and where there is none.
    """
    if is_remote(uri):
        return None
    log, names = f"{uri}/{_LOG}", _log_names(uri)
    newest = max((name[:20] for name in names if ".checkpoint" in name), default="")
    _sync_names(uri)
    sync(f"{log}/{name}" for name in [*(name for name in names if name[:20] >= newest), *([_POINTER] if newest else [])])
    return _newest(names)


def newest_version(uri: str) -> int | None:
    """The newest version of the log of a table on this machine, on the disk or not; None where there is none."""
    return _newest(_log_names(uri))


def _log_names(uri: str) -> list[str]:
    """Not what a writer is about to link to a commit's name, or has left: `<version>.json#1`."""
    return sorted(name for name in os.listdir(f"{uri}/{_LOG}") if _OF_VERSION.fullmatch(name))  # noqa: PTH208 - names are wanted


def _newest(names: Sequence[str]) -> int | None:
    return int(names[-1][:20]) if names else None


def _sync_content(path: str) -> None:
    """Of a file."""
    _flush(path, unless=())


def _sync_names(folder: str) -> None:
    """Of what is in a folder; some mounts sync no folders."""
    _flush(folder, unless=(errno.EINVAL, errno.ENOTSUP))


def _flush(path: str, *, unless: Collection[int]) -> None:
    if _Disk.mode != "power":
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a log that was cleaned up, or never had a pointer
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in unless:
            raise
    finally:
        os.close(handle)
