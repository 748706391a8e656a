"""The job `mlops` on a real MLflow server on PostgreSQL and S3; the champion served over HTTP; the server away."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.settings import load_settings
from lakehouse_tests.ml.conftest import MlLake, errors, few_recipes, jumping, steady
from lakehouse_tests.stack.conftest import running, s3_client

pytest.importorskip("skops", reason="the extra ml is not installed")
__all__ = ["few_recipes"]


@pytest.fixture
def server_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_recipes: None) -> Iterator[tuple[MlLake, object]]:
    """A lake whose registry is a server of the test's own, so that it can be stopped."""
    load_settings()  # MLflow's telemetry is off before it is imported
    with running("mlflow") as own:
        url = own.env["MLFLOW_TRACKING_URI"]
        base = MlLake.settings.fget
        assert base is not None
        monkeypatch.setattr(MlLake, "settings", property(lambda self: base(self).model_copy(update={"mlflow_uri": url})))
        yield MlLake(tmp_path / "lake"), own


def test_promote_refuse_serve_and_lose_the_server(server_lake, monkeypatch):
    lake, own = server_lake
    lake.gold(steady())
    first = lake.run(recipe="nivel_56")
    assert first.success, errors(first)
    assert lake.champion() == 1
    stored = s3_client(own.env).list_objects_v2(Bucket="mlflow")
    assert any(entry["Key"].endswith("model.skops") for entry in stored["Contents"])
    assert lake.run(recipe="nivel_56").success
    assert [version.number for version in lake.registry.versions()] == [1]

    _serves(lake)

    lake.gold(jumping())
    own.down()
    from lakehouse.ml import registry

    monkeypatch.setattr(registry, "_PAUSE", 0.1)
    gone = lake.run(recipe="nivel_7")
    assert not gone.success and "does not answer" in errors(gone) and "MLFLOW_TRACKING_URI" in errors(gone)
    own.up()
    assert [version.number for version in lake.registry.versions()] == [1] and lake.champion() == 1
    assert lake.run(recipe="nivel_7").success
    assert lake.champion() == 2 and lake.registry.alias("previous").number == 1


def _serves(lake: MlLake) -> None:
    """The command that docs/forecast.md gives answers with what the model predicts."""
    from lakehouse.ml.features import COLUMNS as STORED
    from lakehouse.ml.features import FEATURES, from_rows

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", "models:/previsao_vendas@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": lake.settings.mlflow_uri}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    frame = from_rows([tuple(row[name] for name in STORED) for row in lake.rows("ml/features")])
    day = frame.at(frame.last)
    body = json.dumps({"dataframe_split": {"columns": list(FEATURES), "data": day.x.tolist()}}).encode()
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(request, timeout=10) as reply:
                    answer = json.load(reply)["predictions"]
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the model is not served"
                time.sleep(1)
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
    champion = lake.registry.alias("champion")
    assert answer == pytest.approx(list(lake.registry.load(champion).predict(day.x)))
    assert sum(value == 0 for value in answer) == 4
