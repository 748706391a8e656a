"""What a backup consists of: its tables, files and databases, what its proof has shown, and how a backup can be damaged.

Belongs here: the records that `backup.py` writes to a manifest and a proof, as JSON, and reads back. Does not: any I/O.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef


class BrokenBackupError(LakehouseError):
    """A backup does not hold what its manifest says. Nothing was put in a table's place."""


class AlteredError(BrokenBackupError):
    """An object of a backup is not what was copied."""

    def __init__(self, location: str, path: str) -> None:
        remedy = (
            "Its storage altered it. Use another backup: AT=<time>; make prove puts it aside, and make backup copies it anew."
        )
        super().__init__(f"{location}, which is {path}, is not what was backed up.", remedy=remedy)
        self.location = location


@dataclass(frozen=True)
class Copied:
    """One file of a backup; `tag` says whether the original has been written since."""

    size: int
    sha: str
    tag: str


@dataclass(frozen=True)
class Table:
    """One table of a backup, at one version; `files` are those of its data and its log, by path below the table."""

    id: str
    version: int
    rows: int
    files: Mapping[str, Copied]

    @property
    def content(self) -> str:
        """A hash of all that makes up the table."""
        return content_hash({path: file.sha for path, file in self.files.items()})


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What one backup holds. `skipped` are tables that could not be copied, each with the reason."""

    name: str
    tables: Mapping[TableRef, Table]
    databases: Mapping[str, Copied] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> set[str]:
        return {file.sha for table in self.tables.values() for file in table.files.values()} | {
            file.sha for file in self.databases.values()
        }


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What restoring a backup has shown: the tables (and databases) that came back the same, and those that did not.

    `unchanged` are those of which an earlier backup had the same content and was proven; they were not restored again.
    """

    name: str
    proven: Sequence[str]
    unchanged: Sequence[str]
    damaged: Mapping[str, str]
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A backup that was made; `read` are the files of the lake that were read, `written` those that were new."""

    backup: Backup
    read: int
    written: int
    written_bytes: int


def content_hash(files: Mapping[str, str]) -> str:
    """One hash of files by path and SHA-256."""
    return hashlib.sha256("".join(f"{path}\0{sha}\n" for path, sha in sorted(files.items())).encode()).hexdigest()


def table_ref(key: str) -> TableRef:
    layer, _, table = key.partition("/")
    return TableRef(layer, table)  # type: ignore[arg-type]  # refuses what is no layer


def copied(files: Mapping[str, Any]) -> dict[str, Copied]:
    return {name: Copied(**file) for name, file in files.items()}
