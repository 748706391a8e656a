"""Generated sales as a bronze table: the input of the cases `full`, `increment` and `spread`. Nothing is measured here.

    data/bench/sales-<rows>/bronze/vendas        ten batches: <rows> lines, 2 % delivered again, a tenth of these as deletes
    data/bench/sales-<rows>/bronze_next/vendas   the same table (hard links) and batch 11: 10,000 lines of the last seven days
    data/bench/sales-<rows>/bronze_spread/vendas the same ten and a batch 11 of 10,000 newer versions, spread over all lines
    data/bench/sales-<rows>/complete.json        written last; a folder without it, or from another generator, is made again

The table is the one that `lakehouse.bronze` would make: the envelope and the delivered fields as text, batches numbered by
the transaction `ingest:bronze/vendas`, figures in the commits. Values are functions of the line's number, so the same
arguments give the same rows. Of the lines delivered again a tenth are deletes, two tenths the same version once more and
seven tenths a newer version. Batch 11 holds 8,000 newer versions, spread evenly over the last seven days of the data (one
line every three seconds), and 2,000 new lines.

    python -m benchmarks.generate <folder> <rows>
"""

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import duckdb
import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.ledger import ingest_app
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import open_table, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.tables.vendas import VENDAS

GENERATOR = 3  # raise when the same arguments would give other rows
BATCHES = 10
MIN_ROWS = 100_000
_UPDATES, _INSERTS = 8_000, 2_000
_SPREAD = 10_000
_SECONDS_PER_LINE = 3
_WEEK_LINES = 7 * 86_400 // _SECONDS_PER_LINE
_BRONZE_FILE_MB = 64  # as lakehouse/landing/readers/files/stage.py writes them
_INGESTED_AT = datetime(2027, 1, 1, tzinfo=UTC)

#: `kind` 0 is a new line; 1 a delete; 2 and 3 the same version again; 4 and more a newer version.
_BATCH = """
WITH lines AS (
    SELECT $first + r AS i, 0 AS kind FROM range($new) t(r)
    UNION ALL
    SELECT $first - 1 - r * $step AS i, $base + r % $kinds AS kind FROM range($again) t(r)
), versions AS (
    SELECT
        i,
        kind,
        hash(i) AS line,
        hash(i // 4) AS purchase,
        hash(i * 3) % 20000 AS product,
        TIMESTAMP '2026-01-01' + to_seconds(CAST(i * $seconds AS BIGINT)) AS sold,
        CASE WHEN kind IN (0, 2, 3) THEN 0 ELSE kind END AS change
    FROM lines
)
SELECT
    CAST(CAST(md5(concat($batch, '/', i)) AS UUID) AS VARCHAR) AS _airbyte_raw_id,
    CAST(TIMESTAMP '2026-01-01' + to_seconds(CAST(($first + $new) * $seconds AS BIGINT)) AS TIMESTAMPTZ)
        + to_days(3) AS _airbyte_extracted_at,
    concat('{"sync_id":', $batch, ',"changes":[]}') AS _airbyte_meta,
    CAST(1 AS BIGINT) AS _airbyte_generation_id,
    concat('raw/vendas/2026_01_01_', 1767225600000 + $batch, '_0.parquet') AS _source_file,
    CAST($batch AS BIGINT) AS _batch_id,
    CAST($ingested_at AS TIMESTAMPTZ) AS _ingested_at,
    CAST(NULL AS VARCHAR) AS _extra,
    CAST(i AS VARCHAR) AS id,
    CAST(i // 4 AS VARCHAR) AS pedido_id,
    concat('P', product) AS produto_id,
    concat('PRODUTO NUMERO ', product) AS descricao,
    CAST(1 + (line + change) % 12 AS VARCHAR) AS quantidade,
    CAST(CAST((hash(i * 7) % 100000) / 100.0 AS DECIMAL(12, 2)) AS VARCHAR) AS valor_unitario,
    CASE WHEN line % 10 <> 0 THEN CAST(purchase % 100000 AS VARCHAR) END AS cliente_id,
    CASE purchase % 5 WHEN 0 THEN 'Brasil' WHEN 1 THEN 'Chile' WHEN 2 THEN 'Uruguai' ELSE 'Argentina' END AS pais,
    CASE WHEN kind = 1 THEN 'deleted' WHEN change > 0 THEN 'shipped' ELSE 'paid' END AS status,
    strftime(sold, '%Y-%m-%dT%H:%M:%SZ') AS created_at,
    strftime(sold + to_days(CASE WHEN change > 0 THEN 2 + $batch ELSE 0 END), '%Y-%m-%dT%H:%M:%SZ') AS updated_at
FROM versions
"""


