"""The production instance (`deploy/dagster.yaml`) on a real PostgreSQL and S3: the queue, logs, killed workers, no database.

Here: what a run meets on its way from the UI to a worker and what happens when one of them is gone. What the run does to the
tables when it is killed is in `lakehouse_tests/faults/`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from deltalake import DeltaTable

from deploy.stack import launcher
from lakehouse.runtime.launcher import WatchedRunLauncher
from lakehouse.settings import project_folder
from lakehouse_tests.stack.conftest import Instance, pid_of, running, s3_client

NOTICED_SECONDS = 60
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")


@dg.job
def _a_job() -> None:
    """A job without steps, to make runs of."""


def _finished(run) -> bool:
    return run["status"] in FINISHED


def _worker(run) -> psutil.Process:
    """The run's process, as its own event names it."""
    pids = re.findall(r"Started process for run \(pid: (\d+)\)", str(run["eventConnection"]["events"]))
    return psutil.Process(int(pids[0]))


def _working(run) -> bool:
    """A step is at work, so that a kill leaves something half done."""
    return any(event["__typename"] == "ExecutionStepStartEvent" for event in run["eventConnection"]["events"])


def _retried(instance: Instance, run_id: str, killed: float, capsys, what: str) -> None:
    """The run is failed and a second one has started within the bound, and that one succeeds."""
    instance.wait(run_id, lambda run: run["status"] == "FAILURE", seconds=NOTICED_SECONDS)
    noticed = time.time() - killed
    retried = instance.wait(run_id, lambda run: "dagster/auto_retry_run_id" in run["tags"], seconds=NOTICED_SECONDS)
    second = retried["tags"]["dagster/auto_retry_run_id"]
    started = instance.wait(second, lambda run: run["startTime"] is not None, seconds=NOTICED_SECONDS)["startTime"] - killed
    with capsys.disabled():
        print(f"\n{what}: noticed after {noticed:.1f} s, the retry runs after {started:.1f} s")
    assert noticed <= NOTICED_SECONDS
    assert started <= NOTICED_SECONDS
    assert instance.wait(second, _finished, seconds=180)["status"] == "SUCCESS"
    assert _gold_lines(instance) == instance.lines


def _gold_lines(instance: Instance) -> int:
    return sum(DeltaTable(str(instance.lake / "gold" / "vendas_diarias")).to_pyarrow_table()["linhas"].to_pylist())


def test_runs_launched_in_the_ui_go_through_queue_code_server_and_worker_one_after_another_and_their_logs_are_in_s3(instance):
    first, second = (instance.launch("medallion_etl") for _ in range(2))
    runs = [instance.wait(run_id, _finished, seconds=180) for run_id in (first, second)]
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    for run in runs:
        passed = [event["__typename"] for event in run["eventConnection"]["events"]]
        order = [passed.index(name) for name in ("RunEnqueuedEvent", "RunStartingEvent", "RunStartEvent", "RunSuccessEvent")]
        assert order == sorted(order)
    assert runs[1]["startTime"] >= runs[0]["endTime"]  # one run of a job at a time: the tag's limit
    assert _gold_lines(instance) == instance.lines

    listed = s3_client(instance.stack.env).list_objects_v2(Bucket="dagster-logs", Prefix=f"lakehouse/storage/{first}/")
    sizes = {entry["Key"].rpartition(".")[2]: entry["Size"] for entry in listed["Contents"]}
    assert sizes["err"] > 0


def test_a_worker_killed_with_9_is_noticed_within_a_minute_and_the_run_is_retried_to_success(instance, capsys):
    shutil.rmtree(instance.lake, ignore_errors=True)
    run_id = instance.launch("medallion_etl")
    worker = _worker(instance.wait(run_id, _working, seconds=90))
    parent = worker.parent()
    assert parent is not None and "grpc" in parent.cmdline()  # neither webserver nor daemon runs a user's code
    worker.kill()
    _retried(instance, run_id, time.time(), capsys, "worker killed")


@pytest.mark.slow
def test_a_worker_that_died_with_its_code_server_is_noticed_when_the_machine_is_back(instance, capsys):
    """A code server tells of its own workers only. After a power cut nobody is left who knew of the run."""
    shutil.rmtree(instance.lake, ignore_errors=True)
    run_id = instance.launch("medallion_etl")
    worker = _worker(instance.wait(run_id, _working, seconds=90))
    server = worker.parent()
    assert server is not None
    # the whole family at once, before the server can report its worker
    os.kill(server.pid, signal.SIGSTOP)
    worker.kill()
    server.kill()
    instance.stack.down()
    instance.stack.up()
    _retried(instance, run_id, time.time(), capsys, "worker and code server killed, counted from when the others answer")
    assert "there is no process" in str(instance.run(run_id)["eventConnection"]["events"])


