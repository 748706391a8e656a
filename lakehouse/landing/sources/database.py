"""A SQL database as a source: the rows from the cursor on, or all, streamed to files of text columns.

    SELECT * FROM <table> WHERE <cursor> >= ... OR <cursor> IS NULL  ─▶  CSV by COPY (PostgreSQL), Arrow batches (others)

Any SQLAlchemy URL. Rows of one statement are of one moment. Instants without a zone are taken as UTC unless the table declares
one; a cursor that is stored as text must be ISO 8601 in UTC. Names pass the allow-list, and are quoted by SQLAlchemy. A
session reads only, where the database knows that. docs/sources.md has the text that lands of each type.

Does not belong here: what happens to the rows (`extract.py`, `generation.py`), when another try is made (the step's policy).
"""

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from lakehouse.core.errors import SourceDownError, SourceRefusedError
from lakehouse.core.names import check_name
from lakehouse.core.sql import bounded, explained, open_engine
from lakehouse.landing.sources.catalogue import Catalogue, catalogue
from lakehouse.landing.sources.cursors import Point
from lakehouse.landing.sources.extract import as_text, namesakes, stage_batches

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Select

_BATCH_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class SqlTable:
    """Which table, where, and the column that tells when a row was last written; `setting` is what messages call the URL."""

    url: str = field(repr=False)
    table: str
    schema: str = ""
    cursor: str | None = "updated_at"
    timezone: str = ""
    setting: str = "the URL"

    def __post_init__(self) -> None:
        check_name(self.table, "table name")
        if self.cursor is not None:
            check_name(self.cursor, "column name")
        if self.schema:
            check_name(self.schema, "schema name")


def extract(source: SqlTable, folder: Path, *, since: Point | None, deadline: float) -> list[str]:
    """Write the rows from `since` on to files in `folder`. Returns their paths.

    Args:
        deadline: `time.monotonic()` by which it ends.

    Raises:
        SourceDownError: worth another try: no answer, a cut connection, the time is up.
        SourceRefusedError: not: credentials, no such table or column.
    """
    with reading(source.url, f"The table {source.table}", setting=source.setting, deadline=deadline) as reader:
        return reader.table(source, reader.catalogue(source), folder, since=since)


@contextmanager
def reading(url: str, what: str, *, setting: str, deadline: float) -> "Iterator[Reader]":
    """A connection that reads, for the block; errors of the driver are those that `extract` raises."""
    seconds = deadline - time.monotonic()
    engine = open_engine(url, setting=setting, statement_seconds=max(seconds, 1), read_only=True)
    with (
        explained(f"{what} could not be read", setting=setting),
        engine.connect() as connection,
        bounded(connection, seconds=seconds),
    ):
        yield Reader(connection, deadline)


