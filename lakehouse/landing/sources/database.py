"""A SQL database as a source: the rows from the cursor on, streamed to files of text columns.

    SELECT * FROM <table> WHERE <cursor> >= ... OR <cursor> IS NULL  ─▶  CSV by COPY (PostgreSQL), Arrow batches (others)

Any SQLAlchemy URL. Rows of one statement are of one moment. Instants without a zone are taken as UTC; a cursor that is kept
as text must be ISO 8601 in UTC. Names pass the allow-list, and are quoted by SQLAlchemy.

Does not belong here: what happens to the rows (`extract.py`), when another try is made (the step's retry policy).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import SourceDownError
from lakehouse.core.names import check_name
from lakehouse.core.sql import bounded, explained, open_engine
from lakehouse.landing.sources.extract import stage_batches, text_batch

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Select

_BATCH_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class SqlTable:
    """Which table, where, and the column that says when a row was last written; `setting` is what messages call the URL."""

    url: str = field(repr=False)
    table: str
    schema: str = ""
    cursor: str = "updated_at"
    setting: str = "the URL"

    def __post_init__(self) -> None:
        check_name(self.table, "table name")
        check_name(self.cursor, "column name")
        if self.schema:
            check_name(self.schema, "schema name")


def extract(source: SqlTable, folder: Path, *, since: datetime | None, deadline: float) -> list[str]:
    """Write the rows from `since` on to files in `folder`. Returns their paths.

    Args:
        deadline: `time.monotonic()` by which it ends.

    Raises:
        SourceDownError: worth another try: no answer, a cut connection, the time is up.
        SourceRefusedError: not: credentials, no such table or column.
    """
    seconds = deadline - time.monotonic()
    engine = open_engine(source.url, setting=source.setting, statement_seconds=max(seconds, 1), existing=True)
    statement = _statement(source, since)
    with explained(f"The table {source.table} could not be read", setting=source.setting), engine.connect() as connection:
        if engine.dialect.name != "postgresql":
            return stage_batches(_batches(connection, statement, deadline), folder)
        path = folder / "rows.csv"
        compiled = statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
        with bounded(connection, seconds=seconds), path.open("wb") as out:
            cursor: Any = connection.connection.cursor()
            cursor.copy_expert(f"COPY ({compiled}) TO STDOUT (FORMAT csv, HEADER)", out)
        return [str(path)]


def _statement(source: SqlTable, since: datetime | None) -> "Select[Any]":
    import sqlalchemy as sa

    chosen = sa.select(sa.text("*")).select_from(sa.table(source.table, schema=source.schema or None))
    if since is None:
        return chosen
    column: Any = sa.column(source.cursor)
    # Whole seconds with a space: where instants are kept as text this comes before all spellings of them.
    return chosen.where(sa.or_(column >= f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S}", column.is_(None)))


def _batches(connection: "Connection", statement: "Select[Any]", deadline: float) -> "Iterator[pa.RecordBatch]":
    result = connection.execution_options(stream_results=True, yield_per=_BATCH_ROWS).execute(statement)
    names = list(result.keys())
    for rows in result.mappings().partitions(_BATCH_ROWS):
        if time.monotonic() > deadline:
            raise SourceDownError("The database is too slow: the step's time was up.", remedy="Run again later.")
        yield text_batch([{name: row[name] for name in names} for row in rows], names)
