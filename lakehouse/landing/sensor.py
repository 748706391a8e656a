"""The landing sensor: requests `medallion_etl` when the listing of the declared streams is another than last time.

The cursor is the digest of all names, sizes and modification times, so it stays small however many files there are. While a
run of the job is on its way the cursor stays, so files that land meanwhile are seen at the next tick.
"""

import hashlib
import json
from collections.abc import Iterator

import dagster as dg

from lakehouse.landing.readers.registry import landing
from lakehouse.runtime.steps import ACTIVE
from lakehouse.settings import Settings
from lakehouse.tables import parts

JOB = "medallion_etl"


def landing_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor over this installation's landing folder."""

    @dg.sensor(
        name="landing_files",
        job_name=JOB,
        minimum_interval_seconds=60,
        description="Requests medallion_etl when files landed.",
        default_status=(dg.DefaultSensorStatus.STOPPED if settings.env == "dev" else dg.DefaultSensorStatus.RUNNING),
    )
    def landing_files(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        digest, files = listing_digest(settings)
        before = json.loads(context.cursor) if context.cursor else {}
        if not files:
            yield dg.SkipReason(f"No files under {settings.landing}/raw.")
        elif before.get("digest") == digest:
            yield dg.SkipReason(f"Nothing new among {files} files.")
        elif context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=ACTIVE), limit=1):
            yield dg.SkipReason(f"{JOB} is on its way; looking again at the next tick.")
        else:
            context.update_cursor(json.dumps({"digest": digest, "files": files}))
            yield dg.RunRequest(run_key=digest)

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
