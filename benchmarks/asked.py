"""A question to one Delta table by a bare script: deltalake names the files, DuckDB reads them. The answer is CSV.

python -m benchmarks.asked data/lake/silver/clientes 'SELECT count(*) FROM silver.clientes'
"""

import sys

import duckdb
from deltalake import DeltaTable


def main(folder: str, question: str) -> None:
    """Print the answer; the table is called as the lake calls it."""
    layer, table = folder.split("/")[-2:]
    files = DeltaTable(folder).file_uris()
    database = duckdb.connect()
    database.execute(f"CREATE SCHEMA {layer}")
    listed = ", ".join(f"'{file}'" for file in files)
    database.execute(f"CREATE VIEW {layer}.{table} AS FROM read_parquet([{listed}])")
    answer = database.sql(question)
    print(",".join(answer.columns))
    for row in answer.fetchall():
        print(",".join("" if value is None else str(value) for value in row))


if __name__ == "__main__":
    main(*sys.argv[1:])
