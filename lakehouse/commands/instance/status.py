"""`make status`: what runs here, the schedules with their next and last runs, and the runs that wait or are under way."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.commands.instance import background, location
from lakehouse.commands.instance.schedules import LastRun, declared, listing, run_of, state
from lakehouse.commands.instance.show import busy, length, local
from lakehouse.settings import dagster_home, load_settings

_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
#: So many runs are listed; all are counted.
_LISTED = 20


def look() -> tuple[dict[str, Any], str]:
    """It as one object for programs, and as text for people."""
    settings, home = load_settings(), dagster_home()
    with busy("Loading the definitions"), dg.DagsterInstance.get() as instance:
        automations = [state(instance, each) for each in declared(location.repository(instance))]
        waiting, under_way = _runs(instance, _WAITING), _runs(instance, _UNDER_WAY)
        beats = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
    started, stack = background.recorded(home), background.stack_parts(home)
    lives = started.lives
    newest = datetime.fromtimestamp(max(beats), tz=UTC) if beats else None
    value: dict[str, Any] = {
        "environment": settings.env,
        "root": settings.storage.root,
        "dagster_home": str(home),
        "url": started.url if lives else "",
        "processes": lives,
        "stack": stack,
        "daemon_heartbeat_at": newest,
        "automations": [asdict(each) for each in automations],
        "queued": {"count": waiting[0], "runs": [asdict(run) for run in waiting[1]]},
        "running": {"count": under_way[0], "runs": [asdict(run) for run in under_way[1]]},
    }
    names = ", ".join(f"{name} (process {pid})" for name, pid in lives.items())
    here = f"{started.url}: {names}" if lives else f"the stack: {', '.join(stack)}" if stack else "nothing is started here"
    lines = [
        f"environment  {settings.env}, {settings.storage.root}",
        f"processes    {here}",
        f"heartbeat    {f'of a daemon at {local(newest)}' if newest else 'of no daemon yet'}",
        f"queued       {_named(*waiting)}",
        f"running      {_named(*under_way)}",
        "",
        listing(automations),
    ]
    return value, "\n".join(lines)


def _runs(instance: dg.DagsterInstance, statuses: list[dg.DagsterRunStatus]) -> tuple[int, list[LastRun]]:
    wanted = dg.RunsFilter(statuses=statuses)
    return instance.get_runs_count(wanted), [run_of(record) for record in instance.get_run_records(wanted, limit=_LISTED)]


def _named(count: int, runs: list[LastRun]) -> str:
    listed = ", ".join(f"{run.run_id[:8]} {run.job} ({length(run.seconds)})" for run in runs)
    more = f" and {count - len(runs):,} more" if count > len(runs) else ""
    return f"{listed}{more}" or "none"
