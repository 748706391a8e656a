"""The one place where a table is declared.

`spec/` holds the records, one file per source holds its tables, `ALL` below collects them. Pure data: no dagster, no I/O.
To add a table, add one record to a file here and run `make sync`.
"""

from lakehouse.tables import brt, pedidos, vendas
from lakehouse.tables.spec import TableSpec, check_tables

ALL: tuple[TableSpec, ...] = check_tables(*vendas.TABLES, *brt.TABLES, *pedidos.TABLES)


def parts() -> tuple[TableSpec, ...]:
    """Every table once for each of its bronze tables."""
    return tuple(part for spec in ALL for part in spec.parts)
