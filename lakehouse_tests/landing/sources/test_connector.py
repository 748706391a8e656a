"""Airbyte's connectors without a server: a script that speaks the protocol, and does all that one may do wrong."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.landing.sources.connector import Connector, ConnectorError, Synced, sync
from lakehouse.tables.spec import AirbyteConnector, AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake, few

#: Emits `count` users, a state after every `every`; incremental syncs go on after the state's cursor.
SCRIPT = """
import json, os, sys, time
def say(**message): print(json.dumps(message), flush=True)
def given(name): return json.load(open(sys.argv[sys.argv.index(name) + 1]))
config = given("--config") if "--config" in sys.argv else {}
wrong = config.get("wrong", "")
def record(n, stream="users"):
    fill = "x" * 50_000_000 if wrong == "huge" and n == 1 else "a"
    say(type="RECORD", record={"stream": stream, "data": {"id": n, "nome": fill, "em": n}, "emitted_at": 1767225600000 + n})
def state(n):
    descriptor = {"name": "users"}
    say(type="STATE", state={"type": "STREAM", "stream": {"stream_descriptor": descriptor, "stream_state": {"id": n}}})
if sys.argv[1] == "check":
    good = config.get("password") == "segredo-42"
    say(type="CONNECTION_STATUS", connectionStatus={"status": "SUCCEEDED"} if good else
        {"status": "FAILED", "message": "password authentication failed for " + str(config.get("password"))})
elif sys.argv[1] == "discover":
    modes = ["full_refresh", "incremental"]
    say(type="CATALOG", catalog={"streams": [{"name": "users", "json_schema": {}, "supported_sync_modes": modes}]})
else:
    (stream,) = given("--catalog")["streams"]
    states = given("--state") if "--state" in sys.argv else []
    start = states[0]["stream"]["stream_state"]["id"] if states else 0
    say(type="LOG", log={"level": "INFO", "message": f"from {start} with {config['password']} and {os.environ.get('CANARY')}"})
    for n in range(start + 1, config.get("count", 10) + 1):
        if wrong == "garbage" and n % 3 == 0: print("warning: " + config["password"] + " {not json", flush=True)
        if wrong == "undeclared" and n == 3: record(n, "others")
        if wrong == "crash" and n == 7:
            say(type="TRACE", trace={"type": "ERROR", "error": {"message": "the source hung up"}})
            sys.exit(3)
        if wrong == "cut" and n == 7:
            sys.stdout.write('{"type": "RECORD", "rec'); sys.stdout.flush(); os.kill(os.getpid(), 9)
        if wrong == "silent" and n == 7: time.sleep(600)
        record(n)
        if n % config.get("every", 2) == 0: state(n)
        time.sleep(config.get("pause", 0))
    if stream["sync_mode"] == "full_refresh":
        say(type="TRACE", trace={"type": "STREAM_STATUS",
            "stream_status": {"stream_descriptor": {"name": "users"}, "status": "COMPLETE"}})
