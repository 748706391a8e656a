"""One lake table into a SQL database: the rows of one version, and that version, in one transaction.

    snapshot (version v) ─▶ [transaction: lock its row ─▶ is v there? ─▶ DELETE ─▶ COPY or INSERT ─▶ note v] ─▶ <schema>.<table>

Which version a table holds is a row of `lakehouse_published`, written in the same transaction: a run of the same version does
nothing, a kill leaves the version before, and no reader sees anything between two versions. Rows are replaced and the table
stays, so grants, views and indexes of its readers do; only when the declared columns change is it made anew. The new rows are
written beside the old ones until the commit, so readers are not kept waiting either. Of a table that the lake keeps apart by
days, only the days are replaced whose files are others than in the version that is there.

Names pass the allow-list of the specs and SQLAlchemy's quoting. Pure: no dagster. Not here: which tables, and when.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from lakehouse.core.engines.duckdb import DuckDBSession, quoted, text
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef, check_name
from lakehouse.core.sql import bounded, explained, open_engine
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing

if TYPE_CHECKING:
    import sqlalchemy as sa

SETTING = "LAKEHOUSE_WAREHOUSE_URL"
#: Which version of which lake table each table holds.
VERSIONS = "lakehouse_published"
#: In it: the publication that names this version of a mart.
_PUBLICATION = "publication"
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """The SQL database and how it is written.

    Args:
        schema: where the tables are; empty is the database's default.
        chunksize: rows of one INSERT; PostgreSQL takes a COPY instead.
        lock_seconds: how long to wait for a lock that somebody holds on a table.
        seconds: how long one table may take.
    """

    url: str = field(repr=False)
    schema: str = ""
    chunksize: int = 1000
    lock_seconds: float = 30
    seconds: float = 300

    def __post_init__(self) -> None:
        if self.schema:
            check_name(self.schema, "schema name")
        if self.chunksize < 1:
            raise DeclarationError(f"A chunk of {self.chunksize} rows is none.", remedy="Set LAKEHOUSE_WAREHOUSE_CHUNKSIZE.")


@dataclass(frozen=True)
class Target:
    """One table of the warehouse: what is published, with which columns, and what identifies a row."""

    source: TableRef
    columns: Mapping[str, str]
    key: tuple[str, ...] = ()

    @property
    def ref(self) -> TableRef:
        return TableRef("warehouse", self.source.table)


@dataclass(frozen=True)
class Published:
    """What a table of the warehouse holds. `written` is whether this call wrote it."""

    version: int
    rows: int
    written: bool
    seconds: float = 0.0


def publish(
    session: DuckDBSession,
    warehouse: Warehouse,
    target: Target,
    snapshot: Snapshot,
    *,
    publication: Callable[[], int | None] = lambda: None,
) -> Published:
    """Have the warehouse hold this version of a table, or a newer one.

    Args:
        publication: looks up the number of the publication that names this version (`core/publications.py`), which is noted
            beside the rows when they are written.

    Raises:
        SourceDownError: worth another try: no answer, a cut connection, a lock that was not given.
        SourceRefusedError: not: credentials, rights, a value that the database cannot hold.
    """
    import sqlalchemy as sa

    begun = time.monotonic()
    what = f"{target.ref} could not be written"
    table = _table(warehouse, target)
    versions = _versions(warehouse)
    engine = open_engine(warehouse.url, setting=SETTING, statement_seconds=warehouse.seconds, lock_seconds=warehouse.lock_seconds)
    _prepare(engine, warehouse, versions, target, what)
    with explained(what, setting=SETTING), engine.begin() as connection, bounded(connection, seconds=warehouse.seconds):
        # One writer at a time; the second waits here and then sees what the first has done.
        row = connection.execute(sa.select(versions).where(versions.c.name == target.source.table).with_for_update()).one()
        form = _form(target)
        if row.source not in ("", str(target.source)):
            raise DeclarationError(
                f"{target.ref} holds {row.source}, not {target.source}.",
                remedy=f"Give one of them another name, or remove its row of {VERSIONS}.",
            )
        same = (row.delta_id, row.form) == (snapshot.id, form) and sa.inspect(connection).has_table(
            table.name, schema=warehouse.schema or None
        )
        if same and row.version >= snapshot.version:
            return Published(row.version, row.rows, written=False)
        if row.form != form:
            table.drop(connection, checkfirst=True)
        table.create(connection, checkfirst=True)
        days = _changed_days(snapshot, row.version) if same else None
        gone = connection.execute(table.delete() if days is None else table.delete().where(table.c[days.column].in_(days.days)))
        paths = snapshot.paths(None if days is None else days.files)
        rows = _copy(session, connection, table, target, paths, chunksize=warehouse.chunksize)
        rows += 0 if days is None else row.rows - gone.rowcount
        noted = {
            "source": str(target.source),
            "delta_id": snapshot.id,
            "version": snapshot.version,
            "form": form,
            "rows": rows,
            "published_at": datetime.now(UTC),
            _PUBLICATION: publication(),
        }
        connection.execute(versions.update().where(versions.c.name == target.source.table).values(noted))
    return Published(snapshot.version, rows, written=True, seconds=time.monotonic() - begun)


@dataclass(frozen=True)
class _Days:
    """Days of a partitioned table that are to be replaced, and the files that hold them now."""

    column: str
    days: tuple[date, ...]
    files: tuple[DataFile, ...]


def _changed_days(snapshot: Snapshot, before: int) -> _Days | None:
    """What differs between a version and an older one; None where days do not tell."""
    columns = snapshot.partition_columns
    if len(columns) != 1:
        return None
    try:
        older = open_existing(snapshot.uri, version=before)
    except BrokenTableError:  # its log was cleaned up
        return None
    if older is None or older.partition_columns != columns:
        return None
    then, now = ({file.path: file for file in found.files} for found in (older, snapshot))
    differ = [file for path, file in (then | now).items() if (path in then) != (path in now)]
    values = {(file.partition or {}).get(columns[0]) for file in differ}
    if None in values:
        return None
    files = tuple(file for file in snapshot.files if (file.partition or {}).get(columns[0]) in values)
    return _Days(columns[0], tuple(date.fromisoformat(str(value)) for value in sorted(map(str, values))), files)


def published_state(warehouse: Warehouse, target: Target) -> tuple[int, dict[str, Any]] | None:
    """Of a table of the warehouse: its version, and the count of its rows with the sum of each decimal and integer column.

    None when it is not published. Both are of one moment.
    """
    import sqlalchemy as sa

    table, versions = _table(warehouse, target), _versions(warehouse)
    engine = open_engine(warehouse.url, setting=SETTING, statement_seconds=warehouse.seconds, lock_seconds=warehouse.lock_seconds)
    with explained(f"{target.ref} could not be read", setting=SETTING), engine.connect() as plain:
        # One statement sees one moment; PostgreSQL's default isolation does not promise it of two.
        connection = plain.execution_options(isolation_level="REPEATABLE READ") if engine.dialect.name == "postgresql" else plain
        if not sa.inspect(connection).has_table(VERSIONS, schema=warehouse.schema or None):
            return None
        row = connection.execute(sa.select(versions).where(versions.c.name == target.source.table)).one_or_none()
        if row is None or not row.form:
            return None
        sums = [sa.func.sum(table.c[name]).label(name) for name in measures(target)]
        found = connection.execute(sa.select(sa.func.count().label("rows"), *sums).select_from(table)).one()
        return int(row.version), dict(found._mapping)


def measures(target: Target) -> list[str]:
    """The columns that add up exactly."""
    return [
        name for name, kind in target.columns.items() if kind.startswith(("decimal", "bigint", "int")) and name not in target.key
    ]


def _prepare(engine: "sa.Engine", warehouse: Warehouse, versions: "sa.Table", target: Target, what: str) -> None:
    """Schema, version table and this table's row in it; each is there already but for the first time."""
    import sqlalchemy as sa

    if warehouse.schema and engine.dialect.name == "sqlite":
        raise DeclarationError("SQLite has no schemas.", remedy="Leave LAKEHOUSE_WAREHOUSE_SCHEMA empty.")
    name = target.source.table
    empty = {"name": name, "source": "", "delta_id": "", "version": -1, "form": "", "rows": 0, "published_at": None}
    with explained(what, setting=SETTING), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two first runs at once: IF NOT EXISTS alone lets one of them fail.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(VERSIONS))))
        if warehouse.schema:
            connection.execute(sa.schema.CreateSchema(warehouse.schema, if_not_exists=True))
        versions.create(connection, checkfirst=True)
        columns = [column["name"] for column in sa.inspect(connection).get_columns(VERSIONS, schema=warehouse.schema or None)]
        if _PUBLICATION not in columns:  # an earlier release made it
            quoted_table = connection.dialect.identifier_preparer.format_table(versions)
            connection.execute(sa.DDL(f"ALTER TABLE {quoted_table} ADD COLUMN {_PUBLICATION} BIGINT"))
        if connection.execute(sa.select(versions.c.name).where(versions.c.name == name)).first() is None:
            connection.execute(versions.insert().values(empty))


