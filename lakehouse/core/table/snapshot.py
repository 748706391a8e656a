"""Snapshot: a Delta table as it was when it was opened: its files with their statistics, its watermarks and commits.

What is damaged is refused by name when it is opened or read (`recovery.py`). What is staged against a snapshot and committed
is in `transaction.py`. Nothing here knows layers or specs.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from lakehouse.core.errors import BrokenTableError, ConflictError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.store.conformance import check_store
from lakehouse.core.store.durability import make_folder
from lakehouse.core.table import torn
from lakehouse.core.table.provenance import Commit, Provenance, read_commit
from lakehouse.core.table.recovery import check_files, check_log, check_no_data, commit_actions, explain

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema

#: delta-rs would remove commits after 30 days by itself, also those that a kept version needs: the maintenance does it.
OWN_CLEANUP = "delta.enableExpiredLogCleanup"
#: Every opening reads all commits since the last checkpoint: of 40, 22 ms of CPU in a folder, and as many requests in a
#: bucket. delta-rs would write one every 100 commits, Spark does every 10.
_PROPERTIES = {"delta.checkpointInterval": "10", OWN_CLEANUP: "false"}
#: Nobody's data can hold this process's own mark.
_DECIMAL = f"decimal-{uuid.uuid4().hex}:"
_PRIMITIVES = {"bigint": "long", "int": "integer"}
#: In the metadata of a column: the delivered fields that have it for a name, as a JSON list. The first has the column, the
#: others are in `_extra`.
_FIELDS = "lakehouse.fields"


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table. `stats` is Delta's statistics record as JSON; bounds are by column name."""

    path: str
    size: int
    rows: int
    lower: Mapping[str, Any]
    upper: Mapping[str, Any]
    stats: str = ""
    nulls: Mapping[str, int] = field(default_factory=dict)
    partition: Mapping[str, str | None] | None = None


def delta_schema(columns: Mapping[str, str]) -> "Schema":
    """The Delta schema of `{column: spec type}`; every column may be null."""
    from deltalake import Field, Schema
    from deltalake.schema import PrimitiveType

    return Schema([Field(name, PrimitiveType(_PRIMITIVES.get(kind, kind)), nullable=True) for name, kind in columns.items()])


def spec_columns(schema: "Schema") -> dict[str, str]:
    """`{column: spec type}` of a Delta schema."""
    return {field.name: spec_type(str(getattr(field.type, "type", field.type))) for field in schema.fields}


def spec_type(kind: str) -> str:
    """A Delta type in the words of the specs; itself where they have none for it."""
    return {delta: spec for spec, delta in _PRIMITIVES.items()}.get(kind, kind)


