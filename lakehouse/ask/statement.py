"""Statements: what one asks for, by DuckDB's own parser; everything but a question about the lake's tables is refused.

The engine is confined to the lake's folders, but a file of the lake read by its path would show what the views mask, and other
versions than the view's. So a statement may name tables and functions that read no file, and nothing else.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import DELTA_LAYERS, NAME, TableRef

if TYPE_CHECKING:
    import duckdb

#: Table functions that read nothing but what the statement gives them, and DuckDB's own lists.
_FUNCTIONS = frozenset(("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "summary"))
_LISTS = frozenset(("duckdb_functions", "duckdb_keywords", "duckdb_settings", "duckdb_types", "icu_calendar_names"))
#: The lists of DuckDB that have the lake's tables.
_OF_TABLES = frozenset(("duckdb_tables", "duckdb_views", "duckdb_columns", "duckdb_schemas"))
#: Functions of a value that do something.
_ACTIONS = frozenset(("write_log", "enable_profile", "disable_profile"))
_CATALOGUES = frozenset(("information_schema", "pg_catalog"))
_EXPLAIN = re.compile(r"(?is)\s*explain\b(\s+analyze\b)?(\s*\(\s*(analyze|format)\b[^)]*\))?")

_CHANGES = ("{kind} changes tables, and only runs change the lake's.", "Ask with SELECT; change the data at its source.")
_REFUSED = {
    "COPY": ("COPY writes or reads files.", "Choose FORMAT=csv, json or parquet, and redirect what is printed."),
    "EXPORT": ("EXPORT writes files.", "Choose FORMAT=csv, json or parquet, and redirect what is printed."),
    "ATTACH": ("ATTACH opens another database.", "Land its data first: make table FROM=…, make connect URL=…."),
    "DETACH": ("DETACH closes a database, and there is only the lake.", "Leave it out."),
    "LOAD": ("INSTALL and LOAD bring code from elsewhere into this process.", "Use what DuckDB has itself."),
    "SET": ("SET, RESET and USE change settings, which are locked.", "Write silver.vendas; see LAKEHOUSE_MEMORY_LIMIT."),
    "PRAGMA": ("PRAGMA changes settings or reads files.", "Use DESCRIBE silver.vendas, or SHOW ALL TABLES."),
    "CALL": ("CALL runs what may change something.", "Use SELECT."),
    "TRANSACTION": ("There are no transactions: every statement sees the same versions.", "Leave BEGIN and COMMIT out."),
    "MULTI": ("A PIVOT that looks for its columns is two statements.", "Name them: PIVOT … ON column IN ('a', 'b') USING …."),
}
_LITTLE = ("PREPARE", "EXECUTE", "VACUUM", "ANALYZE")


class StatementError(LakehouseError):
    """A statement is refused, or DuckDB cannot carry it out. Nothing was changed."""


@dataclass(frozen=True)
class Statement:
    """A statement that may run. `tables` are those it names; `lists_tables` is whether it asks DuckDB which there are."""

    text: str
    tables: tuple[TableRef, ...] = ()
    lists_tables: bool = False


def split(connection: "duckdb.DuckDBPyConnection", text: str) -> list[str]:
    """The statements of a text, one by one.

    Raises:
        StatementError: it is no SQL.
    """
    import duckdb

    try:
        return [found.query.strip() for found in connection.extract_statements(text)]
    except duckdb.Error as error:
        raise explained(error) from None


def parse(connection: "duckdb.DuckDBPyConnection", text: str) -> Statement:
    """One statement, checked.

    Raises:
        StatementError: it is no SQL, more than one statement, or anything but a question about tables of the lake.
    """
    import duckdb

    try:
        found = connection.extract_statements(text)
    except duckdb.Error as error:
        raise explained(error) from None
    if len(found) != 1:
        what = "There is no statement." if not found else f"These are {len(found)} statements."
        raise StatementError(what, remedy="Ask one question at a time.")
    kind = str(found[0].type).rpartition(".")[2].removesuffix("_STATEMENT")
    question = text
    if kind == "EXPLAIN":
        question = text[match.end() :] if (match := _EXPLAIN.match(text)) else ""
        inner = connection.extract_statements(question)
        kind = str(inner[0].type).rpartition(".")[2] if len(inner) == 1 else "EXPLAIN"
    if kind != "SELECT":
        _refuse(kind)
    tree = json.loads(connection.execute("SELECT json_serialize_sql(CAST($1 AS VARCHAR))", [question]).fetchall()[0][0])
    if tree["error"]:
        raise StatementError(f"DuckDB cannot parse the statement: {tree['error_message']}.", remedy="Write it in another way.")
    tables: dict[TableRef, None] = {}
    lists = False
    for node in _walk(tree["statements"], frozenset()):
        named = _named(node)
        lists = lists or named is None
        tables.update({named: None} if named else {})
    return Statement(text, tuple(tables), lists)


def explained(error: Exception) -> StatementError:
    """DuckDB's error as one of ours: its own text, which has the line and what it would have known."""
    import duckdb

    if isinstance(error, duckdb.OutOfMemoryException):
        return StatementError(
            "The statement needs more memory than it may have.", remedy="Ask for less, or set LAKEHOUSE_MEMORY_LIMIT."
        )
    reported = str(error).strip() or type(error).__name__
    return StatementError(f"{reported}\n", remedy="Correct the statement: SHOW ALL TABLES and DESCRIBE silver.vendas list names.")


