"""Metrics of runs: a row of `ops/run_metrics` per finished run and per step of it, from Dagster's event log, each once.

The cursor (the storage id of the last run's end) is an application transaction of the commit that brings the rows, per
instance, so rows and cursor are never apart. What is measured is what Dagster recorded; a run that Dagster has deleted since
is not in it. The figures over time (rates, percentiles, SLA) are dbt's: `gold/slo_jobs`, `gold/slo_assets`.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict
from lakehouse.observability import eventlog, outbox
from lakehouse.observability.eventlog import Entry
from lakehouse.observability.watch import JobSla
from lakehouse.runtime.dagster_private import event_of

METRICS_TABLE = TableRef("ops", "run_metrics")
COLUMNS = {
    "event_id": "bigint",
    "log": "string",
    "kind": "string",
    "run_id": "string",
    "job": "string",
    "step": "string",
    "asset": "string",
    "requested_at": "timestamp",
    "started_at": "timestamp",
    "finished_at": "timestamp",
    "duration_seconds": "double",
    "outcome": "string",
    "retries": "bigint",
    "rows": "bigint",
    "sla_seconds": "double",
    "sla_met": "boolean",
}
_TYPE = dg.DagsterEventType
_STEP_ENDS = {_TYPE.STEP_SUCCESS.value: "success", _TYPE.STEP_FAILURE.value: "failure", _TYPE.STEP_SKIPPED.value: "skipped"}
_RUN_ENDS = {_TYPE.RUN_SUCCESS: "success", _TYPE.RUN_FAILURE: "failure", _TYPE.RUN_CANCELED: "canceled"}
_STEPS = (
    _TYPE.STEP_START,
    _TYPE.STEP_UP_FOR_RETRY,
    _TYPE.STEP_SUCCESS,
    _TYPE.STEP_FAILURE,
    _TYPE.STEP_SKIPPED,
    _TYPE.ASSET_MATERIALIZATION,
    _TYPE.ASSET_MATERIALIZATION_PLANNED,  # the only word of its asset that a step leaves which failed
)
#: Runs taken up in one commit, and seconds after which the rest is left to the next call.
_BATCH, _PATIENCE = 1000, 20.0


@dataclass
class _Step:
    """One step of a run, as its entries come by."""

    started: float | None = None
    ended: float | None = None
    outcome: str = "lost"
    retries: int = 0
    rows: int | None = None
    assets: list[str] = field(default_factory=list)


def take_up(
    instance: dg.DagsterInstance, storage: Storage, *, job_slas: Sequence[JobSla] = (), patience: float = _PATIENCE
) -> int:
    """Take up the runs that ended since the last call; how many. A backlog is taken up over several calls."""
    deadline, total = time.monotonic() + patience, 0
    log = eventlog.identity(instance)
    with outbox.small_session(storage) as session:
        while True:
            count, more = redo_on_conflict(lambda: _take_batch(session, instance, storage, log=log, job_slas=job_slas))
            total += count
            if not more or time.monotonic() > deadline:
                return total


def _take_batch(
    session: Session, instance: dg.DagsterInstance, storage: Storage, *, log: str, job_slas: Sequence[JobSla]
) -> tuple[int, bool]:
    """Take up to `_BATCH` runs in one commit: how many, and whether there may be more."""
    table = open_table(storage.uri(METRICS_TABLE), COLUMNS)
    app = f"event_log:{log}"
    cursor = table.watermark(app)
    since = max(cursor - eventlog.MARGIN, 0)
    found = eventlog.entries(instance, after=since, types=eventlog.ENDS, limit=_BATCH + eventlog.MARGIN)
    done = _taken(session, table, log=log, since=since)
    fresh = [entry for entry in found if entry.id not in done]
    if not fresh:
        return 0, False
    rows = _rows(instance, fresh, log=log, job_slas=job_slas)
    add = session.write(session.table(rows, COLUMNS), table.uri, columns=COLUMNS)
    last = max(cursor, *(entry.id for entry in fresh))
    commit_staged(Transaction(table=table, add=add, watermarks={app: last}, provenance=Provenance(operation="append")))
    return len(fresh), len(found) >= _BATCH


def _taken(session: Session, table: Snapshot, *, log: str, since: int) -> set[int]:
    """The ends of runs after `since` that are in the table."""
    import narwhals as nw

    chosen = [file for file in table.files if file.upper.get("event_id") is None or file.upper["event_id"] > since]
    if not chosen:
        return set()
    frame = session.read(table.paths(chosen), {"event_id": "bigint", "log": "string"})
    mine = frame.filter((nw.col("event_id") > since) & (nw.col("log") == log))
    return {row[0] for row in session.rows(mine.select("event_id").unique())}


def _rows(instance: dg.DagsterInstance, ends: Sequence[Entry], *, log: str, job_slas: Sequence[JobSla]) -> list[dict[str, Any]]:
    slas = {job_sla.job: job_sla.sla.total_seconds() for job_sla in job_slas}
    run_ids = sorted({entry.entry.run_id for entry in ends})
    records = {record.dagster_run.run_id: record for record in _records(instance, run_ids)}
    steps = _steps(instance, run_ids)
    out = []
    for end in ends:
        run_id, job = end.entry.run_id, end.entry.job_name or ""
        finished, outcome, record = end.entry.timestamp, _RUN_ENDS[end.event.event_type], records.get(run_id)
        own = steps.get(run_id, {})
        started = record.start_time if record is not None else None
        requested = _utc(record.create_timestamp).timestamp() if record is not None else started
        sla = slas.get(job)
        common = {"event_id": end.id, "log": log, "run_id": run_id, "job": job}
        run = {
            **common,
            **_times(started, finished),
            "kind": "run",
            "requested_at": _instant(requested),
            "outcome": outcome,
            "retries": sum(step.retries for step in own.values()),
            "rows": sum(step.rows or 0 for step in own.values()) if any(s.rows is not None for s in own.values()) else None,
            "sla_seconds": sla,
            "sla_met": finished - requested <= sla if sla is not None and requested is not None else None,
        }
        out.append(run)
        for name, step in own.items():
            if step.started is None and step.outcome == "lost":  # planned, and the run ended before it
                continue
            times = _times(step.started, step.ended if step.ended is not None else finished)
            asset = _together(step.assets)
            part = {"step": name, "asset": asset, "outcome": step.outcome, "retries": step.retries, "rows": step.rows}
            out.append({**common, **times, **part, "kind": "step"})
    return out


def _records(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterable[dg.RunRecord]:
    for start in range(0, len(run_ids), 500):  # SQLite takes 999 values in a query in its older builds
        yield from instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids[start : start + 500])))


def _steps(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Mapping[str, dict[str, _Step]]:
    out: dict[str, dict[str, _Step]] = {}
    for entry in eventlog.steps(instance, run_ids, _STEPS):
        if not entry.step:
            continue
        step = out.setdefault(entry.run_id, {}).setdefault(entry.step, _Step())
        if entry.asset:
            step.assets.append(entry.asset)
        if entry.kind == _TYPE.STEP_START.value:
            step.started = entry.at if step.started is None else step.started
        elif entry.kind == _TYPE.STEP_UP_FOR_RETRY.value:
            step.retries += 1
        elif entry.kind in _STEP_ENDS:
            step.ended, step.outcome = entry.at, _STEP_ENDS[entry.kind]
        elif entry.kind == _TYPE.ASSET_MATERIALIZATION.value:
            event = event_of(entry.text).get_dagster_event()
            written = event.step_materialization_data.materialization.metadata.get("rows_written")
            if written is not None and isinstance(written.value, int):
                step.rows = (step.rows or 0) + written.value
    return out


def _together(assets: Sequence[str]) -> str:
    """The asset that a step makes; of a step that makes several of a layer, `gold/*`."""
    unique = sorted(set(assets))
    layers = {asset.partition("/")[0] for asset in unique}
    return unique[0] if len(unique) == 1 else f"{layers.pop()}/*" if len(layers) == 1 else ""


def _times(started: float | None, finished: float) -> dict[str, Any]:
    # A clock that went back gives no negative length.
    length = max(round(finished - started, 6), 0.0) if started is not None else None
    return {"started_at": _instant(started), "finished_at": _instant(finished), "duration_seconds": length}


def _instant(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds is not None else None


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
