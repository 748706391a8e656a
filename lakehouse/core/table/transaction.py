"""Transaction: what is staged against a snapshot, and the one fenced commit that makes it visible.

    table = open_table(uri, columns)                          # the fence: everything below belongs to this version
    files = session.write(frame, uri, ...)                    # data files are in the table's folder, but in no version of it
    commit_staged(Transaction(table=table, add=files, ...))   # compare-and-swap: fails if anyone committed since

delta-rs checks little on such a commit (experiment: missing files, wrong sizes and wrong types were all accepted), so sizes
come from the file system and types from the contract that the files were cast to.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse.core.errors import BrokenTableError, LakehouseError, RefusedWriteError
from lakehouse.core.store import files as stored
from lakehouse.core.table import torn
from lakehouse.core.table.provenance import META, Provenance
from lakehouse.core.table.recovery import ACTIONS
from lakehouse.core.table.snapshot import DataFile, Snapshot, delta_schema, open_existing, spec_columns

if TYPE_CHECKING:
    from deltalake import CommitProperties
    from deltalake.transaction import AddAction, RemoveAction

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """A table as it would be: staged files against the snapshot that they were computed from. Commit it or abandon it.

    Args:
        table: what it was computed from.
        watermarks: numbers that travel with the commit: how far a source was read, which batch this is.
        provenance: what the commit says of itself.
        columns: the table's new columns when every file is replaced.
        data_change: False when the same rows lie in other files, so that whoever streams the table reads nothing twice.
        max_loss: the largest share of rows that the commit may remove.
    """

    table: Snapshot
    add: Sequence[DataFile]
    remove: Sequence[DataFile] = ()
    watermarks: Mapping[str, int] = field(default_factory=dict)
    provenance: Provenance = Provenance()  # noqa: RUF009 # frozen
    columns: Mapping[str, str] | None = None
    data_change: bool = True
    max_loss: float = 1.0

    @property
    def rows(self) -> int:
        """Rows of the table after the commit."""
        return self.table.rows + sum(f.rows for f in self.add) - sum(f.rows for f in self.remove)

    @property
    def files(self) -> list[DataFile]:
        """The data files of the table after the commit."""
        gone = {file.path for file in self.remove}
        return [*(file for file in self.table.files if file.path not in gone), *self.add]

    def with_provenance(self, **changes: Any) -> "Transaction":
        """The same, with some fields of its provenance replaced."""
        return replace(self, provenance=replace(self.provenance, **changes))

    def abandon(self) -> None:
        """Remove the staged files; nothing was visible."""
        discard(self.table.uri, self.add)


@dataclass(frozen=True)
class Committed:
    """A transaction that is in the table, as `version`."""

    version: int
    transaction: Transaction


def commit_staged(transaction: Transaction) -> Committed:
    """Make staged files visible and others invisible, in one version; or change nothing and remove the staged files.

    Raises:
        RefusedWriteError: more rows would go than `max_loss` allows.
        BrokenTableError: a data file that stays is damaged.
        ConflictError: another commit came first.
    """
    try:
        _check_loss(transaction)
        if transaction.columns is None:
            transaction.table.check(transaction.files)
    except (BrokenTableError, RefusedWriteError):
        transaction.abandon()
        raise
    return Committed(write_version(transaction), transaction)


def _check_loss(transaction: Transaction) -> None:
    before, after = transaction.table.rows, transaction.rows
    if before - after > transaction.max_loss * before:
        raise RefusedWriteError(
            f"The write to {transaction.table.uri} would leave {after:,} of {before:,} rows, and at most "
            f"{transaction.max_loss:.0%} may go in one commit.",
            remedy="If that is right, raise max_loss in the table's spec or rebuild it: make rebuild TABLE=<name>.",
        )


def write_version(transaction: Transaction) -> int:
    """Write the next version of the log, durably, unless somebody else has."""
    from deltalake.exceptions import DeltaError

    table, columns, commit_id = transaction.table, transaction.columns, uuid.uuid4().hex
    torn.prepare(table.uri)
    try:
        table.table.create_write_transaction(
            _actions(transaction),
            mode="append" if columns is None else "overwrite",
            schema=delta_schema(columns) if columns is not None else table.table.schema(),
            partition_by=list(table.partition_columns) or None,
            commit_properties=_properties(commit_id, transaction.provenance, transaction.watermarks, _counted(transaction)),
        )
    except (DeltaError, OSError) as error:
        fresh = open_existing(table.uri)
        mine = _applied(table, fresh, commit_id)
        if mine is not None:
            torn.report(table.uri)
            return mine
        if fresh is not None:  # read to its end, and not in it: a full disk must not fill with what nobody will see
            transaction.abandon()
        table.raise_conflict(error)
        if fresh is not None:
            error.add_note(f"Nothing was committed to {table.uri}. Correct what is reported above, and run it again.")
        raise
    torn.report(table.uri)
    return table.version + 1


def _applied(table: Snapshot, fresh: Snapshot | None, commit_id: str) -> int | None:
    """The version that a commit became although it failed: its reply may be lost. Known by its own id."""
    since = fresh.commits(since=table.version) if fresh is not None else []
    return next((commit.version for commit in since if commit.id == commit_id), None)


def _actions(transaction: Transaction) -> "list[AddAction | RemoveAction]":
    from deltalake.transaction import AddAction, RemoveAction

    now, change = int(time.time() * 1000), transaction.data_change
    added = [AddAction(f.path, f.size, dict(f.partition or {}), now, change, f.stats) for f in transaction.add]
    if transaction.columns is not None:  # an overwrite removes every file by itself
        return [*added]
    return [*added, *(RemoveAction(f.path, change, now, f.size, dict(f.partition or {})) for f in transaction.remove)]


def _counted(transaction: Transaction) -> dict[str, int]:
    """What the commit will hold at least, so that one that was cut off later is known for it."""
    gone = transaction.remove if transaction.columns is None else transaction.table.files
    counted = {"add": len(transaction.add), "remove": len(gone), "txn": len(transaction.watermarks)}
    if transaction.columns is not None and spec_columns(delta_schema(transaction.columns)) != transaction.table.columns:
        counted["metaData"] = 1
    return counted


def _properties(
    commit_id: str, provenance: Provenance, watermarks: Mapping[str, int], counted: Mapping[str, int] | None = None
) -> "CommitProperties":
    from deltalake import CommitProperties
    from deltalake import Transaction as AppTransaction

    info = {META + name: text for name, text in {"commit_id": commit_id, **provenance.written()}.items()}
    return CommitProperties(
        custom_metadata=info if counted is None else {**info, ACTIONS: json.dumps(counted)},
        max_commit_retries=0,  # a rebase would accept what was computed from an older version
        app_transactions=[AppTransaction(app, number) for app, number in watermarks.items()],
    )


def restore_version(table: Snapshot, version: int, *, watermarks: Mapping[str, int], provenance: Provenance) -> Snapshot:
    """Let a table be again what it was at a version, in one new commit. The table as it is then.

    Args:
        watermarks: as they were then; Delta's restore leaves them as they are.

    Raises:
        ConflictError: another commit came first.
    """
    from deltalake.exceptions import DeltaError

    commit_id = uuid.uuid4().hex
    try:
        table.table.restore(version, commit_properties=_properties(commit_id, provenance, watermarks))
    except (DeltaError, OSError) as error:
        fresh = open_existing(table.uri)
        mine = _applied(table, fresh, commit_id)
        if mine is not None and (found := open_existing(table.uri, version=mine)) is not None:
            torn.report(table.uri)
            return found
        table.raise_conflict(error)
        raise
    torn.report(table.uri)
    return Snapshot(table.table, table.uri)


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
