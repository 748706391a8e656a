"""Values of DuckDB's types as text: what bronze holds of a typed value, and what a nested one is compared by."""

import re
from collections.abc import Mapping
from typing import Any, cast

import duckdb
import narwhals as nw
from duckdb.sqltypes import DuckDBPyType

from lakehouse.core.engines.duckdb import quoted

#: What Airbyte calls the members of a union in Parquet: a record has one of them.
_MEMBER = re.compile(r"member\d+")
#: What Delta's scan gives of a variant.
_VARIANT = [("metadata", "blob"), ("value", "blob")]


def with_texts(frame: "nw.LazyFrame[Any]", texts: Mapping[str, str], *, variants: bool = False) -> "nw.LazyFrame[Any]":
    """A frame of DuckDB with these columns as text instead, `{name: name of the text}`.

    Args:
        variants: a struct of the bytes `metadata` and `value` is a variant of Delta, and has the value that they encode.
    """
    relation = cast("duckdb.DuckDBPyRelation", frame.to_native())
    columns = {
        texts.get(name, name): as_text(quoted(name), kind, variants=variants) if name in texts else quoted(name)
        for name, kind in zip(relation.columns, relation.types, strict=True)
    }
    return nw.from_native(relation.select(*[duckdb.SQLExpression(value).alias(name) for name, value in columns.items()]))


def as_text(value: str, kind: DuckDBPyType, *, variants: bool = False) -> str:
    """SQL of a value as text: a nested value as JSON, a union as its member that is not null.

    Args:
        value: SQL.
        variants: as in `with_texts`.
    """
    if variants and _has_variant(kind):
        return f"CAST(to_json({_decoded(value, kind)}) AS VARCHAR)"
    members = _parts(kind) if kind.id == "struct" else []
    if members and all(_MEMBER.fullmatch(name) for name, _ in members):
        return f"coalesce({', '.join(as_text(f'{value}.{quoted(name)}', of) for name, of in members)})"
    nested = kind.id in ("struct", "map", "union", "list", "array", "variant")
    return f"CAST(to_json({value}) AS VARCHAR)" if nested else f"CAST({value} AS VARCHAR)"


def _parts(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    return cast("list[tuple[str, DuckDBPyType]]", kind.children)


def _is_variant(kind: DuckDBPyType) -> bool:
    return kind.id == "struct" and [(name, of.id) for name, of in _parts(kind)] == _VARIANT


def _has_variant(kind: DuckDBPyType) -> bool:
    if kind.id not in ("struct", "map", "list", "array"):
        return False
    return _is_variant(kind) or any(_has_variant(of) for _, of in _parts(kind) if isinstance(of, DuckDBPyType))


def _decoded(value: str, kind: DuckDBPyType, depth: int = 0) -> str:
    """SQL of a value whose variants, at any depth, are DuckDB's."""
    if not _has_variant(kind):
        return value
    if _is_variant(kind):
        return f"CASE WHEN {value} IS NOT NULL THEN variant_bytes_to_variant({value}.metadata || {value}.value) END"
    parts, item = dict(_parts(kind)), f"_item{depth}"
    if kind.id == "struct":
        packed = (f"{quoted(name)} := {_decoded(f'{value}.{quoted(name)}', of, depth)}" for name, of in parts.items())
        return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(packed)}) END"
    if kind.id == "map":
        inner = f"struct_pack(key := {item}.key, value := {_decoded(f'{item}.value', parts['value'], depth + 1)})"
        return f"map_from_entries(list_transform(map_entries({value}), lambda {item}: {inner}))"
    return f"list_transform({value}, lambda {item}: {_decoded(item, parts['child'], depth + 1)})"