def generate(folder: Path, rows: int) -> None:
    """Make the bronze tables below `folder`, unless they are there and complete.

    Raises:
        ValueError: `rows` is below 100,000 or no multiple of 1,000.
    """
    if rows < MIN_ROWS or rows % 1000:
        raise ValueError(f"Generate {MIN_ROWS:,} rows or more, in thousands, not {rows:,}.")
    marker = folder / "complete.json"
    wanted = {"generator": GENERATOR, "rows": rows, "duckdb": duckdb.__version__, "deltalake": deltalake.__version__}
    if marker.is_file() and json.loads(marker.read_text()) == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session = DuckDBSession(memory_limit="2GB", spill=str(folder / ".spill"), folders=[str(folder)])
    try:
        first_batches(session, folder / "bronze" / "vendas", rows)
        shutil.copytree(folder / "bronze", folder / "bronze_next", copy_function=os.link)
        next_batch(session, folder / "bronze_next" / "vendas", rows)
        shutil.copytree(folder / "bronze", folder / "bronze_spread", copy_function=os.link)
        spread = {"first": rows, "new": 0, "again": _SPREAD, "step": rows // _SPREAD, "base": 4, "kinds": 7}
        _append(session, folder / "bronze_spread" / "vendas", BATCHES + 1, spread)
    finally:
        session.close()
    shutil.rmtree(folder / ".spill", ignore_errors=True)
    marker.write_text(json.dumps(wanted))


def first_batches(session: DuckDBSession, table: Path, rows: int, *, every: int = 50, base: int = 1, kinds: int = 10) -> None:
    """Ten batches.

    Args:
        every: one line in so many is delivered again, as one of the `kinds` from `base`.
    """
    fields = {column.bronze_name: "string" for column in VENDAS.delivered}
    open_table(str(table), ENVELOPE).add_columns(fields)
    new = rows // BATCHES
    for batch in range(1, BATCHES + 1):
        again = new // every if batch > 1 else 0
        lines = {"first": (batch - 1) * new, "new": new, "again": again, "step": 5, "base": base, "kinds": kinds}
        _append(session, table, batch, lines)


def next_batch(session: DuckDBSession, table: Path, rows: int) -> None:
    """Batch 11."""
    step = min(rows, _WEEK_LINES) // _UPDATES
    _append(
        session,
        table,
        BATCHES + 1,
        {"first": rows, "new": _INSERTS, "again": _UPDATES, "step": step, "base": 4, "kinds": 7},
    )


def _append(session: DuckDBSession, table: Path, batch: int, lines: dict[str, int]) -> None:
    snapshot = require_table(str(table), table)
    values = {**lines, "batch": batch, "seconds": _SECONDS_PER_LINE, "ingested_at": _INGESTED_AT}
    frame = nw.from_native(session.connection.sql(_BATCH, params=values))
    columns = {name: kind for name, kind in snapshot.columns.items() if name in frame.columns}
    files = session.write(frame, str(table), columns=columns, file_mb=_BRONZE_FILE_MB)
    count = sum(file.rows for file in files)
    entry = Entry(batch_from=batch - 1, batch_to=batch, records_in=count, written=count, rows_after=snapshot.rows + count)
    watermarks = {ingest_app(VENDAS.bronze): batch}
    made = Provenance(operation="append", figures=entry)
    commit_staged(Transaction(table=snapshot, add=files, watermarks=watermarks, provenance=made))


if __name__ == "__main__":
    generate(Path(sys.argv[1]), int(sys.argv[2]))