def _refuse(kind: str) -> None:
    what, remedy = _REFUSED.get(kind, _CHANGES)
    if kind in _LITTLE:
        what, remedy = "{kind} is not needed here.", "Use SELECT."
    raise StatementError(what.format(kind=kind.replace("_", " ")), remedy=remedy)


def _walk(node: Any, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every table, table function, function and list that a tree names; what a WITH around it defines is none.

    A definition sees those before it, and the recursive part of one itself: `WITH x AS (FROM x)` reads a table x.
    """
    if isinstance(node, list):
        for part in node:
            yield from _walk(part, names)
        return
    if not isinstance(node, dict):
        return
    for entry in (node.get("cte_map") or {}).get("map", []):
        yield from _walk(entry["value"], names)
        names |= {entry["key"].lower()}
    kind = node.get("type")
    if kind == "BASE_TABLE" and not node.get("schema_name") and node["table_name"].lower() in names:
        kind = ""
    if kind in ("BASE_TABLE", "TABLE_FUNCTION", "SHOW_REF", "FUNCTION"):
        yield node
    itself = {node["cte_name"].lower()} if kind == "RECURSIVE_CTE_NODE" else set[str]()
    for name, part in node.items():
        if name != "cte_map":
            yield from _walk(part, names | itself if name == "right" else names)


def _named(node: dict[str, Any]) -> TableRef | tuple[()] | None:
    """The table of the lake that a node names; () for none, None where it asks for DuckDB's list of tables.

    Raises:
        StatementError: it names something else: a file, a function that reads one, a table without its layer.
    """
    kind = node["type"]
    if kind == "FUNCTION":
        if node["function_name"].lower() in _ACTIONS:
            raise StatementError(f"The function {node['function_name']} does something.", remedy="Leave it out.")
        return ()
    if kind == "SHOW_REF":
        return None if node["show_type"] == "SHOW_SPECIAL" else ()
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].lower()
        if name in _FUNCTIONS | _LISTS:
            return ()
        if name in _OF_TABLES:
            return None
        raise StatementError(
            f"The function {name} could read files.", remedy="Name a table of the lake, silver.vendas; files are landed first."
        )
    return _table(node)


def _table(node: dict[str, Any]) -> TableRef | None:
    layer, table = node["schema_name"].lower(), node["table_name"].lower()
    if not node.get("catalog_name") and layer in _CATALOGUES:
        return None
    if node.get("at_clause"):
        raise StatementError("All tables of a statement have one instant.", remedy="Use AT=2026-11-20, which is for all of them.")
    known = ", ".join(DELTA_LAYERS)
    if not layer and NAME.fullmatch(table):
        raise StatementError(f"The table {table} has no layer.", remedy=f"Write silver.{table}; the layers are {known}.")
    if node.get("catalog_name") or layer not in DELTA_LAYERS or not NAME.fullmatch(table):
        shown = ".".join(filter(None, (node.get("catalog_name"), layer, table)))[:120]
        raise StatementError(f"{shown!r} is no table of the lake.", remedy=f"Write layer.table; the layers are {known}.")
    return TableRef(layer, table)
