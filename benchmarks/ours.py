"""Our side of `full` and `increment`: the lakehouse's own refresh of silver/vendas, rules, quarantine and ledger included.

The pure functions as the asset calls them: lock, session, stage, commit, finalise. Dagster is not in it: what Dagster adds is
measured by the cases `warm`, `cli` and `job`. The clock starts when the modules are loaded, as it does in `bare.py`.

    python -m benchmarks.ours <bronze layer's folder> <lake's folder>

LAKEHOUSE_MEMORY_LIMIT bounds the session as it bounds a run; unset, it is the default of `lakehouse.settings`. LAKEHOUSE_ENGINE
chooses the engine; of Spark's, `java_peak` is the largest resident size of the driver's Java process, in bytes.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import deltalake  # noqa: F401 - the lakehouse loads it where it is used; here it is loaded before the clock starts
import duckdb
import narwhals as nw

from lakehouse.core import ledger
from lakehouse.core.engines import duckdb as _engine  # noqa: F401 - as above
from lakehouse.core.engines.session import Spark, open_session
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import require_table
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import load_settings
from lakehouse.silver.refresh import LEDGER, stage_refresh
from lakehouse.tables.vendas import VENDAS


def refresh(
    bronze: str, lake: str, *, memory_limit: str, engine: str = "duckdb", spark: Spark | None = None
) -> dict[str, object]:
    """Refresh silver/vendas of the lake in `lake` from the bronze tables in `bronze`, and return what was committed.

    Raises:
        RuntimeError: nothing was committed, or a rule was violated: the generated sales violate none.
    """
    storage = Storage(root=lake, landing=f"{lake}/landing", layers={"bronze": bronze})
    uri = storage.uri(VENDAS.silver)
    with (
        lock(uri),
        open_session(
            engine, memory_limit=memory_limit, spill=f"{lake}/.spill", folders=storage.folders(), spark=spark
        ) as session,
    ):
        staged = stage_refresh(session, storage, VENDAS, run_id="benchmark")
        failed = [finding.rule for finding in staged.findings if not finding.passed]
        if staged.transaction is None or staged.entry is None or failed:
            raise RuntimeError(f"The generated sales were not committed as they are: {failed or 'nothing to do'}.")
        commit_staged(staged.transaction.with_provenance(run_id="benchmark"))
        ledger.finalise(session, storage.uri(LEDGER), table=VENDAS.silver, snapshot=require_table(uri, VENDAS.silver))
    written = {"files_added": len(staged.transaction.add), "files_removed": len(staged.transaction.remove)}
    return {"entry": vars(staged.entry), **written}


def java_peak() -> int:
    """Of the Java process that this one has started, in bytes; 0 without one."""
    if "pyspark" not in sys.modules:
        return 0
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway
    status = Path(f"/proc/{gateway.proc.pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)[0]) * 1024


if __name__ == "__main__":
    settings = load_settings()
    bound = settings.memory_bound
    bronze_folder, lake_folder = (str(Path(argument).absolute()) for argument in sys.argv[1:3])
    nw.from_native(duckdb.connect().sql("SELECT 1")).with_columns(
        n=nw.lit(1)
    )  # Narwhals loads its side of an engine when it meets one
    begun = time.perf_counter()
    figures = refresh(bronze_folder, lake_folder, memory_limit=bound, engine=settings.engine, spark=settings.spark)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "memory_limit": bound, "java_peak": java_peak(), **figures}))
