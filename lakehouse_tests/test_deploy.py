"""What `deploy/` says agrees with itself and with the code, without starting anything.

Started for real: `lakehouse_tests/stack/`, and containers in `lakehouse_tests/containers/`.
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

from deploy.containers import compose, engine, image, needs
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


def _ours(name: str) -> bool:
    """Whether a service is of the lakehouse's own images."""
    return "env_file" in COMPOSE["services"][name]


def test_the_compose_file_has_a_service_for_each_process_with_health_check_restart_limits_and_volumes():
    services = COMPOSE["services"]
    of_tests = {"mariadb"}  # a source, and no part of an instance
    processes = {name.removesuffix("-1").removesuffix("-2") for name in PROCFILE} - of_tests
    assert set(services) == processes | {"reader", "dashboard"}
    assert set(compose.SERVICES) == {name for name, service in services.items() if "profiles" not in service}
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "$."}
        assert named <= set(COMPOSE["volumes"]), name
        assert set(service.get("depends_on", {})) <= set(services), name
    for stateful in ("s3", "postgres", "kafka"):
        assert services[stateful]["volumes"], stateful


def test_every_service_of_the_lakehouse_has_every_setting_and_secrets_as_files_and_writes_nothing_else():
    ours = [service for name, service in COMPOSE["services"].items() if _ours(name)]
    assert len(ours) == 9
    for service in ours:
        assert service["env_file"] == ["${COMPOSE_HOME:?}/env"]
        assert "${COMPOSE_HOME:?}/secrets:/run/secrets:ro" in service["volumes"]
        assert service["read_only"] is True
        assert service["environment"]["LAKEHOUSE_ENV"].startswith("${LAKEHOUSE_ENV:?")  # without it compose starts nothing
        secret = {name for name in service["environment"] if re.search("SECRET|PASSWORD|TOKEN|_URL$", name)}
        assert secret <= {"AWS_ENDPOINT_URL"}


def test_every_variable_of_the_compose_file_is_one_that_its_settings_explain():
    example = compose.EXAMPLE.read_text()
    own = {"COMPOSE_HOME", "STACK_ADDRESS", "STACK_SOCKET", "STACK_SOCKET_GROUP"}  # of make compose-up
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", (DEPLOY / "compose.yaml").read_text()))
    assert [name for name in sorted(used - own) if not re.search(rf"^#?{name}=", example, flags=re.MULTILINE)] == []


def test_on_the_hosts_network_every_service_listens_on_this_machine_only():
    class Loader(yaml.SafeLoader):
        """Reads `!reset`."""

    Loader.add_constructor("!reset", lambda loader, node: None)
    host = yaml.load((DEPLOY / "compose.host.yaml").read_text(), Loader=Loader)["services"]
    assert set(host) == set(COMPOSE["services"])
    for name, service in host.items():
        assert service == {"network_mode": "host", **({"ports": None} if "ports" in COMPOSE["services"][name] else {})}
    bound = r"(--host |--port |://|listen_addresses=)\$\{STACK_ADDRESS:-"
    for name, service in COMPOSE["services"].items():
        text = f"{service.get('command')} {service.get('environment', {}).get('KAFKA_LISTENERS')}"
        assert "0.0.0.0" not in text and (re.search(bound, text) or name == "daemon"), name


def test_settings_and_passwords_of_containers_are_written_once_and_closed_to_others(tmp_path):
    homes = [tmp_path / name for name in ("a", "b")]
    for home in homes:
        compose.write_settings(home, network="host")
    for name in ("POSTGRES_PASSWORD", "secrets/AWS_SECRET_ACCESS_KEY"):
        first, second = ((home / name).read_text() for home in homes)
        assert len(first) > 30 and first != second
    assert stat.S_IMODE(homes[0].stat().st_mode) == 0o700
    before = {path: path.read_text() for path in homes[0].rglob("*") if path.is_file()}
    assert "127.0.0.1:5433/dagster" in before[homes[0] / "secrets" / "DAGSTER_POSTGRES_URL"]
    compose.write_settings(homes[0])
    assert {path: path.read_text() for path in before} == before


def test_without_the_environments_name_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("LAKEHOUSE_ENV", raising=False)
    compose.write_settings(tmp_path)
    with pytest.raises(StackError, match=r"Write LAKEHOUSE_ENV=staging or LAKEHOUSE_ENV=prod into .*env"):
        compose.environment(tmp_path, engine.Engine("podman"))


