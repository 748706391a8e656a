"""Accounts: the ledger's two guarantees, of a batch and of all that a table has ever read. Pure: no dagster."""

from collections.abc import Sequence

from lakehouse.core import ledger
from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Entry
from lakehouse.core.table.snapshot import Snapshot
from lakehouse.silver.checks import BALANCE, COMPLETE
from lakehouse.silver.repeats import content_lines


def accounts(
    session: Session,
    storage: Storage,
    table: Snapshot,
    entry: Entry,
    *,
    target: TableRef,
    bronze: Sequence[Snapshot],
    anew: bool,
    later: int = 0,
    redriven: bool = False,
    contents: int = 0,
) -> list[Finding]:
    """This batch adds up, and so does everything that was ever read.

    Args:
        table: the table as it was opened; `target` is its name in the ledger.
        bronze: what it reads.
        anew: whether it has read all of them from their beginning.
        later: records of bronze that it is not to read yet.
        redriven: whether nothing was read that was not read before.
        contents: ids that came with more than one content.
    """
    gap = entry.records_in - entry.written - entry.deduplicated - entry.deleted - entry.quarantined
    detail = dict(vars(entry)) | ({"ids_with_other_content": contents} if contents else {})
    lines = content_lines(target, contents)
    balance = Finding(BALANCE, entry.balanced, "fail", abs(gap), entry.records_in, detail, lines)
    if redriven:
        return [balance, Finding(COMPLETE, True, "fail")]
    before = 0 if entry.batch_from == 0 else ledger.total_read(session, storage.uri(ledger.LEDGER_TABLE), target)
    there = ledger.delivered(bronze, table, anew=anew) - later
    missing = there - before - entry.records_in
    detail = {"bronze_rows": there, "read_before": before, "read_now": entry.records_in}
    return [balance, Finding(COMPLETE, not missing, "fail", abs(missing), there, detail)]
