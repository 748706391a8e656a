"""The bare script: bronze to silver of sales with nothing but DuckDB and deltalake, as small and as fast as we can make it.

It is what one would write for this one table by hand, and what the lakehouse is measured against. Same input, same output
(columns, types, order, ZSTD level 1, file size, statistics in the log). It has no rules, no quarantine, no ledger, no
tombstones and no fence, and a delivered text that cannot be cast becomes null. It imports nothing of the lakehouse.

    full        find the keys that occur twice or are deleted; of these find the records that lose, by file and position,
                which reads four columns; then one pass over everything that leaves them out, sorted by key
    increment   the newest of the batch and of the rows of the same keys; rewrite the files whose range holds one of them

What was tried and is slower on 10 M rows, 2 cores: `row_number()` over everything (9.1 s where this takes 5.8 s), an anti join
on the keys and the winners added from a second wide pass (7.0 s), `lag()` over one sorted window (7.7 s, 4 GB).

    python -m benchmarks.bare full|increment <bronze table> <silver table>
"""

import json
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

FILE_MB = 16
COLUMNS = {
    "id": "long",
    "pedido_id": "string",
    "produto_id": "string",
    "descricao": "string",
    "quantidade": "long",
    "valor_unitario": "decimal(12,4)",
    "cliente_id": "long",
    "pais": "string",
    "status": "string",
    "created_at": "timestamp",
    "updated_at": "timestamp",
    "created_date": "date",
    "total": "decimal(18,4)",
    "_extracted_at": "timestamp",
}
_APP = "from:bronze/vendas"

# Casts by way of TIMESTAMP: from TIMESTAMPTZ to DATE DuckDB asks ICU, which costs half a second per 10 M rows.
_TYPED = """
CREATE TEMP MACRO typed(records) AS TABLE
SELECT
    key AS id,
    pedido_id,
    produto_id,
    descricao,
    units AS quantidade,
    price AS valor_unitario,
    TRY_CAST(cliente_id AS BIGINT) AS cliente_id,
    pais,
    status,
    make_timestamptz(epoch_us(sold)) AS created_at,
    TRY_CAST(updated_at AS TIMESTAMPTZ) AS updated_at,
    CAST(sold AS DATE) AS created_date,
    CAST(units * CAST(price AS DECIMAL(18, 4)) AS DECIMAL(18, 4)) AS total,
    _airbyte_extracted_at AS _extracted_at
FROM (
    SELECT
        *,
        TRY_CAST(id AS BIGINT) AS key,
        TRY_CAST(quantidade AS BIGINT) AS units,
        TRY_CAST(valor_unitario AS DECIMAL(12, 4)) AS price,
        TRY_CAST(created_at AS TIMESTAMP) AS sold
    FROM query_table(records)
)
"""

_SPECIAL = """
CREATE TEMP TABLE special AS
SELECT TRY_CAST(id AS BIGINT) AS key FROM read_parquet($files)
GROUP BY key HAVING count(*) > 1 OR bool_or(status = 'deleted')
"""

_LOSERS = """
CREATE TEMP TABLE losers AS
SELECT file, position
FROM (
    SELECT
        file,
        position,
        status,
        row_number() OVER (PARTITION BY key ORDER BY TRY_CAST(updated_at AS TIMESTAMPTZ) DESC, extracted DESC) AS place
    FROM (
        SELECT
            TRY_CAST(id AS BIGINT) AS key,
            status,
            updated_at,
            _airbyte_extracted_at AS extracted,
            file_index AS file,
            file_row_number AS position
        FROM read_parquet($files)
    ) SEMI JOIN special USING (key)
)
WHERE place > 1 OR status = 'deleted'
"""

_FULL = """
CREATE TEMP VIEW staged AS
SELECT * FROM typed('remaining') ORDER BY id
"""

_REMAINING = """
CREATE TEMP VIEW remaining AS
SELECT * FROM (
    SELECT *, file_index AS file, file_row_number AS position FROM read_parquet(getvariable('files'))
) ANTI JOIN losers USING (file, position)
"""

_CHANGED = """
CREATE TEMP TABLE changed AS
SELECT * FROM typed('records')
QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC, _extracted_at DESC) = 1
"""

_MERGED = """
CREATE TEMP VIEW staged AS
WITH touched AS (
    SELECT * FROM read_parquet(getvariable('files'))
), contest AS (
    SELECT * FROM changed UNION ALL SELECT * FROM touched SEMI JOIN changed USING (id)
), winners AS (
    SELECT * FROM contest QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC, _extracted_at DESC) = 1
)
SELECT * FROM touched ANTI JOIN changed USING (id)
UNION ALL
SELECT * FROM winners WHERE status <> 'deleted'
ORDER BY id
"""

_COPY = """
COPY staged TO $folder (
    FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, RETURN_STATS, FILE_SIZE_BYTES $bytes, WRITE_EMPTY_FILE false
)
"""


