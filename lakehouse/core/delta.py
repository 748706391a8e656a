"""Delta tables: opened snapshots, staged data files, and the one fenced commit that makes them visible.

    snapshot = open_table(uri, schema)             # the fence: everything below belongs to this version
    files = session.write(frame, uri, ...)         # data files are in the table's folder, but in no version of it
    snapshot.commit(add=files, remove=..., ...)    # compare-and-swap: fails if anyone committed since the snapshot

delta-rs checks little on such a commit (experiment: missing files, wrong sizes and wrong types were all accepted), so sizes
come from the file system and types from the contract that the files were cast to. What is damaged is refused by name when it
is opened or read (`core/damage.py`). Nothing here knows layers or specs.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lakehouse.core import files as stored
from lakehouse.core.damage import ACTIONS, check_files, check_log, check_no_data, commit_actions, explain
from lakehouse.core.doctor import check_store
from lakehouse.core.errors import BrokenTableError, ConflictError, LakehouseError, RefusedWriteError
from lakehouse.core.files import is_remote

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema

T = TypeVar("T")
META = "lakehouse."
#: In the metadata of a commit that changes no row of the table: which work it is.
MAINTENANCE = "maintenance"
#: delta-rs would remove commits after 30 days by itself, also those that a kept version needs: the maintenance does it.
OWN_CLEANUP = "delta.enableExpiredLogCleanup"
#: Every opening reads all commits since the last checkpoint: of 40, 22 ms of CPU in a folder, and as many requests in a
#: bucket. delta-rs would write one every 100 commits, Spark does every 10.
_PROPERTIES = {"delta.checkpointInterval": "10", OWN_CLEANUP: "false"}
#: Nobody's data can hold this process's own mark.
_DECIMAL = f"decimal-{uuid.uuid4().hex}:"
_PRIMITIVES = {"bigint": "long", "int": "integer"}


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


def _spec_columns(schema: "Schema") -> dict[str, str]:
    back = {delta: spec for spec, delta in _PRIMITIVES.items()}
    kinds = {field.name: str(getattr(field.type, "type", field.type)) for field in schema.fields}
    return {name: back.get(kind, kind) for name, kind in kinds.items()}


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
        return _spec_columns(self.table.schema())

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

    def transaction(self, app: str) -> int:
        """The last application transaction committed under `app`, 0 when there is none."""
        return self.table.transaction_version(app) or 0

    def commit_info(self, *, since: int = -1) -> list[dict[str, Any]]:
        """Our own metadata of the commits after version `since`, oldest first, each with its `version` and `timestamp` (ms)."""
        # Not deltalake's history(): it returns the newest commits of the table as it is now, numbered from this snapshot.
        return [entry for version in range(since + 1, self.version + 1) for entry in self._info_of(version) or ()]

    def last_info(self) -> dict[str, Any]:
        """Our metadata of the newest commit that brought content, `{}` when the log has none: maintenance says nothing of it."""
        for version in range(self.version, -1, -1):
            found = self._info_of(version)
            if found is None:
                break
            for entry in reversed(found):
                if "commit_id" in entry and MAINTENANCE not in entry:
                    return entry
        return {}

    def _info_of(self, version: int) -> list[dict[str, Any]] | None:
        """Our metadata of one commit; None when it was cleaned up (a checkpoint holds no commit information)."""
        try:
            actions = commit_actions(f"{self.uri}/_delta_log/{version:020}.json")
        except FileNotFoundError:
            return None
        out = []
        for info in (cast("dict[str, Any]", action["commitInfo"]) for action in actions if "commitInfo" in action):
            own = {key[len(META) :]: value for key, value in info.items() if key.startswith(META)}
            out.append({**own, "version": version, "timestamp": info.get("timestamp", 0)})
        return out

    def add_columns(self, columns: Mapping[str, str]) -> "Snapshot":
        """Add nullable columns in a commit of their own and return the new snapshot.

        Raises:
            ConflictError: another commit came first.
        """
        from deltalake.exceptions import DeltaError

        if not columns:
            return self
        try:
            self.table.alter.add_columns(list(delta_schema(columns).fields))
        except (DeltaError, OSError) as error:
            self._raise_conflict(error)
            raise
        return Snapshot(self.table, self.uri)

    def _raise_conflict(self, error: Exception) -> None:
        """Say that another writer was first, if one was; otherwise the error is its own explanation."""
        fresh = open_existing(self.uri)
        if fresh is not None and fresh.version > self.version:
            raise ConflictError(
                f"Another writer committed to {self.uri} after version {self.version}.",
                remedy="Nothing of this run became visible; run it again.",
            ) from error

    def commit(
        self,
        *,
        add: Sequence[DataFile],
        remove: Sequence[DataFile] = (),
        transactions: Mapping[str, int] | None = None,
        info: Mapping[str, str] | None = None,
        schema: "Schema | None" = None,
        data_change: bool = True,
    ) -> int:
        """Make staged files visible and others invisible, in one version, or change nothing and remove the staged files.

        Args:
            transactions: application transactions that travel with the commit (watermarks, batch numbers).
            info: provenance, stored in the commit under `lakehouse.<name>`.
            schema: the table's new schema when every file is replaced.
            data_change: False when the same rows lie in other files, so that whoever streams the table reads nothing twice.

        Raises:
            ConflictError: another commit came first.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import DeltaError
        from deltalake.transaction import AddAction, RemoveAction

        now = int(time.time() * 1000)
        commit_id = uuid.uuid4().hex
        # What the commit will hold at least, so that one that was cut off later is known for it.
        gone = remove if schema is None else self.files
        held = {"add": len(add), "remove": len(gone), "txn": len(transactions or {})}
        if schema is not None and _spec_columns(schema) != self.columns:
            held["metaData"] = 1
        properties = CommitProperties(
            custom_metadata={
                **{META + key: value for key, value in {"commit_id": commit_id, **(info or {})}.items()},
                ACTIONS: json.dumps(held),
            },
            max_commit_retries=0,  # a rebase would accept what was computed from an older version
            app_transactions=[Transaction(app, version) for app, version in (transactions or {}).items()],
        )
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, dict(file.partition or {}), now, data_change, file.stats) for file in add
        ]
        if schema is None:
            actions += [RemoveAction(file.path, data_change, now, file.size, dict(file.partition or {})) for file in remove]
        try:
            self.table.create_write_transaction(
                actions,
                mode="append" if schema is None else "overwrite",
                schema=schema or self.table.schema(),
                partition_by=list(self.partition_columns) or None,
                commit_properties=properties,
            )
        except (DeltaError, OSError) as error:
            # The reply may be lost although the commit was applied: look for our own id before saying that it failed.
            fresh = open_existing(self.uri)
            mine = [e for e in fresh.commit_info(since=self.version) if e.get("commit_id") == commit_id] if fresh else []
            if mine:
                return int(mine[0]["version"])
            if fresh is not None:  # read to its end, and not in it: a full disk must not fill with what nobody will see
                discard(self.uri, add)
            self._raise_conflict(error)
            if fresh is not None:
                error.add_note(f"Nothing was committed to {self.uri}. Mend what is said above, and run it again.")
            raise
        return self.version + 1


