"""Watch: what Dagster's event log says, as alerts and events. Called every few seconds by the sensor `watch`.

    event log ─▶ run failed, worker gone, check failed, SLA missed ─▶ ops/alerts
              └▶ run started / succeeded / failed, table published ─▶ ops/events ◀─ landed files (ops/landing_files)

Nothing is sent here. The cursor is the sensor's; ids follow from the log's own, so a stretch that is read twice is kept once.
A failure that Dagster will retry is not announced, nor is the retry of a step: what is left failed is.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from lakehouse.core import ledger
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.text import one_line, span
from lakehouse.observability import eventlog, outbox
from lakehouse.observability.alerts import ALERTS_TABLE, Alert, Kind, raise_alerts
from lakehouse.observability.eventlog import Entry
from lakehouse.observability.events import Event, publish_all
from lakehouse.observability.metrics import RUN_ENDS, delivered
from lakehouse.observability.outcome import JobSla, sla_met
from lakehouse.runtime.steps import ATTEMPT_TAG

_WATCHED = (
    dg.DagsterEventType.RUN_START,
    *eventlog.ENDS,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
)
#: So many entries a tick: a second of work. A job a minute writes a few hundred an hour.
_AT_ONCE = 2000
#: A first tick looks back so far; what failed before is history.
_LOOK_BACK = timedelta(hours=1)
#: Seconds after it stored a failure Dagster has also stored whether it will retry the run.
_RETRY_DECIDED = 0.5
#: So many failures of runs that the landing sensor requested are an alert of their own.
_OFTEN = 3
_NOT_TAKEN = "not_taken"
_GONE = ("UNEXPECTED_TERMINATION", "RUN_WORKER_RESTART", "START_TIMEOUT")
_WRAPPERS = ("Dagster", "RetryRequested")
_STEP_OF_LINK = "/runs/{}?selection={}"


@dataclass(frozen=True)
class Look:
    """What one look found, and the cursor of the next; `succeeded` are the jobs with a run that did."""

    cursor: str
    alerts: int
    events: int
    entries: int
    succeeded: frozenset[str] = frozenset()


def look(
    instance: dg.DagsterInstance,
    storage: Storage,
    *,
    cursor: str | None,
    job_slas: Sequence[JobSla] = (),
    ui: str = "",
    now: datetime | None = None,
) -> Look:
    """Take in what the event log has after the cursor, look at the runs on their way, and keep alerts and events.

    Args:
        cursor: of the look before, None at the first.
        ui: where Dagster's UI is, for links.
    """
    now = now or datetime.now(UTC)
    state: dict[str, Any] = json.loads(cursor) if cursor else {}
    own = eventlog.identity(instance)
    if state.get("log") != own:
        state = {"log": own, "id": _beginning(instance, now), "seen": [], "files": state.get("files", 0)}
    after, seen = int(state["id"]), set(state["seen"])
    found = eventlog.entries(instance, after=max(after - eventlog.MARGIN, 0), types=_WATCHED, limit=_AT_ONCE)
    # Below a first cursor nothing was seen, and nothing is to be: it is where the look back begins.
    fresh = [entry for entry in found if entry.id > after or (seen and entry.id > min(seen) and entry.id not in seen)]
    if instance.run_retries_enabled and any(entry.event.event_type == dg.DagsterEventType.RUN_FAILURE for entry in fresh):
        time.sleep(_RETRY_DECIDED)  # once: with one for each failure, twenty waited ten seconds
    alerts = [alert for entry in fresh for alert in _alerts(instance, entry, ui=ui)]
    alerts += _late(instance, job_slas, fresh, ui=ui, now=now)
    if any(alert.state == "resolved" for alert in alerts):
        alerts = _without_idle_ends(alerts, open_keys(storage))
    raised = len(raise_alerts(storage, alerts))
    events = [event for entry in fresh for event in _events(entry)]
    landed, files = _landed(storage, int(state["files"]))
    published = publish_all(storage, [*events, *landed])
    last = max([after, *(entry.id for entry in found)])
    recent = sorted({*seen, *(entry.id for entry in found)})[-2 * eventlog.MARGIN :]
    after_this = json.dumps({"log": own, "id": last, "seen": recent, "files": files})
    good = {entry.entry.job_name or "" for entry in fresh if entry.event.event_type == dg.DagsterEventType.RUN_SUCCESS}
    return Look(after_this, raised, published, len(fresh), frozenset(good))


def _without_idle_ends(alerts: Sequence[Alert], standing: set[str]) -> list[Alert]:
    """The alerts without the ends of what does not stand at that point."""
    out, stands = [], set(standing)
    for alert in alerts:
        if alert.state == "raised":
            stands.add(alert.key)
        elif alert.key not in stands:
            continue
        else:
            stands.discard(alert.key)
        out.append(alert)
    return out


def open_keys(storage: Storage) -> set[str]:
    """The keys whose last alert is not their end."""
    import narwhals as nw

    table = open_existing(storage.uri(ALERTS_TABLE))
    if table is None or not table.files:
        return set()
    with outbox.small_session(storage) as session:
        frame = session.read(table.paths(), {"number": "bigint", "key": "string", "state": "string"})
        newest = frame.group_by("key").agg(nw.col("number").max().alias("last"))
        ends = frame.filter(nw.col("state") == "raised").join(newest, left_on=["key", "number"], right_on=["key", "last"])
        return {row[0] for row in session.rows(ends.select("key"))}


def _beginning(instance: dg.DagsterInstance, now: datetime) -> int:
    """The storage id before the first entry of the last hour."""
    newest = eventlog.newest(instance)
    recent = eventlog.entries(instance, after=max(newest - _AT_ONCE, 0), types=_WATCHED, limit=_AT_ONCE)
    since = (now - _LOOK_BACK).timestamp()
    return min([entry.id - 1 for entry in recent if entry.entry.timestamp >= since], default=newest)


# --- alerts ------------------------------------------------------------------------------------------------------------


def _alerts(instance: dg.DagsterInstance, entry: Entry, *, ui: str) -> list[Alert]:
    kind = entry.event.event_type
    if kind == dg.DagsterEventType.RUN_FAILURE:
        return _run_failed(instance, entry, ui=ui)
    if kind == dg.DagsterEventType.RUN_SUCCESS:
        job = entry.entry.job_name or ""
        at, run = _at(entry), entry.entry.run_id
        ends: tuple[tuple[Kind, str], ...] = (
            ("run_failure", "run_failure"),
            ("run_worker_gone", "run_worker_gone"),
            ("automation", _NOT_TAKEN),
        )
        return [
            Alert(
                what, "info", f"{job} succeeded", "", f"{name}:{job}", run, job,
                link=_link(ui, run), state="resolved", occurred_at=at,
            )
            for what, name in ends
        ]  # fmt: skip
    if kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return [_check(entry, ui=ui)]
    return []


def _run_failed(instance: dg.DagsterInstance, entry: Entry, *, ui: str) -> list[Alert]:
    run_id, job = entry.entry.run_id, entry.entry.job_name or ""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.tags.get("dagster/will_retry", "").lower() == "true":
        return []
    data: Any = entry.event.event_specific_data
    first = getattr(data, "first_step_failure_event", None)
    error = getattr(data, "error", None)
    step = first.step_key if first is not None else ""
    if first is not None:
        error = getattr(first.event_specific_data, "error", None) or error
    reason = getattr(getattr(data, "failure_reason", None), "value", "")
    message = entry.event.message or ""
    gone = reason in _GONE or (not reason and error is None and first is None and "maximum runtime" not in message)
    what = f"Step {step} of {job}" if step else job
    explained = explain(error) if error is not None else one_line(message) or "no reason was recorded"
    at = _at(entry)
    attempt = int(run.tags.get(ATTEMPT_TAG, 0)) if run is not None else 0
    failed = [
        Alert(
            "run_worker_gone" if gone else "run_failure",
            severity="error",
            subject=f"{job}: its run worker is gone" if gone else f"{job} failed" + (f" in {step}" if step else ""),
            body=f"{what} failed at {at:%Y-%m-%d %H:%M:%S} UTC: {explained}",
            key=f"{'run_worker_gone' if gone else 'run_failure'}:{job}",
            run_id=run_id,
            job=job,
            step=step or "",
            link=_link(ui, run_id, step),
            occurred_at=at,
        )
    ]
    return [*failed, _not_taken(failed[0], attempt)] if attempt >= _OFTEN else failed


def _not_taken(failed: Alert, attempt: int) -> Alert:
    """That files have landed and no run takes them in, although the landing sensor asks again and again."""
    return replace(
        failed,
        kind="automation",
        subject=f"{failed.job} has failed {attempt} times in a row: what landed is not taken in",
        body=f"{failed.body} The sensor landing_files asks again, at least once an hour,"
        f" and every run of {failed.job} counts: fix the cause, then type make trigger JOB={failed.job}.",
        key=f"{_NOT_TAKEN}:{failed.job}",
        id="",
    )


def _check(entry: Entry, *, ui: str) -> Alert:
    result: Any = entry.event.event_specific_data
    asset, name = result.asset_key.to_user_string(), result.check_name
    run_id, job, at = entry.entry.run_id, entry.entry.job_name or "", _at(entry)
    severity = "error" if result.severity == dg.AssetCheckSeverity.ERROR else "warning"
    plain = {n: value.value for n, value in result.metadata.items() if isinstance(value.value, str | int | float | bool)}
    detail = ", ".join(f"{n} {value}" for n, value in plain.items())
    return Alert(
        "stale_table" if plain.get("stale") is True else "check_failed",
        severity="info" if result.passed else severity,  # type: ignore[arg-type]
        subject=f"{asset}: check {name} {'holds again' if result.passed else 'failed'}",
        body=f"Check {name} of {asset} {'passed' if result.passed else 'failed'} at {at:%Y-%m-%d %H:%M:%S} UTC in "
        f"{job or 'no job'}: {one_line(result.description or detail or 'no detail was given')}",
        key=f"check:{asset}:{name}",
        run_id=run_id,
        job=job,
        step=entry.entry.step_key or "",
        link=_link(ui, run_id, entry.entry.step_key),
        state="resolved" if result.passed else "raised",
        occurred_at=at,
        id=_digest("check", asset, name, run_id, str(entry.entry.timestamp)),
    )


def _late(
    instance: dg.DagsterInstance, job_slas: Sequence[JobSla], fresh: Iterable[Entry], *, ui: str, now: datetime
) -> list[Alert]:
    """Runs that have missed their job's SLA: those that just ended, and those on their way; and those that met it."""
    by_job = {job_sla.job: job_sla.sla for job_sla in job_slas}
    ended = {e.entry.run_id: e for e in fresh if e.event.event_type in eventlog.ENDS and e.entry.job_name in by_job}
    unfinished = [
        status
        for status in dg.DagsterRunStatus
        if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    ]
    records = list(instance.get_run_records(dg.RunsFilter(run_ids=list(ended)))) if ended else []
    for job in by_job:
        records += instance.get_run_records(dg.RunsFilter(job_name=job, statuses=unfinished))
    alerts = [_sla(instance, each, ended.get(each.dagster_run.run_id), sla=by_job[each.dagster_run.job_name], ui=ui, now=now)
              for each in records]  # fmt: skip
    return [alert for alert in alerts if alert is not None]


