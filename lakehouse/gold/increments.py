"""Increments: which days of a mart are to be computed again, and which files of its sources hold them.

A mart whose yml says `meta.lakehouse.partition: data` is published day by day, and one that says `reads_itself` adds what is
new to its own published rows. What is new follows from the batches that its sources have read since its last commit:

    bronze   the days in which the new batches were extracted
    silver   the days (its Delta partition) of files that hold a row first seen in one of these batches, and the day after each:
             what is measured from one row to the next may begin the day before

Their views hold these days and the day before each. When a source was rebuilt, re-driven or made anew all days are computed, as
for a mart whose code changed. A row of silver whose content alone changed is taken in when its day is computed the next time.
Pure: no dagster, no dbt.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from lakehouse.core import ledger
from lakehouse.core.clock import zone
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing
from lakehouse.tables import ALL
from lakehouse.tables.spec import TableSpec, with_histories

_DAY = timedelta(days=1)
_EXTRACTED = "_airbyte_extracted_at"
_DELIVERED = ("bronze", "silver")
#: Operations of our own commits after which a table holds what it held, and new rows. Maintenance names none of them.
_ADDING = frozenset(("append", "merge"))


def days_since(storage: Storage, ref: TableRef, table: Snapshot, *, version: int, batch: int) -> set[date] | None:
    """The days in which a source has something new since its `version`, which had read up to `batch`; None for any day."""
    spec = _spec(ref) if ref.layer in _DELIVERED else None
    first = next((column.name for column in spec.columns if column.observed == "first"), "") if spec else ""
    if spec is None or (ref.layer == "silver" and not (spec.partition and first)):
        return None
    commits = table.commits(since=version)
    unknown = len(commits) < table.version - version  # some were cleaned up
    if unknown or any((commit.provenance.operation or "append") not in _ADDING for commit in commits):
        return None
    bronze = table if ref.layer == "bronze" else open_existing(storage.uri(spec.bronze))
    if bronze is None:
        return None
    now = batch_of(ref, table)
    new = [f for f in bronze.files if _above(f, "_batch_id", batch) and _at_most(f, "_batch_id", now)]
    extracted = [_days_of(file) for file in new]
    if not new or None in extracted:
        return None if new else set()
    if ref.layer == "bronze":
        return set().union(*(days for days in extracted if days is not None))
    since = min(file.lower[_EXTRACTED] for file in new)
    found = {day_of(file, spec.partition) for file in table.files if first not in file.upper or file.upper[first] >= since}
    return found | {day + _DAY for day in found}


def batch_of(ref: TableRef, table: Snapshot) -> int:
    """The last batch of landed files that a source has read; 0 of one that follows no deliveries."""
    if ref.layer not in _DELIVERED:
        return 0
    spec = _spec(ref)
    if ref.layer == "bronze":
        return table.watermark(ledger.ingest_app(ref))
    return table.watermark(ledger.read_app(spec.bronze)) if len(spec.parts) == 1 else 0


def files_of(ref: TableRef, table: Snapshot, wanted: Sequence[frozenset[date] | None]) -> list[DataFile]:
    """The files of a source that hold what the marts need: each needs some days, and the day before each, or all."""
    if ref.layer not in _DELIVERED or any(days is None for days in wanted):
        return list(table.files)
    spec = _spec(ref)
    if ref.layer == "silver" and not spec.partition:
        return list(table.files)
    days = {day - back for some in wanted for day in some or () for back in (timedelta(), _DAY)}
    if ref.layer == "silver":
        return [file for file in table.files if day_of(file, spec.partition) in days]
    return [file for file in table.files if _days_of(file) is None or days & (_days_of(file) or set())]


def day_of(file: DataFile, column: str) -> date:
    """The day of a file of a table that is partitioned by days."""
    return date.fromisoformat(str((file.partition or {})[column]))


def _spec(ref: TableRef) -> TableSpec:
    """The spec of a source; of a bronze table, the part that it is."""
    parts: Iterable[TableSpec] = with_histories(*ALL) if ref.layer == "silver" else (part for spec in ALL for part in spec.parts)
    return next(spec for spec in parts if getattr(spec, ref.layer) == ref)


def _above(file: DataFile, column: str, value: int) -> bool:
    return column not in file.upper or bool(file.upper[column] > value)


def _at_most(file: DataFile, column: str, value: int) -> bool:
    return column not in file.lower or bool(file.lower[column] <= value)


def _days_of(file: DataFile) -> set[date] | None:
    """The days in which the records of a bronze file were extracted; None when its statistics do not say."""
    if _EXTRACTED not in file.lower or _EXTRACTED not in file.upper:
        return None
    first, last = (bound[_EXTRACTED].astimezone(zone()).date() for bound in (file.lower, file.upper))
    return {first + n * _DAY for n in range((last - first).days + 1)}
