"""Runs that never ran: their events and records, put into an instance through Dagster's own storage.

The case `monitoring` takes them up, and so do the tests of what is measured of runs: it is here, since the suite of
benchmarks imports nothing of the tests.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.definitions.events import AssetMaterialization
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    JobFailureData,
    RunFailureReason,
    StepFailureData,
    StepMaterializationData,
    StepSuccessData,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._utils.error import SerializableErrorInfo


@dataclass(frozen=True)
class PastRun:
    """One run: it began at `start` and took `seconds`, all of it in one step that makes `asset`.

    Args:
        failed: names of checks of `asset` that failed with severity error. With the outcome `failure` they are why it failed.
        passed: names of those that passed.
        metadata: of the materialisation, besides the rows.
    """

    start: datetime
    seconds: float
    job: str = "ten"
    outcome: str = "success"
    asset: str = "silver/vendas"
    rows: int = 10
    retries: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    error: str = "ValueError: boom\n"
    worker_gone: bool = False
    failed: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def step(self) -> str:
        return self.asset.replace("/", "__")


def events(run: PastRun) -> list[dg.EventLogEntry]:
    """What such a run leaves in the event log."""
    begin = run.start.timestamp()
    end = begin + run.seconds
    kinds = dg.DagsterEventType

    def entry(at: float, kind: Any, *, step: str | None = None, data: Any = None, message: str = "") -> dg.EventLogEntry:
        event = DagsterEvent(kind.value, run.job, step_key=step, event_specific_data=data, message=message)
        return dg.EventLogEntry(
            error_info=None, level=20, user_message="", run_id=run.run_id, timestamp=at, step_key=step, job_name=run.job,
            dagster_event=event,
        )  # fmt: skip

    made = AssetMaterialization(run.asset.split("/"), metadata={"rows_written": run.rows, "delta_version": 1, **run.metadata})
    planned = AssetMaterializationPlannedData(dg.AssetKey(run.asset.split("/")))
    out = [entry(begin, kinds.ASSET_MATERIALIZATION_PLANNED, step=run.step, data=planned), entry(begin, kinds.RUN_START)]
    if run.worker_gone:
        return [
            *out,
            entry(begin, kinds.STEP_START, step=run.step),
            entry(end, kinds.RUN_FAILURE, message="Detected run worker status"),
        ]
    out.append(entry(begin, kinds.STEP_START, step=run.step))
    out += [entry(begin, kinds.STEP_UP_FOR_RETRY, step=run.step) for _ in range(run.retries)]
    for name in (*run.failed, *run.passed):
        key = dg.AssetKey(run.asset.split("/"))
        check = AssetCheckEvaluation(key, name, passed=name in run.passed, severity=dg.AssetCheckSeverity.ERROR)
        out.append(entry(end, kinds.ASSET_CHECK_EVALUATION, step=run.step, data=check))
    if run.outcome == "success":
        out.append(entry(end, kinds.ASSET_MATERIALIZATION, step=run.step, data=StepMaterializationData(made)))
        out.append(entry(end, kinds.STEP_SUCCESS, step=run.step, data=StepSuccessData(float(run.seconds * 1000))))
        out.append(entry(end, kinds.RUN_SUCCESS))
    elif run.outcome == "failure":
        error = SerializableErrorInfo(run.error, [], "DagsterAssetCheckFailedError" if run.failed else "ValueError")
        failed = entry(end, kinds.STEP_FAILURE, step=run.step, data=StepFailureData(error, None))
        why = JobFailureData(None, RunFailureReason.STEP_FAILURE, failed.dagster_event)
        out += [failed, entry(end, kinds.RUN_FAILURE, data=why)]
    else:
        out.append(entry(end, kinds.RUN_CANCELED))
    return out


def put(instance: dg.DagsterInstance, runs: Sequence[PastRun]) -> None:
    """Store runs as if they had run, in their order."""
    for run in runs:
        instance.add_run(DagsterRun(job_name=run.job, run_id=run.run_id, tags=run.tags))
        for event in events(run):
            instance.handle_new_event(event)


def instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
