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

from lakehouse.core import files as stored
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.files import Found, is_remote

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
    there = _Sizes(uri)
    for path, size, rows in files:
        try:
            found = there.size(path)
        except OSError as error:
            wrong = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        else:
            if found == size:
                continue
            wrong = f"has {found:,} bytes instead of {size:,}"
        raise BrokenTableError(
            f"The data file {uri}/{path} {wrong}; {rows:,} rows of the table were in it.",
            remedy=f"Put it back from a backup. {_without_backup(uri, readable=True)}",
        )


class _Sizes:
    """Sizes of a table's data files; of an object store one listing tells those of a folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.listed: dict[str, dict[str, Found]] = {}

    def size(self, path: str) -> int:
        """Of one file in bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        if not is_remote(self.uri):
            return os.stat(f"{self.uri}/{path}").st_size  # noqa: PTH116 - a Path for each of thousands costs more
        folder, name = os.path.split(path)
        if folder not in self.listed:
            self.listed[folder] = stored.listing(f"{self.uri}/{folder}".rstrip("/"))
        if name not in self.listed[folder]:
            raise FileNotFoundError(path)
        return self.listed[folder][name].size


def check_no_data(uri: str) -> None:
    """Refuse to take a folder with data files for one without a table.

    Raises:
        BrokenTableError: its log is gone.
    """
    count = sum(name.endswith(".parquet") for name in stored.listing(uri))
    if count:
        raise BrokenTableError(
            f"There are {count:,} data files in {uri}, but no commit in its _delta_log.",
            remedy=f"Put the log back from a backup. {_without_backup(uri)}",
        )


def commit_actions(path: str) -> list[Mapping[str, object]]:
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
    pointer = f"{uri}/_delta_log/{_POINTER}"
    for path in checkpoints.get(begin, ()):
        if not _is_parquet(path):
            what = f"The checkpoint {path} is cut off or garbled."
            return BrokenTableError(what, remedy=_remove(path, pointer) if whole else _restore(uri))
    if _pointed(pointer) not in (None, *checkpoints) and (whole or begin >= 0):
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


def _listed(uri: str) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Commit files by version, and the files of checkpoints by version."""
    commits: dict[int, str] = {}
    checkpoints: dict[int, list[str]] = {}
    log = f"{uri}/_delta_log"
    for name in stored.names_in(log):
        if found := _COMMIT.fullmatch(name):
            commits[int(found[1])] = f"{log}/{name}"
        elif found := _CHECKPOINT.fullmatch(name):
            checkpoints.setdefault(int(found[1]), []).append(f"{log}/{name}")
    return commits, checkpoints


def _check_commits(uri: str, paths: Iterable[str]) -> None:
    for path in paths:
        try:
            # What is in a store was put there whole, and is never put there again.
            problem = _problem(path, "" if is_remote(uri) else stored.stat(path).version)
        except FileNotFoundError:  # cleaned up since it was listed
            continue
        if problem:
            raise BrokenTableError(f"The commit {path} {problem}.", remedy=_restore(uri))


@lru_cache(maxsize=10_000)
def _problem(path: str, version: str) -> str:
    """What is wrong with a commit file, empty when nothing is; looked at once while its version stays."""
    try:
        actions = _actions(path)
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


def _actions(path: str) -> list[Mapping[str, object]]:
    found = [json.loads(line) for line in stored.read(path).split(b"\n") if line.strip()]
    if not all(isinstance(action, dict) for action in found):
        raise ValueError(f"{path} holds something else than actions")
    return found


def _is_parquet(path: str) -> bool:
    """Whether a file begins and ends as Parquet does; one that was cut does not."""
    content = stored.read(path)
    return content[:4] == content[-4:] == _MAGIC


def _pointed(pointer: str) -> int | None:
    """The version that the pointer to the last checkpoint names, None where it names none (Delta then looks for itself)."""
    try:
        return int(json.loads(stored.read(pointer))["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _remove(*paths: str) -> str:
    if is_remote(paths[0]):
        return f"Its commits hold all that it held; remove {' and '.join(paths)} from the store."
    return f"Its commits hold all that it held; remove it: rm -f {' '.join(map(shlex.quote, paths))}"


def _restore(uri: str) -> str:
    return f"Put it back from a backup. {_without_backup(uri)}"


def _without_backup(uri: str, *, readable: bool = False) -> str:
    """How a table comes back that is computed from others; those that are not are told of in the docs.

    The layer is read from the folder: where a layer has a root of its own this is not known, and the docs are named.
    """
    layer, table = uri.split("/")[-2:]
    away = f"mv {shlex.quote(uri)} {shlex.quote(uri + '.broken')} && "
    if is_remote(uri):
        away = f"move {uri} to {uri}.broken, then "
    if layer == "silver":  # a rebuild reads the log and no data file
        return f"Without one, compute it again from bronze: {'' if readable else away}make rebuild TABLE={table}"
    if layer == "gold":
        return f"Without one, compute it again from silver: {away}make materialize SELECT='key:\"gold/{table}\"'"
    return "Without one, see docs/operations.md: A table is damaged."
