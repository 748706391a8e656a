"""Databases: the source that `make table` declares of a table of one, its setting, and the lines that declare it.

    postgresql://.../db#loja.contas  ─▶  CONTAS_DB = Database("contas_db", url=setting("CONTAS_DB_URL"), tables=(...,))

The URL itself is written to `.env` alone (`commands/table.py`).
"""

import re

from lakehouse.landing.sources.database import SqlTable
from lakehouse.profile.keys import Key
from lakehouse.tables.spec import AirbyteStream, Database, Source, Table
from lakehouse.tables.spec.setting import setting


def setting_of(name: str) -> str:
    """The setting with the URL of the database that a table comes from."""
    return f"{re.sub('_+', '_', name).strip('_').upper()}_DB_URL"


def source_name(name: str) -> str:
    """The source system, and so the landing asset, of a table."""
    return f"{name[:60]}_db"


def database_source(name: str, table: SqlTable, key: Key) -> AirbyteStream:
    """The stream of a new table: by the column that tells its newest version; without one, whole every time."""
    cursor = key.order[0] if key.columns and key.order and key.order != key.columns else None
    url = setting(setting_of(name), secret=True, description=f"the database with the table {table.table}: any SQLAlchemy URL")
    read = Table(table.table, cursor=cursor, schema=table.schema)
    return Database(source_name(name), url=url, tables=(read,)).table(table.table)


def system_of(source: Source) -> Database | None:
    """The database that a source is a table of."""
    system = getattr(source, "connector", None)
    return system if isinstance(system, Database) else None


def lands_whole(source: Source) -> bool:
    """Whether a source is a table of a database that lands as generations."""
    system = system_of(source)
    return system is not None and system.tables[0].full_refresh
