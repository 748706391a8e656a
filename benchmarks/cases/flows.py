"""Cases that run a flow from its source to its end: `files`, `json`, `pedidos`, `rest`, `kafka`, `job`, `brt`, `mlops`."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from benchmarks.cases.common import GB, Bench, Figure, fresh_home, running_stack, same_rows, sample_landing, work_figures
from benchmarks.cases.graph import BRT_CAPTURE, MEDALLION, MLOPS
from benchmarks.measure import BENCH, PROJECT, BenchmarkError, Run, alternate, environment, run

REST_ROWS, REST_RATIO, REST_PEAK = 1_000_000, 1.5, 0.5 * GB
ORDERS, ORDERS_RATIO, ORDERS_PEAK, EXTRACT_PEAK = 1_000_000, 2.0, 1.0 * GB, 0.5 * GB
FILES, FILES_PER_SECOND, FILES_PEAK = 10_000, 300, 2.5 * GB
MESSAGES, MESSAGES_RATIO, MESSAGES_PEAK = 1_000_000, 2.0, 0.5 * GB
JSON_LINES = 1_000_000
#: By the file: in `plain` DuckDB writes each number as it was delivered, in `exact` none.
JSON_RATIOS = {"plain": 1.5, "exact": 5.0}
JOB_SECONDS = 90.0
TICK_SECONDS, TICK_CPU, TICK_PEAK = 8.0, 6.0, 0.4 * GB
DAY_SECONDS = 900.0
#: The cost of an export, late by early: over the exports of many days it may not grow.
EXPORT_GROWTH = 1.3
MLOPS_SECONDS, MLOPS_PEAK = 90.0, 1.5 * GB


def files(bench: Bench) -> Iterator[Figure]:
    """Many small files; the work per file decides."""
    landing = BENCH / f"files-{FILES}"
    run(["-m", "benchmarks.files", "write", str(landing), str(FILES)])

    def ours() -> Run:
        return run(["-m", "benchmarks.files", "ingest", str(landing), str(bench.fresh("files"))])

    found = bench.persist("files", alternate({"ours": ours}, rounds=bench.rounds))["ours"]
    rate = found.output["files"] / found.seconds
    yield Figure("files", "files per second after the first listing", rate, unit="/s", value=-rate, limit=-FILES_PER_SECOND,
                 bound=f">= {FILES_PER_SECOND}")  # fmt: skip
    yield Figure("files", f"nothing new among {found.output['files']:,} files", found.output["again"])
    yield Figure("files", "peak memory", found.peak / GB, unit="GB", limit=FILES_PEAK / GB, bound=f"<= {FILES_PEAK / GB} GB")


def json_lines(bench: Bench) -> Iterator[Figure]:
    """A million records of one file of JSON lines to bronze."""
    landing = BENCH / f"json-{JSON_LINES}"
    run(["-m", "benchmarks.json_lines", "write", str(landing), str(JSON_LINES)])
    for name, limit in JSON_RATIOS.items():
        file = str(landing / f"{name}.jsonl")

        def side(what: str, file: str = file) -> Callable[[], Run]:
            return lambda: run(["-m", "benchmarks.json_lines", what, file, str(bench.fresh(f"json-{what}"))])

        found = bench.persist(f"json {name}", alternate({"ours": side("ours"), "bare": side("bare")}, rounds=bench.rounds))
        ours, plain = found["ours"], found["bare"]
        if ours.output["rows"] != plain.output["rows"]:
            raise BenchmarkError(f"Of {plain.output['rows']:,} records of {name}.jsonl {ours.output['rows']:,} were written.")
        yield Figure("json", f"{name} numbers, to Parquet", ours.seconds, plain.seconds, value=ours.seconds / plain.seconds,
                     limit=limit, bound=f"<= {limit} x")  # fmt: skip
        yield Figure("json", f"{name} numbers, CPU", ours.cpu, plain.cpu)


def pedidos(bench: Bench) -> Iterator[Figure]:
    """A million orders from PostgreSQL to silver and back."""
    with running_stack("postgres") as variables:
        env = {"BENCH_POSTGRES_URL": variables["LAKEHOUSE_WAREHOUSE_URL"]}
        run(["-m", "benchmarks.pedidos", "prepare", str(ORDERS)], env=env)

        def side(name: str) -> Callable[[], Run]:
            return lambda: run(["-m", "benchmarks.pedidos", name, str(bench.fresh(f"pedidos-{name}"))], env=env)

        found = bench.persist("pedidos", alternate({"ours": side("ours"), "bare": side("bare")}, rounds=bench.rounds))
        run(["-m", "benchmarks.pedidos", "same"], env=env)
        land = run(["-m", "benchmarks.pedidos", "land", str(bench.fresh("pedidos-land"))], env=env)
    yield from work_figures("pedidos", found, ratio=ORDERS_RATIO, peak=ORDERS_PEAK)
    bound = f"<= {EXTRACT_PEAK / GB} GB"
    yield Figure("pedidos", "extraction: peak memory", land.peak / GB, unit="GB", limit=EXTRACT_PEAK / GB, bound=bound)


def rest(bench: Bench) -> Iterator[Figure]:
    """A million records of an API to landing."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rest_server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environment(),
    )  # fmt: skip
    try:
        url = server.stdout.readline().strip() if server.stdout is not None else ""

        def side(name: str) -> Callable[[], Run]:
            return lambda: run(["-m", "benchmarks.rest", name, url, str(bench.fresh(f"rest-{name}"))])

        found = bench.persist("rest", alternate({"ours": side("ours"), "bare": side("bare")}, rounds=bench.rounds))
    finally:
        server.communicate()
    if wrong := {name: each.output["rows"] for name, each in found.items() if each.output["rows"] != REST_ROWS}:
        raise BenchmarkError(f"Of {REST_ROWS:,} records there were {wrong}.")
    yield from work_figures("rest", found, ratio=REST_RATIO, peak=REST_PEAK)


