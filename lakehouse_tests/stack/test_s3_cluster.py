"""Tables in a bucket (versitygw), silver by a Spark cluster (a master and two workers): the figures of every sync, exactly.

Two syncs by default; all thirteen are `slow`: python -m pytest -m slow lakehouse_tests/stack/test_s3_cluster.py
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.core.engines.session import Spark, open_session
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.end_to_end.test_spark_cluster import events, master  # noqa: F401 - fixtures
from lakehouse_tests.stack.test_s3 import (  # noqa: F401 - fixtures
    BucketLake,
    environment,
    expected,
    is_exact,
    land,
    months,
)

pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark
OTHER = {"duckdb": "spark", "spark": "duckdb"}


@pytest.mark.parametrize(
    ("syncs", "alternate"),
    [pytest.param(2, True, id="two, engines in turn"), pytest.param(13, False, id="all", marks=pytest.mark.slow)],
)
def test_every_month_is_exact_on_both_engines_and_both_workers_computed(
    environment: object,  # noqa: F811
    bucket: str,
    tmp_path: Path,
    months: list[list[Path]],  # noqa: F811
    expected: dict[str, list[dict[str, object]]],  # noqa: F811
    master: str,  # noqa: F811
    events: Path,  # noqa: F811
    syncs: int,
    alternate: bool,
) -> None:
    conf = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{events}", "spark.executor.memory": "1g"}
    conf |= {"spark.eventLog.compress": "false", "spark.eventLog.rolling.enabled": "false"}
    cluster = Spark(master=master, conf=conf)
    duck = BucketLake(tmp_path / "duck", root=f"s3://{bucket}/duck", spark=cluster)
    spark = BucketLake(tmp_path / "spark", "spark", root=f"s3://{bucket}/spark", spark=cluster)
    assert len(months) == len(expected["syncs"]) == 13
    # One application for all of it: sessions share it while one is open.
    with open_session("spark", memory_limit="1GB", spill=str(tmp_path / "app" / "x"), folders=[], spark=cluster) as application:
        application.table([], {"a": "int"})
        for number, (paths, sync) in enumerate(zip(months[:syncs], expected["syncs"], strict=False)):
            for lake in (duck, spark):
                land(lake, paths)
                (replace(lake, engine=OTHER[lake.engine]) if alternate and number else lake).run(VENDAS)
                assert is_exact(lake, sync), f"sync {sync['sync']} by {lake.engine}"
            assert spark.rows(VENDAS.silver) == duck.rows(VENDAS.silver)
    lines = [json.loads(line) for log in events.iterdir() for line in log.read_text().splitlines()]
    tasks = [line["Task Info"]["Executor ID"] for line in lines if line["Event"] == "SparkListenerTaskEnd"]
    assert {"0", "1"} <= set(tasks) and "driver" not in tasks
