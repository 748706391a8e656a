"""`start` and `stop` for real, and what other tools do with the webserver meanwhile; a wheel outside of the checkout.

Each command by itself, without processes: `lakehouse_tests/manage/`.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from lakehouse.core.processes import alive, family
from lakehouse.settings import project_folder

DOCS = (project_folder() / "docs" / "commands.md").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bare_environment(home: Path, lake: Path, **more: str) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_", "AWS_", "MLFLOW_"))
    }
    return {**inherited, "DAGSTER_HOME": str(home), "LAKEHOUSE_ROOT": str(lake), **more}


class Shell:
    """Runs `lakehouse` as a user does."""

    def __init__(self, folder: Path, *, program: list[str], cwd: Path, **more: str):
        self.home, self.program, self.cwd = folder / "dagster", program, cwd
        self.home.mkdir()
        self.environment = bare_environment(self.home, folder / "lake", **more)

    def __call__(self, *arguments: str, code: int = 0, seconds: float = 600) -> str:
        done = subprocess.run(
            [*self.program, *arguments],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *arguments: str):
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def shell(tmp_path):
    own = Shell(tmp_path, program=[sys.executable, "-m", "lakehouse"], cwd=project_folder())
    yield own
    own("stop")


def test_start_serves_the_ui_the_documented_example_runs_a_job_and_stop_leaves_nobody(shell):
    port = free_port()
    found = shell.json("start", "--port", str(port))
    assert found["url"] == f"http://127.0.0.1:{port}"
    assert set(found["processes"]) == {"webserver", "daemon"}
    started = family({pid: alive()[pid][1] for pid in found["processes"].values()})
    assert len(started) >= 4  # each has a code server
    assert "run already" in shell("start", "--port", str(port), code=2)

    for name in ("watch", "monitoring_every_5_minutes"):  # not all of them: no test asks the city's feed
        shell("schedules", name, "--on", "1")
    example = re.search(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)[1]
    assert "http://127.0.0.1:3000" in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace("127.0.0.1:3000", f"127.0.0.1:{port}")],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    first, *listed = done.stdout.splitlines()
    run_id, status = first.split()
    assert status == "SUCCESS"
    state = {line.split()[0]: line.split()[-1] for line in listed}
    # the webserver sees what was switched
    assert (state["monitoring_every_5_minutes"], state["brt_capture_minutely"]) == ("RUNNING", "STOPPED")

    curl = shlex.split(re.search(r"^curl .*$", DOCS, flags=re.MULTILINE)[0])
    address = curl[2].replace(":3000", f":{port}")
    request = urllib.request.Request(address, curl[curl.index("-d") + 1].encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert json.load(reply)["data"]["runsOrError"]["results"]

    deadline = time.monotonic() + 120
    while not (found := {each["name"]: each for each in shell.json("status")["automations"]})["watch"]["last_tick"]:
        assert time.monotonic() < deadline, "the daemon does not tick a sensor that was switched on"
        time.sleep(2)
    monitoring = found["monitoring_every_5_minutes"]
    assert monitoring["averaged"] >= 1 and monitoring["average_seconds"] > 0 and monitoring["next_at"]
    assert f"{run_id} monitoring: success" in shell("logs", run_id[:8])
    assert shell.json("health")["healthy"]

    started |= family(started)
    assert shell.json("stop")["stopped"] >= 4
    assert family(started) == {}
    assert shell.json("stop")["stopped"] == 0
    assert shell.json("status")["processes"] == {}


def test_on_the_stack_in_prod_settings_the_commands_are_about_its_instance_and_start_refuses(instance):
    own = [sys.executable, "-m", "lakehouse"]
    environment = {**instance.stack.env, "LAKEHOUSE_ENV": "prod"}

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [*own, *arguments], cwd=project_folder(), env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    run_id = instance.launch("slo")  # which prints, also on an empty lake
    instance.wait(run_id, lambda run: run["status"] == "SUCCESS", seconds=180)
    found = json.loads(run("status", "--json"))
    assert found["environment"] == "prod" and "dagster" in found["stack"] and found["processes"] == {}
    assert all(each["on"] for each in found["automations"])  # as prod declares; the daemon's own environment is dev
    assert next(each for each in found["automations"] if each["job"] == "slo")["last_run"]["run_id"] == run_id
    assert "The stack runs Dagster on this instance." in run("start", "--port", str(free_port()), code=2)
    (switched,) = json.loads(run("schedules", "slo_hourly", "--on", "0", "--json"))["automations"]
    assert not switched["on"]
    assert json.loads(run("init", "--json"))["switched_on"] == ["slo_hourly"]
    query = """{ scheduleOrError(scheduleSelector: {repositoryLocationName: "lakehouse", repositoryName: "__repository__",
                 scheduleName: "slo_hourly"}) { ... on Schedule { scheduleState { status } } } }"""
    assert instance.ask(query)["scheduleOrError"]["scheduleState"]["status"] == "RUNNING"
    run("schedules", "slo_hourly", "--on", "0")
    deadline = time.monotonic() + 60  # what was printed goes to the bucket after the run's last event
    logs = json.loads(run("logs", run_id[:8], "--json"))
    while not any(each["stderr"] for each in logs["printed"]):
        assert time.monotonic() < deadline, logs
        time.sleep(2)
        logs = json.loads(run("logs", run_id[:8], "--json"))
    assert logs["run"]["outcome"] == "success"
    healthy = subprocess.run([*own, "health"], cwd=project_folder(), env=environment, capture_output=True, text=True, check=False)
    assert "daemon:scheduler" in healthy.stdout, healthy.stderr
    output = healthy.stdout + healthy.stderr
    assert instance.stack.env["STACK_POSTGRES_PASSWORD"] not in output + json.dumps(found) + json.dumps(logs)


def test_a_wheel_contains_the_dbt_project_and_works_outside_of_the_checkout_where_nothing_of_it_can_be_written(tmp_path):
    uv = [str(Path(sys.executable).with_name("uv"))]
    project, dist, venv, elsewhere = project_folder(), tmp_path / "dist", tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*uv, "build", "--quiet", "--wheel", "--out-dir", dist, str(project)], check=True)
    (wheel,) = dist.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("lakehouse/dbt_project/")}
    tracked = subprocess.run(["git", "ls-files", "dbt_project"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert inside == {f"lakehouse/{name}" for name in tracked.split()}

    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    install = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        venv / "bin" / "python",
        "--constraint",
        project / "requirements.lock",
    ]
    subprocess.run([*install, str(wheel)], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    subprocess.run(["chmod", "-R", "a-w", str(site / "lakehouse")], check=True)
    before = sorted(path for path in (site / "lakehouse").rglob("*") if "__pycache__" not in path.parts)

    program = str(venv / "bin" / "lakehouse")
    shell = Shell(tmp_path, program=[program], cwd=elsewhere, PYTHONDONTWRITEBYTECODE="1", PATH="/usr/bin:/bin")
    found = shell.json("status")
    assert {"medallion_etl_daily", "watch"} <= {each["name"] for each in found["automations"]}
    listing = [str(venv / "bin" / "dagster"), "asset", "list", "-m", "lakehouse.definitions"]
    assets = subprocess.run(listing, cwd=elsewhere, env=shell.environment, capture_output=True, text=True, check=True).stdout
    golden = (project / "lakehouse_tests" / "golden" / "asset_keys.txt").read_text().split("\n\n")[0].split()
    assert {"gold/vendas_diarias", "silver/vendas"} <= set(assets.split()) and set(assets.split()) <= set(golden)
    assert (shell.home / "lakehouse" / "dbt").is_dir()
    assert sorted(path for path in (site / "lakehouse").rglob("*") if "__pycache__" not in path.parts) == before
    shutil.rmtree(site / "lakehouse", ignore_errors=True)
