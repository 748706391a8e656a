"""Jobs: when the sources and tables of a file of `tables/` are brought up to date."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import Layer, check_name
from lakehouse.tables.spec.retry import Retry

Environment = Literal["dev", "staging", "prod"]
#: `in_process`: a process per step costs time and buys nothing. `processes`: steps that do not wait for each other overlap, and
#: one that hangs or dies takes no other with it.
Executor = Literal["in_process", "processes"]


@dataclass(frozen=True)
class Job:
    """The job over the sources and tables of a file, and what follows from them.

        JOBS = (Job("loja", cron="0 2 * * *", sla=timedelta(hours=1)),)

    It runs what carries its tag. All sources and tables of a file that declares one job do; in a file with more than one, their
    own `tags` say which. A dbt model joins it by the same tag.

    Args:
        tag: its name, unless given.
        cron: its schedule `<name>_<every>`, in America/Sao_Paulo; without it the job is started by hand.
        sla: it is to be done so long after it was started.
        max_runtime: a run that takes longer is ended.
        starts_in: environments in which the schedule starts by itself.
        executor: how its steps are run.
        retries: of the steps of its tables, by layer, where they are not everyone's.
        tags: besides its name, for the run queue's limits and for finding runs.
    """

    name: str
    cron: str = ""
    tag: str = ""
    sla: timedelta | None = None
    max_runtime: timedelta = timedelta(hours=1)
    every: str = "daily"
    starts_in: tuple[Environment, ...] = ("staging", "prod")
    executor: Executor = "in_process"
    retries: Mapping[Layer, Retry] = field(default_factory=dict)
    description: str = ""
    tags: tuple[str, ...] = ("etl",)
    owners: tuple[str, ...] = ("team:dados",)

    def __post_init__(self) -> None:
        check_name(self.name, "job name")
        if not self.tag:
            object.__setattr__(self, "tag", self.name)
        check_name(self.tag, "tag")
        if self.max_runtime < timedelta(seconds=1) or (self.sla is not None and not timedelta() < self.sla <= self.max_runtime):
            raise DeclarationError(
                f"Job {self.name!r}: sla {self.sla} and max_runtime {self.max_runtime} do not fit.",
                remedy="Give max_runtime a second or more, and an sla up to max_runtime.",
            )


def job_of(tags: Collection[str], jobs: Iterable[Job]) -> Job | None:
    """The job that runs what carries these tags."""
    return next((job for job in jobs if job.tag in tags), None)
