"""Elements: of a table whose rows are the elements of an array, how a record becomes its rows, and the rows a record again.

    record ─▶ its texts ─▶ a row per element, or one row without any ─▶ (validated) ─▶ accepted or refused as a whole

A record is accepted when all of its elements are: a version of an order that lacks an item would be another order. A record
without elements leaves no row, so it is stored as a delete is. Of a table whose rows are records each function here gives back
what it got. Pure: no dagster, engine-neutral.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.silver.inputs import ROW_ID
from lakehouse.tables.spec import RECORD_DIGEST, Column, TableSpec

#: The text of an element, and its position from 0.
ELEMENT, INDEX = "_element", "_element_index"
#: Whether the array's text is no array, or an element no object where columns are fields of it; and that text.
NO_ARRAY, ARRAY_TEXT = "_no_array", "_array_text"
#: Before the name of a text: whether what it is read from is no document.
NO_DOCUMENT = "_no_document_"
#: Beside a refused record: the position of its first element that violates a rule.
FIRST = "_first_element"
_REFUSED = "_refused"


def beside(spec: TableSpec) -> tuple[str, ...]:
    """The columns that a validated row has beside those of a record."""
    return (INDEX,) if spec.explode else ()


def exploded(session: Session, spec: TableSpec, texts: "nw.LazyFrame[Any]", *, array: str) -> "nw.LazyFrame[Any]":
    """A row per element, with the text of each of its columns (`text_of`); one row without for a record that has none.

    Args:
        texts: of records, with `array` that of the array.
    """
    frame = session.fingerprint(texts, RECORD_DIGEST, [f"_raw_{name}" for name in _by_field(spec)])
    frame = session.elements(frame, array, element=ELEMENT, index=INDEX, failed=NO_ARRAY)
    nested = {text_of(column): (ELEMENT, column.within) for column in spec.of_elements if column.within}
    wrong = nw.col(NO_ARRAY).fill_null(False)
    if nested:
        frame = session.extract(frame, nested, failed=NO_DOCUMENT)
        listed = nw.col(ELEMENT).str.starts_with("[").fill_null(False)  # a list has no field of any name
        wrong = wrong | nw.col(NO_DOCUMENT + next(iter(nested))).fill_null(False) | listed
    whole = {text_of(column): nw.col(ELEMENT) for column in spec.of_elements if not column.within}
    return frame.with_columns(**whole, **{NO_ARRAY: wrong, ARRAY_TEXT: nw.coalesce(nw.col(ELEMENT), nw.col(array))})


def _by_field(spec: TableSpec) -> list[str]:
    """The columns with the fields of a record, in an order that does not depend on that of the declaration."""
    return [name for name, _ in sorted(spec.fields.items(), key=lambda item: (item[1], item[0]))]


def text_of(column: Column) -> str:
    """The name of the text that a column of elements is cast from."""
    return f"_element_text_{column.name}"


def records(spec: TableSpec, rows: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """One row for each record."""
    return rows.filter(nw.col(INDEX).is_null() | (nw.col(INDEX) == 0)) if spec.explode else rows


def elements(spec: TableSpec, rows: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """The rows that are elements."""
    return rows.filter(~nw.col(INDEX).is_null()) if spec.explode else rows


def masked(flags: Mapping[str, nw.Expr], about: Collection[str]) -> dict[str, nw.Expr]:
    """Violations, those `about` elements only where there is one."""
    exists = ~nw.col(INDEX).is_null()
    return {name: flag.fill_null(False) & exists if name in about else flag.fill_null(False) for name, flag in flags.items()}


def accepted_whole(
    session: Session, rows: "nw.LazyFrame[Any]", violations: Sequence[str], *, accepted: str, deleted: str
) -> "nw.LazyFrame[Any]":
    """The rows with whether their record is accepted, and whether it leaves no row: it is a delete, or has no elements.

    Args:
        violations: flags of the rows.
    """
    # Twice over the rows, of which few are refused: a window over the rows of each record would hold all of them.
    flagged = rows.with_columns(nw.any_horizontal(*map(nw.col, violations), ignore_nulls=True).alias(_REFUSED))
    refused = session.persist(session.filter_true(flagged, _REFUSED).select(*ROW_ID, _REFUSED).unique())
    rows = rows.join(refused, on=list(ROW_ID), how="left")
    ended = nw.col(deleted) | nw.col(INDEX).is_null()
    return rows.with_columns(nw.col(_REFUSED).is_null().alias(accepted), ended.alias(deleted)).drop(_REFUSED)


def gathered(
    rows: "nw.LazyFrame[Any]", *, flags: Mapping[str, bool], texts: Mapping[str, str], of_record: Sequence[str]
) -> "nw.LazyFrame[Any]":
    """One row for each refused record: each flag where any of its elements has it, and `FIRST`.

    Args:
        flags: columns, each with whether it is about elements.
        texts: text columns by the flag that they are samples for: of an element that has it, where there is one.
        of_record: columns that all elements of a record have alike.
    """
    about = [nw.col(name) for name, of_elements in flags.items() if of_elements]
    first = nw.when(nw.any_horizontal(*about, ignore_nulls=True)).then(nw.col(INDEX)) if about else nw.lit(None)
    rows = rows.with_columns(
        first.cast(nw.Int64).alias(FIRST),
        *[nw.col(name).cast(nw.Int64) for name in flags],
        *[nw.when(nw.col(flag)).then(nw.col(text)).alias(text) for flag, text in texts.items() if flag in flags],
    )
    found = rows.group_by(*ROW_ID).agg(
        nw.col(FIRST).min(), *[nw.col(name).max() for name in (*flags, *texts.values(), *of_record)]
    )
    return found.with_columns(*[(nw.col(name) > 0).alias(name) for name in flags])


def first_of(spec: TableSpec) -> nw.Expr:
    """The end of the reason why a record is refused: its first element that violates a rule, empty where none does."""
    first = nw.concat_str(nw.lit(f" First in {spec.explode}["), nw.col(FIRST).cast(nw.String), nw.lit("]."))
    return nw.when(~nw.col(FIRST).is_null()).then(first).otherwise(nw.lit(""))
