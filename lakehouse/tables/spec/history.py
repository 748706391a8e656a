"""History: a table beside the silver table with one row per version of a key. What must be true of such a declaration.

    TableSpec(name="clientes", ..., history=True)            every change of a value opens a version
    TableSpec(name="clientes", ..., history=("segmento",))   only a change of `segmento` does

`silver/<name>_history` has the columns of silver as they were when the version was opened, and four of its own.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef, check_name
from lakehouse.tables.spec.columns import Column

if TYPE_CHECKING:
    from lakehouse.tables.spec.table import TableSpec

VALID_FROM, VALID_TO, IS_CURRENT, VERSION = "valid_from", "valid_to", "is_current", "version"
COLUMNS = (
    Column(VALID_FROM, "timestamp", description="Instant since which the version is valid."),
    Column(VALID_TO, "timestamp", description="Instant at which the next version or a delete ended it; null while it is valid."),
    Column(IS_CURRENT, "boolean", description="Whether it is the version that silver has."),
    Column(VERSION, "int", description="Number of the version within its key, from 1."),
)


def history_ref(spec: "TableSpec") -> TableRef:
    """The history of a silver table, declared or not."""
    return TableRef("silver", f"{spec.silver_name}_history")


def tracked(spec: "TableSpec") -> tuple[str, ...]:
    """The columns of which a change opens a version: those named, else all but the key and the order."""
    if not isinstance(spec.history, bool):
        return spec.history
    return tuple(column.name for column in spec.columns if column.name not in (*spec.key, *spec.order))


def history_table(spec: "TableSpec") -> "TableSpec":
    """The history as the declaration of a table of its own: with its columns and key, of the same bronze tables. It has no rules:
    a record that silver refuses is in no version."""
    return replace(
        spec,
        silver_name=history_ref(spec).table,
        columns=(*spec.columns, *COLUMNS),
        key=(*spec.key, VALID_FROM),
        deleted=None,
        rules=(),
        history=False,
        description=f"{spec.description} One row per version, with the interval in which it was valid.".strip(),
    )


def with_histories(*specs: "TableSpec") -> "tuple[TableSpec, ...]":
    """The specs, each followed by that of its history where it declares one."""
    return tuple(table for spec in specs for table in ((spec, history_table(spec)) if spec.history else (spec,)))


def refs_of(*specs: "TableSpec") -> "tuple[TableRef, ...]":
    """Bronze, silver and histories of some specs, each once."""
    every = [ref for spec in with_histories(*specs) for ref in (*(part.bronze for part in spec.parts), spec.silver)]
    return tuple(dict.fromkeys(every))


def check_history(spec: "TableSpec") -> None:
    """Refuse a history that could not be computed exactly, or whose columns do not exist."""
    if spec.history is False:
        return
    what, names = f"Table {spec.name!r}", [column.name for column in spec.columns]
    if spec.history is not True and not (isinstance(spec.history, tuple) and spec.history):
        raise DeclarationError(f"{what}: history={spec.history!r}.", remedy='Use True, or columns: history=("status",).')
    check_name(history_ref(spec).table, "table name of a history")
    own = [column.name for column in COLUMNS if column.name in names]
    named = spec.history if isinstance(spec.history, tuple) else ()
    odd = [name for name in named if name not in names or name in spec.key]
    for wrong, message, remedy in (
        (not spec.key, "it has no key, so no row is a version of another", "Declare a key and an order."),
        (bool(spec.explode), "its rows are elements", "Declare the history of the table whose rows are the records."),
        (bool(spec.observed), "observed columns change with every record", "Leave the observed columns out."),
        (spec.sync == "overwrite" and bool(spec.feeds), "its feeds are whole at other instants", "Declare one source."),
        (spec.withdraws, "rows that are withdrawn were never there", "Declare withdrawals='keep'."),
        (bool(own), f"its column {own[:1]} is one of a history's own", "Give it another name."),
        (bool(odd), f"{odd[:1]} is no column beside the key", f"Name some of {', '.join(names)}."),
    ):
        if wrong:
            raise DeclarationError(f"{what} declares a history, and {message}.", remedy=f"{remedy} Or leave history out.")
