"""Outcome: what a run delivered, beside how Dagster says that it ended. Decided here alone, for SLO, health and dashboard.

    failed      a step failed, and no rule was the cause; or the worker was gone
    stopped     a rule stopped a batch: an error check failed outside landing
    degraded    a source was down: an error check of a landing asset failed
    empty       a source that was read has never delivered anything
    nothing     there was nothing new
    delivered   something was written

The first of these that holds is the outcome. `delivered` and `nothing` are good. A run that a person canceled has none: it
counts neither way. An SLA is met by a good outcome in time: a run that is fast and delivers nothing good has not met it. Pure: no
dagster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

from lakehouse.core.ledger import NEVER_DELIVERED

Outcome = Literal["delivered", "nothing", "empty", "degraded", "stopped", "failed"]
#: The outcomes that a success rate counts for a job; the others count against it.
GOOD: tuple[Outcome, ...] = ("delivered", "nothing")
BAD: tuple[Outcome, ...] = tuple(name for name in get_args(Outcome) if name not in GOOD)
#: How Dagster's status counts where no outcome is known: rows of releases before there was one.
BY_STATUS: dict[str, Outcome] = {"success": "delivered", "failure": "failed", "lost": "failed"}
#: Assets whose checks are about what they measured, not about what they delivered.
_MEASURING = ("ops/table_health", "ops/kafka_health")
_COUNTED = ("new_records", "records")


@dataclass(frozen=True)
class JobSla:
    """What a job promises: it has delivered so long after it was requested."""

    job: str
    sla: timedelta


def job_slas(jobs: Iterable[Any]) -> tuple[JobSla, ...]:
    """The promises of declared jobs (`automation.Job`)."""
    return tuple(JobSla(job.name, job.sla) for job in jobs if job.sla is not None)


def sla_met(outcome: Outcome | None, *, in_time: bool) -> bool | None:
    """Whether a run that ended has met its job's SLA; None of one that was canceled."""
    return None if outcome is None else in_time and outcome in GOOD


@dataclass(frozen=True)
class Check:
    """A failed check of severity error."""

    asset: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.asset}"


@dataclass
class Step:
    """What one step of a run left in the event log.

    Attributes:
        end: `success`, `failure`, `skipped`, or `lost` when it has no end.
        by_rule: whether a blocking check made it fail.
        failed: its failed checks of severity error.
        wrote: whether a materialisation of it says that something was written.
        empty: folders in which a source that has never delivered anything was looked for.
    """

    end: str = "lost"
    by_rule: bool = False
    failed: list[Check] = field(default_factory=list)
    wrote: bool = False
    empty: list[str] = field(default_factory=list)

    def materialised(self, metadata: Mapping[str, Any]) -> None:
        """Take in a materialisation by its metadata's plain values."""
        if metadata.get(NEVER_DELIVERED):
            self.empty.append(str(metadata[NEVER_DELIVERED]))
        idle = metadata.get("nothing_to_do") or metadata.get("degraded")
        self.wrote = self.wrote or not (idle or any(metadata.get(name) == 0 for name in _COUNTED))


def of_run(status: str, steps: Sequence[Step]) -> Outcome | None:
    """The outcome of a run that ended; None of one that was canceled.

    Args:
        status: `success`, `failure` or `canceled`.
    """
    if status == "canceled":
        return None
    ended = [step for step in steps if step.end == "failure"]
    if status == "failure" and not (ended and all(step.by_rule for step in ended)):
        return "failed"
    return _of(steps, stopped=status == "failure")


def of_step(step: Step) -> Outcome | None:
    """The outcome of one step; None of one that was skipped."""
    if step.end == "skipped":
        return None
    if step.end == "lost" or (step.end == "failure" and not step.by_rule):
        return "failed"
    return _of([step], stopped=step.end == "failure")


def _of(steps: Sequence[Step], *, stopped: bool) -> Outcome:
    counted = [check for step in steps for check in step.failed if check.asset not in _MEASURING]
    if stopped or any(not _is_landing(check) for check in counted):
        return "stopped"
    if counted:
        return "degraded"
    if any(step.empty for step in steps):
        return "empty"
    return "delivered" if any(step.wrote for step in steps) else "nothing"


def _is_landing(check: Check) -> bool:
    return check.asset.startswith("landing/")
