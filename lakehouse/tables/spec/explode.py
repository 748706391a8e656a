"""Explode: a table whose rows are the elements of an array that its records have. What must hold of its declaration.

    TableSpec(
        name="pedidos_itens", source=AirbyteStream("pedidos"), explode="itens",
        columns=(
            Column("pedido_id", "bigint", source="id", parent=True),  # of the record
            Column("posicao", "int", position=True),                  # of the element: 0, 1, 2 …
            Column("sku", "string"),                                  # within the element
            Column("updated_at", "timestamp", parent=True),
        ),
        key=("pedido_id", "posicao"), order=("updated_at",),
    )

The record is what is delivered, versioned, counted and refused; its elements are rows. So whatever decides about a record is
one of its own values.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lakehouse.core.errors import DeclarationError
from lakehouse.core.json_path import parse_path
from lakehouse.core.names import column_name
from lakehouse.tables.spec.columns import WHOLE, Column

if TYPE_CHECKING:
    from lakehouse.tables.spec.table import TableSpec


def array_column(explode: str, *, personal: bool) -> Column:
    """The array as a column of text, as if the table had it: called like the last member of its path.

    Raises:
        DeclarationError: it is no path.
    """
    if not isinstance(explode, str):
        raise DeclarationError(f"explode={explode!r} is no path.", remedy='Name the array: explode="itens".')
    name = column_name(str(parse_path(explode)[-1])) or "elements"
    return Column(name, "string", path=explode, personal=personal)


def check_explode(spec: "TableSpec") -> None:
    """Refuse columns of elements where there are none, and what cannot be of a table whose rows are elements."""
    what, names = f"Table {spec.name!r}", [column.name for column in spec.columns]
    if not spec.explode:
        odd = [column.name for column in spec.columns if column.parent or column.position or column.path == WHOLE]
        if odd:
            raise DeclarationError(
                f"{what}: column {odd[0]!r} is declared for rows that are elements, and the rows are records.",
                remedy="Add explode=<the path of an array>, or leave parent, position and path='$' out.",
            )
        return
    array = array_column(spec.explode, personal=False)
    constant = {field for part in spec.parts for field in part.values}
    stated = [column.name for column in spec.of_elements if column.bronze_name in constant]
    positions = [column.name for column in spec.columns if column.position]
    whole = [column.name for column in spec.columns if column.parent and column.path == WHOLE]
    for wrong, message, remedy in (
        (array.name in names, f"the column {array.name!r} is called like the array", "Give it the name of one element."),
        (spec.transform is not None, "a transform does not know of elements", "Calculate columns with expressions."),
        (bool(spec.observed), "only records are observed", "Leave the observed columns out."),
        (bool(whole), f"{whole} is the whole record", "Name a field of it."),
        (bool(stated), f"{stated} is stated of the whole table", "Add parent=True to it."),
        (len(positions) != 1, "one column says which it is", 'Add one Column("posicao", "int", position=True).'),
        (
            bool(spec.key) and (len(spec.key) < 2 or spec.key[-1] not in positions),
            f"the key {spec.key} is not that of an element",
            "Name the record's key (columns with parent=True), and last the position.",
        ),
    ):
        if wrong:
            raise DeclarationError(f"{what}: its rows are the elements of {spec.explode!r}, and {message}.", remedy=remedy)


def check_of_record(spec: "TableSpec") -> None:
    """Refuse that a value of an element decides about its record. The expressions of the spec are known to be right."""
    if not spec.explode:
        return
    own, event, subject = spec.record_level, spec.retention, spec.subject
    deciding = {
        "the record's key": spec.record_key,
        "order": spec.order,
        "deleted": sorted(spec.parsed(spec.deleted).columns) if spec.deleted is not None else [],
        "the retention's event": [event.event] if event is not None else [],
        "the subject's column": [subject.column] if subject is not None else [],
    }
    for role, listed in deciding.items():
        of_elements = [name for name in listed if name not in own]
        if of_elements:
            raise DeclarationError(
                f"Table {spec.name!r}: {role} has {of_elements[0]!r}, which each element has for itself.",
                remedy=f"Use columns of the record, declared with parent=True: {', '.join(sorted(own)) or 'there is none yet'}.",
            )


def record_level(columns: Sequence[Column], reads: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The columns that are the same in all elements of a record: those of the record, and what is calculated of these alone.

    Args:
        reads: by calculated column the columns that its expression reads.
    """
    own: set[str] = set()
    for column in columns:
        if column.parent or (column.name in reads and reads[column.name] <= own):
            own.add(column.name)
    return frozenset(own)
