"""The launcher's look at a worker on this host: a live process, an ended one, another one with the same number.

With a real code server, and over the network: `lakehouse_tests/stack/test_instance.py`.
"""

import os
import subprocess
import time

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData

from lakehouse.runtime.launcher import WatchedRunLauncher

LOCAL = {".dagster/grpc_info": '{"host": "127.0.0.1", "port": 4000}'}


@dg.job
def _a_job() -> None:
    """A job without steps, to make runs of."""


@pytest.fixture
def status():
    """What the launcher says of a run whose worker reported this process id, if any."""
    with dg.DagsterInstance.ephemeral() as instance:
        launcher = WatchedRunLauncher()
        launcher.register_instance(instance)

        def ask(pid: int | None, tags: dict[str, str] = LOCAL) -> str:
            run = instance.create_run_for_job(_a_job, tags=tags)
            instance.report_engine_event("Starting", run)
            if pid is not None:
                instance.report_engine_event("Started process", run, EngineEventData.in_process(pid))
            return launcher.check_run_worker_health(run).status.value

        yield ask


def test_a_live_process_is_a_running_worker(status):
    assert status(os.getpid()) == "RUNNING"


def test_a_process_that_ended_is_a_failed_worker(status):
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert status(ended.pid) == "FAILED"


def test_a_process_that_ended_and_that_nobody_waited_for_is_a_failed_worker(status):
    zombie = subprocess.Popen(["true"])
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert status(zombie.pid) == "FAILED"
    zombie.wait()


def test_a_process_that_began_after_the_worker_reported_its_number_is_another_one(status, monkeypatch):
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time() + 60)
    assert status(os.getpid()) == "FAILED"


@pytest.mark.parametrize("tags", [LOCAL, {}])
def test_what_is_not_known_yet_fails_no_run(status, tags):
    assert status(None, tags) == "RUNNING"
