"""Quarantine: what was delivered and is not in the tables, record by record, with the rule and the reason.

One Delta table per source table. What a batch puts there is replaced, not added to, when the batch is worked on again, so
a crash between quarantine and table, or a mended rule, leaves each record in exactly one of the two.
"""

from typing import TYPE_CHECKING, Any

from lakehouse.core.delta import Candidate, open_table
from lakehouse.core.engines import Session

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
}


def replace_after(session: Session, uri: str, *, layer: str, batch: int, until: int, records: "nw.LazyFrame[Any] | None") -> int:
    """Let `records` be all that `layer` has in quarantine from the batches after `batch`. Returns how many were written.

    Args:
        until: the last of these batches; a run that was overtaken must not remove what later ones put here.
        records: a frame of `COLUMNS`, or None for nothing.
    """
    import narwhals as nw

    table = open_table(uri, COLUMNS)
    touched = [f for f in table.files if f.upper.get("batch_id") is None or f.upper["batch_id"] > batch]
    touched = [f for f in touched if f.lower.get("batch_id") is None or f.lower["batch_id"] <= until]
    if records is None and not touched:
        return 0
    mine = (nw.col("layer") == layer) & (nw.col("batch_id") > batch) & (nw.col("batch_id") <= until)
    before = session.keep(session.read(table.paths(touched), COLUMNS))
    stale = session.rows(before.select(mine.cast(nw.Int64).sum().alias("n")))[0][0] or 0
    if records is None and not stale:
        return 0
    add = session.write(before.filter(~mine), uri, columns=COLUMNS) if touched else []
    new = session.write(records.select(*COLUMNS), uri, columns=COLUMNS) if records is not None else []
    Candidate(snapshot=table, add=[*add, *new], remove=touched, info={"operation": "quarantine"}).commit()
    return sum(file.rows for file in new)
