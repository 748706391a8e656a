"""SQL databases as sources: which tables and queries are read, and whether what is new or all of it lands.

Names are written out: what assets there are has to be known without asking the database (docs/decisions/0080-databases.md).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name, check_timezone
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem

#: What a query is besides its words: comments, texts, and names in quotes.
_QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]", re.DOTALL)
#: Words of statements that write, lock or run something. A column of such a name stands in quotes.
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|into|create|alter|drop|truncate|grant|revoke|call|exec|execute|copy|lock)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Table:
    """A table or view of a database.

    Args:
        name: as the database calls it.
        cursor: the column that says what is new: an instant or a day of the last change, or a whole number that grows with each
            new row (changed rows are not seen by it). Without one (`cursor=None`) each run reads the whole table, and lands it
            as a new generation where it has changed: `TableSpec(sync="overwrite")` then sees deleted rows as well.
        schema: where it is not the connection's own.
        folder: where below `raw/` it lands, when that is not `<source>/<name>`.
        timezone: of instants that the database has without a zone; UTC by default.
        overlap: of a cursor that is a number: how far below the highest one rows are asked for again, since a slow transaction
            commits a lower number late. That of instants is the source's.
    """

    name: str
    cursor: str | None = "updated_at"
    schema: str = ""
    folder: str = ""
    timezone: str = ""
    overlap: int = 10_000

    def __post_init__(self) -> None:
        check_name(self.name, "table name")
        if self.cursor is not None:
            check_name(self.cursor, "column name")
        if self.schema:
            check_name(self.schema, "schema name")
        if self.timezone:
            check_timezone(self.timezone, f"Table {self.name!r} of a database")
        if self.overlap < 0:
            raise DeclarationError(f"Table {self.name!r} of a database: overlap {self.overlap}.", remedy="Give 0 or more.")

    @property
    def full_refresh(self) -> bool:
        """Whether each run reads all of it."""
        return self.cursor is None


@dataclass(frozen=True)
class Query:
    """What a SELECT returns, read whole by each run like a table without a cursor.

        Query("estoque", "SELECT id, sum(quantidade) AS quantidade FROM movimentos GROUP BY id", key=("id",))

    It is one statement in the database's own SQL and runs in a transaction that cannot write, where the database has those.

    Args:
        key: columns of which no two rows may have the same values, nor null; a result that does is refused.
        folder: as of a table. Instants that it returns without a zone are UTC.
    """

    name: str
    sql: str
    key: tuple[str, ...] = ()
    folder: str = ""

    full_refresh: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_name(self.name, "query name")
        for column in self.key:
            check_name(column, "column name")
        words = _QUOTED.sub(" ", self.sql).strip().removesuffix(";")
        if not re.match(r"\(*\s*(select|with)\b", words, re.IGNORECASE) or ";" in words or re.search(r"/\*M?!", self.sql):
            raise DeclarationError(f"Query {self.name!r} is not one SELECT.", remedy="Give one statement, SELECT or WITH.")
        if found := _WRITES.search(words):
            raise DeclarationError(
                f"Query {self.name!r} has the word {found[0]!r}: a source is read only.",
                remedy="Leave it out; put the name of a column in quotes.",
            )

    @property
    def statement(self) -> str:
        """The SQL without what ends a statement."""
        return self.sql.strip().removesuffix(";").rstrip()


@dataclass(frozen=True, kw_only=True)
class Database(SourceSystem):
    """A SQL database, by any SQLAlchemy URL.

    FILIAL = Database("filial", url=setting("FILIAL_DB_URL", secret=True), tables=(Table("pedidos", cursor="updated_at"),))
    TableSpec(name="pedidos_filial", source=FILIAL.table("pedidos"), ...)
    """

    kind: ClassVar[str] = "sql"

    tables: tuple[Table | Query, ...]

    def __post_init__(self) -> None:
        given: object = self.tables
        if not isinstance(given, tuple) or not all(isinstance(one, (Table, Query)) for one in given):
            raise DeclarationError(
                f"Source {self.name!r}: tables are {given!r:.80}.",
                remedy="Name each: tables=(Table('pedidos'), Table('clientes', cursor=None)).",
            )
        super().__post_init__()

    @property
    def streams(self) -> Sequence[Table | Query]:
        return self.tables

    def table(self, name: str) -> AirbyteStream:
        """One of its tables or queries as the source of a table of the lake.

        Raises:
            DeclarationError: it reads no such table.
        """
        return self.stream(name)
