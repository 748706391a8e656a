"""The services of deploy/compose.yaml, on free ports of this machine and volumes of their own; removed at the end.

Without podman, docker or images of these dependencies the tests are skipped, with what to run as the reason.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.containers import compose, image
from deploy.containers.engine import Engine, find
from lakehouse_tests.stack.conftest import Instance

PROJECT_NAME = "lakehouse-tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("containers")


@dataclass
class Composed:
    """What was started, and how it is spoken to."""

    engine: Engine
    home: Path
    env: dict[str, str] = field(default_factory=dict)  # of the stack's `Instance`: the ports

    def up(self) -> None:
        compose.up(self.engine, self.home, network="host")
        self.env = compose.assignments(self.home / "env")

    def down(self) -> None:
        compose.down(self.engine, self.home)

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.engine.run("inspect", container))[0]
        return found

    def kill(self, container: str) -> None:
        """End the first process of a container as the kernel would."""
        os.kill(self.inspect(container)["State"]["Pid"], signal.SIGKILL)

    def container_of(self, run: dict[str, Any]) -> str:
        container: str = run["tags"]["docker/container_id"]
        return container

    def inside(self, service: str, *command: str) -> str:
        """What a command prints in a service's container, with its secrets."""
        return self.engine.run("exec", compose.containers(self.engine, service)[0], "with-secrets", *command)


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    if why := image.why_not(("base", "ml", "dashboard")):
        pytest.skip(why)
    home = tmp_path_factory.mktemp("compose")
    before = {name: os.environ.get(name) for name in ("COMPOSE_PROJECT_NAME", "LAKEHOUSE_ENV")}
    os.environ |= {"COMPOSE_PROJECT_NAME": PROJECT_NAME, "LAKEHOUSE_ENV": "dev"}  # no schedule starts by itself
    own = Composed(find(), home)
    try:
        settings = f"{_on_free_ports(compose.EXAMPLE.read_text())}\nLAKEHOUSE_BRT_URL=http://127.0.0.1:9/none\n"  # asks nobody
        (home / "env").write_text(settings)
        own.up()
        yield own
    finally:
        own.down()
        volumes = own.engine.run("volume", "ls", "--quiet", "--filter", f"label={compose.PROJECT_LABEL}={PROJECT_NAME}").split()
        if volumes:
            own.engine.run("volume", "rm", "--force", *volumes)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _on_free_ports(text: str) -> str:
    names = re.findall(r"^(STACK_\w+_PORT)=", text, flags=re.MULTILINE)
    with ExitStack() as opened:
        for name in names:
            own = opened.enter_context(socket.socket())
            own.bind(("127.0.0.1", 0))
            text = re.sub(rf"^{name}=.*$", f"{name}={own.getsockname()[1]}", text, flags=re.MULTILINE)
    return text


@dataclass(frozen=True)
class Sample:
    """Landed files in the gateway's bucket, and the lines that gold must come to."""

    lines: int


@pytest.fixture(scope="session")
def sample(composed: Composed, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    from lakehouse.core.store import files
    from lakehouse.sample.landing import write_sample_landing

    folder = tmp_path_factory.mktemp("landing")
    truth = write_sample_landing(folder, lines=20_000)
    os.environ |= s3_environment(composed)
    for known in (files._store, files.reach):
        known.cache_clear()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files.put(f"s3://lakehouse/landing/{path.relative_to(folder)}", path)
    return Sample(truth.lines - truth.deleted)


def s3_environment(composed: Composed) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{composed.env['STACK_S3_PORT']}",
        "AWS_ACCESS_KEY_ID": composed.env["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": (composed.home / "secrets" / "AWS_SECRET_ACCESS_KEY").read_text(),
        "AWS_REGION": composed.env["AWS_REGION"],
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.fixture
def instance(composed: Composed, sample: Sample) -> Instance:
    return Instance(composed, Path("s3://lakehouse/lake"), sample.lines)  # type: ignore[arg-type]  # asked by its ports only


def gold_lines() -> int:
    from deltalake import DeltaTable

    return sum(DeltaTable("s3://lakehouse/lake/gold/vendas_diarias").to_pyarrow_table()["linhas"].to_pylist())


def empty_lake(composed: Composed) -> None:
    """Remove every table; what landed stays. A bucket of the gateway is a folder."""
    (container,) = compose.containers(composed.engine, "s3")
    remove = "for try in 1 2 3 4 5; do rm -rf /s3/data/lakehouse/lake /s3/meta/lakehouse/lake && exit; sleep 1; done; exit 1"
    composed.engine.run("exec", container, "sh", "-c", remove)  # a sensor may write meanwhile


def wait_for_health(composed: Composed, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while wrong := [service for service in compose.SERVICES if not compose.is_healthy(composed.engine, service)]:
        assert time.monotonic() < deadline, wrong
        time.sleep(1)


def smoke(composed: Composed) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{composed.env['STACK_WEBSERVER_PORT']}"
    script = Path(compose.PROJECT) / "deploy" / "smoke.py"
    return subprocess.run(["python3", str(script), url, "--wait", "120"], capture_output=True, text=True, check=False)
