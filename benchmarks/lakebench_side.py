"""LakeBench's own side of the case `elt`: its DuckDB engine, unchanged. Runs in an environment of its own.

<its python> lakebench_side.py generate <folder>            TPC-DS at scale factor 1, the five tables, as Parquet
<its python> lakebench_side.py run <folder> <lake>          ELTBench, light mode
"""

import json
import sys
from pathlib import Path

TABLES = ["store_sales", "date_dim", "store", "item", "customer"]
SEED = 7
#: LakeBench's words and ours.
_PHASES = {
    "Read parquet, write delta (x5)": "load",
    "Create fact table": "fact",
    "Merge 0.1% into fact table (3x)": "merge",
    "OPTIMIZE": "optimise",
    "VACUUM": "vacuum",
    "Ad-hoc query (small result aggregation)": "query",
}


def generate(folder: str) -> dict[str, object]:
    """Generate the tables, once."""
    from lakebench.datagen.tpcds import TPCDSDataGenerator

    done = Path(folder, ".done")
    if not done.exists():
        TPCDSDataGenerator(scale_factor=1, target_folder_uri=folder, table_list=TABLES).run()
        done.touch()
    return {}


def run(folder: str, lake: str) -> dict[str, object]:
    """Run it; seconds are the sum of what LakeBench has timed.

    Raises:
        RuntimeError: one of its operations failed, which LakeBench itself only notes.
    """
    import numpy as np
    from deltalake import DeltaTable
    from duckdb_extensions import import_extension
    from lakebench.benchmarks.elt_bench.elt_bench import ELTBench
    from lakebench.engines.duckdb import DuckDB

    import_extension("delta")
    np.random.seed(SEED)  # the generator that LakeBench draws from
    engine = DuckDB(schema_or_working_directory_uri=lake)
    engine.duckdb.sql("SELECT setseed(0.7)").fetchall()
    bench = ELTBench(engine=engine, scenario_name="elt", scale_factor=1, input_folder_uri=folder)
    bench.run(mode="light")
    results = [dict(result) for result in bench.results]
    failed = [result for result in results if not result["success"]]
    if failed:
        raise RuntimeError(f"LakeBench failed: {failed[0]}")
    phases = dict.fromkeys(_PHASES.values(), 0.0)
    for result in results:
        phases[_PHASES[result["phase"]]] += result["duration_ms"] / 1000
    fact = DeltaTable(f"{lake}/total_sales_fact", version=0).get_add_actions(flatten=True)
    rows = sum(fact.column("num_records").to_pylist())
    return {"seconds": sum(phases.values()), "phases": phases, "fact_rows": rows}


if __name__ == "__main__":
    print(json.dumps(generate(*sys.argv[2:]) if sys.argv[1] == "generate" else run(*sys.argv[2:])))