def full(bronze: str, silver: str) -> None:
    """Compute silver from all of bronze."""
    source = DeltaTable(bronze)
    Path(silver).mkdir(parents=True)
    fields = [Field(name, PrimitiveType(kind)) for name, kind in COLUMNS.items()]
    target = DeltaTable.create(silver, Schema(fields))
    with connect() as con:
        files = source.file_uris()
        con.execute(_SPECIAL, {"files": files})
        con.execute(_LOSERS, {"files": files})
        con.execute("SET VARIABLE files = $files", {"files": files})
        con.execute(_REMAINING)
        con.execute(_FULL)
        publish(con, target, silver, remove=[], seen=source.transaction_version("ingest:bronze/vendas"))


def increment(bronze: str, silver: str) -> None:
    """Merge the bronze batches that silver has not seen."""
    source, target = DeltaTable(bronze), DeltaTable(silver)
    seen = target.transaction_version(_APP) or 0
    new = [f"{bronze}/{file['path']}" for file in _actions(source) if file["max._batch_id"] > seen]
    with connect() as con:
        con.execute("SET VARIABLE files = $files", {"files": new})
        con.execute("SET VARIABLE seen = $seen", {"seen": seen})
        con.execute(
            "CREATE TEMP VIEW records AS SELECT * FROM read_parquet(getvariable('files')) WHERE _batch_id > getvariable('seen')"
        )
        con.execute(_CHANGED)
        [(low, high)] = con.execute("SELECT min(id), max(id) FROM changed").fetchall()
        touched = [file for file in _actions(target) if file["min.id"] <= high and file["max.id"] >= low]
        con.execute("SET VARIABLE files = $files", {"files": [f"{silver}/{file['path']}" for file in touched]})
        con.execute(_MERGED)
        publish(con, target, silver, remove=touched, seen=source.transaction_version("ingest:bronze/vendas"))


def copy(source: str, target: str) -> None:
    """Read every data file of a table and write it again: what any merge that touches them all must do at least."""
    with connect() as con:
        for number, uri in enumerate(DeltaTable(source).file_uris()):
            con.execute("SET VARIABLE files = $files", {"files": [uri]})
            con.execute("CREATE OR REPLACE TEMP VIEW staged AS FROM read_parquet(getvariable('files'))")
            con.execute(_COPY, {"folder": f"{target}/{number}", "bytes": FILE_MB * 1_000_000})


def connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute(_TYPED)
    return con


def _actions(table: DeltaTable) -> list[dict[str, Any]]:
    return list(table.get_add_actions(flatten=True).to_struct_array().to_pylist())


def publish(
    con: duckdb.DuckDBPyConnection, table: DeltaTable, folder: str, *, remove: Sequence[dict[str, Any]], seen: int | None
) -> None:
    """Write the view `staged` as data files of the table, and commit them in place of `remove`."""
    staging = Path(folder) / f".{uuid.uuid4()}"
    result = con.execute(_COPY, {"folder": str(staging), "bytes": FILE_MB * 1_000_000})
    names = [column[0] for column in result.description or ()]
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = []
    for row in result.fetchall():
        file = dict(zip(names, row, strict=True))
        name = f"part-{uuid.uuid4()}.zstd.parquet"
        Path(file["filename"]).rename(Path(folder) / name)
        stats = _stats(file["count"], file["column_statistics"])
        actions.append(AddAction(name, file["file_size_bytes"], {}, now, True, stats))
    staging.rmdir()
    actions += [RemoveAction(file["path"], True, now, file["size_bytes"], {}) for file in remove]
    table.create_write_transaction(
        actions,
        mode="append",
        schema=table.schema(),
        commit_properties=CommitProperties(app_transactions=[Transaction(_APP, seen or 0)], max_commit_retries=0),
    )


def _stats(rows: int, columns: dict[str, dict[str, str]]) -> str:
    """Delta's statistics from those of DuckDB. Texts and instants of this table are short and without fractions."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for quoted, stat in columns.items():
        name = quoted.strip('"')
        nulls[name] = int(stat["null_count"])
        if "min" in stat:
            low[name], high[name] = (_json(COLUMNS[name], stat[end]) for end in ("min", "max"))
    return json.dumps({"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _json(kind: str, text: str) -> str | int | float:
    if kind in ("long", "integer"):
        return int(text)
    if kind == "boolean":
        return text in ("1", "true")
    if kind.startswith("decimal"):
        return float(text)
    return f"{text[:10]}T{text[11:19]}.000Z" if kind == "timestamp" else text


if __name__ == "__main__":
    begun = time.perf_counter()
    {"full": full, "increment": increment, "copy": copy}[sys.argv[1]](sys.argv[2], sys.argv[3])
    print(json.dumps({"seconds": time.perf_counter() - begun}))