class Snapshot:
    """A table as it was when it was opened. Read from it, stage against it, commit onto it; then open it again."""

    def __init__(self, table: "DeltaTable", uri: str) -> None:
        self.table = table
        self.uri = uri
        self.version: int = table.version()
        self._files: tuple[DataFile, ...] | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The data files with their key statistics, in path order."""
        if self._files is None:
            with _explained(self.uri, self.version):
                actions = self.table.get_add_actions(flatten=True).to_struct_array()
                rows = cast("list[dict[str, Any]]", actions.to_pylist())
            self._files = tuple(sorted(_data_files(rows), key=lambda file: file.path))
        return self._files

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """The columns by whose values the data files are kept apart."""
        return tuple(self.table.metadata().partition_columns)

    @property
    def id(self) -> str:
        """The table's own id: another one when it was removed and made again."""
        return str(self.table.metadata().id)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def columns(self) -> dict[str, str]:
        """`{column: type}` in the words of the specs."""
        return spec_columns(self.table.schema())

    @property
    def fields(self) -> dict[str, tuple[str, ...]]:
        """By column the delivered fields that have it for a name: the first is in the column, the others are in `_extra`. A
        column that an earlier release made does not know."""
        known = {field.name: field.metadata.get(_FIELDS) for field in self.table.schema().fields}
        return {name: tuple(json.loads(str(names))) for name, names in known.items() if names}

    def paths(self, files: Sequence[DataFile] | None = None) -> list[str]:
        """Absolute paths of the given data files, or of all, to be read: each is there and has the size that the log says.

        Raises:
            BrokenTableError: one is missing or has another size.
        """
        chosen = self.files if files is None else files
        self.check(chosen)
        return [f"{self.uri}/{file.path}" for file in chosen]

    def check(self, files: Sequence[DataFile] | None = None) -> None:
        """Refuse damaged data files, of these or of all.

        Raises:
            BrokenTableError: one is missing or has another size.
        """
        check_files(self.uri, ((f.path, f.size, f.rows) for f in (self.files if files is None else files)))

    def watermark(self, app: str) -> int:
        """The last number committed under `app`, 0 when there is none (Delta's application transactions)."""
        return self.table.transaction_version(app) or 0

    def commits(self, *, since: int = -1) -> list[Commit]:
        """The commits after version `since`, oldest first. Those whose log was cleaned up are missing."""
        # Not deltalake's history(): it returns the newest commits of the table as it is now, numbered from this snapshot.
        return [commit for version in range(since + 1, self.version + 1) for commit in self._commits_of(version) or ()]

    def committed_at(self, version: int) -> datetime | None:
        """When a version was committed, as its writer has it; None when the log no longer has the commit, or it does not say."""
        found = self._commits_of(version) or ()
        return max((commit.at for commit in found if commit.at is not None), default=None)

    def last_commit(self) -> Commit | None:
        """The newest commit of ours that delivered content; None when the log has none. Maintenance delivers none."""
        for version in range(self.version, -1, -1):
            found = self._commits_of(version)
            if found is None:
                break
            for commit in reversed(found):
                if commit.id and not commit.provenance.maintenance:
                    return commit
        return None

    @property
    def provenance(self) -> Provenance:
        """Where the content comes from, as the newest commit that delivered some reports it."""
        last = self.last_commit()
        return last.provenance if last is not None else Provenance()

    def _commits_of(self, version: int) -> list[Commit] | None:
        """What one version of the log says of its commit; None when it was cleaned up (a checkpoint does not hold it)."""
        try:
            actions = commit_actions(f"{self.uri}/_delta_log/{version:020}.json")
        except FileNotFoundError:
            return None
        infos = [cast("dict[str, Any]", action["commitInfo"]) for action in actions if "commitInfo" in action]
        return [read_commit(version, info) for info in infos]

    def add_columns(self, columns: Mapping[str, str], fields: Mapping[str, Sequence[str]] | None = None) -> "Snapshot":
        """Add nullable columns in a commit of their own and return the new snapshot.

        Args:
            fields: by column, new or not, the delivered fields that have it for a name. One commit for each column that is there.

        Raises:
            ConflictError: another commit came first.
        """
        from deltalake import Field
        from deltalake.exceptions import DeltaError

        metadata = {name: {_FIELDS: json.dumps(list(names), ensure_ascii=False)} for name, names in (fields or {}).items()}
        if not columns and not metadata:
            return self
        try:
            new = [Field(f.name, f.type, metadata=metadata.pop(f.name, None)) for f in delta_schema(columns).fields]
            if new:
                self.table.alter.add_columns(new)
            for name, known in metadata.items():
                self.table.alter.set_column_metadata(name, known)
        except (DeltaError, OSError) as error:
            self.raise_conflict(error)
            raise
        torn.report(self.uri)
        return Snapshot(self.table, self.uri)

    def set_properties(self, properties: Mapping[str, str]) -> "Snapshot":
        """Set properties of the table in a commit of its own and return the new snapshot."""
        self.table.alter.set_table_properties(dict(properties))
        torn.report(self.uri)
        return Snapshot(self.table, self.uri)

    def checkpoint(self) -> None:
        """Write a checkpoint of this version, durably: the commits before it may then go."""
        self.table.create_checkpoint()
        torn.report(self.uri)

    def raise_conflict(self, error: Exception) -> None:
        """Say that another writer was first, if one was; otherwise the error is its own explanation."""
        fresh = open_existing(self.uri)
        if fresh is not None and fresh.version > self.version:
            raise ConflictError(
                f"Another writer committed to {self.uri} after version {self.version}.",
                remedy="Nothing of this run became visible; run it again.",
            ) from error


def open_existing(uri: str, *, version: int | None = None) -> Snapshot | None:
    """The table at `uri`, or None when there is none. What a power cut had torn before it was reported is set aside.

    Raises:
        BrokenTableError: there is a log, but it cannot be read (or not at this version); or data files without one.
    """
    try:
        found = _opened(uri, version)
    except BrokenTableError:
        if version is not None or not torn.put_back(uri):
            raise
        return _opened(uri, version)
    if found is not None and version is None and torn.is_alone(uri, found.version) and torn.put_back(uri):
        return _opened(uri, version)
    return found


