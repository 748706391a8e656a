"""Schedules and sensors: which are on, when they tick next, what their jobs' runs did; and switching them.

    definitions (name, cron, default) + instance (on or off, ticks, runs) ─▶ one record each

The average is that of the job's newest successful runs, from the times that Dagster's run storage has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from lakehouse.commands.instance import location
from lakehouse.commands.instance.show import busy, length, local, table
from lakehouse.core.errors import DeclarationError
from lakehouse.core.text import one_line

if TYPE_CHECKING:
    from lakehouse.runtime.dagster_private import RemoteRepository, RemoteSchedule, RemoteSensor

#: The average is over so many runs.
_AVERAGED = 20


@dataclass(frozen=True)
class LastRun:
    """A run of a job: `outcome` is Dagster's status in lower case, `seconds` how long it took or has taken."""

    run_id: str
    job: str
    outcome: str
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None


@dataclass(frozen=True)
class Automation:
    """A schedule or sensor. `declared_on`: it starts by itself in this environment; `averaged`: of so many runs; `every`: a
    schedule's cron in its `timezone`, or a sensor's `seconds` between two ticks."""

    kind: Literal["schedule", "sensor"]
    name: str
    on: bool
    declared_on: bool
    every: str
    timezone: str
    seconds: int | None
    job: str
    next_at: datetime | None
    last_tick_at: datetime | None
    last_tick: str
    last_tick_said: str
    last_run: LastRun | None
    average_seconds: float | None
    averaged: int


def declared(own: "RemoteRepository", only: str = "") -> "list[RemoteSchedule | RemoteSensor]":
    """The schedules and sensors of the definitions, or the one of that name.

    Raises:
        DeclarationError: there is none of that name.
    """
    found: list[Any] = [*sorted(own.get_schedules(), key=_name), *sorted(own.get_sensors(), key=_name)]
    chosen = [each for each in found if only in ("", each.name)]
    if not chosen:
        names = ", ".join(each.name for each in found)
        raise DeclarationError(f"There is no schedule or sensor {only[:80]!r}.", remedy=f"Use one of {names}.")
    return chosen


def switch(instance: dg.DagsterInstance, each: "RemoteSchedule | RemoteSensor", *, on: bool) -> None:
    """Switch one on or off; one that is so already stays as it is."""
    from lakehouse.runtime.dagster_private import RemoteSchedule

    origin, selector = each.get_remote_origin_id(), each.selector_id
    if isinstance(each, RemoteSchedule):
        instance.start_schedule(each) if on else instance.stop_schedule(origin, selector, each)
    else:
        instance.start_sensor(each) if on else instance.stop_sensor(origin, selector, each)


def switch_on(instance: dg.DagsterInstance, environment: str) -> tuple[list[str], list[str], list[str]]:
    """Switch on what is declared to run by itself in an environment; in `dev`, where nothing is, all of it.

    Returns:
        The names of those that were switched on, that were on, and that are left as they are.
    """
    changed, unchanged, left = [], [], []
    with busy("Loading the definitions"):
        for each in declared(location.repository(instance)):
            if environment != "dev" and not _by_itself(each):
                left.append(each.name)
            elif _is_on(instance, each):
                unchanged.append(each.name)
            else:
                switch(instance, each, on=True)
                changed.append(each.name)
    return changed, unchanged, left


def listing(found: Sequence[Automation]) -> str:
    """The table that people see."""
    rows = [["schedule", "state", "when", "next", "last run", "average"]]
    for each in found:
        run = each.last_run
        last = (
            f"{run.run_id[:8]} {run.outcome}, {length(run.seconds)}, {local(run.started_at or run.requested_at)}" if run else "-"
        )
        if not each.job:
            last = f"tick {each.last_tick}, {local(each.last_tick_at)}" if each.last_tick else "-"
        average = f"{length(each.average_seconds)} of {each.averaged}" if each.averaged else "-"
        state = "on" if each.on else "off"
        rows.append([each.name, state, each.every, local(each.next_at) if each.on else "-", last, average])
    return table(rows)


def last_run(instance: dg.DagsterInstance, job: str, statuses: Sequence[dg.DagsterRunStatus] = ()) -> LastRun | None:
    """The newest run of a job, of these statuses if any are given."""
    wanted = dg.RunsFilter(job_name=job, statuses=list(statuses) or None)
    return next(map(run_of, instance.get_run_records(wanted, limit=1)), None)


def run_of(record: dg.RunRecord) -> LastRun:
    run, begun = record.dagster_run, _instant(record.start_time)
    ended = _instant(record.end_time)
    until = ended or (None if run.is_finished else datetime.now(UTC))
    return LastRun(
        run.run_id,
        run.job_name,
        run.status.value.lower(),
        requested_at=_utc(record.create_timestamp),
        started_at=begun,
        ended_at=ended,
        seconds=round((until - begun).total_seconds(), 3) if begun and until else None,
    )


def _name(each: Any) -> str:
    return str(each.name)


def _by_itself(each: Any) -> bool:
    return str(each.default_status.value) == "RUNNING"


def _is_on(instance: dg.DagsterInstance, each: Any) -> bool:
    stored = instance.get_instigator_state(each.get_remote_origin_id(), each.selector_id)
    return bool(each.get_current_instigator_state(stored).is_running)


def state(instance: dg.DagsterInstance, each: Any, *, now: datetime | None = None) -> Automation:
    """One of them as it is now."""
    ticks = instance.get_ticks(each.get_remote_origin_id(), each.selector_id, limit=1)
    tick = ticks[0] if ticks else None
    cron = getattr(each, "cron_schedule", None)
    job = str(each.job_name or "") if cron else next((t.job_name for t in each.get_targets()), "")
    on = _is_on(instance, each)
    due: datetime | None = None
    if on and cron:
        due = next(each.execution_time_iterator((now or datetime.now(UTC)).timestamp())).astimezone(UTC)
    elif on and tick is not None:
        due = datetime.fromtimestamp(tick.timestamp + each.min_interval_seconds, tz=UTC)
    averaged = list(_lengths(instance, job)) if job else []
    why = (tick.error.message if tick.error else tick.skip_reason or "") if tick is not None else ""
    return Automation(
        "schedule" if cron else "sensor",
        each.name,
        on=on,
        declared_on=_by_itself(each),
        every=str(cron) if cron else f"every {each.min_interval_seconds} s",
        timezone=each.execution_timezone or "UTC" if cron else "",
        seconds=None if cron else each.min_interval_seconds,
        job=job,
        next_at=due,
        last_tick_at=datetime.fromtimestamp(tick.timestamp, tz=UTC) if tick is not None else None,
        last_tick=tick.status.value.lower() if tick is not None else "",
        last_tick_said=one_line(why),
        last_run=last_run(instance, job) if job else None,
        average_seconds=round(fmean(averaged), 3) if averaged else None,
        averaged=len(averaged),
    )


def _lengths(instance: dg.DagsterInstance, job: str) -> Iterator[float]:
    good = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    for record in instance.get_run_records(good, limit=_AVERAGED):
        if record.start_time is not None and record.end_time is not None:
            yield record.end_time - record.start_time


def _instant(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds is not None else None


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
