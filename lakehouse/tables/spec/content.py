"""Content: which parts of a declaration decide what its tables hold, so that their code versions are made of all of them.

Here: the one list, by layer; a test refuses a part that is in none. Not here: the digests that a commit of silver has of what
decides the value of a column (`silver/forms.py`).
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from lakehouse.tables.spec.table import TableSpec

#: A file is refused by its fields and key, a record that is added counts once, a generation is taken in whole.
BRONZE = frozenset(("source", "values", "columns", "key", "sync", "drift", "retention", "explode"))
#: The partition is never null; what has expired is no row.
SILVER = frozenset(
    ("feeds", "values", "columns", "sync", "key", "order", "deleted", "rules", "transform", "partition", "retention", "explode")
)
#: How it is computed, watched and called; the history is a table of its own.
NEITHER = frozenset(
    (
        *("name", "silver_name", "on_change", "max_loss", "engine", "freshness", "file_mb"),
        *("history", "health", "subject", "description", "owners", "tags"),
    )
)


def of_bronze(spec: TableSpec) -> Mapping[str, Any]:
    """What decides the records of a bronze table, by part; what is not declared is left out."""
    stated = _stated(spec, BRONZE)
    stated["columns"] = [*spec.fields.values()]
    if spec.retention is not None:
        stated["retention"] = (spec.retention.event, spec.retention.bronze)
    return stated


def of_silver(spec: TableSpec) -> Mapping[str, Any]:
    """The same of the rows of a silver table."""
    stated = _stated(spec, SILVER)
    if spec.feeds:
        stated["feeds"] = [(feed.name, dict(feed.values)) for feed in spec.feeds]
    if spec.withdraws:  # the source itself is bronze's
        stated["withdrawals"] = [part.name for part in spec.parts if part.withdraws]
    if spec.retention is not None:
        stated["retention"] = (spec.retention.event, spec.retention.silver)
    return stated


def of_history(spec: TableSpec) -> Mapping[str, Any]:
    """The same of the rows of a silver table's history."""
    return {**of_silver(spec), "history": spec.history}


def _stated(spec: TableSpec, names: frozenset[str]) -> dict[str, Any]:
    given = ((part, getattr(spec, part.name)) for part in fields(spec) if part.name in names)
    return {part.name: value for part, value in given if value != _default(part)}


def _default(part: "Field[Any]") -> Any:
    return part.default_factory() if part.default_factory is not MISSING else part.default