@dataclass(frozen=True)
class Reader:
    """An open connection, and when it has to be done."""

    connection: "Connection"
    deadline: float

    @property
    def dialect(self) -> str:
        return self.connection.dialect.name

    def catalogue(self, source: SqlTable) -> Catalogue:
        return catalogue(self.connection, source.table, source.schema)

    def table(self, source: SqlTable, known: Catalogue, folder: Path, *, since: Point | None) -> list[str]:
        """The rows of a table from a point on, or all."""
        quote = self.connection.dialect.identifier_preparer.quote
        selects = {name: column.select.format(quote(name)) for name, column in known.columns.items() if column.select}
        return self._staged(_statement(source, known, selects, self.dialect, since), folder)

    def query(self, statement: str, folder: Path) -> list[str]:
        """The rows that a statement of the database's own SQL returns."""
        return self._staged(statement, folder)

    def _staged(self, statement: "Select[Any] | str", folder: Path) -> list[str]:
        if self.dialect != "postgresql":
            return self._by_driver(statement, folder)
        from sqlalchemy.dialects import postgresql

        path = folder / "rows.csv"
        if not isinstance(statement, str):
            # Of this style the percent signs in names are not doubled, as the driver would have them of a statement.
            named = postgresql.dialect(paramstyle="named")
            statement = str(statement.compile(dialect=named, compile_kwargs={"literal_binds": True}))
        with path.open("wb") as out:
            cursor: Any = self.connection.connection.cursor()
            cursor.copy_expert(f"COPY ({statement}\n) TO STDOUT (FORMAT csv, HEADER)", out)
        with path.open(encoding="utf-8", newline="") as content:
            _check_names(next(csv.reader(content)))
        return [str(path)]

    def _by_driver(self, statement: "Select[Any] | str", folder: Path) -> list[str]:
        if self.dialect in ("mysql", "mariadb"):
            # The server's own texts: what the driver makes of durations, days like 0000-00-00 and numbers would be others.
            self.connection.connection.driver_connection.decoders = {}  # type: ignore[union-attr]
        options = {"stream_results": True, "yield_per": _BATCH_ROWS, "no_parameters": isinstance(statement, str)}
        connection = self.connection.execution_options(**options)
        result = connection.exec_driver_sql(statement) if isinstance(statement, str) else connection.execute(statement)
        names = list(result.keys())
        _check_names(names)
        return stage_batches(self._batches(result.partitions(_BATCH_ROWS), names), folder)

    def _batches(self, partitions: Iterator[Sequence[Any]], names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """The rows as batches of text columns, one at least."""
        import pyarrow as pa

        schema = pa.schema([(name, pa.string()) for name in names])
        yield pa.RecordBatch.from_pylist([], schema=schema)
        for rows in partitions:
            if time.monotonic() > self.deadline:
                raise SourceDownError("The database is too slow: the step's time was up.", remedy="Run again later.")
            columns = [pa.array([_text(value) for value in column], pa.string()) for column in zip(*rows, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _statement(
    source: SqlTable, known: Catalogue, selects: Mapping[str, str], dialect: str, since: Point | None
) -> "Select[Any]":
    import sqlalchemy as sa

    columns: list[Any] = [sa.text("*")]
    if selects:
        columns = [sa.literal_column(selects[n]).label(n) if n in selects else sa.column(n) for n in known.columns]
    chosen = sa.select(*columns).select_from(sa.table(source.table, schema=source.schema or None))
    if since is None or source.cursor is None:
        return chosen
    column: Any = sa.column(source.cursor)
    if isinstance(since, int):
        return chosen.where(sa.or_(column >= since, column.is_(None)))
    asked = [column >= _asked(since, source, known, dialect), column.is_(None)]
    if dialect == "sqlite":  # a number is less than any text
        asked.append(sa.func.typeof(column) != "text")
    return chosen.where(sa.or_(*asked))


def _asked(since: datetime, source: SqlTable, known: Catalogue, dialect: str) -> str:
    """The instant that is asked for, in the words of the column."""
    column = known.columns.get(source.cursor or "")
    local = since.astimezone(UTC)
    if source.timezone and column is not None and column.family == "local":
        local = since.astimezone(ZoneInfo(source.timezone))
        before, after = local.utcoffset(), (since + timedelta(hours=1)).astimezone(ZoneInfo(source.timezone)).utcoffset()
        # Where the clock is set back within the hour, what is written then has an earlier time of day.
        local = local.replace(tzinfo=None) - max((before or timedelta()) - (after or timedelta()), timedelta())
    # Whole seconds with a space: where instants are stored as text this comes before all spellings of them. A day comes before
    # its own instants, and a day alone is what a column of days is compared with.
    if dialect == "sqlite" or (column is not None and column.family == "day"):
        return f"{local:%Y-%m-%d}"
    return f"{local:%Y-%m-%dT%H:%M:%S}" if dialect == "mssql" else f"{local:%Y-%m-%d %H:%M:%S}"


def _check_names(names: Sequence[str]) -> None:
    """Refuse columns of one name: a file of them would have one alone."""
    if twins := namesakes(names):
        raise SourceRefusedError(
            f"Two columns are called {twins[0]!r}.", remedy="Give each its own name, in the query or a view."
        )


def _text(value: object) -> str | None:
    """A driver's value as text. Decimals are written out, durations are ISO 8601, a time of day has its fraction."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, timedelta):
        return f"{'-' if value < timedelta() else ''}PT{abs(value) / timedelta(seconds=1):f}S"
    return as_text(value)
