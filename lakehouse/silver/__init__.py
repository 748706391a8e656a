"""Silver: one row per key, typed, judged, deletes applied.

Here: one Delta table per declared table with exactly its columns (and `_extracted_at`), merged from bronze.
Comes from: bronze batches above the watermark in silver's own commit. Goes to: gold, ML, whoever queries.
Never: makes a row visible that violates a rule; brings a deleted row back; depends on the order of arrival.
Rerun: reads what is new; `make rebuild TABLE=<name>` computes everything again and gives the same table.
"""

import dagster as dg

from lakehouse.settings import Settings
from lakehouse.silver.assets import silver_asset


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[silver_asset(spec) for spec in settings.tables])
