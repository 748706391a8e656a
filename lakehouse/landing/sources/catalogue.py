"""Catalogue: what a database itself knows of a table: its columns' types, which may be null, the key.

    information schema ─▶ Catalogue ─┬ the kind of a cursor, which columns are selected as another text (`database.py`)
                                     └ types, rules and key of a new declaration (`profile/`)

Does not belong here: reading rows. SQLAlchemy's inspector asks; a table that it does not find has no columns here, and the
statement that reads it says why.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.names import NAME

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: What a cursor counts in: instants (days too), or whole numbers.
CursorKind = Literal["instant", "number"]


@dataclass(frozen=True)
class Known:
    """A column as the database declares it.

    Args:
        type: in the words of the specs; empty where its texts decide.
        nullable: whether it may be null.
        family: what a cursor or a time zone has to do with it.
        select: SQL that reads it, with `{}` for its name, where the plain column would not be the value's text.
    """

    type: str = ""
    nullable: bool = True
    family: Literal["", "whole", "day", "local", "instant", "text"] = ""
    select: str = ""


@dataclass(frozen=True)
class Catalogue:
    """A table. `columns` are in order, by the names that the database has for them."""

    columns: Mapping[str, Known] = field(default_factory=dict)
    key: tuple[str, ...] = ()

    @property
    def local(self) -> tuple[str, ...]:
        """The columns whose instants have no zone."""
        return tuple(name for name, known in self.columns.items() if known.family == "local")

    def cursor_kind(self, column: str, table: str) -> CursorKind:
        """What a cursor on a column counts in.

        Raises:
            SourceRefusedError: the table does not have it, or it is nothing that grows.
        """
        if not self.columns:
            return "instant"
        if column not in self.columns:
            raise SourceRefusedError(
                f"The table {table} could not be read: no such column: {column}.",
                remedy=f"Use one of {', '.join(self.columns)} in Table({table!r}, cursor=...), or cursor=None.",
            )
        known = self.columns[column]
        if known.family == "whole":
            return "number"
        if known.family or not known.type:
            return "instant"
        raise SourceRefusedError(
            f"The column {column} of the table {table} cannot be its cursor: it is a {known.type}.",
            remedy="Use one with the instant of the last change, or a whole number that grows; or cursor=None.",
        )


def catalogue(connection: "Connection", table: str, schema: str = "") -> Catalogue:
    """What the database knows of a table or view; nothing of one that it does not have."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    try:
        columns = inspector.get_columns(table, schema=schema or None)
        key = inspector.get_pk_constraint(table, schema=schema or None).get("constrained_columns") or []
    except sa.exc.NoSuchTableError:
        return Catalogue()
    dialect = "mysql" if connection.dialect.name == "mariadb" else connection.dialect.name
    known = {str(column["name"]): _known(column["type"], dialect, nullable=bool(column["nullable"])) for column in columns}
    return Catalogue(known, tuple(str(column) for column in key))


def everything(connection: "Connection", schema: str = "") -> set[str]:
    """The names of all tables and views of a schema."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    return {*inspector.get_table_names(schema=schema or None), *inspector.get_view_names(schema=schema or None)}


def tables(
    connection: "Connection", schema: str = "", *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[str]:
    """The tables and views of a schema whose names can be declared and fit a pattern (`vendas_*`), in order."""
    names = everything(connection, schema)

    def fits(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return sorted(name for name in names if NAME.fullmatch(name) and fits(name, include) and not fits(name, exclude))


def _known(kind: Any, dialect: str, *, nullable: bool) -> Known:
    import sqlalchemy as sa

    kind = getattr(kind, "data_type", kind)  # of a PostgreSQL domain
    word = type_word(kind, strict=dialect != "sqlite")
    if isinstance(kind, sa.DateTime):
        return Known(word, nullable, "instant" if _has_zone(kind, dialect) else "local")
    family: Any = ""
    if isinstance(kind, sa.Date):
        family = "day"
    elif (isinstance(kind, sa.Integer) or type_word(kind, strict=True).endswith(",0)")) and not _is_flag(kind):
        family = "whole"
    elif isinstance(kind, sa.String):
        family = "text"
    return Known(word, nullable, family, _select(kind, dialect))


def type_word(kind: Any, *, strict: bool) -> str:
    """A database's type in the words of the specs; an empty one where the texts decide.

    Args:
        strict: the database stores nothing else in a column of the type, which SQLite does.
    """
    import sqlalchemy as sa

    if isinstance(kind, sa.Float):
        return "double"
    if isinstance(kind, sa.Numeric):
        fits = kind.precision is not None and kind.scale is not None and 0 <= kind.scale <= kind.precision <= 38
        return f"decimal({kind.precision},{kind.scale})" if fits and strict else ""
    if isinstance(kind, sa.Integer):
        # What is unsigned and has 64 bits is more than a bigint holds.
        return "decimal(20,0)" if isinstance(kind, sa.BigInteger) and getattr(kind, "unsigned", False) else "bigint"
    if _is_flag(kind):
        return "boolean"
    known = {sa.Boolean: "boolean", sa.DateTime: "timestamp", sa.Date: "date"}
    known |= {sa.String: "string", sa.Uuid: "string", sa.Time: "string", sa.Interval: "string"} if strict else {}
    return next((word for of, word in known.items() if isinstance(kind, of)), "")


def _is_flag(kind: Any) -> bool:
    """Whether a type is MySQL's for booleans, `tinyint(1)`, or one bit."""
    name = type(kind).__name__
    return (name == "TINYINT" and getattr(kind, "display_width", None) == 1) or (
        name == "BIT" and getattr(kind, "length", None) in (None, 1)
    )


def _has_zone(kind: Any, dialect: str) -> bool:
    """Whether values of the type are instants on a time line. MySQL's TIMESTAMP is, and reads as the session's zone, UTC."""
    if dialect == "mysql":
        return type(kind).__name__ == "TIMESTAMP"
    return bool(getattr(kind, "timezone", False)) or type(kind).__name__ == "DATETIMEOFFSET"


def _select(kind: Any, dialect: str) -> str:
    """SQL that reads a value whose own text loses something: digits of MySQL's FLOAT, the elements of PostgreSQL's arrays."""
    import sqlalchemy as sa

    name = type(kind).__name__
    if dialect == "postgresql":
        return "to_json({})" if isinstance(kind, sa.ARRAY) else "CAST({} AS numeric)" if name == "MONEY" else ""
    if dialect == "mysql":
        return "{} + 0e0" if name == "FLOAT" else f"lpad(bin({{}}), {kind.length or 1}, '0')" if name == "BIT" else ""
    return ""
