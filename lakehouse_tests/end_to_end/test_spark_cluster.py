"""Silver on a Spark cluster: a standalone master and two workers, from the pyspark package, on this machine.

The real sales give the figures of EXPECTED.json, and the event log says that both workers computed them.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakehouse.core.engines.session import Spark, open_session
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake, with_parent
from lakehouse_tests.core.engines.test_spark import sales
from lakehouse_tests.end_to_end.test_sales_exact import (  # noqa: F401 - collected here too
    expected,
    files,
    test_all_at_once_is_exact_by_month_and_country,
)

pyspark = pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark


def until(found: Callable[[], str | None], what: str) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if text := found():
            return text
        time.sleep(0.2)
    raise AssertionError(f"{what} did not start")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a master with two workers of one core each."""
    folder = tmp_path_factory.mktemp("cluster")
    start = [str(Path(pyspark.__file__).parent / "bin" / "spark-class")]
    processes = []

    def run(name: str, *words: str) -> Path:
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            processes.append(subprocess.Popen(with_parent(*start, *words), stdout=out, stderr=subprocess.STDOUT, cwd=folder))
        return log

    def output(log: Path, pattern: str) -> Callable[[], str | None]:
        return lambda: (found := re.search(pattern, log.read_text())) and found[0]

    try:
        log = run("master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        url = until(output(log, r"spark://127\.0\.0\.1:\d+"), "the master")
        for number in (1, 2):
            words = ["--host", "127.0.0.1", "--cores", "1", "--memory", "1500m", "--webui-port", "0"]
            work = ["--work-dir", str(folder / f"work{number}"), url]
            log = run(f"worker{number}", "org.apache.spark.deploy.worker.Worker", *words, *work)
            until(output(log, "Successfully registered with master"), "a worker")
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    folder = tmp_path / "events"
    folder.mkdir()
    return folder


@pytest.fixture
def lake(tmp_path: Path, master: str, events: Path) -> Lake:
    conf = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{events}", "spark.executor.memory": "1g"}
    conf |= {"spark.eventLog.compress": "false", "spark.eventLog.rolling.enabled": "false"}
    return Lake(tmp_path / "cluster", engine="spark", spark=Spark(master=master, conf=conf))


def test_both_workers_compute_and_the_table_is_that_of_duckdb(lake: Lake, events: Path, tmp_path: Path) -> None:
    alone = Lake(tmp_path / "alone")
    for number, rows in enumerate(sales()[:2]):
        for each in (lake, alone):
            each.land("vendas", f"f{number}", rows)
            each.run(VENDAS)
    assert lake.rows(VENDAS.silver) == alone.rows(VENDAS.silver) != []
    assert lake.quarantined(VENDAS) == alone.quarantined(VENDAS) != []
    lines = [json.loads(line) for log in events.iterdir() for line in log.read_text().splitlines()]
    tasks = [line["Task Info"]["Executor ID"] for line in lines if line["Event"] == "SparkListenerTaskEnd"]
    assert {"0", "1"} <= set(tasks) and "driver" not in tasks


def test_the_application_ends_with_the_last_session(lake: Lake, tmp_path: Path) -> None:
    def session():
        return open_session("spark", memory_limit="1GB", spill=str(tmp_path / "s" / "x"), folders=[], spark=lake.spark)

    with session() as first:
        with session() as second:
            second.table([], {"a": "int"})
            first.table([], {"a": "int"})
        assert first.rows(first.table([{"a": 1}], {"a": "int"})) == [(1,)]
    assert pyspark.SparkContext._active_spark_context is None
    assert not list((tmp_path / "s").glob("spark-*"))
