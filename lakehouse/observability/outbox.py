"""Outbox: an append-only Delta table whose rows are numbered and come in once per id. Alerts and events are kept in one each.

    append(rows) ─▶ ops/<table> (number 1, 2, 3, ...) ─▶ read(after=number) ─▶ whoever delivers, with a cursor of its own

A row has its number from the commit that brings it: the commit is a compare-and-swap, so numbers have no gap, no repeat, and
are visible in their order. A rewrite of the table (compaction) keeps them. Nothing here knows what the rows say.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict

Row = dict[str, Any]
#: The application transaction that is the last number given.
NUMBER = "outbox"
#: Two columns that every outbox begins with.
COLUMNS = {"number": "bigint", "id": "string"}
_MEMORY = "256MB"
_ATTEMPTS = 12  # writers are short: with eight at once the last is through within seconds


@contextmanager
def small_session(storage: Storage) -> Iterator[Session]:
    """An engine for a few rows, opened in 20 ms; one thread, since each has buffers of its own."""
    from lakehouse.core.engines.duckdb import DuckDBSession

    with tempfile.TemporaryDirectory(prefix="lakehouse-", ignore_cleanup_errors=True) as spill:
        session = DuckDBSession(memory_limit=_MEMORY, spill=spill, folders=storage.folders(), threads=1)
        try:
            yield session
        finally:
            session.close()


def append(
    storage: Storage,
    ref: TableRef,
    *,
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    watermarks: Mapping[str, int] | None = None,
) -> list[Row]:
    """Append the rows whose `id` is not in the table yet, each with the next number, in one commit. Returns those.

    Args:
        columns: the table's `{column: type}`, beginning with `COLUMNS`.
        watermarks: cursors of the source that the rows come from; they travel with the commit. With no new row there is
            none, and the caller reads the same stretch of its source again.

    Raises:
        ConflictError: others committed first, a dozen times.
    """
    unique = {row["id"]: row for row in rows}
    if not unique:
        return []

    def work(session: Session) -> list[Row]:
        table = open_table(storage.uri(ref), columns)
        there = _there(session, table, list(unique))
        last = table.watermark(NUMBER)
        fresh = [row for key, row in unique.items() if key not in there]
        numbered = [{**row, "number": last + n} for n, row in enumerate(fresh, start=1)]
        if numbered:
            add = session.write(session.table(numbered, columns), table.uri, columns=columns)
            cursors = {**(watermarks or {}), NUMBER: last + len(numbered)}
            commit_staged(Transaction(table=table, add=add, watermarks=cursors, provenance=Provenance(operation="append")))
        return numbered

    with small_session(storage) as session:
        return redo_on_conflict(lambda: work(session), attempts=_ATTEMPTS)


def read(session: Session, storage: Storage, ref: TableRef, *, columns: Mapping[str, str], after: int) -> list[Row]:
    """The rows after a number, in their order; `[]` where there is no table. Files that hold none of them are not opened."""
    import narwhals as nw

    table = open_existing(storage.uri(ref))
    if table is None or table.watermark(NUMBER) <= after:
        return []
    files = [file for file in table.files if file.upper.get("number") is None or file.upper["number"] > after]
    frame = session.read(table.paths(files), columns).filter(nw.col("number") > after).sort("number")
    return session.dicts(frame, *columns)


def newest(session: Session, storage: Storage, ref: TableRef) -> list[Row]:
    """The rows of the last measurement of a table that `record` writes. Files of earlier ones are not opened."""
    import narwhals as nw

    table = open_existing(storage.uri(ref))
    bounds = [file.upper["measured_at"] for file in table.files if "measured_at" in file.upper] if table else []
    if table is None or not bounds:
        return []
    chosen = [file for file in table.files if file.upper.get("measured_at", max(bounds)) >= max(bounds)]
    frame = session.read(table.paths(chosen), table.columns)
    last = session.rows(frame.select(nw.col("measured_at").max()))[0][0]
    return session.dicts(frame.filter(nw.col("measured_at") == last), *table.columns)


def _there(session: Session, table: Snapshot, ids: list[str]) -> set[str]:
    """Which of these ids the table has. The bounds of a file with one row are its id, so few files are opened."""
    import narwhals as nw

    def may_contain(low: Any, high: Any) -> bool:
        return low is None or high is None or any(low <= key <= high for key in ids)

    chosen = [file for file in table.files if may_contain(file.lower.get("id"), file.upper.get("id"))]
    if not chosen:
        return set()
    frame = session.read(table.paths(chosen), COLUMNS).select("id")
    return {row[0] for row in session.rows(frame.filter(nw.col("id").is_in(ids)))}


def record(storage: Storage, ref: TableRef, *, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> int:
    """Append measurements, which have neither id nor number, in one commit; the table's version. No rows, no commit."""

    def work(session: Session) -> int:
        table = open_table(storage.uri(ref), columns)
        if not rows:
            return table.version
        add = session.write(session.table(rows, columns), table.uri, columns=columns)
        return commit_staged(Transaction(table=table, add=add, provenance=Provenance(operation="append"))).version

    with small_session(storage) as session:
        return redo_on_conflict(lambda: work(session), attempts=_ATTEMPTS)
