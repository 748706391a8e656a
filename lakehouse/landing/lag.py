"""Sensors by lag: a job whose topics have messages that have not landed is asked for, one run at a time.

    ends at the brokers ─ positions in the names of landed files ─▶ nothing? a run on its way? a pause after failures? ─▶ a run

One sensor for each job that a topic belongs to. A tick asks the brokers for ids and offsets, and reads no message.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from lakehouse.core.errors import LakehouseError
from lakehouse.core.text import one_line, span
from lakehouse.landing.sensor import failures, pause
from lakehouse.runtime.steps import ACTIVE
from lakehouse.settings import Settings
from lakehouse.tables import JOBS, SOURCES
from lakehouse.tables.spec import KafkaTopic, SourceSystem
from lakehouse.tables.spec.job import Job
from lakehouse.tables.spec.setting import plain

LAG_SECONDS = 60


def lag_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor of every job with a topic."""
    found = [(job, _topics(job, settings)) for job in JOBS]
    return [_sensor(job, topics, settings) for job, topics in found if topics]


def _topics(job: Job, settings: Settings) -> list[tuple[SourceSystem, KafkaTopic]]:
    """The topics of a job, as declared and with the values of their settings."""
    pairs = zip(SOURCES, settings.sources, strict=True)
    return [(declared, found) for declared, found in pairs if isinstance(found, KafkaTopic) and job.tag in found.tags]


def _sensor(job: Job, topics: Sequence[tuple[SourceSystem, KafkaTopic]], settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{job.name}_lag",
        job_name=job.name,
        minimum_interval_seconds=LAG_SECONDS,
        description=f"Requests {job.name} while its topics have messages that have not landed.",
        default_status=(dg.DefaultSensorStatus.RUNNING if settings.env in job.starts_in else dg.DefaultSensorStatus.STOPPED),
    )
    def lag(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if context.instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=ACTIVE), limit=1):
            yield dg.SkipReason(f"{job.name} is on its way; looking again at the next tick.")
            return
        failed = failures(context.instance, job.name)
        due = pause(failed)
        now = datetime.now(UTC)
        if due is not None and due > now:
            yield dg.SkipReason(f"{job.name} has failed {len(failed)} times in a row; it is asked again in {span(due - now)}.")
            return
        try:
            waiting = {found.name: _behind(declared, found, settings) for declared, found in topics}
        except LakehouseError as error:
            yield dg.SkipReason(one_line(str(error), limit=300))
            return
        if any(waiting.values()):
            yield dg.RunRequest()
        else:
            yield dg.SkipReason(f"All of {', '.join(waiting)} has landed.")

    return lag


def _behind(declared: SourceSystem, found: KafkaTopic, settings: Settings) -> int:
    """Offsets of a topic that have not landed; none where no brokers are set."""
    from lakehouse.landing.sources import kafka
    from lakehouse.landing.sources.kafka_spans import Spans

    if not plain(found.url):
        return 0
    topic = kafka.topic_of(found, setting=declared.address)
    return kafka.behind(kafka.look(topic), Spans(settings.storage.landed(topic.folder)))
