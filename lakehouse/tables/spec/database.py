"""SQL databases as sources: which tables are read, and how far they came."""

from dataclasses import dataclass
from typing import ClassVar

from lakehouse.core.names import check_name
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem


@dataclass(frozen=True)
class Table:
    """A table of a database.

    Args:
        name: as the database calls it.
        cursor: the column that says when a row was last written.
        schema: where it is not the connection's own.
        folder: where below `raw/` it lands, when that is not `<source>/<name>`.
    """

    name: str
    cursor: str = "updated_at"
    schema: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "table name")
        check_name(self.cursor, "column name")
        if self.schema:
            check_name(self.schema, "schema name")


@dataclass(frozen=True, kw_only=True)
class Database(SourceSystem):
    """A SQL database, by any SQLAlchemy URL.

    FILIAL = Database("filial", url=setting("FILIAL_DB_URL", secret=True), tables=(Table("pedidos", cursor="updated_at"),))
    TableSpec(name="pedidos_filial", source=FILIAL.table("pedidos"), ...)
    """

    kind: ClassVar[str] = "sql"

    tables: tuple[Table, ...]

    @property
    def streams(self) -> tuple[Table, ...]:
        return self.tables

    def table(self, name: str) -> AirbyteStream:
        """One of its tables as the source of a table of the lake.

        Raises:
            DeclarationError: it reads no such table.
        """
        return self.stream(name)
