"""Damage: what is wrong with the folder of a Delta table, which file it is, and what to type.

delta-rs refuses a log that it cannot parse, with a backtrace for a message. But an empty commit, or one that was cut between
two lines, it reads as a commit that did less, and a data file of another size it never looks at (experiment: rows were gone
or others, without an error). So commits of ours say how many actions they hold, and sizes are compared with the log.

Here: the folder is looked at, nothing is changed. Not found: data that was altered without altering its size (DuckDB reports
what it cannot decode, and believes the rest); the loss of the newest commits together with all that refers to them.
"""

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from lakehouse.core.errors import BrokenTableError

#: In a commit's information: the actions that it holds, `{"add": 2, "remove": 0, ...}` as JSON.
ACTIONS = "lakehouse.actions"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.[^/]+)?\.parquet")
_POINTER = "_last_checkpoint"
_MAGIC = b"PAR1"


def check_log(uri: str, version: int) -> None:
    """Refuse a log that can be read, but not as it was written.

    Raises:
        BrokenTableError: a commit that makes up this version is empty or was cut off.
    """
    commits, checkpoints = _listed(uri)
    begin = max((number for number in checkpoints if number <= version), default=-1)
    _check_commits(uri, (path for number, path in sorted(commits.items()) if begin < number <= version))


def check_files(uri: str, files: Iterable[tuple[str, int, int]]) -> None:
    """Compare data files, each `(path, size, rows)` of the log, with what is in the folder.

    Raises:
        BrokenTableError: one is missing or has another size.
    """
    for path, size, rows in files:
        place = f"{uri}/{path}"
        try:
            found = os.stat(place).st_size  # noqa: PTH116 - a Path for each of thousands costs more than the call
        except OSError as error:
            wrong = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        else:
            if found == size:
                continue
            wrong = f"has {found:,} bytes instead of {size:,}"
        raise BrokenTableError(
            f"The data file {place} {wrong}; {rows:,} rows of the table were in it.",
            remedy=f"Put it back from a backup. {_without_backup(uri, readable=True)}",
        )


def check_no_data(uri: str) -> None:
    """Refuse to take a folder with data files for one without a table.

    Raises:
        BrokenTableError: its log is gone.
    """
    count = sum(1 for _ in Path(uri).glob("*.parquet"))
    if count:
        raise BrokenTableError(
            f"There are {count:,} data files in {uri}, but no commit in its _delta_log.",
            remedy=f"Put the log back from a backup. {_without_backup(uri)}",
        )


def commit_actions(path: Path) -> list[Mapping[str, object]]:
    """The actions of a commit file.

    Raises:
        BrokenTableError: it is not JSON line by line.
    """
    try:
        return _actions(path)
    except ValueError as error:
        raise BrokenTableError(
            f"The commit {path} is cut off or garbled.",
            remedy="Put it back from a backup. Without one, where a checkpoint holds its rows, remove it.",
        ) from error


def explain(uri: str, error: Exception, *, version: int | None) -> BrokenTableError:
    """Why a table cannot be opened, found in its folder rather than in the error."""
    commits, checkpoints = _listed(uri)
    newest = max([*commits, *checkpoints], default=-1)
    if version is not None and version > newest:
        what = f"{uri} cannot be read at version {version}: its newest is {newest}."
        return BrokenTableError(what, remedy="Ask for a version that there is.")
    last = newest if version is None else version
    begin = max((number for number in checkpoints if number <= last), default=-1)
    whole = all(number in commits for number in range(last + 1))
    pointer = Path(uri, "_delta_log", _POINTER)
    for path in checkpoints.get(begin, ()):
        if not _is_parquet(path):
            what = f"The checkpoint {path} is cut off or garbled."
            return BrokenTableError(what, remedy=_remove(path, pointer) if whole else _restore(uri))
    if pointer.is_file() and _pointed(pointer) not in (None, *checkpoints) and (whole or begin >= 0):
        return BrokenTableError(f"{pointer} names a checkpoint that is not there.", remedy=_remove(pointer))
    try:
        _check_commits(uri, (path for number, path in sorted(commits.items()) if begin < number <= last))
    except BrokenTableError as damage:
        return damage
    missing = [number for number in range(begin + 1, last + 1) if number not in commits]
    if missing:
        named = f"{missing[0]:020}.json" + (f" to {missing[-1]:020}.json" if len(missing) > 1 else "")
        return BrokenTableError(f"{named} is missing in {uri}/_delta_log.", remedy=_restore(uri))
    said = " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return BrokenTableError(f"The Delta log of {uri} cannot be read: {said}.", remedy=_restore(uri))