def test_a_roll_out_that_is_not_healthy_goes_back_to_the_images_before(tmp_path, monkeypatch):
    compose.write_settings(tmp_path)
    started = []

    def up(engine, home):
        started.append(compose.assignments(home / "env")["STACK_IMAGE"])
        if started[-1] == "new":
            raise StackError("Not healthy within 300 s: code.")

    monkeypatch.setattr(compose, "up", up)
    monkeypatch.setattr(compose, "_image_of", lambda engine, service: f"old-{service}")
    monkeypatch.setattr(engine.Engine, "has_image", lambda self, name: True)
    with pytest.raises(StackError, match=r"Not healthy within 300 s: code\. The images before run again\."):
        compose.roll_out(engine.Engine("podman"), tmp_path, {"STACK_IMAGE": "new"})
    assert started == ["new", "old-code"]
    compose.roll_out(engine.Engine("podman"), tmp_path, {"STACK_IMAGE": "newer"})
    assert started[2:] == ["newer"]
    compose.roll_back(engine.Engine("podman"), tmp_path)
    assert started[3:] == ["old-code"]


def test_without_podman_and_docker_the_message_names_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match=r"neither.*make image-tools"):
        engine.find()


def test_why_the_image_is_not_tested_is_a_sentence_that_ends_with_what_to_do(monkeypatch):
    """`.ci/run` prints it and goes on."""
    assert "deploy.containers cached" in (project_folder() / ".ci" / "run").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "deploy.containers", "cached"],
        env={"PATH": "/nowhere"},
        cwd=project_folder(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Containers need podman, or docker with its daemon, and there is neither. Run make image-tools")
    monkeypatch.setattr(image, "find", lambda: engine.Engine("podman"))
    monkeypatch.setattr(engine.Engine, "has_image", lambda self, name: True)
    for label, why in (
        (image.lock_digest(), ""),
        ("another", "does not have the dependencies of requirements.lock: make image."),
    ):
        monkeypatch.setattr(engine.Engine, "run", lambda self, *arguments, label=label: label)
        assert image.why_not(("base",)).endswith(why) and bool(image.why_not(("base",))) == bool(why)


def test_the_layer_of_the_dependencies_follows_from_dependencies_and_extras_only():
    text = (project_folder() / "pyproject.toml").read_text()
    found = needs.needs(text)
    assert found == needs.needs(text.replace("line-length = 130", "line-length = 131"))
    assert found != needs.needs(text.replace("duckdb>=2.0,", "duckdb>=2.0.1,"))


def test_a_root_that_may_not_raise_limits_is_recognised(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert engine.is_restricted("Name:\tsh\nCapEff:\t000001fffeffffff\n")
    assert not engine.is_restricted("Name:\tsh\nCapEff:\t000001ffffffffff\n")


def test_what_the_images_copy_is_not_ignored():
    rules = [line for line in (project_folder() / ".dockerignore").read_text().splitlines() if line]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {word for words in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE) for word in words.split()}
    paths = {word.rstrip("/") for word in copied if not word.startswith("--")}
    assert paths and {path.split("/")[0] for path in paths if not path.startswith(".stack")} <= allowed
    assert set(re.findall(r"^FROM base AS (\w+)$", text, flags=re.MULTILINE)) | {"base"} == set(image.IMAGES)


def test_secrets_become_variables_unless_they_are_set(tmp_path):
    (tmp_path / "LAKEHOUSE_SLACK_TOKEN").write_text("a token\n")
    (tmp_path / "AWS_REGION").write_text("elsewhere")
    (tmp_path / "notes.txt").write_text("no variable")
    script = DEPLOY / "containers" / "entrypoint.sh"
    env = {"PATH": os.environ["PATH"], "SECRETS": str(tmp_path), "AWS_REGION": "here"}
    done = subprocess.run([script, "env"], env=env, capture_output=True, text=True, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (found["LAKEHOUSE_SLACK_TOKEN"], found["AWS_REGION"]) == ("a token", "here")
    assert "notes.txt" not in done.stdout


def test_both_ways_have_the_same_versions():
    assert "versitygw:v1.8.0" in COMPOSE["services"]["s3"]["image"]
    assert VERSITYGW.endswith("@v1.8.0")
    kafka = COMPOSE["services"]["kafka"]["image"].rpartition(":")[2].removesuffix("}")
    assert f"<version>{kafka}</version>" in (DEPLOY / "kafka" / "pom.xml").read_text()
    assert f"kafka_2.13-{kafka}.jar" == JAR
