"""A DuckDB database of this process: bounded in memory, confined to folders; names, paths and types as its SQL has them.

What it computes is in `duckdb.py`, which needs Narwhals, or a question's own SQL (`lakehouse/ask/`), which does not wait for it.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

#: Delta types and DuckDB's words for them, where they differ.
_TYPES = {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ"}


def open_database(
    *, memory_limit: str, spill: str, folders: Sequence[str], threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A private in-memory database in UTC that sees its `folders` and no other file; what outgrows its memory is in `spill`."""
    config: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": spill}
    if threads:
        config["threads"] = threads
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = true")
    with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets there is none that could be set
        connection.execute("SET enable_progress_bar = false")
    # Give freed memory back at once; it is wanted by the next step of a refresh.
    connection.execute("SET allocator_flush_threshold = '16MB'")
    confine(connection, folders)
    return connection


def sql_type(kind: str) -> str:
    """DuckDB's name of a spec type."""
    return _TYPES.get(kind, kind)


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A value as an SQL text, for statements that take no parameters."""
    return "'" + value.replace("'", "''") + "'"


def literal(path: str) -> str:
    """A path as DuckDB reads that one file: `[`, `*` and `?` in it would select others."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def confine(connection: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
    """From here on this database reads and writes files below these folders alone (a file may be given too), loads no
    extension that is not part of DuckDB, and no cursor can change its settings.

    DuckDB resolves links, of the folders and of what is opened: a link that leads out of them is refused like any other file.
    """
    files = [folder for folder in folders if Path(folder).is_file()]
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    # Refused once external access is off, which cannot be turned on again.
    # With what `literal` makes of them: DuckDB compares a pattern before it takes it apart.
    allowed = {form for folder in folders if folder not in files for form in (folder, str(Path(folder).resolve()))}
    connection.execute(f"SET allowed_directories = {_texts(sorted(allowed | set(map(literal, allowed))))}")
    connection.execute(f"SET allowed_paths = {_texts(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _texts(values: Iterable[str]) -> str:
    """A list as SQL."""
    return f"[{', '.join(map(text, values))}]"
