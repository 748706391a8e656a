"""Thresholds: the bounds and SLAs that the routing's file gives, in place of those declared in code.

A spec's `Health` and a job's `sla` are the declaration; the file replaces single figures of it at the next look, without a new
version of the code. Pure: nothing here reads a table.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lakehouse.observability.outcome import JobSla
from lakehouse.observability.routing import Routing

if TYPE_CHECKING:
    from lakehouse.observability.table_health import Target


def bounded(targets: "Sequence[Target]", routing: Routing) -> "list[Target]":
    """The tables to look at, with the bounds that are in force. An age of events needs the table's column of them."""
    out = []
    for target in targets:
        bounds = routing.tables.get(str(target.ref))
        given = bounds.given if bounds is not None else {}
        if not target.health.event_time:
            given.pop("max_event_age", None)
        out.append(replace(target, health=replace(target.health, **given)))
    return out


def slas_in_force(job_slas: Sequence[JobSla], routing: Routing) -> list[JobSla]:
    """What jobs promise, with the SLAs that are in force."""
    return [replace(job_sla, sla=routing.jobs.get(job_sla.job, job_sla.sla)) for job_sla in job_slas]


def unknown(routing: Routing, *, targets: "Sequence[Target]", job_slas: Sequence[JobSla]) -> str:
    """What the file bounds and nobody has: a sentence, empty when there is no such thing."""
    tables, jobs = {str(target.ref): target for target in targets}, {job_sla.job for job_sla in job_slas}
    wrong = [f"table {name}" for name in routing.tables if name not in tables]
    wrong += [f"job {name} with an SLA" for name in routing.jobs if name not in jobs]
    aged = [name for name, bounds in routing.tables.items() if name in tables and bounds.max_event_age is not None]
    wrong += [f"column of events in {name}" for name in aged if not tables[name].health.event_time]
    return f"The routing's file bounds what is not there: no {', no '.join(wrong)}. The rest of it holds." if wrong else ""
