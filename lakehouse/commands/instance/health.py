"""`make health`: is all well? A line per part; the exit code is 1 when one is not.

    places (make doctor), services that are configured, the definitions, Dagster's daemons, schedules and sensors,
    the last run of every job, the feed that is due every minute, recipients of alerts that do not exist, how old the tables are

What nobody switched on does not have to be fresh: without a schedule or sensor that is on, old tables are a note.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.commands import doctor
from lakehouse.commands.doctor import Finding
from lakehouse.commands.instance import background, graphql, location
from lakehouse.commands.instance.schedules import Automation, declared, last_run, state
from lakehouse.commands.instance.show import busy, local
from lakehouse.core.errors import LakehouseError
from lakehouse.core.text import one_line, span
from lakehouse.landing.assets import feeds
from lakehouse.observability import metrics, notifier, services
from lakehouse.observability.watch import explain
from lakehouse.settings import Settings, dagster_home
from lakehouse.tables import JOBS
from lakehouse.tables.spec import job_of

if TYPE_CHECKING:
    from lakehouse.runtime.dagster_private import RemoteRepository

_ENDS = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
#: What `services.dagster_parts` says of daemons, schedules and sensors: nothing is called there.
_OWN = "dagster-daemon"
_GOOD = {"delivered": "succeeded", "nothing": "succeeded, with nothing new"}
#: A capture a minute: two are missed before the feed is called down, so within three minutes of the last good one.
_FEED_AGE = timedelta(seconds=150)
#: So many tables are named when there are more.
_NAMED = 5


def findings(settings: Settings, instance: dg.DagsterInstance, *, now: datetime | None = None) -> Iterator[Finding]:
    """Everything that is looked at."""
    at = now or datetime.now(UTC)
    with busy("Looking at the places of the lake"):
        locations = list(doctor.locations(settings))
    yield from locations
    yield from doctor.source_systems(settings)
    started = background.recorded(dagster_home())
    try:
        with busy("Loading the definitions"):
            own = location.repository(instance)
    except (LakehouseError, dg.DagsterError) as error:
        yield Finding("WRONG", f"definitions: {one_line(str(error))}")
        return
    automations = [state(instance, each, now=at) for each in declared(own)]
    on = sum(each.on for each in automations)
    yield Finding(
        "ok", f"definitions: {len(list(own.get_asset_node_snaps()))} assets, {on} of {len(automations)} schedules and sensors on"
    )
    yield from _processes(started)
    with busy("Calling services"):
        called = services.examine(_services(settings, instance, automations, at=at))
    for outcome in called:
        if outcome.healthy and outcome.target == _OWN:
            yield Finding("ok", outcome.service)
        elif outcome.healthy:
            yield Finding("ok", f"{outcome.service} ({outcome.target}): {outcome.milliseconds:,.0f} ms")
        else:
            yield Finding("WRONG", f"{outcome.service} ({outcome.target}): {outcome.error}")
    if on and not instance.get_daemon_heartbeats():
        yield Finding("WRONG", f"daemon: none works for the {on} schedules and sensors that are on. Run make start.")
    yield from _runs(instance, own)
    yield from _feeds(settings, automations, at=at)
    yield from _refused(settings)
    yield from _ages(instance, own, automatic=bool(on), at=at)


def _processes(started: background.Started) -> Iterator[Finding]:
    """What `make start` has started: it lives, and the webserver's code location is loaded."""
    if not started.leaders:
        return
    lives = started.lives
    for name in started.leaders:
        if name in lives:
            yield Finding("ok", f"{name}: process {lives[name]}, since {local(datetime.fromtimestamp(started.at, tz=UTC))}")
        else:
            yield Finding("WRONG", f"{name}: its process is gone. Read its log, then run make stop and make start.")
    if "webserver" in lives:
        try:
            wrong = graphql.load_errors(graphql.ask(started.url, graphql.READY))
        except graphql.WebserverError as error:
            yield Finding("WRONG", f"webserver: {error}")
        else:
            yield from (Finding("WRONG", f"webserver: its definitions do not load: {one_line(message)}") for message in wrong)


def _services(
    settings: Settings, instance: dg.DagsterInstance, automations: list[Automation], *, at: datetime
) -> list[services.Service]:
    ticks: dict[str, Any] = {}
    for each in automations:
        ticks[each.name] = (each.every, each.timezone) if each.kind == "schedule" else each.seconds
    return [*services.of_settings(settings), *services.dagster_parts(instance, cadence=ticks, now=at)]


