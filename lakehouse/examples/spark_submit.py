"""A `spark-submit` job: it gets the input as a Parquet file, and the files that it writes become the table (extra `spark`)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.table.staging import Write
from lakehouse.runtime.lake import LakeResource, scratch
from lakehouse.runtime.steps import checked, own_step

TABLE, READS = TableRef("gold", "example_sales_by_product"), {"sales": TableRef("silver", "vendas")}
COLUMNS = {"produto_id": "string", "linhas": "bigint", "receita": "decimal(18,4)"}
CHECKS, JOB = {"has_rows": "There is a row."}, Path(__file__).with_name("products_job.py")
STEP = own_step(TABLE, "Sales by product.", reads=READS, checks=CHECKS, code=(COLUMNS, 1), group="examples", engine="duckdb")


@dg.asset(**STEP)
def sales_by_product(lake: LakeResource, sales: Any) -> Any:
    import pyspark

    submit = [f"{Path(pyspark.__file__).parent}/bin/spark-submit", "--conf", f"spark.pyspark.python={sys.executable}"]
    with scratch(lake.spill) as folder:
        sales.sink_parquet(f"{folder}/sales.parquet")
        subprocess.run([*submit, "--master", lake.spark_master, JOB, f"{folder}/sales.parquet", f"{folder}/out"], check=True)
        files = [str(path) for path in Path(folder, "out").glob("*.parquet")]
        write = Write(frame=lambda session: session.read(files, COLUMNS), columns=COLUMNS, mode="overwrite")
        yield from checked(TABLE, write, [Finding("has_rows", passed=bool(files), action="fail", failed=int(not files))])
