"""Cases that put one engine or store beside another: `spark`, `cluster`, `s3`."""

import os
import uuid
from collections.abc import Iterator

from benchmarks.cases.common import (
    BOUND_ROWS,
    GB,
    Bench,
    Figure,
    fresh_home,
    ratio_figure,
    running_stack,
    same_rows,
    sample_landing,
)
from benchmarks.cases.graph import MEDALLION
from benchmarks.cases.tables import full
from benchmarks.measure import PROJECT, Run, alternate, run

#: DuckDB must need at most this share of Spark's time, and S3 at most this multiple of a folder's.
SPARK_SHARE, S3_RATIO = 0.2, 2.0
#: Of a Spark driver (Java) whose work is done by a cluster.
DRIVER_PEAK = 1.0 * GB


def spark(bench: Bench) -> Iterator[Figure]:
    """The same refresh by both engines."""
    if not bench.full:
        yield from full(bench)

    def slow() -> Run:
        engine = {"LAKEHOUSE_ENGINE": "spark", "LAKEHOUSE_SPARK_MASTER": "local[2]"}
        return run(["-m", "benchmarks.ours", str(bench.sales / "bronze"), str(bench.fresh("spark"))], env=engine)

    found = bench.persist("spark", alternate({"spark": slow}, rounds=1))["spark"]
    same_rows(bench.silver("ours", "full"), bench.work / "spark" / "silver" / "vendas")
    fast = bench.full["ours"].seconds
    limit = SPARK_SHARE if bench.rows >= BOUND_ROWS else None
    yield Figure("spark", "DuckDB, beside Spark local[2]", fast, found.seconds, value=fast / found.seconds, limit=limit,
                 bound=f"<= {SPARK_SHARE} x" if limit else "")  # fmt: skip


def cluster(bench: Bench) -> Iterator[Figure]:
    """The same refresh by a master and two workers of this machine."""
    if not bench.full:
        yield from full(bench)
    with running_stack("spark") as variables:
        env = {"LAKEHOUSE_ENGINE": "spark", "LAKEHOUSE_SPARK_MASTER": variables["LAKEHOUSE_SPARK_MASTER"]}
        found = run(["-m", "benchmarks.ours", str(bench.sales / "bronze"), str(bench.fresh("cluster"))], env=env)
    bench.persist("cluster", {"cluster": found})
    same_rows(bench.silver("ours", "full"), bench.work / "cluster" / "silver" / "vendas")
    yield Figure("cluster", "DuckDB, beside Spark on two workers", bench.full["ours"].seconds, found.seconds)
    limit = DRIVER_PEAK / GB if bench.rows >= BOUND_ROWS else None
    bound = f"<= {limit} GB" if limit else ""
    yield Figure("cluster", "driver's peak memory", found.output["java_peak"] / GB, unit="GB", limit=limit, bound=bound)
    yield Figure("cluster", "peak memory of our process beside it", found.peak / GB, unit="GB")


def s3(bench: Bench) -> Iterator[Figure]:
    """The whole job from nothing, in a bucket and in a folder."""
    real = PROJECT / os.environ.get("LAKEHOUSE_REAL_DATA", "../shared/data") / "vendas" / "landing"
    landing = real.resolve() if real.is_dir() else sample_landing(None)
    with running_stack("s3") as started:
        variables = {name: value for name, value in started.items() if name.startswith("AWS_")}

        def ours() -> Run:
            home = fresh_home(bench, "s3", landing=landing)
            root = f"s3://lakehouse/bench-{uuid.uuid4().hex}"
            return run(["-m", "lakehouse", "trigger", MEDALLION.job], env={**home, **variables, "LAKEHOUSE_ROOT": root})

        def bare() -> Run:
            return run(["-m", "lakehouse", "trigger", MEDALLION.job], env=fresh_home(bench, "s3-folder", landing=landing))

        found = bench.persist("s3", alternate({"ours": ours, "bare": bare}, rounds=min(bench.rounds, 3)))
    yield ratio_figure("s3", "medallion_etl in a bucket, beside a folder", found, S3_RATIO)
