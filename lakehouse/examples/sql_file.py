"""A SQL file: DuckDB runs it over the input, which it names as the asset does (`FROM sales`)."""

from pathlib import Path
from typing import Any

import dagster as dg
import narwhals as nw

from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.table.staging import Write
from lakehouse.runtime.steps import checked, own_step

TABLE, READS = TableRef("gold", "example_sales_by_month"), {"sales": TableRef("silver", "vendas")}
COLUMNS = {"mes": "date", "linhas": "bigint", "receita": "decimal(18,4)"}
CHECKS = {"has_month": "Every sale has a day."}
SQL = Path(__file__).with_name("sales_by_month.sql")
STEP = own_step(TABLE, "Sales by month.", reads=READS, checks=CHECKS, code=(COLUMNS, 1), group="examples", engine="duckdb")


@dg.asset(**STEP)
def sales_by_month(sales: Any) -> Any:
    rows = sales.to_native().query("sales", SQL.read_text())
    without = rows.filter("mes IS NULL").shape[0]
    write = Write(frame=nw.from_native(rows), columns=COLUMNS, mode="overwrite", sort_by=["mes"])
    yield from checked(TABLE, write, [Finding("has_month", passed=without == 0, action="warn", failed=without)])
