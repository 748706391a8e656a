"""A job for `spark-submit`, as it was: it reads one Parquet file and writes a folder of them."""

import sys


def main() -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    source, target = sys.argv[1:]
    spark = SparkSession.builder.appName("products").getOrCreate()
    figures = F.count("*").alias("linhas"), F.sum("total").alias("receita")
    spark.read.parquet(source).groupBy("produto_id").agg(*figures).write.parquet(target)
    spark.stop()


if __name__ == "__main__":
    main()
