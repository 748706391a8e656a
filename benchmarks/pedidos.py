"""Orders from PostgreSQL to silver and back to PostgreSQL, beside a script that does the same without any promise.

    python -m benchmarks.pedidos prepare ROWS        source.pedidos in the database of BENCH_POSTGRES_URL
    python -m benchmarks.pedidos ours FOLDER         extract, land, bronze, silver (rules, quarantine, ledger), publish
    python -m benchmarks.pedidos land FOLDER         the extraction alone, in the memory that its asset gives it
    python -m benchmarks.pedidos bare FOLDER         COPY out, DuckDB (total, newest per id), COPY in
    python -m benchmarks.pedidos same                both tables are equal, or exit code 1

Both publish into a schema of their own with the same columns and primary key, in one transaction, from nothing. The clock
starts when the modules are loaded.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg2  # type: ignore[import-untyped]

from benchmarks.measure import BenchmarkError
from lakehouse.bronze.ingest import stage_batch
from lakehouse.core import ledger
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import open_table, require_table
from lakehouse.core.table.transaction import commit_staged
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.landing.sources import database, extract
from lakehouse.silver.refresh import LEDGER, stage_refresh
from lakehouse.tables.pedidos import PEDIDOS
from lakehouse.warehouse.publish import Target, Warehouse, publish

_SOURCE = """
DROP SCHEMA IF EXISTS source CASCADE; CREATE SCHEMA source;
CREATE TABLE source.pedidos (id bigint, nome text, valor numeric(12,2), quantidade bigint, updated_at timestamptz);
INSERT INTO source.pedidos
SELECT n, 'PRODUCT NUMBER ' || n %% 4000, (n::bigint * 7919 %% 100000) / 100.0, n %% 12 + 1,
    timestamptz '2024-01-01' + n * interval '20 seconds'
FROM generate_series(1, %s) AS n;
ANALYZE source.pedidos;
"""
_TABLE = """
DROP SCHEMA IF EXISTS bare CASCADE; CREATE SCHEMA bare;
CREATE TABLE bare.pedidos (id bigint PRIMARY KEY, nome text, valor numeric(12,2), quantidade bigint, total numeric(14,2),
    canal text, updated_at timestamptz);
"""
_TYPES = "{'id': 'BIGINT', 'nome': 'VARCHAR', 'valor': 'DECIMAL(12,2)', 'quantidade': 'BIGINT', 'updated_at': 'TIMESTAMPTZ'}"
_WORK = """
COPY (
    SELECT id, nome, valor, quantidade, CAST(valor * quantidade AS DECIMAL(14,2)) AS total, 'db' AS canal, updated_at
    FROM read_csv(getvariable('rows'), header = true, columns = {types})
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC) = 1
) TO '{path}' (FORMAT csv, HEADER false)
"""
_SUMS = "SELECT count(*), sum(total), sum(id), max(updated_at) FROM {}.pedidos"


def _url() -> str:
    return os.environ["BENCH_POSTGRES_URL"]


def _connect() -> Any:
    return psycopg2.connect(_url().replace("+psycopg2", ""))


def prepare(rows: int) -> None:
    with _connect() as connection, connection.cursor() as cursor:
        cursor.execute(_SOURCE, (rows,))


def bare(folder: Path) -> None:
    """What has to be done at least."""
    out, back = folder / "out.csv", folder / "back.csv"
    with _connect() as connection, connection.cursor() as cursor, out.open("wb") as file:
        cursor.copy_expert("COPY source.pedidos TO STDOUT (FORMAT csv, HEADER)", file)
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute("SET VARIABLE rows = $1", [str(out)])
        engine.execute(_WORK.replace("{path}", str(back)).replace("{types}", _TYPES))
    with _connect() as connection, connection.cursor() as cursor, back.open("rb") as file:
        cursor.execute(_TABLE)
        cursor.copy_expert("COPY bare.pedidos FROM STDIN (FORMAT csv)", file)


def land(folder: Path, *, memory_limit: str) -> None:
    """The extraction alone."""
    storage, began = Storage(root=f"{folder}/lake", landing=f"{folder}/landing"), datetime.now(UTC)
    opened = duckdb_session(memory_limit=memory_limit, spill=f"{folder}/.spill", folders=[str(folder)])
    with lock(f"{storage.landing}/raw/pedidos_db"), opened as engine:
        rows = Path(engine.folder, "rows")
        rows.mkdir()
        source = database.SqlTable(url=_url(), table="pedidos", schema="source")
        staged = database.extract(source, rows, since=None, deadline=time.monotonic() + 300)
        extract.land(engine, storage, "pedidos_db", staged, cursor_field="updated_at", started=began, landed=[])


def ours(folder: Path, *, memory_limit: str) -> None:
    """The pure functions as the assets call them."""
    storage = Storage(root=f"{folder}/lake", landing=f"{folder}/landing")
    part = next(part for part in PEDIDOS.parts if part.name == "pedidos_db")

    def session() -> Any:
        return duckdb_session(memory_limit=memory_limit, spill=f"{folder}/.spill", folders=[str(folder)])

    land(folder, memory_limit=memory_limit)
    with lock(storage.uri(part.bronze)), session() as engine:
        batch = stage_batch(engine, storage, part, run_id="benchmark")
        _commit(engine, storage, part.bronze, batch.transaction)
    for other in PEDIDOS.parts:  # silver reads both; the other channel has nothing
        open_table(storage.uri(other.bronze), ENVELOPE)
    with lock(storage.uri(PEDIDOS.silver)), session() as engine:
        refresh = stage_refresh(engine, storage, PEDIDOS, run_id="benchmark")
        if failed := [finding.rule for finding in refresh.findings if not finding.passed]:
            raise BenchmarkError(f"The generated orders violate {failed}.")
        _commit(engine, storage, PEDIDOS.silver, refresh.transaction)
    with session() as engine:
        snapshot = require_table(storage.uri(PEDIDOS.silver), PEDIDOS.silver)
        target = Target(PEDIDOS.silver, {column.name: column.type for column in PEDIDOS.columns}, PEDIDOS.key)
        publish(engine, Warehouse(url=_url(), schema="ours"), target, snapshot)


def _commit(engine: Any, storage: Storage, table: TableRef, candidate: Any) -> None:
    if candidate is None:
        raise BenchmarkError(f"{table} has nothing to do.")
    commit_staged(candidate.with_provenance(run_id="benchmark"))
    snapshot = require_table(storage.uri(table), table)
    ledger.finalise(engine, storage.uri(LEDGER), table=table, snapshot=snapshot)


def same() -> None:
    with _connect() as connection, connection.cursor() as cursor:
        found = []
        for schema in ("ours", "bare"):
            cursor.execute(_SUMS.format(schema))
            found.append(cursor.fetchone())
    if found[0] != found[1]:
        raise SystemExit(f"The tables differ: ours {found[0]}, bare {found[1]}")


def main() -> None:
    command = sys.argv[1]
    if command == "prepare":
        prepare(int(sys.argv[2]))
        return
    if command == "land":
        land(Path(sys.argv[2]).absolute(), memory_limit="200MB")  # as its asset has it
        print("{}")
        return
    if command == "same":
        same()
        return
    folder = Path(sys.argv[2]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ours CASCADE" if command == "ours" else "DROP SCHEMA IF EXISTS bare CASCADE")
    begun = time.perf_counter()
    if command == "ours":
        ours(folder, memory_limit=os.environ.get("LAKEHOUSE_MEMORY_LIMIT", "600MB"))
    else:
        bare(folder)
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
