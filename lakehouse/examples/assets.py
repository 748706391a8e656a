"""The examples as definitions: all of them in the group `examples`, which no job selects."""

import dagster as dg

from lakehouse.examples import existing_asset, pandas_function, pyspark_function, spark_submit, sql_file
from lakehouse.settings import Settings

ASSETS = (
    pandas_function.sales_by_country,
    pyspark_function.sales_by_band,
    sql_file.sales_by_month,
    existing_asset.lake_best_customers,
    spark_submit.sales_by_product,
)


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=list(ASSETS))