def _sla(
    instance: dg.DagsterInstance, record: dg.RunRecord, end: Entry | None, *, sla: timedelta, ui: str, now: datetime
) -> Alert | None:
    """What one run tells of its job's SLA.

    A run in time that did not deliver has not met it, and ends no alert. It raises one only where it has no other: a failure has
    its own, and so has the failed check that made an outcome degraded or stopped.
    """
    run, begun = record.dagster_run, record.create_timestamp
    begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
    at = _at(end) if end else now
    missed, took = at - begun > sla, f"took {span(at - begun)}" if end else f"has been on its way for {span(at - begun)}"
    if not missed:
        if end is None:
            return None
        delivery = delivered(instance, run.run_id, RUN_ENDS[end.event.event_type]).outcome
        missed = delivery == "empty"
        if not missed and not sla_met(delivery, in_time=True):
            return None
        took += " and delivered nothing, since a source of it has never had anything" if missed else ""
    return Alert(
        "sla_miss",
        severity="error" if missed else "info",
        subject=f"{run.job_name} {'missed' if missed else 'met'} its SLA of {span(sla)}",
        body=f"{run.job_name}, requested at {begun:%Y-%m-%d %H:%M:%S} UTC, {took}; its SLA is {span(sla)}.",
        key=f"sla:{run.job_name}",
        run_id=run.run_id,
        job=run.job_name,
        link=_link(ui, run.run_id),
        state="raised" if missed else "resolved",
        occurred_at=at,
    )


