"""Histories: what retention and forgetting do to the tables of a history. Which records they are is decided for silver.

Pure: no dagster.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import narwhals as nw

from lakehouse.core import ledger
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import Snapshot, require_table
from lakehouse.maintenance.expired import ASIDE, GONE, Expired, remove
from lakehouse.maintenance.removal import log
from lakehouse.silver import baseline, history_baseline
from lakehouse.silver.history_baseline import tables_of
from lakehouse.silver.inputs import ROW_ID, Feed
from lakehouse.silver.validate import DELETED, older
from lakehouse.tables.spec import TableSpec, history_ref
from lakehouse.tables.spec.history import VALID_FROM

if TYPE_CHECKING:
    from lakehouse.core.engines.session import Session


def there(storage: Storage, spec: TableSpec) -> list[TableRef]:
    """The tables of a history that there are, its own first; none where it was never computed."""
    refs = [ref for ref in tables_of(spec) if storage.has(ref)]
    return refs if history_ref(spec) in refs else []


def read_by_both(storage: Storage, spec: TableSpec, part: TableSpec, silver: Snapshot) -> int:
    """The last batch of a bronze table that silver has read, and its history as well; one that has read none begins anew."""
    app = ledger.read_app(part.bronze)
    own = [require_table(storage.uri(ref), ref).watermark(app) for ref in there(storage, spec)[:1]]
    return min([silver.watermark(app), *(number for number in own if number)])


def expire(
    session: "Session", storage: Storage, spec: TableSpec, silver: Snapshot, *, before: datetime, dry: bool
) -> Iterator[Expired]:
    """Remove versions whose event is before an instant, and their points, or (`dry`) only count them. A delete stays, as silver's
    tombstones do: an older version may still come."""
    before = max(before, datetime.fromtimestamp(silver.watermark(baseline.FLOOR), tz=UTC))
    floor = {baseline.FLOOR: int(before.timestamp())}
    old, event = older(spec, before), spec.retention.event if spec.retention is not None else ""
    for ref in there(storage, spec):
        table, expired = require_table(storage.uri(ref), ref), Expired(ref=ref, before=before, column=event)
        if ref != history_ref(spec):
            remove(session, expired, table, old & ~nw.col(DELETED), dry=dry, made=ASIDE)
            continue
        read = sum(table.watermark(ledger.read_app(part.bronze)) for part in spec.parts)
        order = [*spec.key, VALID_FROM]
        yield remove(session, expired, table, old, dry=dry, made=GONE, batch=read, watermarks=floor, sort_by=order)
        if not dry:
            log(session, storage, ref)


def fold(
    session: "Session",
    storage: Storage,
    spec: TableSpec,
    *,
    feed: Feed,
    silver: Snapshot,
    records: "nw.LazyFrame[Any]",
    row_ids: "nw.LazyFrame[Any]",
    number: int,
) -> None:
    """Let the history's baseline have the points of records that are about to leave bronze.

    Args:
        records: of the bronze table; `row_ids` are `ROW_ID` of those that leave.
        number: of the fold, as bronze will know it.
    """
    if not spec.history:
        return
    own = history_baseline.validator(session, spec, silver, *(require_table(storage.uri(r), r) for r in there(storage, spec)[:1]))
    validated = own.validated(records.join(row_ids, on=list(ROW_ID), how="semi"))[0]
    accepted = history_baseline.accepted(session, storage, [feed], own, validated)
    history_baseline.fold(session, storage, spec, accepted, bronze=feed.part.bronze, number=number)
