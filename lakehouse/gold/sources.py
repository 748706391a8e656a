"""The dbt sources, derived from the specs: `dbt_project/models/staging/_sources.yml`.

What belongs here: TableSpec to YAML. What does not: models, tests, anything that a person decides about gold; reading tables.
`make sync` (`lakehouse/commands/sync.py`) writes the file.

The source `silver` has the silver tables without the columns that the lake keeps for itself, in the spec's types. The source
`bronze` has what was delivered, as text, with the instant of its extraction: for marts that are about the deliveries
themselves. Its `asset_key` ties a table of the dbt graph to Dagster's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lakehouse.settings import shipped
from lakehouse.tables.spec import TableSpec, with_histories

SOURCE, DELIVERED = "silver", "bronze"
_HEADER = """\
# Generated from lakehouse/tables by `make sync`. Do not edit: change the table's record and run `make sync` again.
"""


def sources_path() -> Path:
    """Where the generated file is."""
    return shipped("dbt_project") / "models" / "staging" / "_sources.yml"


def render_sources(specs: Sequence[TableSpec]) -> str:
    """The text of `_sources.yml`: the dbt sources `silver` and `bronze` with a table per spec, in the specs' order."""
    import yaml

    document = {
        "version": 2,
        "sources": [
            {
                "name": SOURCE,
                "schema": SOURCE,
                "description": "Silver as of the start of the run: views over the current files of the Delta tables.",
                "tables": [_table(spec) for spec in with_histories(*specs)],
            },
            {
                "name": DELIVERED,
                "schema": DELIVERED,
                "description": "Bronze as of the start of the run: every delivered record, as text.",
                "tables": [_delivered(part) for spec in specs for part in spec.parts],
            },
        ],
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _table(spec: TableSpec) -> dict[str, Any]:
    dagster = {"asset_key": spec.silver.key, "group": spec.silver.layer, "owners": list(spec.owners)}
    table: dict[str, Any] = {"name": spec.silver_name}
    if spec.description:
        table["description"] = spec.description
    return {
        **table,
        "config": {"meta": {"dagster": dagster}},
        "columns": [
            {
                "name": column.name,
                **({"description": column.description} if column.description else {}),
                "data_type": column.type,
            }
            for column in spec.columns
        ],
    }


def _delivered(part: TableSpec) -> dict[str, Any]:
    dagster = {"asset_key": part.bronze.key, "group": part.bronze.layer, "owners": list(part.owners)}
    fields = dict.fromkeys(column.bronze_name for column in part.of_record)
    envelope = [
        {"name": "_airbyte_raw_id", "description": "The record's own id.", "data_type": "string"},
        {"name": "_airbyte_extracted_at", "description": "Instant of the extraction.", "data_type": "timestamp"},
    ]
    return {
        "name": part.bronze.table,
        "description": f"Delivered records of {part.silver}.",
        "config": {"meta": {"dagster": dagster}},
        "columns": [*envelope, *({"name": name, "data_type": "string"} for name in fields)],
    }
