"""The sides of case `parity`: a silver table and another writer's are made, and compared as `make compare` does.

python -m benchmarks.parity make|compare <folder> <rows>

The other table has prices and instants as texts; ten rows are gone there, and ten others have another price.
"""

import json
import sys
import time
from pathlib import Path

import narwhals as nw

from lakehouse.commands.parity.rows import compared
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.table.foreign import require_foreign
from lakehouse.core.table.snapshot import open_table, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.settings import load_settings
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec

SPEC = TableSpec(
    name="pedidos_bench",
    source=AirbyteStream("pedidos_bench"),
    columns=(
        *(Column("id", "bigint"), Column("cliente", "string"), Column("valor", "decimal(12,2)"), Column("quantidade", "int")),
        *(Column("criado_em", "timestamp"), Column("descricao", "string")),
    ),
    key=("id",),
    order=("criado_em",),
)
OURS = {column.name: column.type for column in SPEC.columns}
THEIRS = {**OURS, "valor": "string", "criado_em": "string", "quantidade": "bigint"}
_ROWS = """
SELECT hash(range) >> 1 AS id, 'cliente ' || range % 50_000 AS cliente,
    CAST(range % 100_000 AS DECIMAL(12,2)) / 4 + CASE WHEN $other AND range BETWEEN 10 AND 19 THEN 1 ELSE 0 END AS valor,
    range % 9 AS quantidade, TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_seconds(range) AS criado_em,
    'descricao de um pedido ' || md5(range::VARCHAR) AS descricao
FROM range(CASE WHEN $other THEN 10 ELSE 0 END, $rows)
"""


def main(side: str, folder: str, rows: int) -> None:
    """Do one side, and print its seconds and what it found."""
    session = DuckDBSession(memory_limit=load_settings().memory_bound, spill=f"{folder}/spill", folders=[folder])
    begun, found = time.perf_counter(), {}
    if side == "make":
        _make(session, f"{folder}/ours", OURS, rows=rows, other=False)
        _make(session, f"{folder}/theirs", THEIRS, rows=rows, other=True)
    else:
        ours = require_table(f"{folder}/ours", "ours", remedy="Make it first.")
        comparison = compared(session, SPEC, ours, require_foreign(f"{folder}/theirs", remedy="Make it first."))
        found = {"both": comparison.both, "differences": {one.what: one.rows for one in comparison.differences}}
    seconds = time.perf_counter() - begun
    session.close()
    print(json.dumps({"seconds": seconds, **found}))


def _make(session: DuckDBSession, uri: str, columns: dict[str, str], *, rows: int, other: bool) -> None:
    table = open_table(uri, columns)
    relation = session.connection.sql(_ROWS, params={"rows": rows, "other": other})
    add = session.write(nw.from_native(relation), uri, columns=columns)
    commit_staged(Transaction(table=table, add=add))


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