def kafka(bench: Bench) -> Iterator[Figure]:
    """A million messages of 500 bytes to landed files."""
    with running_stack("kafka") as variables:
        env = {"BENCH_KAFKA": variables["LAKEHOUSE_KAFKA_BOOTSTRAP"]}
        topic = f"bench-{time.time_ns()}"
        run(["-m", "benchmarks.kafka", "fill", topic, str(MESSAGES)], env=env)

        def side(name: str) -> Callable[[], Run]:
            return lambda: run(["-m", "benchmarks.kafka", name, topic, str(bench.fresh(f"kafka-{name}"))], env=env)

        found = bench.persist("kafka", alternate({"ours": side("ours"), "bare": side("bare")}, rounds=bench.rounds))
    for name, measured in found.items():
        if measured.output["messages"] != MESSAGES:
            raise BenchmarkError(f"Of {MESSAGES:,} messages {name} has {measured.output['messages']:,}.")
    yield from work_figures("kafka", found, ratio=MESSAGES_RATIO, peak=MESSAGES_PEAK)


def job(bench: Bench) -> Iterator[Figure]:
    """The whole job from nothing: empty lake, empty Dagster instance, the sample landing written before."""
    landing = sample_landing(None)

    def ours() -> Run:
        home = fresh_home(bench, "job", landing=landing)
        return run(["-m", "lakehouse", "trigger", MEDALLION.job], env=home)

    def bare() -> Run:
        return run(["-m", "benchmarks.bare_job", str(landing), str(bench.fresh("job-bare"))])

    found = bench.persist("job", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    lake = bench.work / "job" / "lake"
    for name in ("silver/vendas", "silver/produtos", "silver/clientes", "gold/vendas_diarias", "gold/vendas_mensais",
                 "gold/vendas_por_pais"):  # fmt: skip
        same_rows(lake / name, bench.work / "job-bare" / name)
    same_rows(
        lake / "gold/vendas_por_produto", bench.work / "job-bare/gold/vendas_por_produto", "produto_id", "linhas", "receita"
    )
    same_rows(lake / "gold/clientes_rfm", bench.work / "job-bare/gold/clientes_rfm", "cliente_id", "frequencia", "receita")
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
    home = {**fresh_home(bench, "brt-tick"), "LAKEHOUSE_BRT_URL": url, "LAKEHOUSE_BRT_BUFFER": "1440"}
    feed = subprocess.Popen([sys.executable, "-m", "lakehouse.sample.brt", "serve", "--port", str(port)], cwd=PROJECT)
    try:
        _wait_for(port)

        def ours() -> Run:
            return run(["-m", "lakehouse", "trigger", BRT_CAPTURE.job], env=home)

        def bare() -> Run:
            return run(["-m", "benchmarks.brt", "bare", url, str(bench.work / "brt-bare.gz")])

        ours(), bare()  # parses the manifest and fills the byte code cache
        found = bench.persist("brt", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
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
        home = {**fresh_home(bench, f"brt-{what}"), "LAKEHOUSE_BRT_URL": f"file://{folder}"}
        done = run(["-m", "benchmarks.brt", "replay", *arguments], env=home)
        bench.raw[f"brt_{what}"] = dict(done.output)
        if what == "day":
            yield Figure("brt", "a day in one process", done.seconds, limit=DAY_SECONDS, bound=f"<= {DAY_SECONDS} s")
            yield Figure("brt", "its peak memory", done.peak / GB, unit="GB")
        late, early = float(done.output["export_cpu_last"]), float(done.output["export_cpu_first"])
        limit = EXPORT_GROWTH if what == "month" else None
        bound = f"<= {EXPORT_GROWTH} x" if limit else ""
        message = f"CPU of an export, late and early in a {what}"
        yield Figure("brt", message, late, early, value=late / early, limit=limit, bound=bound)


def _wait_for(port: int) -> None:
    for _ in range(150):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise BenchmarkError("The simulated feed did not start within 30 s.")


def mlops(bench: Bench) -> Iterator[Figure]:
    """The weekly job from an empty registry, and again on the same data."""
    real = PROJECT / os.environ.get("LAKEHOUSE_REAL_DATA", "../shared/data") / "vendas" / "landing"
    home = fresh_home(bench, "mlops", landing=real.resolve() if real.is_dir() else sample_landing(None))
    home["MLFLOW_TRACKING_URI"] = f"sqlite:///{bench.work}/mlops/mlflow/mlflow.db"
    run(["-m", "lakehouse", "trigger", MEDALLION.job], env=home)
    for what in ("first version", "unchanged data"):
        ours = run(["-m", "lakehouse", "trigger", MLOPS.job], env=home)
        limits = (MLOPS_SECONDS, MLOPS_PEAK / GB)
        yield Figure("mlops", what, ours.wall, limit=limits[0], bound=f"<= {limits[0]:.0f} s")
        yield Figure("mlops", f"{what}: CPU", ours.cpu)
        yield Figure("mlops", f"{what}: peak memory", ours.peak / GB, unit="GB", limit=limits[1], bound=f"<= {limits[1]} GB")
