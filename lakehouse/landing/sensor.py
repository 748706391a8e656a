"""The landing sensor: requests `medallion_etl` until a run has succeeded over the files that are there.

    listing ─▶ its digest ─▶ taken before? ─▶ a run on its way? ─▶ did one succeed since? ─▶ a pause after failures ─▶ a run

The digest is of all names, sizes and modification times, so the cursor stays small however many files there are. What has run is
asked of Dagster: runs of the sensor, the schedule and the shell, re-executions and backfills count alike. Files that land while a
run is on its way are another listing, and are asked for after it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from lakehouse.core.text import span
from lakehouse.landing.readers.registry import landing
from lakehouse.runtime.steps import ACTIVE, ATTEMPT_TAG
from lakehouse.settings import Settings
from lakehouse.tables import parts

JOB = "medallion_etl"
#: Dagster's name for runs of chosen assets that are of no job.
_OF_ASSETS = "__ASSET_JOB"
#: How long the sensor waits after the first, second, third failure in a row, and after each later one. The first tick after a
#: single failure asks again: most causes are over by then, or are being worked on.
_PAUSES = (timedelta(), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
#: So many runs of the job are looked at; more failures in a row than that change no pause.
_RECENT = 25
#: Dagster's tags of a re-execution from failure, and of one of chosen steps.
_CONTINUED, _SOME_STEPS = "dagster/is_resume_retry", "dagster/step_selection"
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class Cursor:
    """What the sensor knows.

    Args:
        taken: the listing over which a run has succeeded.
        seen: the listing that is not taken yet, and `since` when it was seen first, in ISO format.
        asked: the listing for which a run was requested last.
    """

    taken: str = ""
    seen: str = ""
    since: str = ""
    asked: str = ""


def landing_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor over this installation's landing folder."""

    @dg.sensor(
        name="landing_files",
        job_name=JOB,
        minimum_interval_seconds=60,
        description="Requests medallion_etl for files that landed, again until a run succeeds.",
        default_status=(dg.DefaultSensorStatus.STOPPED if settings.env == "dev" else dg.DefaultSensorStatus.RUNNING),
    )
    def landing_files(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        digest, files = listing_digest(settings)
        before = _read(context.cursor)
        after, answer = _next(context, before, digest, files) if files else (before, f"No files under {settings.landing}/raw.")
        if after != before:
            context.update_cursor(json.dumps(asdict(after)))
        yield dg.SkipReason(answer) if isinstance(answer, str) else answer

    return landing_files


def listing_digest(settings: Settings) -> tuple[str, int]:
    """A digest of everything landed, and the number of files."""
    digest, files = hashlib.sha256(), 0
    # What landing assets of this project write, their own jobs take further.
    sources = [landing(part.origin, settings.storage) for part in parts() if not part.origin.made_by]
    for _, source in sorted({source.location: source for source in sources}.items()):
        lines, count = source.listing()
        digest.update("".join(f"{line}\n" for line in lines).encode())
        files += count
    return digest.hexdigest()[:32], files


def _read(cursor: str | None) -> Cursor:
    """The cursor. An earlier release kept the listing that it had requested a run for, whatever came of the run: it is asked
    for once more."""
    known = json.loads(cursor) if cursor else {}
    return Cursor(**known) if "taken" in known else Cursor()


def _next(context: dg.SensorEvaluationContext, before: Cursor, digest: str, files: int) -> tuple[Cursor, dg.RunRequest | str]:
    """The cursor after this tick, and its run, or why there is none."""
    now = datetime.now(UTC)
    if digest == before.taken:
        return replace(before, seen="", since=""), f"Nothing new among {files} files."
    after = before if before.seen == digest else replace(before, seen=digest, since=now.isoformat())
    if context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=ACTIVE), limit=1):
        return after, f"{JOB} is on its way; looking again at the next tick."
    if _is_taken(context, datetime.fromisoformat(after.since)):
        return Cursor(taken=digest), f"A run has taken the {files} files."
    failed = failures(context.instance, JOB)
    due = pause(failed) if after.asked == digest else None
    if due is not None and due > now:
        return after, f"{JOB} has failed {len(failed)} times in a row; it is asked again in {span(due - now)}."
    request = dg.RunRequest(run_key=f"{digest}-{after.since}-{len(failed)}", tags={ATTEMPT_TAG: str(len(failed) + 1)})
    return replace(after, asked=digest), request


def _is_taken(context: dg.SensorEvaluationContext, since: datetime) -> bool:
    """Whether runs that were requested since then have succeeded with every asset of the job: a run of the job, what went on
    from its failure, or runs of chosen assets that together are all of it."""
    # Runs of other jobs are many: one a minute.
    runs = [
        run for job in (JOB, _OF_ASSETS) for run in context.instance.get_runs(dg.RunsFilter(job_name=job, created_after=since))
    ]
    done = [run for run in runs if run.status == dg.DagsterRunStatus.SUCCESS]
    begun = {run.run_id for run in runs}
    for run in done:
        whole = run.asset_selection is None and _SOME_STEPS not in run.tags
        if run.job_name == JOB and whole and (_CONTINUED not in run.tags or run.root_run_id in begun):
            return True
    chosen = {key for run in done for key in run.asset_selection or ()}
    if not chosen or context.repository_def is None:
        return False
    return set(context.repository_def.get_job(JOB).asset_layer.executable_asset_keys) <= chosen


def failures(instance: dg.DagsterInstance, job: str) -> Sequence[datetime]:
    """When a job's runs since its last success have failed, the newest first."""
    ended: list[datetime] = []
    for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=_RECENT):
        if record.dagster_run.status not in _FAILED:
            break
        at = record.end_time or record.create_timestamp.timestamp()
        ended.append(datetime.fromtimestamp(at, UTC))
    return ended


def pause(failed: Sequence[datetime]) -> datetime | None:
    """Until when a job that has failed so often is left alone; None when it has not."""
    return failed[0] + _PAUSES[min(len(failed), len(_PAUSES)) - 1] if failed else None