# --- events ------------------------------------------------------------------------------------------------------------

_RUN_EVENTS = {
    dg.DagsterEventType.RUN_START: "run_started",
    dg.DagsterEventType.RUN_SUCCESS: "run_succeeded",
    dg.DagsterEventType.RUN_FAILURE: "run_failed",
    dg.DagsterEventType.RUN_CANCELED: "run_failed",
}
_PUBLISHED = ("delta_version", "dagster/row_count", "rows_written", "records_in", "bytes", "files")


def _events(entry: Entry) -> list[Event]:
    kind = entry.event.event_type
    run_id, job, at = entry.entry.run_id, entry.entry.job_name or "", _at(entry)
    if kind in _RUN_EVENTS:
        name = _RUN_EVENTS[kind]
        canceled = {"canceled": True} if kind == dg.DagsterEventType.RUN_CANCELED else {}
        return [Event(name, job or "no job", {"job": job, **canceled}, _digest(name, run_id), run_id, at)]  # type: ignore[arg-type]
    if kind != dg.DagsterEventType.ASSET_MATERIALIZATION:
        return []
    made = entry.event.step_materialization_data.materialization
    values = {name: value.value for name, value in made.metadata.items()}
    if "delta_version" not in values or values.get("nothing_to_do"):
        return []
    payload = {name.rpartition("/")[2]: values[name] for name in _PUBLISHED if name in values}
    asset = made.asset_key.to_user_string()
    return [Event("table_published", asset, {"job": job, **payload}, _digest("table", asset, run_id, str(payload)), run_id, at)]


