"""A pandas function: it gets the input as a DataFrame, and the rows that it returns become the table."""

from typing import Any

import dagster as dg

from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.table.staging import Write
from lakehouse.runtime.steps import checked, own_step

TABLE, READS = TableRef("gold", "example_sales_by_country"), {"sales": TableRef("silver", "vendas")}
COLUMNS = {"pais": "string", "linhas": "bigint", "receita": "decimal(18,4)"}
CHECKS = {"has_rows": "There is a row."}


def by_country(sales: Any) -> Any:  # pandas.DataFrame to pandas.DataFrame, as it was
    return sales.groupby("pais", as_index=False).agg(linhas=("id", "count"), receita=("total", "sum"))


@dg.asset(**own_step(TABLE, "Sales by country.", reads=READS, checks=CHECKS, code=(COLUMNS, 1), group="examples"))
def sales_by_country(sales: Any) -> Any:
    rows = by_country(sales.select("pais", "id", "total").collect("pyarrow").to_pandas()).to_dict("records")
    write = Write(frame=lambda session: session.table(rows, COLUMNS), columns=COLUMNS, mode="overwrite")
    yield from checked(TABLE, write, [Finding("has_rows", passed=bool(rows), action="fail", failed=int(not rows))])
