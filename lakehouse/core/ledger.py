"""Ledger: what came in and where it went, and which landed files are spoken for.

Two append-only Delta tables in `ops/`:

    landing_files   written ahead: the files of a bronze batch, before the batch is read
    ledger          written behind: one row per commit of a bronze or silver table, derived from that commit's own metadata

A landed file is taken into a table once, whatever happens in between:

    planned == done        the batch before is complete; new files are planned under the next number
    planned == done + 1    a run ended between plan and commit; the same list is worked on again

where `planned` is the transaction in landing_files and `done` the one in the table, both under `ingest:<table>`. A ledger
row cannot be forgotten: the figures travel in the table's commit, and whoever comes next copies what is not copied yet.
In the same way a batch's commit names the planned files that were not as planned, and the next run gives them back: what
is under their names then (a mount that was away comes back) is new.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.table.provenance import Commit, Entry
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict

#: Metadata of a materialisation whose source has never delivered anything: the folder in which it was looked for.
NEVER_DELIVERED = "never_delivered"
FILES_TABLE = TableRef("ops", "landing_files")
LEDGER_TABLE = TableRef("ops", "ledger")
FILES = {
    "table": "string",
    "batch_id": "bigint",
    "path": "string",
    "size": "bigint",
    "version": "string",
    "checksum": "string",
    "planned_at": "timestamp",
    "run_id": "string",
    "given_back": "boolean",
}
LEDGER = {
    "layer": "string",
    "table": "string",
    "version": "bigint",
    "run_id": "string",
    "operation": "string",
    "committed_at": "timestamp",
    "batch_from": "bigint",
    "batch_to": "bigint",
    "records_in": "bigint",
    "written": "bigint",
    "deduplicated": "bigint",
    "deleted": "bigint",
    "quarantined": "bigint",
    "rows_after": "bigint",
}
#: So many files with fewer rows than this are written together: 64 files take 20 ms to read, 1,440 take half a second.
_MANY, _FULL = 64, 10_000
#: Operations after which a table has read less than before.
TAKEN_BACK = ("rollback", "restore")
#: Operations that removed records which had come in before: they are `deleted` of those.
ERASED = ("expire", "forget")
#: In a bronze table the number of records that were removed from it; in a silver table that number as of its last rebuild.
EXPIRED = "expired"


def ingest_app(table: TableRef) -> str:
    """The application id under which a bronze table's batches are numbered."""
    return f"ingest:{table}"


def read_app(source: TableRef) -> str:
    """The application id under which a table remembers how far it has read its source."""
    return f"from:{source}"


def absent_app(table: TableRef) -> str:
    """The application id under which the last batch that did not find a planned file is numbered."""
    return f"absent:{table}"


def complete_app(table: TableRef) -> str:
    """The application id under which a bronze table knows the newest generation that is in it as a whole."""
    return f"complete:{table}"


def begin_app(table: TableRef) -> str:
    """The application id under which a bronze table knows its first batch that counts: with it a table of another writer was
    taken in whole, and what came before is no longer in that."""
    return f"begin:{table}"


def withdrawn_app(table: TableRef) -> str:
    """The application id under which a bronze table knows the batch with which it was warned of withdrawn rows that stay."""
    return f"withdrawn:{table}"


@dataclass(frozen=True)
class PlannedFile:
    """One file of a batch, as it was when the batch was planned."""

    path: str
    size: int
    version: str
    checksum: str


def append(
    session: Session,
    uri: str,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    *,
    app: str,
    number: int,
) -> bool:
    """Append rows under a transaction number, once: False when that number, or a later one, is already there.

    Many small files become one on the way, so that what is read before every batch does not grow with their number.
    """

    def work() -> bool:
        table = open_table(uri, columns)
        if table.watermark(app) >= number:
            return False
        _append_to(session, table, columns, rows, app=app, number=number)
        return True

    return redo_on_conflict(work)


def _append_to(
    session: Session,
    table: Snapshot,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    *,
    app: str,
    number: int,
) -> None:
    """Append rows to the table as it was when it was opened."""
    import narwhals as nw

    frame, small = session.table(rows, columns), [file for file in table.files if file.rows < _FULL]
    if len(small) < _MANY:
        small = []
    else:
        frame = nw.concat([session.read(table.paths(small), columns), frame])
    files = session.write(frame, table.uri, columns=columns)
    commit_staged(Transaction(table=table, add=files, remove=small, watermarks={app: number}))


def planned_files(session: Session, uri: str, table: TableRef) -> tuple[int, list[tuple[int, PlannedFile]]]:
    """The last planned batch of a table, and every file that is spoken for by one of its batches."""
    import narwhals as nw

    files = open_table(uri, FILES)
    frame = session.read(files.paths(), FILES).filter(nw.col("table") == str(table))
    rows = session.rows(frame.select("batch_id", "path", "size", "version", "checksum", "given_back"))
    back = {(batch, path) for batch, path, *_, given_back in rows if given_back}
    return files.watermark(ingest_app(table)), [
        (batch, PlannedFile(path, *rest)) for batch, path, *rest, _ in rows if (batch, path) not in back
    ]


def plan(session: Session, uri: str, *, table: TableRef, batch: int, files: Sequence[PlannedFile], run_id: str) -> bool:
    """Write a batch's files ahead. False when another run planned that batch first."""
    now = datetime.now(UTC)
    rows = [{"table": str(table), "batch_id": batch, "planned_at": now, "run_id": run_id, **vars(file)} for file in files]
    return append(session, uri, FILES, rows, app=ingest_app(table), number=batch)


