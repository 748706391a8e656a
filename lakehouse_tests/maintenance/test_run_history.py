"""Old runs go from Dagster's history once they are measured; the newest of every asset stays."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from benchmarks.past_runs import PastRun, put
from lakehouse.maintenance.run_history import prune
from lakehouse.observability.metrics import METRICS_TABLE, take_up
from lakehouse_tests.conftest import Lake

AGE = timedelta(days=30)


def test_measured_runs_go_and_the_newest_of_every_asset_stays(lake: Lake, tmp_path: Path) -> None:
    begin = datetime.now(UTC)
    past = [PastRun(begin + timedelta(seconds=n), 1.0, asset=f"silver/{'ab'[n % 2]}") for n in range(6)]
    failed = PastRun(begin + timedelta(seconds=7), 1.0, outcome="failure")
    unmeasured = PastRun(begin + timedelta(seconds=8), 1.0, asset="silver/c")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        put(instance, [*past, failed])
        later = datetime.now(UTC) + AGE + timedelta(hours=1)
        assert prune(instance, lake.storage, age=AGE, now=later) == 0, "nothing is measured yet"
        take_up(instance, lake.storage)
        put(instance, [unmeasured])
        newest = {asset: instance.get_latest_materialization_event(dg.AssetKey(["silver", asset])) for asset in "abc"}
        assert prune(instance, lake.storage, age=AGE, now=begin) == 0, "nothing is old"
        assert prune(instance, lake.storage, age=AGE, now=later) == 5
        left = {run.run_id for run in instance.get_runs()}
        assert left == {past[4].run_id, past[5].run_id, unmeasured.run_id}
        assert {a: instance.get_latest_materialization_event(dg.AssetKey(["silver", a])) for a in "abc"} == newest
        assert instance.all_logs(past[0].run_id) == []
        before = len(lake.rows(METRICS_TABLE))
        assert take_up(instance, lake.storage) == 1 and len(lake.rows(METRICS_TABLE)) > before, "the metrics go on"
