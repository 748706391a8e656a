"""Jobs and schedules by name, and the environments that start them.

Selections are by layer and tag, so a new table joins its jobs on its own. What belongs to one layer (the landing sensor) is
there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from lakehouse.core.clock import TIMEZONE
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.landing.assets import feeds
from lakehouse.landing.assets.connectors import connector_checks
from lakehouse.observability.assets import monitored
from lakehouse.runtime.limits import CPUS, CPUS_TAG, MEMORY, MEMORY_TAG, limits
from lakehouse.runtime.steps import ACTIVE
from lakehouse.settings import Settings
from lakehouse.tables import JOBS as DECLARED
from lakehouse.tables import SOURCES, parts
from lakehouse.tables.spec import CapturedFeed, history_ref
from lakehouse.tables.spec import Job as DeclaredJob
from lakehouse.tables.spec.job import Environment, Executor

#: Runs log through the code location's console logger; without this Dagster uses its own.
CONSOLE: dict[str, Any] = {"loggers": {"console": {"config": {}}}}
#: The job whose runs may be for one table (`silver/request.py`).
SINGLE_TABLE_JOB = "bronze_to_silver"
#: What carries one of these tags has a job of its own, and is not part of `medallion_etl`.
OWN_JOBS = (*(job.tag for job in DECLARED), "ml", "upkeep", "slo")
#: What every step imports.
_WARM = (
    *("lakehouse.definitions", "lakehouse.bronze.ingest", "lakehouse.silver.refresh"),
    *("dbt.cli.main", "deltalake", "duckdb", "narwhals", "sqlalchemy"),
)
#: Forked from a process that has imported that, which a fresh one would do for each (docs/decisions/0032).
_PROCESSES = dg.multiprocess_executor.configured(
    {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": [*_WARM]}}}
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One asset job: what it runs, when, and how long it may take.

    Args:
        selection: makes the selection of the assets that it materialises.
        sla: it is to be done so long after it was started. A run that is not raises an alert while it runs, and counts as a
            miss in `ops/run_metrics`.
        max_runtime: Dagster ends a run that takes longer (run monitoring, which `dagster.yaml` switches on).
        cron: its schedule `<name>_<every>`, in `TIMEZONE`.
        starts_in: environments in which that schedule starts by itself; elsewhere it is there, stopped.
        alone: says of a run that has died that it is over (True) when its schedule finds one under way; a job with this
            never overlaps itself.
        part: the assets that its schedule's next run is for; None for all of them. What has nothing to do writes no events.
        tags: without value, for the run queue's limits and for finding runs.
        executor: how its steps are run.
        memory, cpus: of its runs' containers, where they have one (`runtime/containers.py`).
    """

    name: str
    selection: Callable[[], dg.AssetSelection]
    description: str
    max_runtime: timedelta
    sla: timedelta | None = None
    cron: str = ""
    every: str = "daily"
    starts_in: tuple[Environment, ...] = ()
    alone: Callable[[Settings], bool] | None = None
    part: Callable[[Settings], list[dg.AssetKey] | None] | None = None
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ("team:dados",)
    config: Mapping[str, Any] = field(default_factory=dict)
    executor: Executor = "in_process"
    memory: str = MEMORY
    cpus: float = CPUS

    def __post_init__(self) -> None:
        check_name(self.name, "job name")
        limits(self.size)
        if self.max_runtime < timedelta(seconds=1) or (self.sla is not None and not timedelta() < self.sla <= self.max_runtime):
            raise DeclarationError(
                f"Job {self.name!r}: sla {self.sla} and max_runtime {self.max_runtime} do not fit.",
                remedy="Give max_runtime a second or more, and an sla up to max_runtime.",
            )
        if self.starts_in and not self.cron:
            raise DeclarationError(
                f"Job {self.name!r} starts in {', '.join(self.starts_in)}, but has no schedule.", remedy="Give it a cron."
            )

    @property
    def schedule_name(self) -> str:
        return f"{self.name}_{self.every}"

    @property
    def size(self) -> dict[str, str]:
        """The tags of its runs' containers."""
        return {MEMORY_TAG: self.memory, CPUS_TAG: f"{self.cpus:g}"}

    def definition(self) -> Any:
        """The asset job."""
        limit = str(int(self.max_runtime.total_seconds()))
        owner = {"owner": self.owners[0].replace("team:", "team_")} if self.owners else {}
        return dg.define_asset_job(
            self.name,
            selection=self.selection(),
            config={**CONSOLE, **self.config},
            description=self.description,
            tags={**dict.fromkeys(self.tags, ""), "dagster/max_runtime": limit, **self.size, **owner},
            owners=list(self.owners),
            executor_def=_PROCESSES if self.executor == "processes" else None,
        )


def _without_own_jobs(*layers: str) -> dg.AssetSelection:
    selection: dg.AssetSelection = dg.AssetSelection.key_prefixes(*([layer] for layer in layers))
    for tag in OWN_JOBS:
        selection = selection - dg.AssetSelection.tag(tag, "", include_sources=True)
    return selection


