"""What `deploy/` says agrees with itself and with the code, without starting anything.

Started for real: `lakehouse_tests/stack/`. The compose file is never run here; what can be compared is.
"""

import json
import os
import re
import stat
import subprocess
import sys

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from deploy.stack.environment import environment, write_env
from deploy.stack.kafka import JAR
from deploy.stack.launcher import down
from deploy.stack.part import StackError
from deploy.stack.parts import PARTS, chosen
from deploy.stack.s3 import VERSITYGW
from lakehouse.automation import jobs
from lakehouse.core.processes import alive, family
from lakehouse.runtime.launcher import WatchedRunLauncher
from lakehouse.runtime.postgres import DatabaseUnreachable
from lakehouse.settings import project_folder

DEPLOY = project_folder() / "deploy"
PROCFILE = dict(line.split(": ", 1) for line in (DEPLOY / "Procfile").read_text().splitlines())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


# --- the stack -------------------------------------------------------------------------------------------------------


def test_every_line_of_the_procfile_belongs_to_one_part_and_binds_to_this_machine_only():
    assert sorted(PROCFILE) == sorted(process for part in PARTS.values() for process in part.processes)
    for name, line in PROCFILE.items():
        assert "127.0.0.1" in line or name in ("kafka", "daemon"), name  # Kafka's listeners are in its file, the daemon has none
        assert "0.0.0.0" not in line


def test_every_variable_of_the_procfile_is_set(tmp_path):
    write_env(tmp_path)
    env = environment(tmp_path, PARTS)
    used = {name for line in PROCFILE.values() for name in re.findall(r"\$([A-Z][A-Z_0-9]*)", line)}
    assert used <= set(env)


def test_the_environment_file_has_its_own_passwords_and_is_its_owners(tmp_path):
    files = [write_env(tmp_path / name) for name in ("a", "b")]
    for name in ("AWS_SECRET_ACCESS_KEY", "STACK_POSTGRES_PASSWORD"):
        first, second = (re.search(rf"^{name}=(.+)$", file.read_text(), flags=re.MULTILINE)[1] for file in files)
        assert len(first) > 30
        assert first != second
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    before = files[0].read_text()
    assert write_env(tmp_path / "a").read_text() == before


def test_a_part_that_does_not_exist_is_an_error_that_lists_those_that_do():
    with pytest.raises(StackError, match=r"no part 'redis'.* s3 postgres kafka"):
        chosen(["redis"])
    assert chosen(["dagster"]) == ["s3", "postgres", "code", "dagster"]


def test_nothing_is_stopped_that_was_not_started(tmp_path):
    """Also not a process that got the number of one that was."""
    assert down(tmp_path) == 0
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "pids.json").write_text(f'{{"{other.pid}": 1}}')
        assert down(tmp_path) == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.stack
def test_what_was_started_is_stopped_with_its_children_and_without_its_supervisor(tmp_path):
    parent = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60 & sleep 61 & wait"], start_new_session=True)
    while len(found := family({parent.pid: alive()[parent.pid][1]})) < 3:
        os.sched_yield()
    (tmp_path / "pids.json").write_text(json.dumps(found))
    parent.kill()
    parent.wait()
    assert down(tmp_path) == 2
    assert family(found) == {}


# --- the production instance -----------------------------------------------------------------------------------------


def test_the_production_instance_is_one_that_dagster_takes_and_limits_tags_that_jobs_have():
    config, _ = dagster_instance_config(str(DEPLOY))
    assert config["run_monitoring"]["poll_interval_seconds"] <= 30  # a lost worker is noticed within a minute
    assert config["run_retries"]["enabled"]
    limits = {limit["key"] for limit in config["run_coordinator"]["config"]["tag_concurrency_limits"]}
    tags = {tag for job in jobs() for tag in job.tags}
    assert limits - {"dagster/backfill"} <= tags
    for job in jobs():
        assert limits & set(job.tags), f"{job.name}: no limit in deploy/dagster.yaml counts its runs"


# --- containers ------------------------------------------------------------------------------------------------------


def test_a_dagster_yaml_with_the_names_of_commit_2e6ab70_goes_on_working(tmp_path, monkeypatch):
    """Dagster finds the launcher, and the storage asks the database, which is not there."""
    config = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    launcher, storage = config["run_launcher"], config["storage"]["custom"]
    assert (launcher["module"], storage["module"]) == ("lakehouse.runtime.launcher", "lakehouse.runtime.postgres")
    launcher["module"], storage["module"] = "lakehouse.launcher", "lakehouse.postgres"
    home = tmp_path / "dagster.yaml"
    home.write_text(yaml.safe_dump({"run_launcher": launcher}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher) is WatchedRunLauncher
    home.write_text(yaml.safe_dump({"storage": {"custom": storage}}))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://user@127.0.0.1:9/none")
    monkeypatch.setattr("lakehouse.runtime.postgres.WAIT_SECONDS", 0)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the storage sets it
    with pytest.raises(DatabaseUnreachable, match="DAGSTER_POSTGRES_URL"):
        dg.DagsterInstance.from_config(str(tmp_path))


def test_the_compose_file_describes_the_parts_of_the_procfile_with_health_checks_limits_and_volumes():
    services = COMPOSE["services"]
    of_tests = {"mariadb"}  # a source, and no part of an instance
    assert set(services) == {name.removesuffix("-1").removesuffix("-2") for name in PROCFILE} - of_tests
    assert services["spark-worker"]["deploy"]["replicas"] == sum(name.startswith("spark-worker") for name in PROCFILE)
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"]), name
        assert set(service.get("depends_on", {})) <= set(services), name
        for variable in re.findall(r"\$\{([A-Z_0-9]+)", str(service)):
            assert f"\n{variable}=" in (DEPLOY / "stack.env.example").read_text(), variable
    for stateful in ("s3", "postgres", "kafka"):
        assert services[stateful]["volumes"], stateful


def test_both_ways_have_the_same_versions():
    assert "versitygw:v1.8.0" in COMPOSE["services"]["s3"]["image"]
    assert VERSITYGW.endswith("@v1.8.0")
    kafka = COMPOSE["services"]["kafka"]["image"].rpartition(":")[2]
    assert f"<version>{kafka}</version>" in (DEPLOY / "kafka" / "pom.xml").read_text()
    assert f"kafka_2.13-{kafka}.jar" == JAR