def go_back(snapshot: Snapshot, version: int, *, transactions: Mapping[str, int], info: Mapping[str, str]) -> Snapshot:
    """Let a table be again what it was at a version, in one new commit. The table as it is then.

    Args:
        transactions: application transactions as they were then; Delta's restore leaves them as they are.

    Raises:
        ConflictError: another commit came first.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import DeltaError

    own = {META + key: value for key, value in {"commit_id": uuid.uuid4().hex, **info}.items()}
    properties = CommitProperties(
        custom_metadata=own, max_commit_retries=0, app_transactions=[Transaction(app, n) for app, n in transactions.items()]
    )
    try:
        snapshot.table.restore(version, commit_properties=properties)
    except (DeltaError, OSError) as error:
        snapshot._raise_conflict(error)
        raise
    return Snapshot(snapshot.table, snapshot.uri)


def open_existing(uri: str, *, version: int | None = None) -> Snapshot | None:
    """The table at `uri`, or None when there is none.

    Raises:
        BrokenTableError: there is a log, but it cannot be read (or not at this version); or data files without one.
    """
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
            Path(uri).mkdir(parents=True, exist_ok=True)
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
    if found is None:
        raise BrokenTableError(f"The table {uri} could not be created.", remedy="Check the folder's permissions.")
    return found


@dataclass(kw_only=True)
class Candidate:
    """A table as it would be: staged files against the snapshot that they were computed from. Commit it or discard it.

    Args:
        max_loss: the largest share of rows that the commit may remove; `force` lifts it.
        columns: the table's new columns when every file is replaced.
        data_change: False when the same rows lie in other files.
    """

    snapshot: Snapshot
    add: Sequence[DataFile]
    remove: Sequence[DataFile] = ()
    transactions: Mapping[str, int] | None = None
    info: Mapping[str, str] | None = None
    max_loss: float = 1.0
    force: bool = False
    columns: Mapping[str, str] | None = None
    data_change: bool = True

    @property
    def rows(self) -> int:
        """Rows of the table after the commit."""
        return self.snapshot.rows + sum(f.rows for f in self.add) - sum(f.rows for f in self.remove)

    @property
    def files(self) -> list[DataFile]:
        """The data files of the table after the commit."""
        gone = {file.path for file in self.remove}
        return [*(file for file in self.snapshot.files if file.path not in gone), *self.add]

    def commit(self, info: Mapping[str, str] | None = None) -> int:
        """Commit, and return the version.

        Raises:
            RefusedWriteError: more rows would go than `max_loss` allows.
            BrokenTableError: a data file that stays is damaged.
            ConflictError: another commit came first.
        """
        before = self.snapshot.rows
        if not self.force and before and before - self.rows > self.max_loss * before:
            self.discard()
            raise RefusedWriteError(
                f"The write to {self.snapshot.uri} would leave {self.rows:,} of {before:,} rows, and at most "
                f"{self.max_loss:.0%} may go in one commit.",
                remedy="If that is right, raise max_loss in the table's spec or rebuild it: make rebuild TABLE=<name>.",
            )
        if self.columns is None:
            try:
                self.snapshot.check(self.files)
            except BrokenTableError:
                self.discard()
                raise
        return self.snapshot.commit(
            add=self.add,
            remove=self.remove,
            transactions=self.transactions,
            info={**(self.info or {}), **(info or {})},
            schema=delta_schema(self.columns) if self.columns is not None else None,
            data_change=self.data_change,
        )

    def discard(self) -> None:
        """Remove the staged files; nothing was visible."""
        discard(self.snapshot.uri, self.add)


def discard(uri: str, files: Sequence[DataFile]) -> None:
    """Remove staged files that will not be committed."""
    stored.remove([f"{uri}/{file.path}" for file in files])


def redo_on_conflict(work: Callable[[], T], *, attempts: int = 5) -> T:
    """Run `work` again from its start, with growing pauses and jitter, while it fails with a retryable error of ours.

    `work` must open its snapshots itself: what was computed from an older version is never committed again.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, LakehouseError) and error.retryable),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(work)


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
