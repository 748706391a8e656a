"""Changes of another writer's table between two versions, from its commits; and tables of some of its files alone.

    commits ─▶ changes(): files whose rows came, files whose rows went ─▶ table_of(): a log of ours that names those files

A commit with `dataChange=false` (OPTIMIZE) says that it changes no row, so the rows of the newer version are those of the older
one, and of the files that came, without those of the files that went, each row as often as it is there. A file is the same only
with the same deletion vector. The log that names the files is in a folder of ours: the table is only read.
"""

import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.table.foreign import ForeignTable, located, require_foreign
from lakehouse.core.table.recovery import commit_actions, newest_action

Action = Mapping[str, Any]
#: Of the protocol's text for 32 bits in five characters.
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_UUID_TEXT = 20


@dataclass(frozen=True)
class Changes:
    """Files whose rows came, and files whose rows went: actions `add` and `remove`, without their names."""

    added: tuple[Action, ...]
    removed: tuple[Action, ...]


def changes(uri: str, since: int, until: int, *, read: Collection[str] = ()) -> Changes | None:
    """What the commits after version `since` up to `until` change; None where one of them was cleaned up.

    Args:
        read: paths of files that were read although they came after `since`: none of their rows is new.

    Raises:
        BrokenTableError: a commit is not JSON line by line, or names no file.
    """
    added: dict[tuple[str, str], Action] = {}
    removed: dict[tuple[str, str], Action] = {}
    for version in range(since + 1, until + 1):
        try:
            found = file_actions(uri, version)
        except FileNotFoundError:
            return None
        for kind, mine, other in (("remove", removed, added), ("add", added, removed)):
            for change in found[kind]:
                if not change.get("dataChange", True):
                    continue
                key = located(uri, change["path"]), json.dumps(change.get("deletionVector"), sort_keys=True)
                known = kind == "add" and not change.get("deletionVector") and unquote(change["path"]) in read
                if other.pop(key, None) is None and not known:
                    mine[key] = change
    return Changes(tuple(added.values()), tuple(removed.values()))


def file_actions(uri: str, version: int) -> dict[str, list[Action]]:
    """The actions `add` and `remove` of a commit, by that name.

    Raises:
        FileNotFoundError: it was cleaned up.
        BrokenTableError: it is not JSON line by line, or names no file.
    """
    path = f"{uri}/_delta_log/{version:020}.json"
    actions = commit_actions(path)
    found = {kind: [action[kind] for action in actions if action.get(kind) is not None] for kind in ("add", "remove")}
    for kind, changed in found.items():
        if not all(isinstance(change, dict) and isinstance(change.get("path"), str) for change in changed):
            raise BrokenTableError(
                f"The commit {path} has an action {kind} that names no file.", remedy="Have its writer put it right."
            )
    return cast("dict[str, list[Action]]", found)


def table_of(table: ForeignTable, actions: Sequence[Action], folder: str) -> ForeignTable | None:
    """The table as if these files were all of it, with the names and types of its version; None where the actions do not say
    enough (an older writer's `remove` has no partition values).

    Args:
        folder: of this machine, for its log, and for copies of what is in an object store.

    Raises:
        BrokenTableError: a file is gone.
    """
    if table.partition_columns and any(action.get("partitionValues") is None for action in actions):
        return None
    target = Path(folder, uuid.uuid4().hex)
    lines = [*_described(table), *({"add": _added(table, action, target)} for action in actions)]
    log = target / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = require_foreign(str(target), timezone=table.timezone, remedy="")
    return replace(found, origin=table.uri)


def _described(table: ForeignTable) -> list[Action]:
    """Protocol and metadata, without what only writers look at."""
    metadata = newest_action(table.uri, "metaData", version=table.version) or {}
    features = [*table.features] if table.table.protocol().reader_features else []
    reader = 3 if features else 2 if table.features else 1
    protocol: dict[str, Any] = {"minReaderVersion": reader, "minWriterVersion": {1: 2, 2: 5, 3: 7}[reader]}
    if features:
        protocol |= {"readerFeatures": features, "writerFeatures": features}
    settings = dict(metadata.get("configuration") or {})  # a checkpoint has pairs
    mapping = {name: value for name, value in settings.items() if name.startswith("delta.columnMapping.")}
    described = {name: metadata[name] for name in ("id", "schemaString", "partitionColumns")}
    described |= {"format": {"provider": "parquet", "options": {}}, "configuration": mapping, "createdTime": 0}
    return [{"protocol": protocol}, {"metaData": described}]


def _added(table: ForeignTable, action: Action, folder: Path) -> Action:
    path = _here(table, located(table.uri, action["path"]), folder)
    add = {"path": _url(path), "size": os.stat(path).st_size, "modificationTime": 0, "dataChange": True}  # noqa: PTH116
    add["partitionValues"] = dict(action.get("partitionValues") or {})
    vector = action.get("deletionVector")
    if vector and vector["storageType"] != "i":
        of = located(table.uri, vector["pathOrInlineDv"]) if vector["storageType"] == "p" else _vector_file(table.uri, vector)
        vector = {**vector, "storageType": "p", "pathOrInlineDv": _url(_here(table, of, folder))}
    return {**add, "deletionVector": vector} if vector else add


def _here(table: ForeignTable, uri: str, folder: Path) -> str:
    """A file on this machine: itself, or a copy."""
    path = uri
    try:
        if is_remote(uri):
            path = str(folder / f"{uuid.uuid4().hex}.{uri.rpartition('.')[2]}")
            stored.fetch({uri: path})
        elif not Path(uri).is_file():
            raise FileNotFoundError(uri)  # noqa: TRY301
    except FileNotFoundError as error:
        raise BrokenTableError(
            f"The file {uri} of the Delta table {table.uri} is missing.", remedy="Have its writer put it right."
        ) from error
    return path


def _vector_file(uri: str, vector: Action) -> str:
    """Where a deletion vector is that is named by a number: any folder's name, then the number as text."""
    text = vector["pathOrInlineDv"]
    prefix, coded = text[:-_UUID_TEXT], text[-_UUID_TEXT:]
    words = [coded[at : at + 5] for at in range(0, _UUID_TEXT, 5)]
    number = b"".join(sum(_Z85.index(sign) * 85 ** (4 - at) for at, sign in enumerate(word)).to_bytes(4, "big") for word in words)
    return f"{uri}/{f'{prefix}/' if prefix else ''}deletion_vector_{uuid.UUID(bytes=number)}.bin"


def _url(path: str) -> str:
    return f"file://{quote(path)}"
