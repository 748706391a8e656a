"""A flow as it is before it moves here: plain Spark over Delta, which knows nothing of this project.

    python old_flow.py <folder> <jar,jar,...>

    1  two commits to `bronze/vendas` (fields beside Airbyte's v1 columns) and `bronze/vendas_json` (`_airbyte_data`)
    2  after a line on stdin: a third commit, OPTIMIZE, and `silver/vendas`: newest per id, deletes applied

It prints `done` after each.
"""

import sys
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

FIELDS = [
    "id", "pedido_id", "produto_id", "descricao", "quantidade", "valor_unitario", "cliente_id", "pais", "status",
    "created_at", "updated_at",
]  # fmt: skip


def main(folder: str, jars: str) -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", jars)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.databricks.delta.snapshotPartitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    ids = F.col("id")
    first = lines(spark.range(2000), day=5)
    second = [
        lines(spark.range(0, 2000, 11), day=9, quantidade=F.lit(5).cast("bigint")),
        lines(spark.range(3, 2000, 40), day=10, status=F.lit("deleted")),
        lines(spark.range(5, 2000, 50), day=2, descricao=F.lit("late")),
        lines(spark.range(2000, 2100), day=9),
    ]
    third = [
        lines(spark.range(3, 2000, 80), day=20),
        lines(spark.range(7, 2100, 30), day=21, valor_unitario=(ids / 7).cast("decimal(12,4)")),
    ]
    deliver(spark, folder, first, day=5)
    deliver(spark, folder, reduce(lambda one, two: one.union(two), second), day=11)
    print("done", flush=True)
    sys.stdin.readline()
    deliver(spark, folder, reduce(lambda one, two: one.union(two), third), day=22)
    spark.sql(f"OPTIMIZE delta.`{folder}/bronze/vendas`")
    silver(spark.read.format("delta").load(f"{folder}/bronze/vendas"), f"{folder}/silver/vendas")
    print("done", flush=True)
    spark.stop()


def lines(ids: DataFrame, *, day: int, **changed: Column) -> DataFrame:
    """Order lines with these ids, as they were on a day of January 2026."""
    number = F.col("id")
    values = {
        "id": number,
        "pedido_id": F.concat(F.lit("p"), F.floor(number / 3)),
        "produto_id": F.concat(F.lit("x"), number % 40),
        "descricao": F.lit("café \"forte\", 'moído'"),
        "quantidade": number % 7 - 2,
        "valor_unitario": (number % 90 + number % 9 / 10).cast("decimal(12,4)"),
        "cliente_id": F.when(number % 5 != 0, number % 300),
        "pais": F.element_at(F.array(F.lit("Brasil"), F.lit("Chile")), (number % 2 + 1).cast("int")),
        "status": F.lit("paid"),
        "created_at": F.timestamp_seconds(F.lit(1_767_225_600) + number * 61),
        "updated_at": F.timestamp_seconds(F.lit(1_767_225_600 + day * 86_400) + number),
    } | changed
    return ids.select(*[values[name].alias(name) for name in FIELDS])


def deliver(spark: SparkSession, folder: str, frame: DataFrame, *, day: int) -> None:
    """One commit to either bronze table."""
    envelope = [
        F.expr("uuid()").alias("_airbyte_ab_id"),
        F.timestamp_seconds(F.lit(1_767_225_600 + day * 86_400 + 3600)).alias("_airbyte_emitted_at"),
    ]
    flat = frame.select(*envelope, "*")
    whole = frame.select(*envelope, F.to_json(F.struct(*FIELDS)).alias("_airbyte_data"))
    for table, rows in (("vendas", flat), ("vendas_json", whole)):
        rows.coalesce(2).write.format("delta").mode("append").save(f"{folder}/bronze/{table}")


def silver(bronze: DataFrame, location: str) -> None:
    """Newest per id; a deleted line is gone."""
    newest = Window.partitionBy("id").orderBy(F.col("updated_at").desc(), F.col("_airbyte_emitted_at").desc())
    rows = bronze.withColumn("_n", F.row_number().over(newest)).filter("_n = 1 AND status <> 'deleted'").select(*FIELDS)
    rows = rows.withColumn("created_date", F.to_date("created_at"))
    rows = rows.withColumn("total", (F.col("quantidade") * F.col("valor_unitario")).cast("decimal(18,4)"))
    rows.write.format("delta").mode("overwrite").save(location)


if __name__ == "__main__":
    main(*sys.argv[1:])
