"""Names and places: the one allow-list, and the one record that turns a table into its asset key and its URI.

Anything that becomes part of a path, of SQL or of Jinja passes `check_name` first.
"""

import re
import zoneinfo
from dataclasses import dataclass
from typing import Literal, get_args

from lakehouse.core.errors import DeclarationError

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: What computes tables.
Engine = Literal["duckdb", "spark"]
Layer = Literal["landing", "bronze", "silver", "gold", "warehouse", "reports", "ml", "ops", "quarantine"]
#: Columns that DuckDB gives to every Parquet file; one of that name in the file would take their place.
_ENGINES_OWN = ("file_index", "file_row_number")
#: Airbyte's columns of a delivered record, destinations v2.
AIRBYTE = ("_airbyte_raw_id", "_airbyte_extracted_at", "_airbyte_meta", "_airbyte_generation_id")
#: Names of regions: abbreviations like `EST` are another zone to another engine.
_ZONE = re.compile(r"UTC|[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)+")
LAYERS: tuple[str, ...] = get_args(Layer)
#: The layers that are Delta tables.
DELTA_LAYERS: tuple[Layer, ...] = ("bronze", "silver", "gold", "ml", "quarantine", "ops")


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it is allowed.

    Raises:
        DeclarationError: it is not of the form `[a-z][a-z0-9_]{0,62}`.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = repr(name)[:80]
        raise DeclarationError(
            f"{shown} cannot be a {what}.",
            remedy="Use 1 to 63 lower-case letters, digits and underscores, and begin with a letter.",
        )
    return name


def check_timezone(name: str, what: str) -> None:
    """Refuse what is no time zone for every engine.

    Raises:
        DeclarationError: there is no such region.
    """
    try:
        known = bool(_ZONE.fullmatch(name) and zoneinfo.ZoneInfo(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = False
    if not known:
        raise DeclarationError(
            f"{what}: there is no timezone {name!r}.", remedy="Use the name of a region, e.g. America/Sao_Paulo."
        )


def column_name(delivered: str) -> str | None:
    """The column that a delivered field is stored under, or None when no legal name can be derived.

    Airbyte delivers whatever the source calls its fields (`dataHora`, `Valor Total`); bronze stores them in lower case
    with underscores for everything else, and without leading underscores, which mark the lake's own columns. A trailing
    one tells a field from a column that the engine has itself.
    """
    candidate = re.sub(r"[^a-z0-9_]", "_", delivered.lower()).lstrip("_")
    candidate = f"{candidate}_" if candidate in _ENGINES_OWN else candidate
    return candidate if NAME.fullmatch(candidate) else None


@dataclass(frozen=True)
class TableRef:
    """One table of one layer: `key` for Dagster, its text (`silver/vendas`) for people."""

    layer: Layer
    table: str

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise DeclarationError(f"{self.layer!r} is not a layer.", remedy=f"Use one of {', '.join(LAYERS)}.")
        check_name(self.table, "table name")

    @property
    def key(self) -> list[str]:
        return [self.layer, self.table]

    def __str__(self) -> str:
        return f"{self.layer}/{self.table}"

    @property
    def how_to_make(self) -> str:
        """What to do where the table does not exist yet, as a sentence with the command to type."""
        return f"Materialise {self} first: make materialize SELECT='+key:\"{self}\"'."


def is_remote(location: str) -> bool:
    """Whether a place is in an object store."""
    return "://" in location