def _runs(instance: dg.DagsterInstance, own: "RemoteRepository") -> Iterator[Finding]:
    for job in sorted(each.name for each in own.get_all_jobs() if not each.name.startswith("__")):
        run = last_run(instance, job, _ENDS)
        if run is None:
            continue
        ended = f"{run.run_id[:8]} of {local(run.ended_at)}"
        if run.outcome == "canceled":
            yield Finding("note", f"{job}: last run {ended} was canceled")
            continue
        found = metrics.delivered(instance, run.run_id, run.outcome)
        if run.outcome == "failure" and found.outcome != "stopped":
            yield Finding("WRONG", f"{job}: last run {ended} failed: {_why(instance, run.run_id)} make logs RUN={run.run_id[:8]}")
        elif found.failed or found.outcome in ("degraded", "stopped"):
            yield Finding("WRONG", f"{job}: last run {ended} {_less(found)} make logs RUN={run.run_id[:8]}")
        elif found.outcome == "empty":
            yield Finding("note", f"{job}: last run {ended} found no data: no file is in {', '.join(found.empty)}")
        else:
            yield Finding("ok", f"{job}: last run {ended} {_GOOD[found.outcome or 'delivered']}")


def _less(found: metrics.Delivered) -> str:
    """What a run delivered less than it should, and the checks that say so."""
    checks = ", ".join(map(str, found.failed)) or "no check is recorded"
    if found.outcome == "degraded":
        return f"is degraded, a source was down: {checks}."
    return f"was stopped by a rule: {checks}." if found.outcome == "stopped" else f"found what is wrong: {checks}."


def _feeds(settings: Settings, automations: list[Automation], *, at: datetime) -> Iterator[Finding]:
    """Captured feeds, while their schedules are on: how old each one's newest capture is, whatever runs there were."""
    on = {each.job: each for each in automations if each.kind == "schedule" and each.on and each.last_run is not None}
    resources = feeds.feed_resources(settings)
    for feed in feeds.feeds():
        job = job_of(feed.tags, JOBS)
        if job is None or job.name not in on or resources[feeds.resource_of(feed)].is_recorded:
            continue
        key, newest = feeds.capture_key(feed).to_user_string(), feeds.newest(feed, settings.landing, at=at)
        if newest is not None and at - newest <= _FEED_AGE:
            yield Finding("ok", f"{key}: the newest capture is {span(at - newest)} old")
            continue
        age = f"is {span(at - newest)} old" if newest is not None else "is older than yesterday"
        yield Finding(
            "WRONG",
            f"{key}: the newest capture {age}, and {on[job.name].name} is on (a capture a minute). "
            f"Ask {feed.address} yourself, then make trigger JOB={job.name}.",
        )


def _refused(settings: Settings) -> Iterator[Finding]:
    """Recipients of alerts that do not exist."""
    try:
        refused = notifier.refused(settings.storage)
    except LakehouseError as error:
        yield Finding("WRONG", f"alerts: {one_line(str(error))}")
        return
    for target, reason in refused.items():
        yield Finding("WRONG", f"alerts: {target} gets none. {one_line(reason)}")


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        data: Any = entry.dagster_event.event_specific_data if entry.dagster_event else None
        first = getattr(data, "first_step_failure_event", None)
        error = getattr(getattr(first, "event_specific_data", None), "error", None) or getattr(data, "error", None)
        if error is not None:
            return f"{first.step_key}: {explain(error)}" if first is not None else explain(error)
        return one_line(entry.dagster_event.message or "") if entry.dagster_event else ""
    return "no reason is reported."


def _ages(instance: dg.DagsterInstance, own: "RemoteRepository", *, automatic: bool, at: datetime) -> Iterator[Finding]:
    windows: Mapping[dg.AssetKey, Any] = {
        node.asset_key: node.freshness_policy.fail_window.to_timedelta()
        for node in own.get_asset_node_snaps()
        if isinstance(node.freshness_policy, dg.FreshnessPolicy) and hasattr(node.freshness_policy, "fail_window")
    }
    records = instance.get_asset_records(list(windows))
    made = {record.asset_entry.asset_key: record.asset_entry.last_materialization_record for record in records}
    old, known = [], 0
    for key, window in windows.items():
        if (last := made.get(key)) is None:
            continue
        known += 1
        age = at - datetime.fromtimestamp(last.timestamp, tz=UTC)
        if age > window:
            old.append((age - window, f"{key.to_user_string()} ({span(age)}, allowed {span(window)})"))
    if old:
        named = ", ".join(text for _, text in sorted(old, reverse=True)[:_NAMED])
        more = f" and {len(old) - _NAMED} more" if len(old) > _NAMED else ""
        yield Finding("WRONG" if automatic else "note", f"{len(old)} of {known} assets are older than they may be: {named}{more}")
    elif known:
        yield Finding("ok", f"{known} assets are as fresh as they are declared to be")
    if len(windows) > known:
        yield Finding("note", f"{len(windows) - known} assets were never materialised")
