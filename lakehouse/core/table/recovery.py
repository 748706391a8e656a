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
from typing import Any, cast

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.store.files import Found

#: In a commit's information: the actions that it holds, `{"add": 2, "remove": 0, ...}` as JSON.
ACTIONS = "lakehouse.actions"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.[^/]+)?\.(parquet|json)")
_POINTER = "_last_checkpoint"


def check_log(uri: str, version: int) -> None:
    """Refuse a log that can be read, but not as it was written.

    Raises:
        BrokenTableError: a commit that makes up this version is empty or was cut off.
    """
    commits, checkpoints = listed(uri)
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
    known = damage(uri, version=version)
    if known is not None:
        return known
    reported = " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return BrokenTableError(f"The Delta log of {uri} cannot be read: {reported}.", remedy=_restore(uri))


def damage(uri: str, *, version: int | None) -> BrokenTableError | None:
    """What is wrong with the log of a table, None where nothing is found."""
    commits, checkpoints = listed(uri)
    newest = max([*commits, *checkpoints], default=-1)
    if version is not None and version > newest:
        what = f"{uri} cannot be read at version {version}: its newest is {newest}."
        return BrokenTableError(what, remedy="Ask for a version that there is.")
    last = newest if version is None else version
    begin = max((number for number in checkpoints if number <= last), default=-1)
    whole = all(number in commits for number in range(last + 1))
    pointer = f"{uri}/_delta_log/{_POINTER}"
    for path in checkpoints.get(begin, ()):
        if not is_whole(path):
            what = f"The checkpoint {path} is cut off or garbled."
            return BrokenTableError(what, remedy=_remove(path, pointer) if whole else _restore(uri))
    if pointed(pointer) not in (None, *checkpoints) and (whole or begin >= 0):
        return BrokenTableError(f"{pointer} names a checkpoint that is not there.", remedy=_remove(pointer))
    try:
        _check_commits(uri, (path for number, path in sorted(commits.items()) if begin < number <= last))
    except BrokenTableError as found:
        return found
    missing = [number for number in range(begin + 1, last + 1) if number not in commits]
    if missing:
        named = f"{missing[0]:020}.json" + (f" to {missing[-1]:020}.json" if len(missing) > 1 else "")
        return BrokenTableError(f"{named} is missing in {uri}/_delta_log.", remedy=_restore(uri))
    return None


def newest_action(uri: str, kind: str, *, version: int | None) -> Mapping[str, Any] | None:
    """The newest action of a kind (`protocol`, `metaData`) in the log at a version, None where its last checkpoint and the
    commits since have none.

    Raises:
        BrokenTableError: a commit is not JSON line by line.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    commits, checkpoints = listed(uri)
    last = max([*commits, *checkpoints], default=-1) if version is None else version
    begin = max((number for number in checkpoints if number <= last), default=-1)
    for number in sorted((number for number in commits if begin < number <= last), reverse=True):
        found = [action[kind] for action in commit_actions(commits[number]) if kind in action]
        if found:
            return cast("Mapping[str, Any]", found[-1])
    for path in checkpoints.get(begin, ()):
        if path.endswith(".json"):
            rows = [action.get(kind) for action in commit_actions(path)]
        else:
            part = pq.ParquetFile(pa.BufferReader(stored.read(path)))
            rows = part.read([kind]).column(0).to_pylist() if kind in part.schema_arrow.names else []
        for row in rows:
            if row is not None:
                return cast("Mapping[str, Any]", row)
    return None


def undecodable(uri: str, error: Exception) -> BrokenTableError:
    """What an engine cannot decode, although every data file has the size that the log says."""
    reported = " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return BrokenTableError(f"A data file of {uri} is damaged: {reported}.", remedy=_restore(uri))


def listed(uri: str) -> tuple[dict[int, str], dict[int, list[str]]]:
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
            found = problem(path)
        except FileNotFoundError:  # cleaned up since it was listed
            continue
        if found:
            raise BrokenTableError(f"The commit {path} {found}.", remedy=_restore(uri))


def problem(path: str) -> str:
    """What is wrong with a commit file, empty when nothing is.

    Raises:
        FileNotFoundError: there is none.
    """
    # What is in a store was put there whole, and is never put there again.
    return _problem(path, "" if is_remote(path) else stored.stat(path).version)


@lru_cache(maxsize=10_000)
def _problem(path: str, version: str) -> str:
    """What is wrong with a commit file, empty when nothing is; looked at once while its version stays."""
    try:
        actions = _actions(path)
    except ValueError:
        return "is cut off or garbled"
    if not actions:
        return "is empty"
    counts = Counter(kind for action in actions for kind in action)
    for action in actions:
        information = action.get("commitInfo")
        declared = json.loads(information.get(ACTIONS, "{}")) if isinstance(information, dict) else {}
        for kind, count in declared.items():
            if counts[kind] < count:
                return f"is cut off: it holds {counts[kind]} of {count} actions of kind {kind}"
    return ""


def _actions(path: str) -> list[Mapping[str, object]]:
    found = [json.loads(line) for line in stored.read(path).split(b"\n") if line.strip()]
    if not all(isinstance(action, dict) for action in found):
        raise ValueError(f"{path} holds something else than actions")
    return found


def is_whole(path: str) -> bool:
    """Whether a checkpoint can be read to its end; one that was cut, or of which the disk has a part, cannot."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.endswith(".json"):  # of another writer
            _actions(path)
            return True
        pq.read_table(pa.BufferReader(stored.read(path)))
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def pointed(pointer: str) -> int | None:
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
