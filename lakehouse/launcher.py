"""The production instance's run launcher: Dagster's default one, which also says whether a run's worker still lives.

A code server notices by itself (0.5 s) when one of its workers dies. When both die together (the machine, its memory, a
deployment), Dagster's default launcher never learns of it and the run stays STARTED until `max_runtime`. With this one, run
monitoring marks it as failed within its `poll_interval_seconds`, and run retries start it again.

Not here: launchers for Docker, Kubernetes and Celery; they have a check of their own (docs/deployment.md).
"""

import json

from dagster import DagsterEventType, DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

_HERE = ("localhost", "127.0.0.1", "::1", None)  # None: a socket


class WatchedRunLauncher(DefaultRunLauncher):
    """`run_launcher: {module: lakehouse.launcher, class: WatchedRunLauncher}`."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker lives: by its process id on this host, else by asking the code server that started it.

        A code server that cannot be reached leaves the question open, and an open question does not fail a run:
        what is not answered is bounded by `max_runtime`.
        """
        if GRPC_INFO_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not started by a code server")
        if json.loads(run.tags[GRPC_INFO_TAG]).get("host") in _HERE:
            return self._local(run)
        return self._remote(run)

    def _local(self, run: DagsterRun) -> CheckRunHealthResult:
        import psutil

        # The worker's first event says its pid. A process that began after it is another one with the same number.
        for record in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
            metadata = record.dagster_event.engine_event_data.metadata if record.dagster_event else {}
            if "pid" not in metadata:
                continue
            pid = int(str(metadata["pid"].value))
            try:
                process = psutil.Process(pid)
                alive = process.create_time() <= record.timestamp and process.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                alive = False
            if alive:
                return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(pid))
            return CheckRunHealthResult(WorkerStatus.FAILED, f"there is no process {pid} any more", run_worker_id=str(pid))
        return CheckRunHealthResult(WorkerStatus.RUNNING, "the worker has not said its process id yet")

    def _remote(self, run: DagsterRun) -> CheckRunHealthResult:
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the run has finished")
        try:
            reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10)
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the code server does not answer; max_runtime bounds the run")
        if deserialize_value(reply, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server has no worker for it: it was restarted")
