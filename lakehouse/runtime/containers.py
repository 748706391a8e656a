"""The run launcher of deploy/compose.yaml: every run in a container of its own, as large as its tags allow.

    queue ─▶ daemon ─▶ ContainerRunLauncher ─┬▶ dagster-docker, over Docker's socket or podman's: a container, its image by job
                                             └▶ WatchedRunLauncher: the runs of `processes`, children of the code server

A container that is gone, or was ended for its memory, is noticed by run monitoring within its `poll_interval_seconds`, and run
retries start the run again. Not here: how many runs at once, and retries (deploy/dagster.yaml); limits by job
(`lakehouse/automation.py`).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext

from lakehouse.runtime.dagster_private import CheckRunHealthResult, WorkerStatus
from lakehouse.runtime.launcher import WatchedRunLauncher
from lakehouse.runtime.limits import MEMORY_TAG, limits
from lakehouse.settings import process_environment

#: What of the daemon's environment a run has, too.
_PREFIXES = ("LAKEHOUSE_", "AWS_", "DAGSTER_", "MLFLOW_")
#: Each file is a variable: the entry point of the image reads them, in a run's container as in the daemon's.
SECRETS = Path("/run/secrets")
#: How long the container of a run that is over can be looked at.
STAYS = timedelta(hours=1)
_TMP = {"/tmp": "size=256m,mode=1777"}  # nosec B108
_RUN_LABEL = "dagster/run_id"
_KILLED = 137


class ContainerRunLauncher(DockerRunLauncher):
    """`run_launcher: {module: lakehouse.runtime.containers, class: ContainerRunLauncher}`, with dagster-docker's config and more.

    Args:
        processes: jobs whose runs are processes of the code server.
        images: the image of a job's runs, where it is another one.
        volumes: `folder:path:ro`, of the host, for every container.
        given: config of dagster-docker.
    """

    def __init__(
        self,
        inst_data: Any = None,
        *,
        processes: Sequence[str] = (),
        images: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
        **given: Any,
    ) -> None:
        super().__init__(inst_data, **given)
        self._processes = frozenset(processes)
        self._volumes = list(volumes)
        self._watched = WatchedRunLauncher(elsewhere=True)
        self._of_job = {
            job: ContainerRunLauncher(None, volumes=volumes, **{**given, "image": image}) for job, image in (images or {}).items()
        }

    @classmethod
    def config_type(cls) -> Any:
        names = dg.Field([str], is_required=False)
        images = dg.Field(dg.Map(str, dg.StringSource), is_required=False)
        volumes = dg.Field(dg.Array(dg.StringSource), is_required=False)
        return {**DockerRunLauncher.config_type(), "processes": names, "images": images, "volumes": volumes}

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        super().register_instance(instance)
        for launcher in (self._watched, *self._of_job.values()):
            launcher.register_instance(instance)

    def _launcher_of(self, run: dg.DagsterRun) -> Any:
        """Another launcher that is responsible for a run; None when this one is."""
        return self._watched if run.job_name in self._processes else self._of_job.get(run.job_name)

    def launch_run(self, context: Any) -> None:
        if other := self._launcher_of(context.dagster_run):
            other.launch_run(context)
            return
        self.remove_old()
        super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        other = self._launcher_of(run) if run else None
        return bool(other.terminate(run_id) if other else super().terminate(run_id))

    def get_container_context(self, dagster_run: dg.DagsterRun) -> Any:
        """What the container of a run is given: limits by its tags, the settings of this process, a root that nobody writes."""
        context = super().get_container_context(dagster_run)
        memory, cpus = limits(dagster_run.tags)
        settings = [name for name in process_environment() if name.startswith(_PREFIXES) and not (SECRETS / name).exists()]
        kwargs = {
            "mem_limit": memory,
            "memswap_limit": memory,
            "nano_cpus": int(cpus * 1e9),
            "read_only": True,
            "tmpfs": _TMP,
            "volumes": self._volumes,
            "healthcheck": {"test": ["NONE"]},  # the image's is the code server's
        }
        return context.merge(DockerContainerContext(env_vars=settings, container_kwargs={**kwargs, **context.container_kwargs}))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        if other := self._launcher_of(run):
            result: CheckRunHealthResult = other.check_run_worker_health(run)
            return result
        if why := self.why_killed(run):
            return CheckRunHealthResult(WorkerStatus.FAILED, why)
        result = super().check_run_worker_health(run)
        return result

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Why a run that did not begin in time did not: run monitoring puts it into the run's failure."""
        return None if self._launcher_of(run) else self.why_killed(run) or None

    def why_killed(self, run: dg.DagsterRun) -> str:
        """What ended a run's container from outside, and what to do; empty when it runs, or ended by itself."""
        container = self._get_container(run)
        state = container.attrs.get("State", {}) if container else {}
        if container is None or container.status == "running" or state.get("ExitCode") != _KILLED:
            return ""
        limit = limits(run.tags)[0]
        raise_it = f"raise the tag {MEMORY_TAG} of job {run.job_name} (lakehouse/automation.py), or of this run in the launchpad"
        if state.get("OOMKilled"):
            return f"The container of the run needed more memory than its limit, {limit}, and was ended: {raise_it}."
        return f"The container of the run was killed. Where that was for its memory limit, {limit}: {raise_it}."

    def remove_old(self) -> None:
        """Remove the containers of runs that ended some time ago, with the volumes that nobody else has."""
        client = self._get_client(DockerContainerContext(registry=self.registry))
        for container in client.containers.list(all=True, filters={"label": _RUN_LABEL, "status": "exited"}, ignore_removed=True):
            ended = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", container.attrs["State"].get("FinishedAt", ""))
            if ended and datetime.now(UTC) - datetime.fromisoformat(f"{ended[1]}+00:00") > STAYS:
                container.remove(v=True)
