"""Dagster's history: runs that ended long ago are removed, once what is measured of them is in `ops/run_metrics`.

A run stays that made the newest materialisation of an asset, or is not in the metrics yet; the newest is what the UI, freshness
policies and staleness go by. Ticks are removed by Dagster itself (`retention` in dagster.yaml).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.observability.metrics import METRICS_TABLE
from lakehouse.observability.outbox import small_session

_OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


def prune(instance: dg.DagsterInstance, storage: Storage, *, age: timedelta, now: datetime) -> int:
    """Remove the runs that ended before `age`, with their events and logs; how many."""
    old = [run_id for some in _old(instance, before=now - age) for run_id in some]
    if not old:
        return 0
    gone = sorted((set(old) & _measured(storage, old)) - _newest(instance))
    for run_id in gone:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(gone)


def _old(instance: dg.DagsterInstance, *, before: datetime) -> Iterator[list[str]]:
    cursor, chosen = None, dg.RunsFilter(statuses=_OVER, created_before=before)
    while True:
        records = instance.get_run_records(chosen, limit=_AT_ONCE, cursor=cursor)
        yield [r.dagster_run.run_id for r in records if r.end_time is not None and r.end_time < before.timestamp()]
        if len(records) < _AT_ONCE:
            return
        cursor = records[-1].dagster_run.run_id


def _measured(storage: Storage, run_ids: Sequence[str]) -> set[str]:
    """Those of the runs whose end is in the metrics."""
    import narwhals as nw

    table = open_existing(storage.uri(METRICS_TABLE))
    if table is None:
        return set()
    with small_session(storage) as session:
        asked = session.table([{"run_id": run_id} for run_id in run_ids], {"run_id": "string"})
        frame = session.read(table.paths(), {"run_id": "string", "kind": "string"}).filter(nw.col("kind") == "run")
        return {row[0] for row in session.rows(frame.join(asked, on="run_id", how="semi").select("run_id").unique())}


def _newest(instance: dg.DagsterInstance) -> set[str]:
    """The runs that made the newest materialisation of an asset, of each of its partitions where it has such."""
    used: set[str] = set()
    for key in instance.all_asset_keys():
        event = instance.get_latest_materialization_event(key)
        if event is not None:
            used.add(event.run_id)
        for partition in instance.get_materialized_partitions(key):
            found = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1)
            used |= {record.event_log_entry.run_id for record in found.records}
    return used
