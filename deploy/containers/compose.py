"""The services of deploy/compose.yaml: their settings and passwords, their start and stop, and whether each is healthy.

`<home>/env` are settings and ports, `<home>/secrets/` a file for each variable that is secret, `<home>` is closed to others.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.containers import socket
from deploy.containers.debian import SERVERS, server_image
from deploy.containers.engine import Engine
from deploy.stack.environment import assignments
from deploy.stack.part import PROJECT, StackError

EXAMPLE = PROJECT / "deploy" / "compose.env.example"
PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
#: The label of a run's container (dagster-docker), and the seconds that it has to end.
RUN_LABEL, RUN_SECONDS = "dagster/run_id", 60
#: A service that runs the image of a variable.
IMAGE_OF = {"STACK_IMAGE": "code", "STACK_ML_IMAGE": "mlflow", "STACK_DASHBOARD_IMAGE": "dashboard"}
#: Seconds that all services have to become healthy.
PATIENCE = 300
#: Services without a profile, in the order in which they are waited for.
SERVICES = ("s3", "postgres", "kafka", "mlflow", "code", "webserver", "reader", "daemon", "metrics", "dashboard")


def default_home() -> Path:
    return Path(os.environ.get("COMPOSE_HOME") or PROJECT / ".stack" / "compose").absolute()


def write_settings(home: Path, *, network: str = "") -> Path:
    """The file of settings, and the files of passwords; what is there stays.

    Args:
        network: `host` is written down, and stays for the next time.
    """
    folder = home / "secrets"
    folder.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)  # below, the containers' users read
    file = home / "env"
    if not file.exists():
        file.write_text(EXAMPLE.read_text())
    if network:
        _set(file, {"STACK_NETWORK": network})
    for secret in (home / "POSTGRES_PASSWORD", folder / "AWS_SECRET_ACCESS_KEY"):
        if not secret.exists():
            _write(secret, secrets.token_urlsafe(24))
    env = assignments(file)
    password = (home / "POSTGRES_PASSWORD").read_text()
    address = "127.0.0.1" if env.get("STACK_NETWORK") == "host" else "postgres"
    server = f"postgresql+psycopg2://lakehouse:{password}@{address}:{env['STACK_POSTGRES_PORT']}"
    _write(folder / "DAGSTER_POSTGRES_URL", f"{server}/dagster")
    _write(folder / "MLFLOW_BACKEND_STORE_URI", f"{server}/mlflow")
    if not (folder / "LAKEHOUSE_WAREHOUSE_URL").exists():  # it may be another server's
        _write(folder / "LAKEHOUSE_WAREHOUSE_URL", f"{server}/warehouse")
    return file


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text() != text:
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o444)


def environment(home: Path, engine: Engine) -> dict[str, str]:
    """What stands for `${...}` in the compose file: this process's environment, then the file's, then the images that were built.

    Raises:
        StackError: the environment that schedules and alerts depend on is not named.
    """
    own = assignments(home / "env")
    env: dict[str, str] = {**os.environ, **own, **engine.env, "COMPOSE_HOME": str(home)}
    if not env.get("LAKEHOUSE_ENV"):
        raise StackError(f"Write LAKEHOUSE_ENV=staging or LAKEHOUSE_ENV=prod into {home}/env: it decides which schedules start.")
    if env.get("STACK_NETWORK") == "host":
        env["STACK_ADDRESS"] = "127.0.0.1"
    for name in SERVERS:
        if (variable := f"STACK_{name.upper()}_IMAGE") not in env and engine.has_image(server_image(name)):
            env[variable] = server_image(name)
    return env


def _compose(engine: Engine, env: Mapping[str, str], *arguments: str) -> None:
    if engine.name == "podman":
        program = shutil.which("podman-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}")
        if program is None:
            raise StackError("podman needs podman-compose: it is in the extra deploy (pip install podman-compose).")
        command = [program]
    else:
        command = ["docker", "compose"]
    files = ["compose.yaml", *(["compose.host.yaml"] if env.get("STACK_NETWORK") == "host" else [])]
    named = [part for file in files for part in ("--file", str(PROJECT / "deploy" / file))]
    done = subprocess.run([*command, *named, *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode:  # else podman complains of each health check that there is no systemd
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise StackError(f"{Path(command[0]).name} {' '.join(arguments)} failed (exit code {done.returncode}); see above.")


def up(engine: Engine, home: Path, *, network: str = "") -> None:
    """Start every service, and return when each is healthy.

    Raises:
        StackError: a service does not start, or is not healthy in time; the message names it.
    """
    write_settings(home, network=network)
    env = {**environment(home, engine), **socket.serve(engine, home)}
    began = time.monotonic()
    _compose(engine, env, "up", "--detach", "--no-build")
    waiting = list(SERVICES)
    while waiting:
        for service in list(waiting):
            if is_healthy(engine, service):
                print(f"{service:10} is healthy after {time.monotonic() - began:.0f} s", flush=True)
                waiting.remove(service)
        if waiting and time.monotonic() - began > PATIENCE:
            raise StackError(f"Not healthy within {PATIENCE} s: {', '.join(waiting)}. Read {engine.name} logs <container>.")
        time.sleep(1 if waiting else 0)
    print(f"UI: http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}, pages: http://127.0.0.1:{env['STACK_DASHBOARD_PORT']}")


def down(engine: Engine, home: Path) -> None:
    """Stop and remove the containers, those of runs among them; volumes stay.

    A run that is ended so is started again by the daemon of the next start, or goes on from what it had committed.
    """
    env = {**environment(home, engine), **socket.serve(engine, home)}
    for container in containers(engine, "daemon"):  # it would start them again
        engine.run("stop", container, quiet=True)
    if runs := engine.run("ps", "--quiet", "--filter", f"label={RUN_LABEL}").split():
        engine.run("stop", f"--time={RUN_SECONDS}", *runs, quiet=True)
    without_name = _volumes_without_name(engine)
    _compose(engine, env, "down")
    if without_name:
        engine.run("volume", "rm", *without_name, check=False, quiet=True)
    socket.stop(home)


def _volumes_without_name(engine: Engine) -> list[str]:
    """The volumes that the image asks for and that nobody finds again: what follows from the code, spill."""
    ids = engine.run("ps", "--all", "--quiet", "--filter", f"label={PROJECT_LABEL}={project()}").split()
    named = engine.run("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", *ids) if ids else ""
    return [name for name in named.split() if re.fullmatch("[0-9a-f]{64}", name)]


def roll_out(engine: Engine, home: Path, images: Mapping[str, str]) -> None:
    """Let every service run other images; where not all are healthy in time, those before run again. Runs in containers go on.

    Args:
        images: by the variable of the compose file.

    Raises:
        StackError: an image is not to be had, and nothing has changed; or a service is not healthy, and the images before run.
    """
    for image in images.values():
        if not engine.has_image(image):
            engine.run("pull", "--quiet", image)
    running = {name: _image_of(engine, service) for name, service in IMAGE_OF.items() if name in images}
    _set(home / "before", {name: image for name, image in running.items() if image})
    _set(home / "env", images)
    try:
        up(engine, home)
    except StackError as error:
        roll_back(engine, home)
        raise StackError(f"{error} The images before run again.") from error


def roll_back(engine: Engine, home: Path) -> None:
    """Let every service run the images that ran before the last `roll_out`.

    Raises:
        StackError: there was none, or they are not healthy either.
    """
    before = assignments(home / "before")
    if not before:
        raise StackError(f"There is no {home}/before: nothing was rolled out here.")
    _set(home / "env", before)
    up(engine, home)


def _image_of(engine: Engine, service: str) -> str:
    """The id of the image that a service runs; empty when it does not run."""
    found = containers(engine, service)
    return engine.run("inspect", "--format", "{{.Image}}", found[0]) if found else ""


def _set(file: Path, values: Mapping[str, str]) -> None:
    """Write variables into a file, each once."""
    lines = file.read_text().splitlines() if file.exists() else []
    others = [line for line in lines if line.partition("=")[0] not in values]
    file.write_text("\n".join([*others, *(f"{name}={value}" for name, value in values.items())]) + "\n")


def status(engine: Engine) -> bool:
    """Print which service is healthy; whether all are."""
    healthy = {service: is_healthy(engine, service) for service in SERVICES}
    for service, well in healthy.items():
        print(f"{service:10} {'healthy' if well else 'NOT HEALTHY'}")
    return all(healthy.values())


def containers(engine: Engine, service: str) -> list[str]:
    """The ids of a service's containers that run."""
    labels = (f"label={PROJECT_LABEL}={project()}", f"label={SERVICE_LABEL}={service}")
    return engine.run("ps", "--quiet", *[part for label in labels for part in ("--filter", label)]).split()


def project() -> str:
    return os.environ.get("COMPOSE_PROJECT_NAME", "lakehouse")


def is_healthy(engine: Engine, service: str) -> bool:
    """Whether a service's health check passes now: podman is asked to run it, since it does so by itself only with systemd."""
    found = containers(engine, service)
    if engine.name == "docker":
        return bool(found) and engine.run("inspect", "--format", "{{.State.Health.Status}}", found[0]) == "healthy"
    command = ["podman", "healthcheck", "run"]
    env = {**os.environ, **engine.env}
    return bool(found) and subprocess.run([*command, found[0]], env=env, capture_output=True, check=False).returncode == 0