def _landed(storage: Storage, before: int) -> tuple[list[Event], int]:
    """Files that were taken in since version `before` of the plan of batches (one more than it, so that 0 is nothing)."""
    import narwhals as nw

    table = open_existing(storage.uri(ledger.FILES_TABLE))
    if table is None or table.version + 1 == before:
        return [], before if table is not None else 0
    columns = {name: ledger.FILES[name] for name in ("table", "batch_id", "path", "size", "planned_at", "run_id", "given_back")}
    since = datetime.now(UTC) - _LOOK_BACK
    if 0 < before <= table.version:
        first = [commit.at for commit in table.commits(since=before - 1) if commit.at is not None]
        since = min(first) - _LOOK_BACK if first else since
    chosen = [file for file in table.files if file.upper.get("planned_at") is None or file.upper["planned_at"] >= since]
    with outbox.small_session(storage) as session:
        frame = session.read(table.paths(chosen), columns).filter(nw.col("planned_at") >= since)
        rows = session.rows(frame.filter(~nw.col("given_back").fill_null(False)).select(*columns))
    return [
        Event(
            "file_landed", f"{name}: {path}", {"table": name, "batch": batch, "path": path, "size": size},
            _digest("file", name, str(batch), path), run_id or "", at,
        )
        for name, batch, path, size, at, run_id, _ in rows
    ], table.version + 1  # fmt: skip


# --- texts -------------------------------------------------------------------------------------------------------------


def explain(error: Any) -> str:
    """Dagster's record of an error as one sentence: that of the error itself, not of what wrapped it."""
    while error.cause is not None and (error.cls_name or "").startswith(_WRAPPERS):
        error = error.cause
    message = " ".join((error.message or "").split())
    return one_line(message.partition(": ")[2] if error.cls_name == "Failure" else message)


def _at(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.entry.timestamp, tz=UTC)


def _link(ui: str, run_id: str, step: str | None = None) -> str:
    return f"{ui.rstrip('/')}{_STEP_OF_LINK.format(run_id, step) if step else f'/runs/{run_id}'}" if ui else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
