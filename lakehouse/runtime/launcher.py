"""The production instance's run launcher: Dagster's default one, which also says whether a run's worker still lives.

A code server notices by itself (0.5 s) when one of its workers dies. When both die together (the machine, its memory, a
deployment), Dagster's default launcher never learns of it and the run stays STARTED until `max_runtime`. With this one, run
monitoring marks it as failed within its `poll_interval_seconds`, and run retries start it again.

Not here: runs in containers (`containers.py`); launchers for Kubernetes and Celery, which have a check of their own.
"""

from dagster import DagsterEventType, DagsterRun

from lakehouse.runtime.dagster_private import (
    CheckRunHealthResult,
    ConfigurableClassData,
    DefaultRunLauncher,
    WorkerStatus,
    ask_for_worker,
    code_server,
)

#: Why a run counts as running.
_OPEN = {
    "alive": None,
    "run over": "the run has finished",
    "no answer": "the code server does not answer; max_runtime bounds the run",
}
_HERE = ("localhost", "127.0.0.1", "::1", None)  # None: a socket


class WatchedRunLauncher(DefaultRunLauncher):
    """`run_launcher: {module: lakehouse.runtime.launcher, class: WatchedRunLauncher}`.

    Args:
        elsewhere: the workers' process ids are not this process's to look for, also where the code server's address is of this
            machine: containers share a network, and have processes of their own.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None, *, elsewhere: bool = False) -> None:
        super().__init__(inst_data)
        self._elsewhere = elsewhere

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker lives: by its process id on this host, else by asking the code server that started it.

        A code server that cannot be reached leaves the question open, and an open question does not fail a run:
        what is not answered is bounded by `max_runtime`.
        """
        started_by = code_server(run)
        if not started_by:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not started by a code server")
        if started_by.get("host") in _HERE and not self._elsewhere:
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
        return CheckRunHealthResult(WorkerStatus.RUNNING, "the worker has not reported its process id yet")

    def _remote(self, run: DagsterRun) -> CheckRunHealthResult:
        answer = ask_for_worker(self, run.run_id, timeout=10)
        if answer == "gone":
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server has no worker for it: it was restarted")
        return CheckRunHealthResult(WorkerStatus.RUNNING, _OPEN[answer])
