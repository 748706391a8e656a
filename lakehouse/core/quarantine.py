"""Quarantine: what was delivered and is not in the tables, record by record, with the rule and the reason.

One Delta table per source table. What a batch puts there is replaced, not added to, when the batch is worked on again, so
a crash between quarantine and table, or a fixed rule, leaves each record in exactly one of the two.

Records that leave because they are validated again (`redrive`, a rebuild) must not be gone before they have arrived. They are
marked under a number, and what takes their place carries the same number; the commit that takes them in carries it as an
application transaction, and `finalise` then makes the change final, or takes the marks back when that commit never came.
"""

from typing import TYPE_CHECKING, Any

from lakehouse.core.engines.session import Session
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged

if TYPE_CHECKING:
    import narwhals as nw

COLUMNS = {
    "layer": "string",
    "rules": "string",
    "reason": "string",
    "record": "string",
    "source_file": "string",
    "raw_id": "string",
    "batch_id": "bigint",
    "run_id": "string",
    "quarantined_at": "timestamp",
    "entering": "bigint",
    "leaving": "bigint",
}


#: The application id under which a table's commits number the changes of its quarantine.
REDRIVE = "redrive"


def replace_after(
    session: Session,
    uri: str,
    *,
    layer: str,
    batch: int,
    until: int,
    records: "nw.LazyFrame[Any] | None",
    number: int | None = None,
) -> int:
    """Let `records` be all that `layer` has in quarantine from the batches after `batch`. Returns how many were written.

    Args:
        until: the last of these batches; a run that was overtaken must not remove what later ones put here.
        records: a frame of `COLUMNS` without the marks, or None for nothing.
        number: the change that this is part of; it is pending until `finalise` sees that number.
    """
    import narwhals as nw

    table = open_table(uri, COLUMNS)
    touched = [f for f in table.files if f.upper.get("batch_id") is None or f.upper["batch_id"] > batch]
    touched = [f for f in touched if f.lower.get("batch_id") is None or f.lower["batch_id"] <= until]
    if records is None and not touched:
        return 0
    mine = (nw.col("layer") == layer) & (nw.col("batch_id") > batch) & (nw.col("batch_id") <= until)
    before = session.persist(session.read(table.paths(touched), COLUMNS))
    stale = session.rows(before.select(mine.cast(nw.Int64).sum().alias("n")))[0][0] or 0
    if records is None and not stale:
        return 0
    rest = before.filter(~mine) if number is None else _marked(before, mine, number)
    add = session.write(rest, uri, columns=COLUMNS) if touched else []
    new: list[Any] = []
    if records is not None:
        marks = {"entering": nw.lit(number).cast(nw.Int64), "leaving": nw.lit(None).cast(nw.Int64)}
        new = session.write(records.with_columns(**marks).select(*COLUMNS), uri, columns=COLUMNS)
    commit_staged(Transaction(table=table, add=[*add, *new], remove=touched, provenance=Provenance(operation="quarantine")))
    return sum(file.rows for file in new)


def mark_leaving(session: Session, uri: str, *, layer: str, number: int, where: "nw.Expr") -> None:
    """Mark what `layer` has in quarantine, and the condition selects, as leaving with the change `number`."""
    import narwhals as nw

    table = open_table(uri, COLUMNS)
    before = session.persist(session.read(table.paths(), COLUMNS))
    add = session.write(_marked(before, (nw.col("layer") == layer) & where, number), uri, columns=COLUMNS)
    commit_staged(Transaction(table=table, add=add, remove=table.files, provenance=Provenance(operation="quarantine")))


def _marked(frame: "nw.LazyFrame[Any]", mine: "nw.Expr", number: int) -> "nw.LazyFrame[Any]":
    import narwhals as nw

    return frame.with_columns(leaving=nw.when(mine).then(nw.lit(number)).otherwise(nw.col("leaving")))


def finalise(session: Session, uri: str, *, layer: str, done: int) -> None:
    """Make pending changes up to the number `done` final, and take back those after it."""
    import narwhals as nw

    table = open_existing(uri)
    pending = [f for f in table.files if any(f.nulls.get(mark) != f.rows for mark in ("entering", "leaving"))] if table else []
    if table is None or not pending:
        return
    mine = nw.col("layer") == layer
    marked = mine & (~nw.col("entering").is_null() | ~nw.col("leaving").is_null())
    before = session.persist(session.read(table.paths(pending), COLUMNS))
    if not session.rows(before.filter(marked).select("layer").head(1)):
        return
    gone = mine & ((nw.col("leaving") <= done) | (nw.col("entering") > done)).fill_null(False)
    rest = before.filter(~gone)
    rest = rest.with_columns(**{m: nw.when(~mine).then(nw.col(m)).otherwise(nw.lit(None)) for m in ("entering", "leaving")})
    add = session.write(rest, uri, columns=COLUMNS)
    commit_staged(Transaction(table=table, add=add, remove=pending, provenance=Provenance(operation="settle")))


def waiting(session: Session, snapshot: Snapshot, *, layer: str) -> "nw.LazyFrame[Any]":
    """What a layer has in quarantine. Finalise it first."""
    import narwhals as nw

    return session.read(snapshot.paths(), COLUMNS).filter(nw.col("layer") == layer)
