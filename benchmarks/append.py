"""A table that is appended to, and a batch that repeats half of an older one: what it costs to know the repeats.

    <folder>/<ids>/lake/bronze/leituras   125 batches of 80,000 records (10 M), each with an id that was delivered
    <folder>/<ids>/lake/silver/leituras   what a first load makes of them; then batch 126: 5,000 new records, 5,000 of batch 60

The ids are UUIDs of version 7, which rise with time, or of version 4, which are random.

    python -m benchmarks.append make <folder> random | rising
    python -m benchmarks.append refresh <folder> random | rising    one JSON line: seconds and bytes that were read
"""

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession, literal
from lakehouse.core.ledger import ingest_app
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.silver import refresh
from lakehouse.silver.repeats import repeats
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec

BATCHES, RECORDS, REPEATED, OLD = 125, 80_000, 5_000, 60
IDS = {"random": "uuidv4()", "rising": "uuidv7()"}
SPEC = TableSpec(
    name="leituras",
    source=AirbyteStream("leituras"),
    columns=(
        Column("sensor", "bigint"),
        Column("grau", "decimal(6,2)"),
        Column("situacao", "string"),
        Column("medido_em", "timestamp"),
    ),
    sync="append",
)
_FIELDS = {column.bronze_name: "string" for column in SPEC.delivered}
_BATCH = """
SELECT
    CAST({id} AS VARCHAR) AS _airbyte_raw_id,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours($batch) AS _airbyte_extracted_at,
    '{{"changes":[]}}' AS _airbyte_meta,
    CAST(1 AS BIGINT) AS _airbyte_generation_id,
    concat('raw/leituras/', $batch, '.jsonl') AS _source_file,
    CAST($batch AS BIGINT) AS _batch_id,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours($batch) AS _ingested_at,
    CAST(NULL AS VARCHAR) AS _extra,
    true AS _raw_id_delivered,
    CAST(hash(i) % 5000 AS VARCHAR) AS sensor,
    CAST(CAST((hash(i * 7) % 5000) / 100.0 AS DECIMAL(6, 2)) AS VARCHAR) AS grau,
    CASE hash(i * 3) % 3 WHEN 0 THEN 'normal' WHEN 1 THEN 'alerta' ELSE 'manutencao' END AS situacao,
    strftime(TIMESTAMP '2026-01-01' + to_seconds($batch * 3600 + i // 100), '%Y-%m-%dT%H:%M:%SZ') AS medido_em
FROM range($records) t(i)
"""


def _storage(folder: Path) -> Storage:
    return Storage(root=str(folder / "lake"), landing=str(folder / "landing"))


def _session(folder: Path) -> DuckDBSession:
    return DuckDBSession(memory_limit="2GB", spill=str(folder / ".spill"), folders=[str(folder)])


def make(folder: Path, ids: str) -> None:
    """Make both tables, and the batch that is to be read."""
    session, storage = _session(folder), _storage(folder)
    try:
        open_table(storage.uri(SPEC.bronze), ENVELOPE).add_columns(_FIELDS)
        for batch in range(1, BATCHES + 1):
            _append(session, storage, batch, _records(session, ids, batch, RECORDS))
        _refresh(session, storage)
        table = require_table(storage.uri(SPEC.bronze), SPEC.bronze)
        old = [file for file in table.files if file.lower["_batch_id"] == OLD]
        again = session.connection.read_parquet([literal(path) for path in table.paths(old)]).limit(REPEATED)
        again = again.select(f"* REPLACE (CAST({BATCHES + 1} AS BIGINT) AS _batch_id)")
        _append(session, storage, BATCHES + 1, again.union(_records(session, ids, BATCHES + 1, REPEATED).select(*again.columns)))
    finally:
        session.close()


def _records(session: DuckDBSession, ids: str, batch: int, records: int) -> Any:
    return session.connection.sql(_BATCH.format(id=IDS[ids]), params={"batch": batch, "records": records})


def _append(session: DuckDBSession, storage: Storage, batch: int, rows: Any) -> None:
    table = require_table(storage.uri(SPEC.bronze), SPEC.bronze)
    files = session.write(nw.from_native(rows), table.uri, columns={**ENVELOPE, **_FIELDS})
    count = sum(file.rows for file in files)
    entry = Entry(batch_from=batch - 1, batch_to=batch, records_in=count, written=count, rows_after=table.rows + count)
    made = Provenance(operation="append", figures=entry)
    commit_staged(Transaction(table=table, add=files, watermarks={ingest_app(SPEC.bronze): batch}, provenance=made))


def _refresh(session: DuckDBSession, storage: Storage) -> tuple[Entry, Snapshot]:
    found = refresh.stage_refresh(session, storage, SPEC, run_id="benchmark")
    assert found.transaction is not None and found.entry is not None
    commit_staged(found.transaction)
    return found.entry, found.transaction.table


def measure(folder: Path, ids: str) -> dict[str, Any]:
    """Refresh silver by the batch; nothing of it is read twice, so a second call would measure nothing."""
    looked: dict[str, float] = {}

    def counted(*arguments: Any) -> Any:
        begun, read = time.perf_counter(), _bytes_read()
        found = repeats(*arguments)
        looked.update(seconds=time.perf_counter() - begun, bytes=_bytes_read() - read)
        return found

    setattr(refresh, "repeats", counted)  # noqa: B010 # the module does not export it
    session, storage = _session(folder), _storage(folder)
    try:
        bronze = require_table(storage.uri(SPEC.bronze), SPEC.bronze)
        begun, read = time.perf_counter(), _bytes_read()
        entry, _ = _refresh(session, storage)
        seconds = time.perf_counter() - begun
    finally:
        session.close()
    assert (entry.records_in, entry.written, entry.deduplicated) == (2 * REPEATED, REPEATED, REPEATED), entry
    return {
        "seconds": seconds,
        "bytes": _bytes_read() - read,
        "lookup_seconds": looked["seconds"],
        "lookup_bytes": looked["bytes"],
        "table_bytes": bronze.bytes,
        "table_files": len(bronze.files),
        "ids": ids,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _bytes_read() -> int:
    """What this process has asked the system for, from disk or its cache."""
    return int(Path("/proc/self/io").read_text().splitlines()[0].partition(":")[2])


def main(arguments: Sequence[str]) -> None:
    what, folder, ids = arguments
    if what == "make":
        make(Path(folder), ids)
    else:
        print(json.dumps(measure(Path(folder), ids)))


if __name__ == "__main__":
    main(sys.argv[1:])