def _listed(uri: str) -> tuple[dict[int, Path], dict[int, list[Path]]]:
    """Commit files by version, and the files of checkpoints by version."""
    commits: dict[int, Path] = {}
    checkpoints: dict[int, list[Path]] = {}
    log = Path(uri, "_delta_log")
    for name in os.listdir(log) if log.is_dir() else ():  # noqa: PTH208 - names alone are wanted
        if found := _COMMIT.fullmatch(name):
            commits[int(found[1])] = log / name
        elif found := _CHECKPOINT.fullmatch(name):
            checkpoints.setdefault(int(found[1]), []).append(log / name)
    return commits, checkpoints


def _check_commits(uri: str, paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            stat = path.stat()
            problem = _problem(str(path), stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:  # cleaned up since it was listed
            continue
        if problem:
            raise BrokenTableError(f"The commit {path} {problem}.", remedy=_restore(uri))


@lru_cache(maxsize=10_000)
def _problem(path: str, size: int, modified: int) -> str:
    """What is wrong with a commit file, empty when nothing is; looked at once while size and time stay."""
    try:
        actions = _actions(Path(path))
    except ValueError:
        return "is cut off or garbled"
    if not actions:
        return "is empty"
    held = Counter(kind for action in actions for kind in action)
    for action in actions:
        information = action.get("commitInfo")
        declared = json.loads(information.get(ACTIONS, "{}")) if isinstance(information, dict) else {}
        for kind, count in declared.items():
            if held[kind] < count:
                return f"is cut off: it holds {held[kind]} of {count} actions of kind {kind}"
    return ""


def _actions(path: Path) -> list[Mapping[str, object]]:
    found = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    if not all(isinstance(action, dict) for action in found):
        raise ValueError(f"{path} holds something else than actions")
    return found


def _is_parquet(path: Path) -> bool:
    """Whether a file begins and ends as Parquet does; one that was cut does not."""
    with path.open("rb") as content:
        head = content.read(4)
        content.seek(max(path.stat().st_size - 4, 0))
        return head == content.read(4) == _MAGIC


def _pointed(pointer: Path) -> int | None:
    """The version that the pointer to the last checkpoint names, None where it names none (Delta then looks for itself)."""
    try:
        return int(json.loads(pointer.read_bytes())["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _remove(*paths: Path) -> str:
    return f"Its commits hold all that it held; remove it: rm -f {' '.join(shlex.quote(str(path)) for path in paths)}"


def _restore(uri: str) -> str:
    return f"Put it back from a backup. {_without_backup(uri)}"


def _without_backup(uri: str, *, readable: bool = False) -> str:
    """How a table comes back that is computed from others; those that are not are told of in the docs.

    The layer is read from the folder: where a layer has a root of its own this is not known, and the docs are named.
    """
    place = Path(uri)
    away = f"mv {shlex.quote(uri)} {shlex.quote(uri + '.broken')} && "
    if place.parent.name == "silver":  # a rebuild reads the log and no data file
        return f"Without one, compute it again from bronze: {'' if readable else away}make rebuild TABLE={place.name}"
    if place.parent.name == "gold":
        return f"Without one, compute it again from silver: {away}make materialize SELECT='key:\"gold/{place.name}\"'"
    return "Without one, see docs/operations.md: A table is damaged."
