"""Expired: rows of a table that are older than an instant, counted or removed in one commit.

Here: how they leave, and what is reported of it. Not here: which tables, and in which order (`retention.py`). Pure: no dagster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.core.names import TableRef
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import Snapshot
from lakehouse.maintenance.removal import rewrite

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.session import Session

#: What a commit says that removes rows of which no ledger tells.
ASIDE = Provenance(maintenance="retention", operation="expire")
#: The same where the ledger counts it. It reports nothing of what the rows that stay came from.
GONE = replace(ASIDE, run_id="retention")


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What of one place is (dry run) or was older than declared. `rows` are records, or files where the place is landing."""

    ref: TableRef
    what: Literal["rows", "files"] = "rows"
    rows: int = 0
    bytes: int = 0
    before: datetime
    column: str

    def __str__(self) -> str:
        return f"{self.rows:,} {self.what} with {self.column} before {self.before:%Y-%m-%d %H:%M} UTC"


def remove(
    session: "Session",
    expired: Expired,
    table: Snapshot,
    old: "nw.Expr",
    *,
    dry: bool,
    made: Provenance,
    batch: int | None = None,
    watermarks: Mapping[str, int] | None = None,
    sort_by: Sequence[str] = (),
) -> Expired:
    """Remove the rows of a table that the condition selects; files that hold none are not touched.

    Args:
        batch: how far the table has read, where the ledger counts what is removed.
    """
    limit: Any = expired.before
    column = expired.column
    if dict(table.columns).get(column) == "date":
        limit = limit.date()
    touched = [file for file in table.files if file.lower.get(column) is None or file.lower[column] < limit]
    frame = session.read(table.paths(touched), table.columns)
    count = session.count(frame.filter(old.fill_null(False)))
    if dry or not count:
        return counted(expired, count)
    if batch is not None:
        made = replace(made, figures=removed(count, table, batch))
    size = rewrite(
        session,
        table,
        touched,
        frame.filter(~old.fill_null(False)),
        count,
        made=made,
        watermarks=watermarks,
        sort_by=sort_by,
    )
    return counted(expired, count, size)


def removed(count: int, table: Snapshot, batch: int) -> Entry:
    return Entry(batch_from=batch, batch_to=batch, records_in=count, written=0, deleted=count, rows_after=table.rows - count)


def counted(expired: Expired, rows: int, size: int = 0) -> Expired:
    return replace(expired, rows=rows, bytes=size)
