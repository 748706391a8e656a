"""Delta: what the schema of another writer's table makes of its columns: the type of each, exactly, and what has no type here.

    table's schema ─▶ {field: type of a spec}, {field: what it is there, and what is made of it}

The rows are read and measured as those of any other source (`trial.py`, `columns.py`).
"""

import re

from lakehouse.core.table.foreign import NESTED, ForeignTable, require_foreign
from lakehouse.profile.propose import Hints
from lakehouse.tables.spec import DeltaSource

_TYPES = {
    **{"string": "string", "long": "bigint", "integer": "int", "short": "int", "byte": "int", "double": "double"},
    **{"float": "double", "boolean": "boolean", "date": "date", "timestamp": "timestamp", "timestamp_ntz": "timestamp"},
}
#: What is made of a value whose type no column has.
_ODD = {
    "timestamp_ntz": "no time zone, taken as UTC; else declare timezone",
    "float": "a double of the same digits",
    "binary": "a text here, with \\xFF for bytes that are no letters",
    "void": "no value is in it; give it a type when there is one",
    **dict.fromkeys(NESTED, "a text here, its JSON; path= leads to a value within"),
}


def delta_hints(source: DeltaSource) -> Hints:
    """What the table at a source is, for its profile.

    Raises:
        BrokenTableError: there is none, or it cannot be read.
        ForeignTableError: it has something that is not read here.
    """
    table = require_foreign(source.uri, timezone=source.timezone, remedy="Look at FROM.")
    types = {name: type_of(kind) for name, kind in table.kinds.items()}
    exact = {name: f"{kind}: {odd}" if (odd := odd_of(kind)) else kind for name, kind in table.kinds.items()}
    features = f" with {', '.join(table.features)}" if table.features else ""
    parts = ", ".join(table.partition_columns)
    divided = (f'partitioned by {parts} there; here one column can be: partition="..."',) if parts else ()
    return Hints(types, exact=exact, about=(f"version {table.version} of the Delta table{features}", *divided))


def type_of(kind: str) -> str:
    """A type of Delta in the words of the specs; string for what no column has a type for."""
    return kind.replace(" ", "") if re.fullmatch(r"decimal\(\d+, ?\d+\)", kind) else _TYPES.get(kind, "string")


def odd_of(kind: str) -> str:
    """What is made of a type that no column has; empty for the others."""
    return _ODD.get(kind, "" if kind in _TYPES or kind.startswith("decimal") else "a text here")


def odd_columns(table: ForeignTable) -> list[str]:
    """A line for each column of a type that no column has here."""
    return [f"{name} is {kind}: {odd}" for name, kind in table.kinds.items() if (odd := odd_of(kind))]
