"""The case `gold`: the marts over the silver sales that `full` made.

python -m benchmarks.gold prepare <lake>           adds the products and customers that its silver sales speak of
python -m benchmarks.gold bare <lake> <folder>     the marts by one DuckDB script: no dbt, no tests, no staged publishing
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable, WriterProperties, write_deltalake

from benchmarks.bare_job import GOLD, MEASURES
from lakehouse.core.table.transaction import commit_staged


def prepare(lake: str) -> None:
    """Write silver/produtos and silver/clientes. Their other columns do not matter to the marts' cost."""
    import narwhals as nw

    from lakehouse.core.engines.session import Session, open_session
    from lakehouse.core.store.storage import Storage
    from lakehouse.core.table.snapshot import require_table
    from lakehouse.core.table.staging import Write, stage_write
    from lakehouse.settings import load_settings
    from lakehouse.silver.merge import silver_columns
    from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS

    storage = Storage(root=lake, landing=f"{lake}/landing")
    sales = require_table(storage.uri(VENDAS.silver), VENDAS.silver)
    with open_session(
        "duckdb", memory_limit=load_settings().memory_bound, spill=f"{lake}/.spill", folders=storage.folders()
    ) as session:
        first, last = nw.col("created_at").min(), nw.col("updated_at").max()
        instants = {"updated_at": last.alias("updated_at"), "_extracted_at": last.alias("_extracted_at")}
        for spec, name, rest in (
            (PRODUTOS, "produto_id", {"nome": nw.col("descricao").max(), "categoria": nw.col("descricao").min()}),
            (CLIENTES, "cliente_id", {"pais": nw.col("pais").max(), "segmento": nw.col("pais").min(), "created_at": first}),
        ):

            def frame(session: Session, name: str = name, rest: dict[str, nw.Expr] = rest) -> "nw.LazyFrame[Any]":
                known = session.read(sales.paths(), sales.columns).filter(~nw.col(name).is_null())
                columns = {**{column: value.alias(column) for column, value in rest.items()}, **instants}
                return known.group_by(name).agg(*columns.values()).rename({name: "id"})

            write = Write(frame=frame, columns=silver_columns(spec), mode="overwrite", sort_by=spec.key)
            commit_staged(stage_write(session, storage.uri(spec.silver), write))


def bare(lake: str, folder: str) -> float:
    """Compute and write the marts. Returns seconds."""
    begun = time.perf_counter()
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(MEASURES)
        for name in ("vendas", "produtos"):
            con.read_parquet(DeltaTable(f"{lake}/silver/{name}").file_uris()).create_view(name)
        for name, statement in GOLD.items():
            con.execute(statement)
            target = Path(folder, name)
            target.mkdir(parents=True)
            properties = WriterProperties(compression="ZSTD", compression_level=1)
            write_deltalake(str(target), con.table(name).to_arrow_reader(), writer_properties=properties)
    return time.perf_counter() - begun


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2])
    else:
        print(json.dumps({"seconds": bare(*sys.argv[2:4])}))