def test_a_run_outlives_its_code_server_which_is_started_again(instance):
    shutil.rmtree(instance.lake, ignore_errors=True)
    run_id = instance.launch("medallion_etl")
    server = _worker(instance.wait(run_id, _working, seconds=90)).parent()
    assert server is not None
    home, others = instance.stack.home, ("s3", "postgres", "webserver", "daemon")
    before = {name: pid_of(home, name) for name in others}
    server.kill()
    run = instance.wait(run_id, _finished, seconds=180)
    assert (run["status"], "dagster/auto_retry_run_id" in run["tags"]) == ("SUCCESS", False)
    assert _gold_lines(instance) == instance.lines
    deadline = time.monotonic() + 120
    while not launcher.status(home):
        assert time.monotonic() < deadline, "the code server does not answer again"
        time.sleep(1)
    assert pid_of(home, "code") != server.pid
    assert {name: pid_of(home, name) for name in others} == before
    assert instance.wait(instance.launch("monitoring"), _finished, seconds=180)["status"] == "SUCCESS"


def test_a_killed_database_answers_again_and_no_other_process_ends(instance):
    home = instance.stack.home
    names = ("s3", "code", "webserver", "daemon")
    before = {name: pid_of(home, name) for name in names}
    killed = pid_of(home, "postgres")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while pid_of(home, "postgres") in (None, killed) or not launcher.status(home):
        assert time.monotonic() < deadline, "the database does not answer again"
        time.sleep(1)
    assert {name: pid_of(home, name) for name in names} == before
    for _ in range(3):  # runs, events and schedules have a pool each, whose first connection is one to the database before
        with suppress(urllib.error.HTTPError):
            run_id = instance.launch("monitoring")
            break
    assert instance.wait(run_id, _finished, seconds=180)["status"] == "SUCCESS"
    assert {name: pid_of(home, name) for name in names} == before


def test_a_worker_of_a_code_server_elsewhere_is_asked_for_there_and_no_answer_fails_no_run(instance):
    watched = WatchedRunLauncher()
    with dg.DagsterInstance.ephemeral() as own:
        watched.register_instance(own)
        for port, status in ((int(instance.stack.env["STACK_CODE_PORT"]), "NOT_FOUND"), (9, "RUNNING")):
            info = json.dumps({"host": "127.0.0.1", "port": port})
            run = own.create_run_for_job(_a_job, tags={".dagster/grpc_info": info})
            assert watched._remote(run).status.value == status


PROGRAMS = {
    "webserver": ("dagster-webserver", "--host", "127.0.0.1", "--port", "0"),
    "daemon": ("dagster-daemon", "run"),
    "trigger": ("python", "-m", "lakehouse", "trigger", "medallion_etl"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_its_database_each_ends_within_30_seconds_and_its_first_line_names_the_setting(program, tmp_path):
    shutil.copy2(project_folder() / "deploy" / "dagster.yaml", tmp_path)
    shutil.copy2(project_folder() / "deploy" / "workspace.yaml", tmp_path)
    url = "postgresql://lakehouse:hidden-word@127.0.0.1:9/dagster"
    settings = {"DAGSTER_HOME": str(tmp_path), "DAGSTER_POSTGRES_URL": url, "DAGSTER_LOGS_BUCKET": "logs", "STACK_CODE_PORT": "9"}
    began = time.monotonic()
    done = subprocess.run(
        [Path(sys.executable).with_name(PROGRAMS[program][0]), *PROGRAMS[program][1:]],
        env={**os.environ, **settings, "AWS_REGION": "us-east-1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode != 0
    assert re.fullmatch(
        r"error: Dagster's PostgreSQL at 127.0.0.1:9/dagster does not answer: .*Connection refused\. DAGSTER_POSTGRES_URL .*\n",
        done.stderr,
    )
    assert "hidden-word" not in done.stderr + done.stdout
    assert time.monotonic() - began < 30


def test_when_the_database_goes_away_under_a_process_its_errors_name_the_setting(tmp_path):
    shutil.copy2(project_folder() / "deploy" / "dagster.yaml", tmp_path)
    with running("postgres") as database:
        program = """
import sys, dagster as dg
with dg.DagsterInstance.get() as instance:
    print(instance.get_runs_count(), flush=True)
    sys.stdin.readline()
    instance.get_runs_count()
"""
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**database.env, "DAGSTER_HOME": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        database.down()
        began = time.monotonic()
        _, errors = process.communicate("\n", timeout=60)
        assert "DAGSTER_POSTGRES_URL names it" in errors
        assert database.env["STACK_POSTGRES_PASSWORD"] not in errors
        assert process.returncode != 0
        assert time.monotonic() - began < 30
