"""Case `monitoring`: one run over 30 tables, and 1,000 new runs taken up beside 100,000 past ones, on an instance of files.

    python -m benchmarks.monitoring run FOLDER       one monitoring run, timed from where its definitions are there
    python -m benchmarks.monitoring history FOLDER   100,000 past runs, then 1,000 new ones, and how long these take

Runs are put into Dagster's own tables, many at once, and the new ones' steps into a log file each, as Dagster keeps them.
"""

import json
import shutil
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core.table.transaction import commit_staged

TABLES, PAST, NEW = 30, 100_000, 1_000


def one_run(folder: Path) -> dict[str, float]:
    """Materialise the four assets of `monitoring` over `TABLES` tables of a few commits each."""
    from benchmarks.stored import of_run
    from lakehouse.core.names import TableRef
    from lakehouse.core.table.snapshot import open_table
    from lakehouse.core.table.transaction import Transaction
    from lakehouse.observability import outbox
    from lakehouse.observability.assets import Surroundings, monitored, monitoring_assets
    from lakehouse.resources import build_resources
    from lakehouse.settings import Settings

    settings = Settings(root=str(folder / "lake"))
    refs = [TableRef("gold", f"t{n}") for n in range(TABLES)]
    columns = {"id": "bigint", "at": "timestamp"}
    for ref in refs:
        for commit in range(3):
            with outbox.small_session(settings.storage) as session:
                table = open_table(settings.storage.uri(ref), columns)
                rows = [{"id": commit * 100 + n, "at": datetime.now(UTC)} for n in range(100)]
                add = session.write(session.table(rows, columns), table.uri, columns=columns)
                commit_staged(Transaction(table=table, add=add))
    assets = monitoring_assets(settings, (), surroundings=Surroundings(refs, (), dict))
    job = dg.Definitions(
        assets=assets,
        jobs=[dg.define_asset_job("monitoring", selection=monitored())],
        resources=build_resources(settings),
        executor=dg.in_process_executor,
    ).resolve_job_def("monitoring")
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        begun, cpu = time.perf_counter(), time.process_time()
        result = job.execute_in_process(instance=instance)
        spent, used = time.perf_counter() - begun, time.process_time() - cpu
        assert len(result.get_asset_check_evaluations()) == TABLES + 2  # leaders and lag of topics
        again = job.execute_in_process(instance=instance)
        assert len(again.get_asset_check_evaluations()) == 2  # of tables nothing is new
    size = of_run(folder / "dagster", again.run_id)
    return {"seconds": spent, "cpu": used, **size}


def history(folder: Path) -> dict[str, float]:
    """Take up `NEW` runs on an instance with `PAST` others that were taken up before."""
    from dagster._core.storage.dagster_run import DagsterRun
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Log
    from dagster._core.storage.runs.schema import RunsTable
    from dagster._serdes import serialize_value
    from sqlalchemy import create_engine

    from benchmarks.past_runs import PastRun, events
    from lakehouse.core.table.snapshot import open_table
    from lakehouse.core.table.transaction import Transaction
    from lakehouse.observability import eventlog, metrics
    from lakehouse.settings import Settings

    storage = Settings(root=str(folder / "lake")).storage
    start = datetime.now(UTC) - timedelta(days=30)
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        past = [PastRun(start + timedelta(seconds=20 * n), 5.0) for n in range(PAST)]
        new = [PastRun(datetime.now(UTC), 5.0) for _ in range(NEW)]
        across = {"RUN_START", "RUN_SUCCESS", "PIPELINE_START", "PIPELINE_SUCCESS", "ASSET_MATERIALIZATION"}

        def entries(run: PastRun, kinds: Collection[str] = ()) -> list[dict[str, Any]]:
            found = [(event.dagster_event, event) for event in events(run) if event.dagster_event]
            return [
                {
                    "run_id": run.run_id,
                    "event": serialize_value(event),
                    "dagster_event_type": step.event_type_value,
                    "timestamp": datetime.fromtimestamp(event.timestamp, tz=UTC).replace(tzinfo=None),
                    "step_key": event.step_key,
                    "asset_key": step.asset_key.to_string() if step.asset_key else None,
                }
                for step, event in found
                if not kinds or step.event_type_value in kinds
            ]

        def store(runs: list[PastRun]) -> None:
            records = [
                {
                    "run_id": run.run_id,
                    "pipeline_name": run.job,
                    "status": "SUCCESS",
                    "run_body": serialize_value(DagsterRun(run.job, run_id=run.run_id)),
                    "start_time": run.start.timestamp(),
                    "end_time": run.start.timestamp() + run.seconds,
                }
                for run in runs
            ]
            with log.index_connection() as connection:
                connection.execute(Log.insert(), [entry for run in runs for entry in entries(run, across)])
            with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
                connection.execute(RunsTable.insert(), records)

        log: Any = instance.event_log_storage
        log = getattr(log, "event_log_storage", log)
        store(past)
        table = open_table(storage.uri(metrics.METRICS_TABLE), metrics.COLUMNS)
        last = eventlog.newest(instance)
        commit_staged(Transaction(table=table, add=(), watermarks={f"event_log:{eventlog.identity(instance)}": last}))
        store(new)
        with log.run_connection(new[0].run_id):  # makes an empty log of a run, with Dagster's own schema
            pass
        for run in new:
            log_path = log.path_for_shard(run.run_id)
            if run is not new[0]:
                shutil.copyfile(log.path_for_shard(new[0].run_id), log_path)
        for run in new:
            engine = create_engine(log.conn_string_for_shard(run.run_id))
            with engine.begin() as connection:
                connection.execute(Log.insert(), entries(run))
            engine.dispose()
        begun, cpu = time.perf_counter(), time.process_time()
        taken = metrics.take_up(instance, storage, patience=600)
        spent, used = time.perf_counter() - begun, time.process_time() - cpu
    # The last of the past ones are looked at again, and were never in the table.
    assert NEW <= taken <= NEW + eventlog.MARGIN, taken
    return {"seconds": spent, "cpu": used, "past": len(past)}


def main() -> int:
    what, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "dagster").mkdir(parents=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    print(json.dumps({"run": one_run, "history": history}[what](folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
