"""Publications: which version of each mart its readers see, as rows of `ops/publications`.

    marts of a run, committed one by one ─▶ one commit: every published table, each with its version ─▶ readers

Dashboard, reports, models, the warehouse and other runs read the newest publication, so they see the marts of a run together or
not at all. Each publication names every table that was ever published, so that one file answers. A table that none names is
read as it is: an earlier release made it, or an asset that is no mart.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict

if TYPE_CHECKING:
    import duckdb

TABLE = TableRef("ops", "publications")
COLUMNS = {
    "publication": "bigint",
    "published_at": "timestamp",
    "run_id": "string",
    "layer": "string",
    "table": "string",
    "table_id": "string",
    "version": "bigint",
}


class Named(NamedTuple):
    """A table in a publication. A table that is removed and made again begins at version 0 with another id."""

    id: str
    version: int


@dataclass(frozen=True)
class Publication:
    """What readers see: `number` rises with each publication; 0 is before the first."""

    number: int = 0
    tables: Mapping[TableRef, Named] = field(default_factory=dict)
    run_id: str = ""
    at: datetime | None = None


def newest(storage: Storage) -> Publication:
    """The publication that readers see now."""
    table = open_existing(storage.uri(TABLE))
    return _newest(table) if table is not None else Publication()


def all_of(storage: Storage) -> list[Publication]:
    """Every publication, oldest first."""
    table = open_existing(storage.uri(TABLE))
    return _read(table.paths()) if table is not None else []


def published(storage: Storage, ref: TableRef, publication: Publication | None = None) -> Snapshot | None:
    """A table as its readers see it; None where there is none.

    Args:
        publication: the one to read by; the newest where it is not given.

    Raises:
        BrokenTableError: the table cannot be read at the version that was published.
    """
    found = open_existing(storage.uri(ref))
    if found is None:
        return published(storage.base, ref) if storage.base is not None else None
    named = (publication or newest(storage)).tables.get(ref)
    if named is None or named.id != found.id or named.version >= found.version:
        return found
    return open_existing(found.uri, version=named.version)


def naming(storage: Storage, ref: TableRef, table: Snapshot) -> int | None:
    """The number of the newest publication that names a table at this version; None where none does."""
    wanted = Named(table.id, table.version)
    last = newest(storage)
    found = [last] if last.tables.get(ref) == wanted else all_of(storage)
    return next((each.number for each in reversed(found) if each.tables.get(ref) == wanted), None)


def publish(
    session: Callable[[], AbstractContextManager[Session]], storage: Storage, tables: Mapping[TableRef, Named], *, run_id: str
) -> Publication:
    """Let readers see these versions, all at once, in one commit. Where they do already, nothing is written.

    A version that is older than the published one of the same table is passed over: another run was faster.

    Args:
        session: opens an engine session, where something is written.
    """

    def once() -> Publication:
        table = open_table(storage.uri(TABLE), COLUMNS)
        last = _newest(table)
        moved = {ref: named for ref, named in tables.items() if _follows(storage, ref, named, last.tables.get(ref))}
        if not moved:
            return last
        done = Publication(last.number + 1, {**last.tables, **moved}, run_id, datetime.now(UTC))
        with session() as opened:
            added = opened.write(opened.table(_rows(done), COLUMNS), table.uri, columns=COLUMNS, sort_by=["publication"])
        provenance = Provenance(operation="append", run_id=run_id, publication=str(done.number))
        commit_staged(Transaction(table=table, add=added, provenance=provenance))
        return done

    return redo_on_conflict(once)


def follow(session: Session, storage: Storage, ref: TableRef, *, before: Snapshot, after: Snapshot) -> None:
    """Let readers see a table's next version, where they see `before`: maintenance has written the same rows again."""
    if newest(storage).tables.get(ref) == (before.id, before.version):
        publish(lambda: nullcontext(session), storage, {ref: Named(after.id, after.version)}, run_id="")


def _follows(storage: Storage, ref: TableRef, named: Named, last: Named | None) -> bool:
    """Whether a version comes after the published one. A table that was restored from a backup begins again before it."""
    if last is None or named.id != last.id or named.version > last.version:
        return True
    found = open_existing(storage.uri(ref)) if named.version < last.version else None
    return found is not None and found.version < last.version


def _newest(table: Snapshot) -> Publication:
    """The last publication of a table; only the files that may hold it are read."""
    last = max((file.upper.get("publication") or 0 for file in table.files), default=0)
    chosen = [file for file in table.files if (file.upper.get("publication") or last) >= last]
    return max(_read(table.paths(chosen)), key=lambda found: found.number, default=Publication())


def _read(paths: list[str]) -> list[Publication]:
    """The publications in some files of the table, oldest first. A few rows: no engine is started for them."""
    rows: list[tuple[Any, ...]] = []
    names = ", ".join("epoch_us(published_at)" if name == "published_at" else f'"{name}"' for name in COLUMNS)
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder, _reader().cursor() as database:
        for path in paths:
            with files.at_hand(path, by=folder) as here:
                rows += database.read_parquet(str(here)).select(names).fetchall()
    by_number: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_number.setdefault(row[0], []).append(row)
    return [_publication(number, found) for number, found in sorted(by_number.items())]


@cache
def _reader() -> "duckdb.DuckDBPyConnection":
    """A small database of this process, opened in 20 ms; each reader has a cursor of its own."""
    import duckdb

    return duckdb.connect(config={"threads": 1, "memory_limit": "64MB"})


def _publication(number: int, rows: list[tuple[Any, ...]]) -> Publication:
    """A publication from its rows, whose values are in the order of the columns."""
    tables = {TableRef(layer, table): Named(table_id, version) for _, _, _, layer, table, table_id, version in rows}
    return Publication(number, tables, rows[0][2], datetime.fromtimestamp(rows[0][1] / 1e6, tz=UTC))


def _rows(made: Publication) -> list[dict[str, Any]]:
    common = {"publication": made.number, "published_at": made.at, "run_id": made.run_id}
    return [
        {**common, "layer": ref.layer, "table": ref.table, "table_id": named.id, "version": named.version}
        for ref, named in sorted(made.tables.items(), key=lambda pair: str(pair[0]))
    ]
