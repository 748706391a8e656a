"""Each part does what it is here for, through the fixture that other suites take it from."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy

from deploy.stack import launcher
from deploy.stack.environment import environment, write_env
from deploy.stack.part import StackError
from deploy.stack.parts import PARTS
from deploy.stack.state import answers
from lakehouse.settings import project_folder
from lakehouse_tests.stack.conftest import free_ports, pid_of, s3_client


def test_s3_takes_an_object_that_must_not_exist_once(s3, bucket):
    """Delta's commits stand on it."""
    from botocore.exceptions import ClientError

    client = s3_client(s3)
    client.put_object(Bucket=bucket, Key="_delta_log/0.json", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="_delta_log/0.json", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket=bucket, Key="_delta_log/0.json")["Body"].read() == b"first"


def test_postgres_stores_rows_and_refuses_a_wrong_password(postgres):
    with sqlalchemy.create_engine(postgres).begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t AS SELECT 1 AS n"))
        assert connection.execute(sqlalchemy.text("SELECT n FROM t")).scalar_one() == 1
    wrong = sqlalchemy.make_url(postgres).set(password="wrong")
    with pytest.raises(sqlalchemy.exc.OperationalError, match="password authentication failed"):
        sqlalchemy.create_engine(wrong).connect()


def test_kafka_serves(kafka):
    host, _, port = kafka.partition(":")
    assert host == "127.0.0.1"
    assert PARTS["kafka"].answers({"STACK_KAFKA_PORT": port})


def test_mlflow_stores_experiments(mlflow):
    def ask(path: str, body: dict) -> dict:
        request = urllib.request.Request(f"{mlflow}/api/2.0/mlflow/{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    made = ask("experiments/create", {"name": "vendas"})["experiment_id"]
    assert made in [found["experiment_id"] for found in ask("experiments/search", {"max_results": 10})["experiments"]]


@pytest.mark.slow
def test_a_killed_server_answers_again_and_a_taken_port_is_named_while_the_others_run():
    with tempfile.TemporaryDirectory(prefix="lakehouse-stack-") as folder, socket.create_server(("127.0.0.1", 0)) as other:
        home, port = Path(folder), other.getsockname()[1]
        home.chmod(0o755)
        write_env(home, {**free_ports(), "STACK_MLFLOW_PORT": port})
        try:
            with pytest.raises(StackError, match=rf"mlflow ended 3 times in a row: port {port} is taken") as caught:
                launcher.up(home, ["mlflow"], outlive=False)
            assert f"{home}/log/mlflow.log" in str(caught.value)
            for victim, untouched in (("postgres", "s3"), ("s3", "postgres")):
                before = {name: pid_of(home, name) for name in (victim, untouched)}
                os.kill(before[victim], signal.SIGKILL)
                _answers_again(home, victim, before[victim], seconds=30)
                assert pid_of(home, untouched) == before[untouched]
            other.close()
            began = time.monotonic()
            while not launcher.status(home):
                assert time.monotonic() - began < 300, "MLflow does not come up on a port that is free again"
                time.sleep(1)
        finally:
            launcher.down(home)
        assert not _of(folder)


def _answers_again(home: Path, part: str, killed: int, *, seconds: float) -> None:
    env, began = environment(home, [part]), time.monotonic()
    while not answers(home, PARTS[part], env) or pid_of(home, part) == killed:
        assert time.monotonic() - began < seconds, f"{part} does not answer again"
        time.sleep(0.2)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # it ended meanwhile


OWNER = """
import time
from lakehouse.settings import project_folder
from lakehouse_tests.stack.conftest import running
with running("s3", "postgres") as own:
    print(own.home, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not shutil.which("setpriv"), reason="Linux only")
def test_when_pytest_is_killed_its_servers_end():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=project_folder())
    lines = iter(owner.stdout.readline, "")
    home = next(line.strip() for line in lines if line.startswith("/"))
    programs = {_read(file).split(b"\0")[0].rpartition(b"/")[2] for file in _of(home)}
    assert {b"versitygw", b"postgres"} <= programs
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 30
    while _of(home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _of(home)
    shutil.rmtree(home)


def _of(home):
    """The processes with this folder on their command line."""
    return [line for line in Path("/proc").glob("[0-9]*/cmdline") if home.encode() in _read(line)]
