"""The Spark application of this process: started once, shared by the sessions that are open meanwhile, ended with the last.

A master that does not answer, or has no worker, is an error within `PATIENCE`. Starting takes about 5 s, a second time in the
same process about 1 s.
"""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession as Application

from lakehouse.core.engines.session import Spark
from lakehouse.core.errors import DeclarationError
from lakehouse.core.store.storage import lock

#: How long a master may take to answer, and then to give the application its first worker.
PATIENCE = 30.0
#: The driver of a cluster may take 1 GB; with this heap Java takes 0.84 GB (1 M rows). Spark refuses less than 450 MB.
_DRIVER_HEAP = "512m"
_CONF = {
    "spark.app.name": "lakehouse",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.hadoop.parquet.compression.codec.zstd.level": "1",
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.decimalOperations.allowPrecisionLoss": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "1024",  # a Spark job to list few local files is slower
    "spark.sql.ui.retainedExecutions": "1",  # the driver holds the plans and metrics of as many, page or not
    "spark.ui.enabled": "false",
    "spark.ui.retainedJobs": "1",
    "spark.ui.retainedStages": "1",
    "spark.ui.retainedTasks": "1",
    "spark.ui.showConsoleProgress": "false",
}


class _Applications:
    """The one Spark application of this process and how many sessions use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._running: Application | None = None
        self._stack = ExitStack()

    def enter(self, settings: Spark, *, memory_limit: str, spill: str) -> Application:
        with self._lock:
            if self._running is None:
                with ExitStack() as stack:
                    self._running = _start(settings, stack, memory_limit=memory_limit, spill=spill)
                    self._stack = stack.pop_all()
            self._users += 1
            return self._running

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._running is not None:
                try:
                    self._running.stop()
                finally:
                    self._running = None
                    self._stack.close()


APPLICATIONS = _Applications()


def _start(settings: Spark, stack: ExitStack, *, memory_limit: str, spill: str) -> Application:
    beside = Path(spill).parent
    beside.mkdir(parents=True, exist_ok=True)
    # Beside the session's folder, not in it: another session may go on with the application when this one ends.
    with lock(str(beside)):  # as `lake.scratch` does, which removes what nobody has locked
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spark-", dir=beside, ignore_cleanup_errors=True))
        stack.enter_context(lock(folder))
    conf = {**_CONF, "spark.master": settings.master, "spark.local.dir": folder}
    # With a cluster the driver plans and commits; the rows are the executors'.
    conf["spark.driver.memory"] = _megabytes(memory_limit) if settings.local else _DRIVER_HEAP
    if settings.jars:
        conf["spark.jars"] = ",".join(settings.jars)
    conf |= settings.conf
    _check_master(settings.master)
    application = _started(settings.master, conf, settings.start or _build)
    if "spark.sql.shuffle.partitions" not in conf:
        partitions = max(2 * application.sparkContext.defaultParallelism, 4)
        application.conf.set("spark.sql.shuffle.partitions", str(partitions))
    return application


def _megabytes(limit: str) -> str:
    number, unit = re.fullmatch(r"([\d.]+)\s?(MB|GB|MiB|GiB)", limit).groups()  # type: ignore[union-attr]
    return f"{max(int(float(number) * (1000 if unit.startswith('G') else 1)), 512)}m"


def _build(conf: Mapping[str, str]) -> Application:
    builder = Application.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _no_answer(master: str, why: str) -> DeclarationError:
    return DeclarationError(
        f"The Spark master {master} (LAKEHOUSE_SPARK_MASTER) {why}.",
        remedy="Start it and its workers, or set LAKEHOUSE_SPARK_MASTER to one that runs, or to local[*].",
    )


def _check_master(master: str) -> None:
    """Spark itself tries for a minute, and then ends the JVM."""
    if not master.startswith("spark://"):
        return
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise _no_answer(master, "is no spark://host:port")
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        except OSError:
            continue
        return
    raise _no_answer(master, "does not answer")


def _started(master: str, conf: Mapping[str, str], start: Callable[[Mapping[str, str]], Application]) -> Application:
    try:
        SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(list(conf.items())))
    except (PySparkRuntimeError, OSError):
        raise DeclarationError(
            "The engine spark (LAKEHOUSE_ENGINE) could not start Java.",
            remedy="Install Java 17 or later and put it on PATH or in JAVA_HOME, or set LAKEHOUSE_ENGINE=duckdb.",
        ) from None
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(start(conf))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE if master.startswith("spark://") else None)  # YARN and Kubernetes queue, with limits of their own
    if not outcome:
        _kill_java()
        raise _no_answer(master, f"did not answer within {PATIENCE:.0f} s")
    if isinstance(outcome[0], Exception):
        text = str(outcome[0])
        _kill_java()
        first = next((line for line in text.splitlines() if line.strip()), type(outcome[0]).__name__)
        raise _no_answer(master, f"could not be used: {first[:200]}")
    application = cast("Application", outcome[0])
    if master.startswith("spark://"):
        _await_worker(application, master)
    return application


def _await_worker(application: Application, master: str) -> None:
    """Without a worker the first job would wait for ever."""
    deadline = time.monotonic() + PATIENCE
    status = application.sparkContext._jsc.sc()
    while status.getExecutorMemoryStatus().size() < 2:  # the driver counts
        if time.monotonic() > deadline:
            application.stop()
            raise _no_answer(master, f"gave no worker within {PATIENCE:.0f} s")
        time.sleep(0.1)


def _kill_java() -> None:
    """End the JVM of a start that failed, so that the next one gets its own."""
    gateway = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    Application._instantiatedSession = None
    if gateway is not None and getattr(gateway, "proc", None) is not None:
        gateway.proc.kill()
        gateway.proc.wait()
