"""Metrics of runs: a row of `ops/run_metrics` per finished run and per step of it, from Dagster's event log, each once.

The cursor (the storage id of the last run's end) is an application transaction of the commit that brings the rows, per
instance, so rows and cursor are never apart. What is measured is what Dagster recorded; a run that Dagster has deleted since
is not in it. `outcome` is how Dagster says that it ended, `delivery` what it delivered (`outcome.py`); rows of earlier
releases have none. The figures over time (rates, percentiles, SLA) are dbt's: `gold/slo_jobs`, `gold/slo_assets`.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, redo_on_conflict
from lakehouse.observability import eventlog, outbox, outcome
from lakehouse.observability.eventlog import Entry, StepEntry
from lakehouse.observability.outcome import Check, JobSla, Outcome
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
    "delivery": "string",
}
_TYPE = dg.DagsterEventType
_STEP_ENDS = {_TYPE.STEP_SUCCESS.value: "success", _TYPE.STEP_FAILURE.value: "failure", _TYPE.STEP_SKIPPED.value: "skipped"}
#: How a run ended, by the event that tells of it.
RUN_ENDS = {_TYPE.RUN_SUCCESS: "success", _TYPE.RUN_FAILURE: "failure", _TYPE.RUN_CANCELED: "canceled"}
_STEPS = (
    _TYPE.STEP_START,
    _TYPE.STEP_UP_FOR_RETRY,
    _TYPE.STEP_SUCCESS,
    _TYPE.STEP_FAILURE,
    _TYPE.STEP_SKIPPED,
    _TYPE.ASSET_MATERIALIZATION,
    _TYPE.ASSET_CHECK_EVALUATION,
    _TYPE.ASSET_MATERIALIZATION_PLANNED,  # the only word of its asset that a step leaves which failed
)
#: A check that passed is not parsed: a run has dozens.
_NOT_PASSED = re.compile(r'"success":\s*false')  # `passed` under its stored name
_BY_RULE = "DagsterAssetCheckFailedError"
#: Runs taken up in one commit, and seconds after which the rest is left to the next call.
_BATCH, _PATIENCE = 1000, 20.0


class _Step(outcome.Step):
    """One step of a run, as its entries come by."""

    def __init__(self) -> None:
        super().__init__()
        self.started: float | None = None
        self.ended: float | None = None
        self.retries = 0
        self.rows: int | None = None
        self.assets: list[str] = []

    def take(self, entry: StepEntry) -> None:
        if entry.asset and entry.kind != _TYPE.ASSET_CHECK_EVALUATION.value:  # it may be of another's asset
            self.assets.append(entry.asset)
        if entry.kind == _TYPE.STEP_START.value:
            self.started = entry.at if self.started is None else self.started
        elif entry.kind == _TYPE.STEP_UP_FOR_RETRY.value:
            self.retries += 1
            self.failed.clear()  # the try that counts evaluates them again
        elif entry.kind in _STEP_ENDS:
            self.ended, self.end = entry.at, _STEP_ENDS[entry.kind]
            self.by_rule = entry.kind == _TYPE.STEP_FAILURE.value and _by_rule(entry.text)
        elif entry.kind == _TYPE.ASSET_CHECK_EVALUATION.value:
            self._evaluated(entry.text)
        elif entry.kind == _TYPE.ASSET_MATERIALIZATION.value:
            event = event_of(entry.text).get_dagster_event()
            metadata = {n: each.value for n, each in event.step_materialization_data.materialization.metadata.items()}
            self.materialised(metadata)
            written = metadata.get("rows_written")
            if isinstance(written, int):
                self.rows = (self.rows or 0) + written

    def _evaluated(self, text: str) -> None:
        if not _NOT_PASSED.search(text):
            return
        result: Any = event_of(text).get_dagster_event().event_specific_data
        if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
            self.failed.append(Check(result.asset_key.to_user_string(), result.check_name))


def _by_rule(text: str) -> bool:
    """Whether a blocking check made a step fail."""
    if _BY_RULE not in text:
        return False
    error = getattr(event_of(text).get_dagster_event().event_specific_data, "error", None)
    while error is not None:
        if error.cls_name == _BY_RULE:
            return True
        error = error.cause
    return False


@dataclass(frozen=True)
class Delivered:
    """What one run delivered, and why it is not good.

    Attributes:
        outcome: None of a run that was canceled.
        failed: its failed checks of severity error, also those that do not decide its outcome.
        empty: folders in which a source that has never delivered anything was looked for.
    """

    outcome: Outcome | None
    failed: tuple[Check, ...]
    empty: tuple[str, ...]


def delivered(instance: dg.DagsterInstance, run_id: str, status: str) -> Delivered:
    """What a run that ended has delivered, as `ops/run_metrics` will have it.

    Args:
        status: `success`, `failure` or `canceled`.
    """
    steps = [*_steps(instance, [run_id]).get(run_id, {}).values()]
    failed = [check for step in steps for check in step.failed]
    empty = dict.fromkeys(folder for step in steps for folder in step.empty)
    return Delivered(outcome.of_run(status, steps), tuple(dict.fromkeys(failed)), tuple(empty))


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
    # A table of an earlier release lacks the newest columns: null in its rows.
    table = table.add_columns({name: kind for name, kind in COLUMNS.items() if name not in table.columns})
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
        finished, status, record = end.entry.timestamp, RUN_ENDS[end.event.event_type], records.get(run_id)
        own = steps.get(run_id, {})
        started = record.start_time if record is not None else None
        requested = _utc(record.create_timestamp).timestamp() if record is not None else started
        sla, delivery = slas.get(job), outcome.of_run(status, [*own.values()])
        common = {"event_id": end.id, "log": log, "run_id": run_id, "job": job}
        run = {
            **common,
            **_times(started, finished),
            "kind": "run",
            "requested_at": _instant(requested),
            "outcome": status,
            "delivery": delivery,
            "retries": sum(step.retries for step in own.values()),
            "rows": sum(step.rows or 0 for step in own.values()) if any(s.rows is not None for s in own.values()) else None,
            "sla_seconds": sla,
            "sla_met": None
            if sla is None or requested is None
            else outcome.sla_met(delivery, in_time=finished - requested <= sla),
        }
        out.append(run)
        for name, step in own.items():
            if step.started is None and step.end == "lost":  # planned, and the run ended before it
                continue
            times = _times(step.started, step.ended if step.ended is not None else finished)
            asset = _together(step.assets)
            part = {"step": name, "asset": asset, "outcome": step.end, "retries": step.retries, "rows": step.rows}
            out.append({**common, **times, **part, "kind": "step", "delivery": outcome.of_step(step)})
    return out


def _records(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterable[dg.RunRecord]:
    for start in range(0, len(run_ids), 500):  # SQLite takes 999 values in a query in its older builds
        yield from instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids[start : start + 500])))


def _steps(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Mapping[str, dict[str, _Step]]:
    out: dict[str, dict[str, _Step]] = {}
    for entry in eventlog.steps(instance, run_ids, _STEPS):
        if not entry.step:
            continue
        out.setdefault(entry.run_id, {}).setdefault(entry.step, _Step()).take(entry)
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
