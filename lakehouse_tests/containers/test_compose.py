"""deploy/compose.yaml on the host's network: a job over a bucket, a container for each run, kills, limits, stop and start."""

import math
import os
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.containers import compose
from lakehouse_tests.containers.conftest import empty_lake, gold_lines, smoke, wait_for_health
from lakehouse_tests.stack.conftest import Instance

FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
#: What is killed while a run is at work, one after another; LAKEHOUSE_KILLS kills in all.
KILLED = ("run", "postgres", "s3", "daemon", "code", "webserver")
KILLS = int(os.environ.get("LAKEHOUSE_KILLS", str(len(KILLED))))


def _finished(run) -> bool:
    return run["status"] in FINISHED


def _working(run) -> bool:
    return any(event["__typename"] == "ExecutionStepStartEvent" for event in run["eventConnection"]["events"])


def test_all_is_well_and_those_who_only_look_cannot_start_anything(composed):
    done = smoke(composed)
    assert (done.returncode, done.stderr) == (0, "")
    env = {**composed.env, "STACK_WEBSERVER_PORT": composed.env["STACK_READER_PORT"]}
    reader = Instance(replace(composed, env=env), Path(), 0)  # type: ignore[arg-type]  # asked by its port only
    with pytest.raises(AssertionError, match="UnauthorizedError"):
        reader.launch("medallion_etl")


def test_a_run_has_a_container_of_its_own_as_large_as_its_tags_and_its_tables_are_in_the_bucket(composed, instance):
    run_id = instance.launch("medallion_etl")
    run = instance.wait(run_id, _finished, seconds=300)
    assert run["status"] == "SUCCESS"
    assert gold_lines() == instance.lines
    found = composed.inspect(composed.container_of(run))
    assert found["HostConfig"]["Memory"] == 4 * 1024**3
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert (composed.home / "secrets" / "AWS_SECRET_ACCESS_KEY").read_text() not in str(found)


def test_a_memory_limit_that_is_too_small_fails_with_a_sentence_that_names_the_tag(composed, instance):
    params = {
        "selector": {"repositoryLocationName": "lakehouse", "repositoryName": "__repository__", "jobName": "medallion_etl"},
        "runConfigData": {},
        "executionMetadata": {
            "tags": [{"key": "lakehouse/memory", "value": "150m"}, {"key": "dagster/max_retries", "value": "0"}],
        },
    }
    mutation = """mutation($params: ExecutionParams!) {
        launchRun(executionParams: $params) { ... on LaunchRunSuccess { run { runId } } } }"""
    run_id = instance.ask(mutation, params=params)["launchRun"]["run"]["runId"]
    run = instance.wait(run_id, _finished, seconds=240)
    assert run["status"] == "FAILURE"
    assert "150m" in str(run) and "raise the tag lakehouse/memory of job medallion_etl" in str(run["eventConnection"]["events"])


def _complete(instance, run_id: str, *, seconds: float) -> None:
    """Wait until a run of the job has succeeded: the run, one that retried it, or, where its steps failed, the next one."""
    deadline = time.monotonic() + seconds
    while (run := _patient(instance, run_id, deadline))["status"] != "SUCCESS":
        tags = run["tags"]
        if "dagster/auto_retry_run_id" in tags:
            run_id = tags["dagster/auto_retry_run_id"]
        elif run["status"] in FINISHED and tags.get("dagster/will_retry") != "true":
            run_id = _launched(instance, deadline)
        assert time.monotonic() < deadline, (run["status"], tags)
        time.sleep(1)


def _launched(instance, deadline: float) -> str:
    """A new run, asked for until somebody answers."""
    while True:
        try:
            return instance.launch("medallion_etl")
        except (OSError, AssertionError, ValueError):
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(1)


def _patient(instance, run_id: str, deadline: float) -> dict:
    """A run, asked again while webserver or database are gone."""
    while True:
        try:
            return instance.run(run_id)
        except (OSError, AssertionError, ValueError):
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(1)


def test_whichever_container_is_killed_the_tables_are_exact_afterwards(composed, instance, capsys):
    took: list[tuple[str, float]] = []
    for number in range(KILLS):
        victim = KILLED[number % len(KILLED)]
        empty_lake(composed)
        run_id = instance.launch("medallion_etl")
        run = instance.wait(run_id, _working, seconds=120)
        time.sleep(random.Random(number).uniform(0, 6))
        container = composed.container_of(run) if victim == "run" else compose.containers(composed.engine, victim)[0]
        composed.kill(container)
        killed = time.monotonic()
        _complete(instance, run_id, seconds=400)
        took.append((victim, time.monotonic() - killed))
        wait_for_health(composed, seconds=180)
        again = instance.wait(instance.launch("medallion_etl"), _finished, seconds=300)
        assert (again["status"], gold_lines()) == ("SUCCESS", instance.lines), victim
        with capsys.disabled():
            print(f"\n{victim} killed: the run's tables were complete after {took[-1][1]:.0f} s, and exact", end="")
    seconds = sorted(second for _, second in took)
    most = seconds[math.ceil(0.95 * len(seconds)) - 1]
    with capsys.disabled():
        print(f"\n{len(took)} kills: p50 {statistics.median(seconds):.0f} s, p95 {most:.0f} s")


def test_stopped_and_started_nothing_is_lost(composed, instance):
    query = "{ runsOrError { ... on Runs { results { runId status } } } }"
    before = {run["runId"] for run in instance.ask(query)["runsOrError"]["results"]}
    lines = gold_lines()
    composed.down()
    assert compose.containers(composed.engine, "code") == []
    composed.up()
    assert smoke(composed).returncode == 0
    assert before <= {run["runId"] for run in instance.ask(query)["runsOrError"]["results"]}
    assert gold_lines() == lines
    run = instance.wait(instance.launch("medallion_etl"), _finished, seconds=300)
    assert (run["status"], gold_lines()) == ("SUCCESS", instance.lines)
