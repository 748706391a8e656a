"""The upkeep of one table after the other: optimise, checkpoint, vacuum, log clean-up; each measured before and after.

A table is surplus meanwhile, so no writer of ours is disturbed; another one that commits first makes it begin again. A table that
is damaged, surplus by others or out of disk is named with the reason, and the rest goes on. Pure: no dagster.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from lakehouse.core import ledger, publications
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BusyError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.table.transaction import commit_staged, redo_on_conflict
from lakehouse.core.text import one_line
from lakehouse.maintenance import optimise, vacuum
from lakehouse.maintenance.protect import Protection, own_log_cleanup
from lakehouse.silver.history_baseline import tables_of
from lakehouse.tables.spec import Health, TableSpec, with_histories

TABLE = TableRef("ops", "maintenance")
COLUMNS = {
    "measured_at": "timestamp",
    "run_id": "string",
    "layer": "string",
    "table": "string",
    "outcome": "string",
    "said": "string",
    "version_before": "bigint",
    "version_after": "bigint",
    "rows": "bigint",
    "files_before": "bigint",
    "files_after": "bigint",
    "bytes_before": "bigint",
    "bytes_after": "bigint",
    "stored_files_before": "bigint",
    "stored_files_after": "bigint",
    "stored_bytes_before": "bigint",
    "stored_bytes_after": "bigint",
    "compacted": "bigint",
    "checkpoint": "boolean",
    "vacuumed_files": "bigint",
    "vacuumed_bytes": "bigint",
    "log_files_removed": "bigint",
    "kept_versions": "string",
    "milliseconds": "double",
}
Outcome = Literal["done", "nothing", "refused", "busy", "broken", "failed"]
#: How long a writer is waited for; its table has its turn in a week otherwise.
_WAIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One table: where it is, when its files are too many, and how they are kept in order."""

    ref: TableRef
    uri: str
    bounds: Health = field(default_factory=Health)
    file_mb: int = 64
    sort_by: tuple[str, ...] = ()


#: Fields whose column in `ops/maintenance` has an older name.
_STORED_AS = {"message": "said", "retained_versions": "kept_versions"}


@dataclass(frozen=True, kw_only=True)
class Maintained:
    """What became of one table. `stored` is all that is in its folder beside the log, `files` what its version has.

    `outcome`: `done`, `nothing` to do, `refused` (optimised, but not vacuumed: `message` has the reason), `busy`, `broken` (it
    cannot be read), `failed` (disk, store).
    """

    ref: TableRef
    outcome: Outcome = "nothing"
    message: str = ""
    version_before: int | None = None
    version_after: int | None = None
    rows: int | None = None
    files_before: int | None = None
    files_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    stored_files_before: int | None = None
    stored_files_after: int | None = None
    stored_bytes_before: int | None = None
    stored_bytes_after: int | None = None
    compacted: int = 0
    checkpoint: bool = False
    vacuumed_files: int = 0
    vacuumed_bytes: int = 0
    log_files_removed: int = 0
    retained_versions: str = ""
    milliseconds: float = 0.0

    def row(self, *, at: datetime, run_id: str) -> dict[str, Any]:
        """As a row of `ops/maintenance`."""
        own = {_STORED_AS.get(name, name): value for name, value in vars(self).items() if name != "ref"}
        return {**own, "layer": self.ref.layer, "table": self.ref.table, "measured_at": at, "run_id": run_id}


def tasks(storage: Storage, specs: Sequence[TableSpec]) -> list[Task]:
    """Every table that is there, those of a spec with its bounds and order."""
    known: dict[TableRef, Task] = {}
    for spec in with_histories(*specs):
        for part in spec.parts:
            known[part.bronze] = Task(ref=part.bronze, uri="", bounds=spec.health)
        for ref in tables_of(spec)[1:]:
            known[ref] = Task(ref=ref, uri="", file_mb=spec.file_mb, sort_by=spec.key)
        known[spec.silver] = Task(ref=spec.silver, uri="", bounds=spec.health, file_mb=spec.file_mb, sort_by=spec.key)
    return [replace(known.get(ref, Task(ref=ref, uri="")), uri=storage.uri(ref)) for ref in storage.tables()]


def maintain(
    wanted: Iterable[Task],
    *,
    storage: Storage,
    protected: Protection,
    session: Callable[[], AbstractContextManager[Session]],
    floor: timedelta,
    now: datetime | None = None,
    wait: float = _WAIT,
) -> Iterator[Maintained]:
    """Look after tables, one after the other.

    Args:
        session: opens an engine session; one per table, so that its memory and its spilled files end with it.
        floor: what a reader began within it stays readable.
    """
    for task in wanted:
        began = time.monotonic()
        try:
            with table_errors():
                found = redo_on_conflict(
                    lambda task=task: _one(  # type: ignore[misc]
                        task,
                        storage=storage,
                        protected=protected,
                        session=session,
                        floor=floor,
                        now=now or datetime.now(UTC),
                        wait=wait,
                    )
                )
        except BusyError as error:
            found = Maintained(ref=task.ref, outcome="busy", message=one_line(str(error)))
        except FailedError as error:
            found = Maintained(ref=task.ref, outcome="failed", message=one_line(str(error)))
        except LakehouseError as error:
            found = Maintained(ref=task.ref, outcome="broken", message=one_line(str(error)))
        yield replace(found, milliseconds=round((time.monotonic() - began) * 1000, 1))