def _of_source(declared: DeclaredJob) -> Job:
    """The job of a source: what carries its tag. One that captures feeds has them alone."""
    asked = [source for source in SOURCES if declared.tag in source.tags]
    found = [source for source in asked if isinstance(source, CapturedFeed)]
    captures: dict[str, Any] = {}
    if found:
        captures["alone"] = lambda settings: not any(feeds.is_busy(feed, settings.landing) for feed in found)
    if found and len(found) == len(asked):  # what else the job asks has something to do each time
        captures["part"] = lambda settings: _due(found, settings)
    return Job(
        name=declared.name,
        selection=lambda: dg.AssetSelection.tag(declared.tag, "", include_sources=True),
        description=declared.description or f"What {declared.name} has that is new, to its tables.",
        tags=(*declared.tags, declared.tag),
        max_runtime=declared.max_runtime,
        sla=declared.sla,
        cron=declared.cron,
        every=declared.every,
        starts_in=declared.starts_in if declared.cron else (),
        owners=declared.owners,
        executor=declared.executor,
        **captures,
    )


def _due(found: Sequence[CapturedFeed], settings: Settings) -> list[dg.AssetKey] | None:
    """The assets that the next captures of feeds have something to do for; None for all as soon as one fills a CSV."""
    due = [feeds.due(feed, settings) for feed in found]
    return None if None in due else [key for keys in due for key in keys or ()]


def _silver_of_others() -> list[list[str]]:
    """Silver tables of what others deliver, and their histories."""
    others = [part for part in parts() if not part.origin.made_by]
    return [*(part.silver.key for part in others), *(history_ref(part).key for part in others if part.history)]


JOBS = (
    Job(
        name="medallion_etl",
        selection=lambda: _without_own_jobs("landing", "bronze", "silver", "gold", "warehouse", "reports"),
        description="Landed files to bronze, silver, gold, warehouse and reports: what is new, and nothing twice.",
        tags=("etl", "medallion"),
        memory="4g",
        max_runtime=timedelta(hours=2),
        sla=timedelta(hours=1),
        cron="0 6 * * *",
        starts_in=("staging", "prod"),
    ),
    Job(
        name=SINGLE_TABLE_JOB,
        selection=lambda: dg.AssetSelection.assets(*_silver_of_others()),
        description=(
            "Silver of every table that others deliver, or of the one that run config names: "
            "resources.request.config = {source_table: vendas, target_table: vendas_processed}."
        ),
        tags=("etl", "bronze-to-silver"),
        memory="4g",
        max_runtime=timedelta(hours=1),
        cron="0 2 * * *",
        starts_in=("prod",),
    ),
    *map(_of_source, DECLARED),
    Job(
        name="mlops",
        selection=lambda: dg.AssetSelection.tag("ml", "", include_sources=True),
        description="The forecast of daily revenue: features, candidate, backtest, version, gate, forecast and its report.",
        tags=("etl", "mlops"),
        memory="4g",
        max_runtime=timedelta(hours=1),
        cron="0 2 * * 0",
        every="weekly",
        starts_in=("staging", "prod"),
    ),
    Job(
        name="maintenance",
        selection=lambda: dg.AssetSelection.tag("upkeep", ""),
        description="Few files, a vacuum that protects, an audit of every table, a backup that is proven, and their report.",
        tags=("maintenance",),
        memory="4g",
        max_runtime=timedelta(hours=4),
        cron="0 3 * * 6",
        every="weekly",
        starts_in=("staging", "prod"),
    ),
    Job(
        name="monitoring",
        selection=lambda: (
            monitored() | dg.AssetSelection.checks(*[key for check in connector_checks() for key in check.check_keys])
        ),
        description="Health of tables, Kafka and services, and metrics of runs, every five minutes.",
        tags=("monitoring",),
        max_runtime=timedelta(minutes=10),
        sla=timedelta(minutes=5),
        cron="*/5 * * * *",
        every="every_5_minutes",
        starts_in=("staging", "prod"),
    ),
    Job(
        name="slo",
        selection=lambda: dg.AssetSelection.tag("slo", ""),
        description="Success rates, percentiles, SLA misses and alert lag of the runs, every hour.",
        tags=("monitoring",),
        max_runtime=timedelta(minutes=30),
        cron="7 * * * *",
        every="hourly",
        starts_in=("staging", "prod"),
    ),
)
#: A run takes a few seconds to begin its first step.
_BEGINS = timedelta(minutes=2)


def jobs() -> list[Any]:
    """The asset jobs."""
    return [job.definition() for job in JOBS]


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, started where their job says so."""
    return [
        dg.ScheduleDefinition(
            name=job.schedule_name,
            job_name=job.name,
            description=job.description,
            cron_schedule=job.cron,
            execution_timezone=TIMEZONE,
            execution_fn=partial(_unless_under_way, job, settings) if job.alone else None,
            default_status=(
                dg.DefaultScheduleStatus.RUNNING if settings.env in job.starts_in else dg.DefaultScheduleStatus.STOPPED
            ),
        )
        for job in JOBS
        if job.cron
    ]


def _unless_under_way(job: Job, settings: Settings, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A run, unless one is under way. One that was killed leaves its record behind as if it were."""
    since = datetime.now(UTC) - _BEGINS
    for found in context.instance.get_run_records(dg.RunsFilter(job_name=job.name, statuses=ACTIVE), limit=5):
        if found.create_timestamp > since or (job.alone is not None and not job.alone(settings)):
            return dg.SkipReason(f"Run {found.dagster_run.run_id[:8]} of {job.name} is under way.")
    return dg.RunRequest(asset_selection=job.part(settings) if job.part is not None else None)
