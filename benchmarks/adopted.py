"""A Delta table of another writer: what the first batch of a `DeltaSource` does to it, beside delta-rs' scan written to Parquet.

python -m benchmarks.adopted make <table> <rows>
python -m benchmarks.adopted ours|bare <table> <scratch folder>
"""

import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.sides import command

_SALES = """
    SELECT n AS id, 'cliente ' || n * 7919 % 100_000 AS cliente, CAST(n * 31 % 500_000 / 100 AS DECIMAL(12, 2)) AS valor,
        TIMESTAMPTZ '2024-01-01' + to_seconds(n) AS em, CAST(n % 97 AS INTEGER) AS loja, 'obs ' || md5(n::VARCHAR) AS obs,
        n % 3 = 0 AS ativo, (n % 5)::VARCHAR AS regiao
    FROM (SELECT range AS n FROM range($rows))
"""


def make(table: str, rows: int) -> None:
    """Write the table in five partitions."""
    from deltalake import write_deltalake

    reader = duckdb.connect().sql(_SALES, params={"rows": rows}).to_arrow_reader(100_000)
    write_deltalake(table, reader, partition_by=["regiao"], mode="overwrite")


def ours(table: str, folder: Path) -> dict[str, object]:
    """Take it into bronze: plan, stage, commit."""
    from lakehouse.bronze.ingest import stage_batch
    from lakehouse.core.engines.session import duckdb_session
    from lakehouse.core.store.storage import Storage
    from lakehouse.core.table.transaction import commit_staged
    from lakehouse.tables.spec import Column, DeltaSource, TableSpec

    columns = (Column("id", "bigint"), Column("cliente", "string"), Column("valor", "decimal(12,2)"), Column("em", "timestamp"))
    source = DeltaSource(table, "outro", withdrawals="delete")
    spec = TableSpec(name="vendas", source=source, columns=columns, sync="append", drift="evolve")
    storage = Storage(root=str(folder / "lake"), landing=str(folder / "landing"))
    begun = time.perf_counter()
    with duckdb_session(memory_limit="2GB", spill=str(folder / "spill"), folders=[str(folder), table]) as session:
        batch = stage_batch(session, storage, spec, run_id="bench")
        if batch.transaction is None or batch.entry is None:
            raise RuntimeError(f"Nothing was taken in: {batch.findings}")
        commit_staged(batch.transaction)
    return {"seconds": time.perf_counter() - begun, "rows": batch.entry.written}


def bare(table: str, folder: Path) -> dict[str, object]:
    """Scan it and write what comes."""
    from deltalake import DeltaTable

    begun, rows = time.perf_counter(), 0
    scan = pa.RecordBatchReader.from_stream(DeltaTable(table).scan())
    with pq.ParquetWriter(folder / "copy.parquet", scan.schema, compression="snappy") as writer:
        for batch in scan:
            writer.write_batch(batch)
            rows += batch.num_rows
    return {"seconds": time.perf_counter() - begun, "rows": rows}


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:], make=make, ours=ours, bare=bare))
