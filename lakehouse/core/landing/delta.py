"""Files that another writer's Delta table has brought: the data files of its commits, as if each had landed.

What others own they compact, clean up and vacuum when they like, so the commits are followed, not the files of the moment: a
file counts when its commit says that it brought data, even if it was compacted away since, for as long as it is in the folder.
Where the commits that brought the present files are gone, or a file that was never read is, the present files count, compacted
ones too: a record may then be delivered twice, which silver sees through, but none is missed.

Rows that the writer deletes stay: bronze is what was delivered.
"""

import json
import re
from collections.abc import Collection
from urllib.parse import unquote

from lakehouse.core import files
from lakehouse.core.damage import commit_actions
from lakehouse.core.delta import open_existing
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.storage import LandedFile

_COMMIT = re.compile(r"\d{20}\.json")


def brought(uri: str, *, known: Collection[str]) -> list[LandedFile]:
    """The files that count, in path order, relative to the table.

    Args:
        known: paths that were read before.

    Raises:
        BrokenTableError: there is no such table, or it cannot be read.
        DeclarationError: its data files do not hold all of its rows' values (partitions, deletion vectors, mapped names).
    """
    table = open_existing(uri)
    if table is None:
        raise BrokenTableError(f"There is no Delta table in {uri}.", remedy="Look at the DeltaSource of the table's spec.")
    live = {file.path: file.size for file in table.files}
    log = f"{uri}/_delta_log"
    commits = sorted(name for name in files.names_in(log) if _COMMIT.fullmatch(name))
    new: dict[str, int] = {}
    for name in commits:
        for action in commit_actions(f"{log}/{name}"):
            add = action.get("add")
            if isinstance(add, dict) and add.get("dataChange", True):
                new[unquote(add["path"])] = int(add["size"])
    _check(uri, table.table.metadata(), table.table.protocol())
    there = {path: found for path, found in files.listing(uri, below=True).items() if not path.startswith("_")}
    lost = [path for path in new if path not in there and path not in known]
    wanted = {path for path in new if path in there}
    if lost or not commits or int(commits[0].removesuffix(".json")):
        wanted |= set(live)
    return [LandedFile(path, there[path].size, "as committed", there[path].modified) for path in sorted(wanted) if path in there]


def _check(uri: str, metadata: object, protocol: object) -> None:
    partitions = list(getattr(metadata, "partition_columns", None) or [])
    settings = dict(getattr(metadata, "configuration", None) or {})
    features = [*(getattr(protocol, "reader_features", None) or [])]
    mapped = settings.get("delta.columnMapping.mode", "none") != "none"
    if partitions or mapped or "deletionVectors" in features:
        has = (
            f"is partitioned by {', '.join(partitions)}"
            if partitions
            else "maps its columns"
            if mapped
            else "has deletion vectors"
        )
        raise DeclarationError(
            f"The Delta table {uri} {has}, so its data files alone do not say what its rows are.",
            remedy="Let its writer keep a plain table, or land its records as files.",
        )


def state(uri: str) -> str:
    """A word that changes when the table has a new commit; empty when there is no table.

    Raises:
        BrokenTableError: it cannot be read.
    """
    table = open_existing(uri)
    return "" if table is None else json.dumps([table.id, table.version])