def _one(
    task: Task,
    *,
    storage: Storage,
    protected: Protection,
    session: Callable[[], AbstractContextManager[Session]],
    floor: timedelta,
    now: datetime,
    wait: float,
) -> Maintained:
    with lock(task.uri, wait=wait):
        snapshot = _open(task)
        snapshot.check()
        before, stored_before = snapshot, _stored(task.uri)
        with session() as opened:
            transaction = optimise.compact(
                opened,
                snapshot,
                bounds=task.bounds,
                file_mb=task.file_mb,
                sort_by=[c for c in task.sort_by if c in snapshot.columns],
            )
            if transaction is not None:
                commit_staged(transaction)
                snapshot = _open(task)
                publications.follow(opened, storage, task.ref, before=before, after=snapshot)
            if task.ref.layer in ("bronze", "silver"):
                # What the ledger does not have yet it can only learn from the commits.
                ledger.finalise(opened, storage.uri(ledger.LEDGER_TABLE), table=task.ref, snapshot=snapshot)
            if task.ref.layer == "bronze":
                ledger.give_back(opened, storage.uri(ledger.FILES_TABLE), table=task.ref, snapshot=snapshot)
        snapshot = own_log_cleanup(snapshot)
        checkpoint = optimise.checkpoint(snapshot)
        planned = vacuum.plan(snapshot, retained=protected.of(task.ref, snapshot), floor=floor, now=now)
        refused, surplus = protected.refuses(task.ref), 0
        if (task.ref, snapshot.id) in protected.replays:
            others = protected.of(task.ref, snapshot, replays=False)
            surplus = vacuum.plan(snapshot, retained=others, floor=floor, now=now).bytes - planned.bytes
        cleaned = 0
        if not refused:
            if planned.files:
                vacuum.vacuum(snapshot, planned)
            cleaned = optimise.clean_log(snapshot, retained=sorted({*planned.retained, *planned.lost}), now=now)
        stored_after = _stored(task.uri)
    gone = {} if refused else planned.files
    lost = [f"version {version} was kept and cannot be read: {why}" for version, why in planned.lost.items()]
    replays = [f"{surplus:,} bytes stay for replays alone"] if surplus else []
    worked = transaction is not None or checkpoint or gone or cleaned
    return Maintained(
        ref=task.ref,
        outcome="refused" if refused else "broken" if lost else "done" if worked else "nothing",
        message=one_line(refused or "; ".join([*lost, *replays])),
        **_sizes(before, snapshot, stored_before, stored_after),
        compacted=len(transaction.remove) if transaction is not None else 0,
        checkpoint=checkpoint,
        vacuumed_files=len(gone),
        vacuumed_bytes=sum(gone.values()),
        log_files_removed=cleaned,
        retained_versions="; ".join(f"{version}: {reason}" for version, reason in sorted(planned.retained.items())),
    )


def _sizes(
    before: Snapshot, after: Snapshot, stored_before: Mapping[str, int], stored_after: Mapping[str, int]
) -> dict[str, Any]:
    """What measures a table before and after; what is stored includes files of older versions, or of none."""
    return {
        "version_before": before.version,
        "version_after": after.version,
        "rows": after.rows,
        "files_before": len(before.files),
        "files_after": len(after.files),
        "bytes_before": before.bytes,
        "bytes_after": after.bytes,
        "stored_files_before": len(stored_before),
        "stored_files_after": len(stored_after),
        "stored_bytes_before": sum(stored_before.values()),
        "stored_bytes_after": sum(stored_after.values()),
    }


def _open(task: Task) -> Snapshot:
    found = open_existing(task.uri)
    if found is None:
        raise FailedError(f"{task.ref} is gone since it was listed.")
    return found


def _stored(uri: str) -> Mapping[str, int]:
    """The data files in a table's folder, of any version or none, with their bytes."""
    found = stored.listing(uri, below=True)
    return {path: file.size for path, file in found.items() if path.endswith(".parquet") and not path.startswith("_delta_log/")}


class FailedError(Exception):
    """What the system, the store or an engine said when it could not go on."""


@contextmanager
def table_errors() -> Iterator[None]:
    """Take an error of the disk, the store or an engine for one of this table alone. Nothing was committed."""
    import duckdb
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (OSError, duckdb.Error, DeltaError) as error:
        raise FailedError(f"{type(error).__name__}: {error}") from error
