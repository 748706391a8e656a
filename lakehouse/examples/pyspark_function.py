"""A PySpark function, such as an old flow's `apply_transformations(df)`: on the lake's Spark session (extra `spark`)."""

from typing import Any

import dagster as dg
import narwhals as nw

from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.table.staging import Write
from lakehouse.runtime.steps import checked, own_step

TABLE, READS = TableRef("gold", "example_sales_by_band"), {"sales": TableRef("silver", "vendas")}
COLUMNS = {"faixa": "string", "linhas": "bigint", "receita": "decimal(18,4)"}
CHECKS = {"has_revenue": "Every band has a revenue."}
STEP = own_step(TABLE, "Sales by band.", reads=READS, checks=CHECKS, code=(COLUMNS, 1), group="examples", engine="spark")


def apply_transformations(df: Any) -> Any:  # pyspark DataFrame to DataFrame, as it was
    from pyspark.sql import functions as F

    band = F.when(F.col("valor_unitario") < 10, "low").otherwise("high")
    return df.groupBy(band.alias("faixa")).agg(F.count("*").alias("linhas"), F.sum("total").alias("receita"))


@dg.asset(**STEP)
def sales_by_band(sales: Any) -> Any:
    df = apply_transformations(sales.to_native())
    without = df.where("receita IS NULL").count()
    write = Write(frame=nw.from_native(df), columns=COLUMNS, mode="overwrite")
    yield from checked(TABLE, write, [Finding("has_revenue", passed=without == 0, action="fail", failed=without)])