def _opened(uri: str, version: int | None) -> Snapshot | None:
    from deltalake import DeltaTable

    options = stored.options(uri)
    if is_remote(uri):  # delta-rs would try for minutes
        stored.reach(stored.bucket(uri))
    with _explained(uri, version):
        there = DeltaTable.is_deltatable(uri, options)
    if not there:
        check_no_data(uri)
        return None
    with _explained(uri, version):
        found = Snapshot(DeltaTable(uri, version=version, storage_options=options), uri)
    check_log(uri, found.version)
    return found


@contextmanager
def _explained(uri: str, version: int | None) -> Iterator[None]:
    """Say what deltalake's errors mean."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError, ValueError) as error:
        raise explain(uri, error, version=version) from error


def open_table(uri: str, columns: Mapping[str, str], *, partition_by: Sequence[str] = ()) -> Snapshot:
    """The table at `uri`, made empty with these columns when it is not there. Two makers at once get the same table."""
    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import CommitFailedError

    found = open_existing(uri)
    if found is None:
        if is_remote(uri):
            check_store(stored.bucket(uri))
        else:
            make_folder(uri)
            torn.create_mark(uri)
        # The second of two makers must fail: rebased, it would put its columns over what the first has done since.
        with suppress(CommitFailedError):
            DeltaTable.create(
                uri,
                delta_schema(columns),
                mode="ignore",
                partition_by=list(partition_by) or None,
                configuration=_PROPERTIES,
                commit_properties=CommitProperties(max_commit_retries=0),
                storage_options=stored.options(uri),
            )
        found = open_existing(uri)
        if found is not None:
            torn.report(uri)
    if found is None:
        raise BrokenTableError(f"The table {uri} could not be created.", remedy="Check the folder's permissions.")
    return found


def _data_files(rows: Sequence[Mapping[str, Any]]) -> Iterator[DataFile]:
    """What the log says of each file. All rows have the same names, `<kind>.<column>`; a table may have thousands of rows."""
    kinds = ("min.", "max.", "null_count.", "partition.")
    names = [[(key, key.removeprefix(kind)) for key in (rows[0] if rows else ()) if key.startswith(kind)] for kind in kinds]
    for row in rows:
        if row["num_records"] is None:
            raise BrokenTableError(
                f"The data file {row['path']} has no record count in the log.",
                remedy="Rewrite it with a writer that keeps statistics (delta.dataSkippingNumIndexedCols).",
            )
        lower, upper, nulls, partition = ({name: row[key] for key, name in of_kind} for of_kind in names)
        yield DataFile(
            row["path"],
            row["size_bytes"],
            row["num_records"],
            lower,
            upper,
            nulls=nulls,
            partition={name: None if value is None else str(value) for name, value in partition.items()} or None,
        )


def stats_json(rows: int, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Delta's statistics record. `columns` maps a name to `min`, `max` (JSON-ready or absent) and `nulls`."""
    record = {
        "numRecords": rows,
        "minValues": {name: stat["min"] for name, stat in columns.items() if stat.get("min") is not None},
        "maxValues": {name: stat["max"] for name, stat in columns.items() if stat.get("max") is not None},
        "nullCount": {name: stat["nulls"] for name, stat in columns.items() if stat.get("nulls") is not None},
    }
    text = json.dumps(record, ensure_ascii=False, default=_decimal)
    return re.sub(f'"{_DECIMAL}(-?[0-9.]+)"', r"\1", text)


def _decimal(value: Any) -> str:
    """Delta wants decimals as JSON numbers, and a double would not hold 38 digits: marked here, unquoted above."""
    if isinstance(value, Decimal):
        return f"{_DECIMAL}{value:f}"
    raise TypeError(f"{value!r} is not a Delta statistic")


def require_table(uri: str, table: object, *, version: int | None = None, remedy: str = "") -> Snapshot:
    """The table at `uri`, now or at a version, where it must exist.

    Args:
        table: what the error calls it: the name of an asset of the lake, or the URI of a table that is not one.
        remedy: what the error says to do; to materialise the asset, where it says nothing.

    Raises:
        BrokenTableError: the table does not exist, or cannot be read (at this version).
    """
    found = open_existing(uri, version=version)
    if found is None:
        command = f"make materialize SELECT='key:\"{table}\"'"
        raise BrokenTableError(f"The table {table} does not exist.", remedy=remedy or f"Materialise it: {command}.")
    return found