def _table(warehouse: Warehouse, target: Target) -> "sa.Table":
    import sqlalchemy as sa

    check_name(target.source.table, "table name")
    columns = [
        sa.Column(check_name(name, "column name"), _type(kind), primary_key=name in target.key, autoincrement=False)
        for name, kind in target.columns.items()
    ]
    return sa.Table(target.source.table, sa.MetaData(), *columns, schema=warehouse.schema or None)


def _versions(warehouse: Warehouse) -> "sa.Table":
    import sqlalchemy as sa

    return sa.Table(
        VERSIONS,
        sa.MetaData(),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("source", sa.String(130), nullable=False),
        sa.Column("delta_id", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column(_PUBLICATION, sa.BigInteger),
        schema=warehouse.schema or None,
    )


def _type(kind: str) -> Any:
    import sqlalchemy as sa

    if found := _DECIMAL.fullmatch(kind):
        # SQLite has no decimals; the doubles that it keeps are told apart to 15 digits.
        return sa.Numeric(int(found[1]), int(found[2])).with_variant(
            sa.Numeric(int(found[1]), int(found[2]), asdecimal=False), "sqlite"
        )
    types: dict[str, Any] = {
        "string": sa.Text(),
        "bigint": sa.BigInteger(),
        "int": sa.Integer(),
        "double": sa.Double(),
        "boolean": sa.Boolean(),
        "date": sa.Date(),
        "timestamp": sa.DateTime(timezone=True),
    }
    return types[kind]


def _form(target: Target) -> str:
    """The columns as they were declared, to see when they change."""
    return json.dumps([list(target.columns.items()), target.key])


def _copy(
    session: DuckDBSession,
    connection: "sa.Connection",
    table: "sa.Table",
    target: Target,
    paths: Sequence[str],
    *,
    chunksize: int,
) -> int:
    frame = session.read(paths, dict(target.columns))
    relation: duckdb.DuckDBPyRelation = frame.to_native()
    if connection.dialect.name == "postgresql":
        return _copy_in(session, connection, table, target, relation)
    if connection.dialect.name == "sqlite":
        doubles = [
            f"CAST({quoted(n)} AS DOUBLE) AS {quoted(n)}" for n, kind in target.columns.items() if kind.startswith("decimal")
        ]
        relation = relation.select(f"* REPLACE ({', '.join(doubles)})") if doubles else relation
    names, rows = list(target.columns), 0
    relation.create_view("_published")
    result = session.connection.execute("FROM _published")
    while chunk := result.fetchmany(chunksize):
        connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in chunk])
        rows += len(chunk)
    session.connection.execute("DROP VIEW _published")
    return rows


def _copy_in(
    session: DuckDBSession, connection: "sa.Connection", table: "sa.Table", target: Target, relation: duckdb.DuckDBPyRelation
) -> int:
    """PostgreSQL: one COPY from a file of this machine."""
    name, path = f"copy_{target.source.table}", Path(session.folder, f"{target.source.table}.csv")
    relation.create_view(name)
    try:
        options = "FORMAT csv, HEADER false, NULLSTR '\\N'"
        [(rows,)] = session.connection.execute(f"COPY {name} TO {text(str(path))} ({options})").fetchall()
        target_name = connection.dialect.identifier_preparer.format_table(table)
        listed = ", ".join(connection.dialect.identifier_preparer.quote(column) for column in target.columns)
        cursor: Any = connection.connection.cursor()
        with path.open("rb") as content:
            cursor.copy_expert(f"COPY {target_name} ({listed}) FROM STDIN (FORMAT csv, NULL '\\N')", content, size=1 << 20)
        return int(rows)
    finally:
        session.connection.execute(f"DROP VIEW {name}")
        path.unlink(missing_ok=True)
