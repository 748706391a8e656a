"""The history of the generated sales, beside a script of DuckDB window functions that makes the same table.

<folder>/bronze/vendas        ten batches: <rows> lines, of which 5 % are delivered again as newer versions
<folder>/bronze_next/vendas   the same and batch 11: 10,000 lines of the last seven days
<folder>/lake                 the silver table of the ten, without which a history is not computed

python -m benchmarks.history make <folder> <rows>
python -m benchmarks.history ours <folder>/bronze <lake>     one JSON line; the lake has what silver has read
python -m benchmarks.history bare <folder>/bronze <table>
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType

from benchmarks import bare, generate, ours
from lakehouse.core import ledger
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import require_table
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import load_settings
from lakehouse.silver.history import stage_history
from lakehouse.tables.spec import history_ref
from lakehouse.tables.vendas import VENDAS

SPEC = replace(VENDAS, history=True)
#: One line in so many has another version.
EVERY = 20
OWN = {"valid_from": "timestamp", "valid_to": "timestamp", "is_current": "boolean", "version": "integer"}
_CONTENT = ", ".join(name for name in bare.COLUMNS if name not in ("id", "updated_at", "_extracted_at"))
_STAGED = f"""
CREATE TEMP VIEW staged AS
WITH newest AS (
    SELECT * FROM typed('records') QUALIFY row_number() OVER (PARTITION BY id, updated_at ORDER BY _extracted_at DESC) = 1
), marked AS (
    SELECT *, status = 'deleted' AS gone, CASE WHEN status <> 'deleted' THEN hash({_CONTENT}) END AS content FROM newest
), opened AS (
    SELECT *, lag(gone) OVER versions AS was_gone, lag(content) OVER versions AS before FROM marked
    WINDOW versions AS (PARTITION BY id ORDER BY updated_at)
    QUALIFY was_gone IS NULL OR gone <> was_gone OR content IS DISTINCT FROM before
), ended AS (
    SELECT *,
        updated_at AS valid_from,
        lead(updated_at) OVER versions AS valid_to,
        CAST(count(*) FILTER (NOT gone) OVER (versions ROWS UNBOUNDED PRECEDING) AS INTEGER) AS version
    FROM opened
    WINDOW versions AS (PARTITION BY id ORDER BY updated_at)
)
SELECT {", ".join(name for name in bare.COLUMNS if name != "_extracted_at")},
    valid_from, valid_to, valid_to IS NULL AS is_current, version, _extracted_at
FROM ended
WHERE NOT gone
ORDER BY id, valid_from
"""  # nosec B608


def make(folder: Path, rows: int) -> None:
    """Make the bronze tables, and silver of the first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session = DuckDBSession(memory_limit="2GB", spill=str(folder / ".spill"), folders=[str(folder)])
    try:
        generate.first_batches(session, folder / "bronze" / "vendas", rows, every=EVERY, base=4, kinds=7)
        shutil.copytree(folder / "bronze", folder / "bronze_next", copy_function=os.link)
        generate.next_batch(session, folder / "bronze_next" / "vendas", rows)
    finally:
        session.close()
    bound = load_settings().memory_bound
    ours.refresh(str(folder / "bronze"), str(folder / "lake"), memory_limit=bound)


def refresh(bronze: str, lake: str, *, memory_limit: str) -> dict[str, Any]:
    """Bring the history of the lake to what its silver has read, and return what was committed.

    Raises:
        RuntimeError: nothing was committed, or a check did not pass.
    """
    storage = Storage(root=lake, landing=f"{lake}/landing", layers={"bronze": bronze})
    ref = history_ref(SPEC)
    uri = storage.uri(ref)
    with (
        lock(uri),
        duckdb_session(memory_limit=memory_limit, spill=f"{lake}/.spill", folders=storage.folders()) as session,
    ):
        staged = stage_history(session, storage, SPEC, run_id="benchmark")
        failed = [finding.rule for finding in staged.findings if not finding.passed]
        if staged.transaction is None or staged.entry is None or failed:
            raise RuntimeError(f"The history was not committed as it is: {failed or 'nothing to do'}.")
        commit_staged(staged.transaction.with_provenance(run_id="benchmark"))
        ledger.finalise(session, storage.uri(ledger.LEDGER_TABLE), table=ref, snapshot=require_table(uri, ref))
    return {"entry": vars(staged.entry), "operation": staged.transaction.provenance.operation}


def by_windows(bronze: str, target: str) -> None:
    """The same table by window functions over all records."""
    source = DeltaTable(bronze)
    Path(target).mkdir(parents=True)
    extracted = {"_extracted_at": bare.COLUMNS.pop("_extracted_at")}
    bare.COLUMNS |= OWN | extracted
    fields = [Field(name, PrimitiveType(kind)) for name, kind in bare.COLUMNS.items()]
    table = DeltaTable.create(target, Schema(fields))
    with bare.connect() as con:
        con.execute("SET VARIABLE files = $files", {"files": source.file_uris()})
        con.execute("CREATE TEMP VIEW records AS SELECT * FROM read_parquet(getvariable('files'))")
        con.execute(_STAGED)
        bare.publish(con, table, target, remove=[], seen=source.transaction_version("ingest:bronze/vendas"))


def main(arguments: Sequence[str]) -> None:
    what, source, target = arguments
    if what == "make":
        make(Path(source).absolute(), int(target))
        return
    nw.from_native(duckdb.connect().sql("SELECT 1")).with_columns(n=nw.lit(1))  # Narwhals loads its side of an engine late
    bound, found = load_settings().memory_bound, {}
    begun = time.perf_counter()
    if what == "ours":
        found = refresh(str(Path(source).absolute()), str(Path(target).absolute()), memory_limit=bound)
    else:
        by_windows(f"{source}/vendas", target)
    print(json.dumps({"seconds": time.perf_counter() - begun, **found}))


if __name__ == "__main__":
    main(sys.argv[1:])
