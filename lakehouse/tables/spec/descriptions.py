"""Descriptions of the columns of bronze and silver for Dagster's pages: what is declared, else where a value is from."""

from typing import TYPE_CHECKING

from lakehouse.tables.spec.columns import EXTRA, EXTRACTED_AT, RECORD_DIGEST, Column

if TYPE_CHECKING:
    from lakehouse.tables.spec.table import TableSpec

Described = dict[str, tuple[str, str]]
#: Bronze's own columns: type and description.
ENVELOPE: Described = {
    "_airbyte_raw_id": ("string", "Id of the delivered record."),
    "_airbyte_extracted_at": ("timestamp", "When the record was read from its source."),
    "_airbyte_meta": ("string", "What was delivered about the record, as JSON."),
    "_airbyte_generation_id": ("bigint", "Generation of a full refresh."),
    "_source_file": ("string", "The landed file."),
    "_batch_id": ("bigint", "The batch with which the file was taken in."),
    "_ingested_at": ("timestamp", "When the batch was taken in."),
    EXTRA: ("string", "Delivered fields without a column of their own, as JSON."),
    "_raw_id_delivered": ("boolean", "Whether the record came with its id, or bronze made it."),
}
_OBSERVED = {"first": "first extracted", "last": "last extracted", "count": "extracted, each instant once"}


def of_bronze(spec: "TableSpec") -> Described:
    """Type and description by column, without the fields that no silver column is made of."""
    return {**ENVELOPE, **{c.bronze_name: ("string", f"The field {c.field}, as delivered.") for c in spec.of_record}}


def of_silver(spec: "TableSpec") -> Described:
    """Type and description by column."""
    own: Described = {EXTRACTED_AT: ("timestamp", "When the newest version of the record was read from its source.")}
    if spec.explode:
        own[RECORD_DIGEST] = ("string", "Digest of what the record says.")
    return {**{column.name: (column.type, column.description or _made_of(column)) for column in spec.columns}, **own}


def _made_of(column: Column) -> str:
    if column.expression is not None:
        return f"Calculated: {column.expression}"
    if column.observed:
        return f"When records of the key were {_OBSERVED[column.observed]}."
    if column.position:
        return "The place of the element in its array, from 0."
    return f"From {column.path}." if column.path else f"From the field {column.field}."