def give_back(session: Session, uri: str, *, table: TableRef, snapshot: Snapshot) -> None:
    """Let go of the planned files that the last such batch did not find as planned (`absent` in its commit)."""
    app = absent_app(table)
    number = snapshot.watermark(app)
    if not number or open_table(uri, FILES).watermark(app) >= number:
        return
    made = [commit.provenance for commit in snapshot.commits()]
    paths = [json.loads(m.facts["absent"]) for m in made if "absent" in m.facts and m.figures and m.figures.batch_to == number]
    files = [(number, path) for path in (paths[0] if paths else [])]
    give_back_files(session, uri, table=table, files=files, app=app, number=number)


def give_back_files(
    session: Session, uri: str, *, table: TableRef, files: Sequence[tuple[int, str]], app: str, number: int, run_id: str = ""
) -> None:
    """Let go of planned files, each given as batch and path; what lands under their names is new."""
    now = datetime.now(UTC)
    rows = [
        {"table": str(table), "batch_id": batch, "path": path, "planned_at": now, "run_id": run_id, "given_back": True}
        for batch, path in files
    ]
    append(session, uri, FILES, rows, app=app, number=number)


def finalise(session: Session, uri: str, *, table: TableRef, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Copy the figures of commits that the ledger does not have yet, and return the copied rows."""
    app = f"{table}:{snapshot.id}"  # a table that was removed and made again begins at version 0 again

    def work() -> list[dict[str, Any]]:
        ledger = open_table(uri, LEDGER)  # what is appended follows from this version of it
        commits = snapshot.commits(since=ledger.watermark(app))
        rows = [_figures(table, commit, figures) for commit in commits if (figures := commit.provenance.figures) is not None]
        if rows:
            _append_to(session, ledger, LEDGER, rows, app=app, number=snapshot.version)
        return rows

    return redo_on_conflict(work) if snapshot.version else []


def _figures(table: TableRef, commit: Commit, figures: Entry) -> dict[str, Any]:
    """A commit as a row of the ledger."""
    return {
        "layer": table.layer,
        "table": table.table,
        "version": commit.version,
        "run_id": commit.provenance.run_id,
        "operation": commit.provenance.operation,
        "committed_at": commit.at,
        **vars(figures),
    }


def delivered(bronze: Sequence[Snapshot], silver: Snapshot, *, anew: bool = False) -> int:
    """Records of bronze tables that a silver table has to have read since its last rebuild, or (`anew`) in one now: those that
    are there, and those that were there and have expired since."""
    expired = sum(table.watermark(EXPIRED) for table in bronze)
    return sum(table.rows for table in bronze) + (0 if anew else expired - silver.watermark(EXPIRED))


def total_read(session: Session, uri: str, table: TableRef) -> int:
    """Records that have ever come into a table, from the ledger, since its last rebuild (which reads everything again)."""
    import narwhals as nw

    ledger = open_existing(uri)
    if ledger is None:
        return 0
    frame = session.read(ledger.paths(), LEDGER)
    frame = frame.filter((nw.col("table") == table.table) & (nw.col("layer") == table.layer))
    rows = session.rows(frame.sort("committed_at", "version").select("operation", "batch_from", "batch_to", "records_in"))
    read: list[tuple[int, int, int]] = []
    for operation, first, last, count in rows:
        if operation in TAKEN_BACK:  # what was read after this batch is to be read again
            read = [entry for entry in read if entry[1] <= last]
        elif operation not in ("redrive", *ERASED):  # those records were read before
            read = [] if first == 0 else read
            read.append((first, last, count))
    return sum(count for _, _, count in read) if any(first == 0 for first, _, _ in read) else 0


def take_back(session: Session, uri: str, *, table: TableRef, snapshot: Snapshot) -> set[str]:
    """Let the ledger know that a table was put back to an older version; what had been done to it since (operations)."""
    import narwhals as nw

    app = f"{table}:{snapshot.id}"

    def work() -> set[str]:
        ledger = open_existing(uri)
        if ledger is None or ledger.watermark(app) <= snapshot.version:
            return set()
        frame = session.read(ledger.paths(), LEDGER)
        mine = (nw.col("table") == table.table) & (nw.col("layer") == table.layer) & (nw.col("version") > snapshot.version)
        since = {operation for (operation,) in session.rows(frame.filter(mine).select("operation").unique())}
        figures = snapshot.provenance.figures
        last = figures.batch_to if figures is not None else 0
        none = Entry(batch_from=last, batch_to=last, records_in=0, written=0, rows_after=snapshot.rows)
        row = {
            "layer": table.layer,
            "table": table.table,
            "version": snapshot.version,
            "operation": "restore",
            "committed_at": datetime.now(UTC),
            **vars(none),
        }
        files = session.write(session.table([row], LEDGER), uri, columns=LEDGER)
        # The number goes down: the versions that follow are others than those that the ledger has.
        commit_staged(Transaction(table=ledger, add=files, watermarks={app: snapshot.version}))
        return since

    return redo_on_conflict(work)


def check_numbers(table: TableRef, *, planned: int, done: int) -> None:
    """Refuse a table and a ledger that do not belong together.

    Raises:
        BrokenTableError: one of the two was replaced or restored without the other.
    """
    if planned not in (done, done + 1):
        raise BrokenTableError(
            f"{table} has taken in {done} batches, but ops/landing_files has planned {planned}.",
            remedy="One of the two was replaced without the other: restore both from the same backup.",
        )
