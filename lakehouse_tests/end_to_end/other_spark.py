"""Another flow's Spark: runs the SQL that comes on stdin, one JSON text a line, and answers with the rows, one JSON list a line.

python other_spark.py <jar,jar,...>
"""

import json
import sys

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession


def main(jars: str) -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", jars)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.databricks.delta.snapshotPartitions", "1")
        .config("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        .config("spark.sql.parquet.datetimeRebaseModeInWrite", "LEGACY")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    for line in sys.stdin:
        try:
            rows = spark.sql(json.loads(line)).toJSON().collect()
            answer = {"rows": [json.loads(row) for row in rows]}
        except PySparkException as error:
            answer = {"error": str(error)[:2000]}
        print(json.dumps(answer), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
