"""The sides of case `upkeep`: a table of many small files is made, scanned, compacted and scanned again; one process each.

python -m benchmarks.upkeep make|scan|compact <folder> [<rows> <files>]
"""

import json
import sys
import time
from pathlib import Path

import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.table.snapshot import open_table, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.maintenance.assets import MEMORY
from lakehouse.maintenance.optimise import compact
from lakehouse.tables.spec import Health

COLUMNS = {"id": "bigint", "_batch_id": "bigint", "nome": "string", "valor": "double"}


def main(side: str, folder: str, rows: int = 10_000_000, files: int = 2_000) -> None:
    """Do one side, and print its seconds and what it found."""
    session = DuckDBSession(memory_limit=f"{MEMORY}MB", spill=f"{folder}/spill", folders=[folder])
    uri = f"{folder}/table"
    begun = time.perf_counter()
    if side == "make":
        _make(session, uri, rows=rows, files=files)
    elif side == "compact":
        candidate = compact(session, require_table(uri, uri), bounds=Health(), file_mb=64, sort_by=["id"])
        if candidate is None:
            raise SystemExit("There was nothing to compact.")
        commit_staged(candidate)
    table = require_table(uri, uri)
    counted, total = 0, 0
    if side == "scan":
        frame = session.read(table.paths(), COLUMNS)
        found = frame.select(nw.len().alias("n"), nw.col("id").sum().alias("ids"), nw.col("valor").max().alias("valor"))
        counted, total, _ = session.rows(found)[0]
    seconds = time.perf_counter() - begun
    session.close()
    print(json.dumps({"seconds": seconds, "files": len(table.files), "rows": counted, "ids": int(total)}))


def _make(session: DuckDBSession, uri: str, *, rows: int, files: int) -> None:
    """Files with neighbouring rows in turn, as deliveries leave them: each spans all keys."""
    table, each = open_table(uri, COLUMNS), rows // files
    add = []
    for number in range(files):
        relation = session.connection.sql(
            "SELECT $1 + range * $2 AS id, $1 AS _batch_id, 'nome ' || hash(range) AS nome, random() AS valor FROM range($3)",
            params=[number, files, each],
        )
        add += session.write(nw.from_native(relation), uri, columns=COLUMNS)
    commit_staged(Transaction(table=table, add=add))


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
