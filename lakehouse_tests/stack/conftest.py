"""The real parts as fixtures: each starts once a session on free ports, by `deploy/stack/` as `make stack` does, and is
stopped by its process ids; when pytest itself is killed, by the kernel.

    s3         environment of an S3 server (AWS_*); `bucket` makes an empty one in it for a test
    postgres   URL of an empty PostgreSQL database, for SQLAlchemy
    mariadb    URL of an empty MariaDB database, for SQLAlchemy
    kafka      bootstrap address of a broker
    mlflow     URL of a tracking server on PostgreSQL and S3
    instance   Dagster's webserver, daemon and code server on PostgreSQL and S3, over a small landed sample
"""

import json
import socket
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import launcher
from deploy.stack.environment import EXAMPLE, write_env
from deploy.stack.state import read

Environment = dict[str, str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("stack")


def free_ports() -> dict[str, int]:
    names = [line.partition("=")[0] for line in EXAMPLE.read_text().splitlines() if "_PORT=" in line]
    with ExitStack() as opened:  # all at once, so that no two are the same
        sockets = [opened.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def pid_of(home: Path, process: str) -> int | None:
    """The id of a process of the Procfile; None while it does not run."""
    state = read(home, process)
    return next(iter(state.process), None) if state else None


@dataclass
class Stack:
    """Some parts in a folder of their own."""

    home: Path
    parts: tuple[str, ...]
    env: Environment = field(repr=False)

    def up(self) -> None:
        self.env = launcher.up(self.home, self.parts, outlive=False)

    def down(self) -> None:
        launcher.down(self.home)


@contextmanager
def running(*parts: str, **settings: str) -> Iterator[Stack]:
    """Parts of their own, with settings for their processes, stopped and removed at the end."""
    # pytest's own folders are closed to the user that PostgreSQL runs as
    with tempfile.TemporaryDirectory(prefix="lakehouse-stack-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        with write_env(home, free_ports()).open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        own = Stack(home, parts, {})
        try:
            own.up()
            yield own
        finally:
            own.down()


@pytest.fixture(scope="session")
def s3() -> Iterator[Environment]:
    with running("s3") as own:
        yield {name: value for name, value in own.env.items() if name.startswith("AWS_")}


def s3_client(env: Environment) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def bucket(s3: Environment) -> str:
    """The name of an empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client(s3).create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running("postgres") as own:
        yield own.env["LAKEHOUSE_WAREHOUSE_URL"]


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    with running("mariadb") as own:
        yield own.env["STACK_MARIADB_URL"]


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    with running("kafka") as own:
        yield own.env["LAKEHOUSE_KAFKA_BOOTSTRAP"]


@pytest.fixture(scope="session")
def mlflow() -> Iterator[str]:
    with running("mlflow") as own:
        yield own.env["MLFLOW_TRACKING_URI"]


# --- Dagster ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instance:
    """The production instance, spoken to as the UI does."""

    stack: Stack
    lake: Path
    lines: int  # live ones, that gold must come to

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL query's answer."""
        url = f"http://127.0.0.1:{self.stack.env['STACK_WEBSERVER_PORT']}/graphql"
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, job: str) -> str:
        """Launch a job; its run id."""
        params = {
            "selector": {"repositoryLocationName": "lakehouse", "repositoryName": "__repository__", "jobName": job},
            "runConfigData": {},
        }
        mutation = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        reply = self.ask(mutation, params=params)["launchRun"]
        assert reply["__typename"] == "LaunchRunSuccess", reply
        run_id: str = reply["run"]["runId"]
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status startTime endTime tags { key value }
            eventConnection(limit: 1000) { events { __typename ... on MessageEvent { message timestamp } } } } } }"""
        found: dict[str, Any] = self.ask(query, id=run_id)["runOrError"]
        found["tags"] = {tag["key"]: tag["value"] for tag in found["tags"]}
        return found

    def wait(self, run_id: str, until: Callable[[dict[str, Any]], bool], *, seconds: float) -> dict[str, Any]:
        """The run as soon as it is so."""
        deadline = time.monotonic() + seconds
        while not until(found := self.run(run_id)):
            last = [event["message"] for event in found["eventConnection"]["events"] if event.get("message")][-3:]
            assert time.monotonic() < deadline, f"after {seconds} s: {found['status']}, {last}"
            time.sleep(0.3)
        return found


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    from lakehouse.sample.landing import write_sample_landing

    folder = tmp_path_factory.mktemp("instance")
    truth = write_sample_landing(folder / "landing", lines=3000)
    settings = {"LAKEHOUSE_ROOT": f"{folder}/lake", "LAKEHOUSE_LANDING": f"{folder}/landing", "LAKEHOUSE_ENV": "dev"}
    with running("dagster", **settings) as own:
        yield Instance(own, folder / "lake", truth.lines - truth.deleted)
