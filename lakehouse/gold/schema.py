"""The columns of every mart as its dbt contract states them, in the words of the specs.

What belongs here: reading contracts out of a parsed manifest. What does not: running dbt, reading or writing tables.

dbt enforces the contract on the candidate; the published Delta table has the same columns in the same order, so a mart's
schema is written in one place, its yml.
"""

import re
from collections.abc import Mapping
from typing import Any

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef, check_name

_MARTS = "marts"
_PLAIN = ("bigint", "boolean", "date", "double", "int", "string", "timestamp")
#: DuckDB's words for the same types. Instants are UTC in the lake, so a plain timestamp is one too.
_SAME = {
    "varchar": "string",
    "text": "string",
    "integer": "int",
    "timestamptz": "timestamp",
    "timestamp with time zone": "timestamp",
}
_DECIMAL = re.compile(r"(?:decimal|numeric)\(([1-9]|[12]\d|3[0-8]),(\d|[12]\d|3[0-8])\)")


def mart_columns(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """`{mart: {column: type}}` for every model of `models/marts`, marts by name and columns in the contract's order.

    Args:
        manifest: a parsed manifest.json.

    Raises:
        DeclarationError: a mart has no enforced contract, or a column without a type that a Delta table can have.
    """
    marts = {node["name"]: node for node in manifest["nodes"].values() if _is_mart(node)}
    return {name: _columns(name, marts[name]) for name in sorted(marts)}


def source_columns(manifest: Mapping[str, Any], table: TableRef) -> dict[str, str]:
    """`{column: type}` of a dbt source, as its yml declares them."""
    (node,) = (n for n in manifest["sources"].values() if (n["schema"], n["name"]) == (table.layer, table.table))
    return {name: _spec_type(str(table), name, column.get("data_type")) for name, column in node["columns"].items()}


def _is_mart(node: Mapping[str, Any]) -> bool:
    return node["resource_type"] == "model" and _MARTS in node["fqn"][1:-1]


def _columns(mart: str, node: Mapping[str, Any]) -> dict[str, str]:
    check_name(mart, "mart name")
    columns = node["columns"]
    if not columns or not node["config"].get("contract", {}).get("enforced"):
        raise DeclarationError(
            f"The mart {mart!r} has no enforced contract, so its published table would have no declared columns.",
            remedy=f"Declare its columns with data_type and `contract: {{enforced: true}}` in models/marts/{mart}.yml.",
        )
    return {name: _spec_type(mart, name, column.get("data_type")) for name, column in columns.items()}


def _spec_type(mart: str, column: str, declared: str | None) -> str:
    check_name(column, "column name")
    kind = re.sub(r"\s*([(),])\s*", r"\1", (declared or "").strip().lower())
    kind = _SAME.get(kind, kind)
    if kind in _PLAIN:
        return kind
    decimal = _DECIMAL.fullmatch(kind)
    if decimal and int(decimal[2]) <= int(decimal[1]):
        return f"decimal({decimal[1]},{decimal[2]})"
    raise DeclarationError(
        f"Column {column!r} of the mart {mart!r} has the type {declared!r}, which a published table cannot have.",
        remedy=f"Use {', '.join(_PLAIN)} or decimal(p,s) in models/marts/{mart}.yml, and cast to it in the model.",
    )
