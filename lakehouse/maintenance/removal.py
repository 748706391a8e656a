"""Removal: a table without some of its rows, in one commit that removes exactly as many as it was told.

    row ids of the rows that go ─▶ the files that hold one, written again ─▶ commit

Here: how rows leave. Not here: which ones (`retention.py`, `forget.py`). Pure: no dagster.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import narwhals as nw

from lakehouse.core import ledger
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged, discard
from lakehouse.silver.inputs import ROW_ID

if TYPE_CHECKING:
    from lakehouse.core.engines.session import Session


def log(session: "Session", storage: Storage, ref: TableRef) -> None:
    """Copy to the ledger what the newest commits of a table report."""
    ledger.finalise(session, storage.uri(ledger.LEDGER_TABLE), table=ref, snapshot=require_table(storage.uri(ref), ref))


def remove_rows(
    session: "Session",
    table: Snapshot,
    row_ids: "nw.LazyFrame[Any]",
    *,
    made: Provenance,
    watermarks: Mapping[str, int] | None = None,
) -> int:
    """Remove rows of a table in one commit; the bytes by which its files are fewer.

    Args:
        row_ids: `ROW_ID` of the rows, kept, as all files of the table give them when they are read in their order.
    """
    files, count = list(table.files), session.count(row_ids)
    hit = sorted(int(row[0]) for row in session.rows(row_ids.select(ROW_ID[0]).unique()))
    touched = [files[number] for number in hit]
    again = session.table([{"_new": new, ROW_ID[0]: old} for new, old in enumerate(hit)], {"_new": "bigint", ROW_ID[0]: "bigint"})
    moved = session.persist(row_ids.join(again, on=ROW_ID[0], how="inner").select("_new", ROW_ID[1]))
    frame = session.read(table.paths(touched), table.columns, row_id=ROW_ID)
    frame = frame.with_columns(*[nw.col(name).cast(nw.Int64) for name in ROW_ID])
    rest = frame.join(moved, left_on=list(ROW_ID), right_on=["_new", ROW_ID[1]], how="anti")
    return rewrite(session, table, touched, rest.select(*table.columns), count, made=made, watermarks=watermarks)


def rewrite(
    session: "Session",
    table: Snapshot,
    touched: Sequence[DataFile],
    rest: "nw.LazyFrame[Any]",
    count: int,
    *,
    made: Provenance,
    watermarks: Mapping[str, int] | None,
    sort_by: Sequence[str] = (),
) -> int:
    """Commit the touched files without `count` of their rows."""
    partition = next(iter(table.partition_columns), "")
    order = [name for name in sort_by if name in table.columns]
    add = session.write(rest, table.uri, columns=table.columns, sort_by=order, partition=partition)
    went = sum(file.rows for file in touched) - sum(file.rows for file in add)
    if went != count:
        discard(table.uri, add)
        raise BrokenTableError(
            f"{count:,} rows of {table.uri} were to go, and {went:,} would have.",
            remedy="Nothing was committed. The record counts in its log are wrong: make rebuild, or restore it.",
        )
    commit_staged(Transaction(table=table, add=add, remove=touched, watermarks=watermarks or {}, provenance=made))
    return sum(file.size for file in touched) - sum(file.size for file in add)