"""
SECRET = "segredo-42"


@pytest.fixture
def command(tmp_path: Path) -> str:
    path = tmp_path / "source-fake"
    path.write_text(f"#!{sys.executable}\n{SCRIPT}")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def connector(command: str) -> Connector:
    streams: Any = {"users": ("users", "incremental")}
    return Connector(name="loja", command=command, config={"password": SECRET}, secrets=frozenset({SECRET}), streams=streams)


def asked(connector: Connector, **config: Any) -> Connector:
    return replace(connector, config={**connector.config, **config})


def run(lake: Lake, connector: Connector, log: list[str] | None = None) -> Synced:
    lines = [] if log is None else log
    (lake.folder / "scratch").mkdir(exist_ok=True)
    return sync(connector, lake.storage, scratch=str(lake.folder / "scratch"), log=lambda level, line: lines.append(line))


def landed(lake: Lake, stream: str = "users") -> list[dict[str, Any]]:
    files = sorted((lake.folder / "landing" / "raw" / stream).glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.open(file, "rt", encoding="utf-8")]


def ids(lake: Lake) -> list[int]:
    return [row["_airbyte_data"]["id"] for row in landed(lake)]


def state(lake: Lake) -> dict[str, Any]:
    return json.loads((lake.folder / "landing" / "connectors" / "loja" / "state.json").read_text())


def test_records_land_and_the_next_sync_goes_on_after_them(lake: Lake, connector: Connector) -> None:
    log: list[str] = []
    done = run(lake, connector, log)
    assert ids(lake) == list(range(1, 11)) and (done.records, done.states) == ({"users": 10}, 5)
    one = landed(lake)[0]
    assert one["_airbyte_extracted_at"] == 1767225600001 and one["_airbyte_meta"] == {"sync_id": 1, "changes": []}
    assert not run(lake, connector).files
    run(lake, asked(connector, count=13))
    assert ids(lake) == list(range(1, 14)) and state(lake)["sync_id"] == 3
    assert list((lake.folder / "scratch").iterdir()) == []


def test_its_environment_is_empty_and_what_is_secret_is_masked(
    lake: Lake, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-7")
    log: list[str] = []
    run(lake, asked(connector, wrong="garbage"), log)
    assert "from 0 with *** and None" in log
    assert SECRET not in "".join(log) and SECRET not in json.dumps(state(lake))


def test_lines_that_are_no_message_are_logged_and_counted(lake: Lake, connector: Connector) -> None:
    log: list[str] = []
    done = run(lake, asked(connector, wrong="garbage"), log)
    assert done.garbage == 3 and ids(lake) == list(range(1, 11))
    assert log.count("No message: warning: *** {not json") == 3


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("crash", "ended read with exit code 3: the source hung up"),
        ("cut", "ended read with exit code -9"),
        ("silent", "said nothing for 0:00:03 and was ended"),
        ("undeclared", "emits records of 'others', which it was not asked for"),
    ],
)
def test_after_a_failed_sync_what_was_acknowledged_is_there_and_the_next_sync_goes_on(
    lake: Lake, connector: Connector, wrong: str, expected: str
) -> None:
    failing = asked(replace(connector, max_silence=timedelta(seconds=3)), wrong=wrong)
    with pytest.raises(ConnectorError) as error:
        run(lake, failing)
    assert expected in str(error.value) and SECRET not in str(error.value)
    last = state(lake)["states"][0]["stream"]["stream_state"]["id"]
    assert ids(lake) == list(range(1, last + 1)) and last == (2 if wrong == "undeclared" else 6)
    run(lake, connector)
    assert ids(lake) == list(range(1, 11))


def test_a_sync_that_never_ends_is_ended(lake: Lake, connector: Connector) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectorError, match="took longer than 0:00:04"):
        run(lake, replace(asked(connector, count=10**9, pause=0.05), max_runtime=timedelta(seconds=4)))
    assert time.monotonic() - began < 60


def test_a_long_record_lands_and_goes_to_quarantine_alone(lake: Lake, connector: Connector) -> None:
    run(lake, asked(connector, wrong="huge", count=3))
    assert [len(row["_airbyte_data"]["nome"]) for row in landed(lake)] == [50_000_000, 1, 1]
    spec = TableSpec(name="users", source=AirbyteStream("users"), columns=(Column("id", "bigint"),), key=("id",), order=("id",))
    found = lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver)] == [2, 3] and found.entry is not None and found.entry.balanced
    (one,) = lake.quarantined(spec)
    assert one["rules"] == "readable_record" and len(one["record"]) == 1_000_000


def test_a_connector_that_cannot_be_used_states_why(lake: Lake, connector: Connector) -> None:
    with pytest.raises(DeclarationError, match=r"there is no command .*make connector NAME=loja"):
        run(lake, replace(connector, command=f"{connector.command}-2"))
    wrong = replace(connector, config={"password": "errado"}, secrets=frozenset({"errado"}))
    with pytest.raises(DeclarationError, match=r"refuses its config: password authentication failed for \*\*\*"):
        run(lake, wrong)
    with pytest.raises(DeclarationError, match=r"has no stream 'orders'. It has users"):
        run(lake, replace(connector, streams={"orders": ("orders", "incremental")}))


def test_a_full_refresh_is_complete_when_the_connector_reports_it(lake: Lake, connector: Connector) -> None:
    spec = TableSpec(
        name="users", source=AirbyteStream("users"), columns=(Column("id", "bigint"),), sync="overwrite", max_loss=1.0
    )
    whole = replace(connector, streams={"users": ("users", "full_refresh")})
    run(lake, whole)
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver)] == list(range(1, 11))
    with pytest.raises(ConnectorError):
        run(lake, asked(whole, wrong="crash", count=20))
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver)] == list(range(1, 11))
    run(lake, asked(whole, count=4))
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver)] == [1, 2, 3, 4]
    assert {row["_airbyte_generation_id"] for row in landed(lake)} == {1, 2, 3}


@pytest.mark.parametrize("seed", few(range(10), 0))
def test_killed_at_any_moment_nothing_acknowledged_is_lost(lake: Lake, command: str, seed: int) -> None:
    """The state is never ahead of the records: what it says was read is in landing, whole."""
    chance = random.Random(seed)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from lakehouse.landing.sources.connector import Connector, sync
from lakehouse.core.store.storage import Storage
streams = {{"users": ("users", "incremental")}}
config = {{"password": {SECRET!r}, "count": 400, "every": 5, "pause": 0.005}}
connector = Connector(name="loja", command={command!r}, config=config, streams=streams)
storage = Storage(root={str(lake.folder / "lake")!r}, landing={str(lake.folder / "landing")!r})
sync(connector, storage, scratch={str(lake.folder)!r}, log=lambda level, line: None)
"""
    state_file = lake.folder / "landing" / "connectors" / "loja" / "state.json"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        before, states = state_file.read_bytes() if state_file.exists() else b"", chance.randint(1, 6)
        while process.poll() is None and states:
            if state_file.exists() and (now := state_file.read_bytes()) != before:
                before, states = now, states - 1
        time.sleep(chance.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        known = state(lake)["states"]
        assert set(range(1, known[0]["stream"]["stream_state"]["id"] + 1 if known else 1)) <= set(ids(lake))
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(ids(lake)) == set(range(1, 401))


def test_what_is_declared_wrongly_is_refused() -> None:
    for given in ({"name": "Loja"}, {"executable": "../x y"}, {"streams": {}}, {"streams": {"users": "append"}}):
        with pytest.raises(DeclarationError):
            AirbyteConnector(**{"name": "loja", "executable": "source-faker", "streams": {"users": "incremental"}, **given})
    with pytest.raises(DeclarationError, match="stream"):
        AirbyteConnector("loja", "source-faker", {}, {"users": "incremental"}).stream("orders")
