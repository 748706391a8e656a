"""An existing `@asset` that takes and returns pandas: it stays as it is, and an asset of the lake calls it."""

from typing import Any

import dagster as dg

from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.table.staging import Write
from lakehouse.runtime.steps import checked, own_step

TABLE, READS = TableRef("gold", "example_best_customers"), {"sales": TableRef("silver", "vendas")}
COLUMNS = {"cliente_id": "bigint", "receita": "decimal(18,4)"}
CHECKS = {"at_most_ten": "There are ten customers or fewer."}


@dg.asset  # as it was
def best_customers(sales: Any) -> Any:
    return sales.groupby("cliente_id", as_index=False).agg(receita=("total", "sum")).sort_values("receita").tail(10)


@dg.asset(**own_step(TABLE, "The ten best customers.", reads=READS, checks=CHECKS, code=(COLUMNS, 1), group="examples"))
def lake_best_customers(sales: Any) -> Any:
    found: Any = best_customers(sales=sales.select("cliente_id", "total").collect("pyarrow").to_pandas())
    rows = found.to_dict("records")
    write = Write(frame=lambda session: session.table(rows, COLUMNS), columns=COLUMNS, mode="overwrite")
    yield from checked(TABLE, write, [Finding("at_most_ten", passed=len(rows) <= 10, action="fail", failed=len(rows))])
