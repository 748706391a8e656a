"""Connections of an Airbyte server, against a stub of one (`airbyte_stub.py`): a sync is begun once, whatever happens to who
waits for it, and what the server says it committed is compared with what landed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import lakehouse.tables
from lakehouse.core.errors import DeclarationError, LakehouseError, SourceDownError, SourceError, SourceRefusedError
from lakehouse.definitions import build_defs
from lakehouse.landing.assets import airbyte_server as module
from lakehouse.landing.assets.airbyte_server import AirbyteApi, reconcile
from lakehouse.landing.sources.airbyte_server import Done, landed, sync
from lakehouse.settings import load_settings
from lakehouse.tables.spec import AirbyteServer
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.airbyte_stub import (
    CLIENT_ID,
    CONNECTION,
    LOJA,
    PRODUTOS,
    SECRET,
    USER,
    USUARIOS,
    Airbyte,
    Fault,
    Sync,
    airbyte,
    basic,
)

POLL = 0.02


@pytest.fixture
def stub(lake: Lake) -> Iterator[Airbyte]:
    with airbyte(lake.folder / "landing") as stub:
        yield stub


def api(stub: Airbyte, **given: Any) -> AirbyteApi:
    locations = {"url": stub.url, "rest": f"{stub.url}/api/public/v1", "configuration": f"{stub.url}/api/v1"}
    return AirbyteApi(**{**locations, **given})


def run(stub: Airbyte, *, connection: str = CONNECTION, seconds: float = 60, log: list[str] | None = None, **given: Any) -> Done:
    lines = [] if log is None else log
    longest = timedelta(seconds=seconds)
    server = api(stub, **given).server()
    return sync(server, connection, max_runtime=longest, poll=POLL, log=lambda level, line: lines.append(line))


# --- starting, attaching, waiting -------------------------------------------------------------------------------------


def test_a_sync_is_started_and_waited_for(stub: Airbyte) -> None:
    stub.next = Sync(looks=3)
    done = run(stub)
    assert (done.job.status, done.attached, done.job.id) == ("succeeded", False, 1000)
    assert done.committed == {"users": 3, "public.users": 3, "Produtos": 2, "public.Produtos": 2}
    assert stub.asked.count("POST /api/public/v1/jobs") == 1 and stub.asked.count("GET /api/public/v1/jobs/1000") == 3


def test_a_sync_that_is_in_flight_is_attached_to(stub: Airbyte) -> None:
    stub.begin()
    done = run(stub)
    assert done.attached and stub.started() == 1
    assert "POST /api/public/v1/jobs" not in stub.asked


def test_somebody_who_is_faster_is_attached_to(stub: Airbyte) -> None:
    """The list shows nothing in flight, the start answers 409, the next list shows the job."""
    stub.begin()
    stub.faults = [Fault("GET", "/jobs$", 200, body={"data": []})]
    done = run(stub)
    assert done.attached and stub.started() == 1 and stub.asked.count("POST /api/public/v1/jobs") == 1


@pytest.mark.parametrize("looks", [0, 5])
def test_a_start_whose_answer_was_lost_starts_nothing_again(stub: Airbyte, looks: int) -> None:
    stub.next = Sync(looks=looks)
    stub.faults = [Fault("POST", "/jobs$", 502, after=True)]
    if not looks:  # and it was over before anybody looked again
        stub.faults.append(Fault("GET", "/never", 500))
        began = stub.begin

        def at_once() -> Any:
            job = began()
            stub._end(job)
            return job

        stub.begin = at_once  # type: ignore[method-assign]
    done = run(stub)
    assert done.job.id == 1000 and stub.started() == 1


def test_a_connection_that_is_being_cleared_is_busy(stub: Airbyte) -> None:
    stub.next = Sync(ends="never")
    stub.begin("clear")
    with pytest.raises(SourceDownError, match=r"job 1000 \(clear\) keeps the connection busy"):
        run(stub)
    assert stub.started() == 1


# --- credentials ------------------------------------------------------------------------------------------------------


def test_the_application_and_the_user_are_who_asks(stub: Airbyte) -> None:
    stub.login = "Bearer token-7"
    assert run(stub, client_id=CLIENT_ID, client_secret=SECRET).job.status == "succeeded"
    stub.login = basic(USER, SECRET)
    assert run(stub, user=USER, password=SECRET).job.status == "succeeded"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"client_id": CLIENT_ID, "client_secret": "errado-9"},
            r"token answered 401 \(The client id or its secret is wrong\)\. Fix LAKEHOUSE_AIRBYTE_CLIENT_ID and .*_SECRET\.$",
        ),
        ({"user": USER, "password": "errado-9"}, r"jobs answered 401 \(The API key .*\)\. Fix LAKEHOUSE_AIRBYTE_USER and"),
        ({}, r"jobs answered 401 \(The API key .*\)\. Fix LAKEHOUSE_AIRBYTE_CLIENT_ID"),
    ],
)
def test_401_names_the_settings_in_one_line_and_is_not_asked_again(stub: Airbyte, given: dict[str, str], expected: str) -> None:
    stub.login = basic(USER, SECRET)
    with pytest.raises(SourceRefusedError, match=expected) as error:
        run(stub, **given)
    assert len(stub.asked) == 1 and "\n" not in str(error.value) and "errado-9" not in str(error.value)


def test_half_of_the_credentials_and_no_url_are_refused() -> None:
    location = {"url": "http://127.0.0.1:1", "rest": "http://127.0.0.1:1/api/public/v1", "configuration": "x"}
    for given, expected in (
        ({}, "Set LAKEHOUSE_AIRBYTE_URL"),
        ({**location, "client_id": "a"}, "LAKEHOUSE_AIRBYTE_CLIENT_ID and CLIENT_SECRET"),
        ({**location, "password": "a"}, "LAKEHOUSE_AIRBYTE_USER and PASSWORD"),
        ({**location, "client_id": "a", "client_secret": "b", "user": "c", "password": "d"}, "two ways"),
    ):
        with pytest.raises(DeclarationError, match=expected):
            AirbyteApi(**given).server()


def test_a_secret_is_in_no_text_of_the_record(stub: Airbyte) -> None:
    assert SECRET not in repr(api(stub, client_id=CLIENT_ID, client_secret=SECRET, password=SECRET))


# --- answers that are none --------------------------------------------------------------------------------------------


def test_404_names_the_connection_and_the_setting(stub: Airbyte) -> None:
    other = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(SourceRefusedError, match=rf"404 \(Could not find connection: {other}\)\. Fix LAKEHOUSE_AIRBYTE_URL, or"):
        run(stub, connection=other)
    with pytest.raises(SourceRefusedError, match="404"):
        run(stub, rest=f"{stub.url}/wrong")


def test_429_is_asked_again_no_sooner_than_it_wants(stub: Airbyte) -> None:
    stub.faults = [Fault("GET", "/jobs/1000", 429, headers={"Retry-After": "1"})]
    began = time.monotonic()
    assert run(stub).job.status == "succeeded" and time.monotonic() - began >= 1
    stub.faults = [Fault("GET", "/jobs$", 429, headers={"Retry-After": "600"})]
    with pytest.raises(SourceDownError, match="asks for 600 s of rest") as error:
        run(stub)
    assert error.value.after == 600


def test_500_and_then_an_answer(stub: Airbyte) -> None:
    stub.next = Sync(looks=3)
    stub.faults = [Fault("GET", "/jobs$", 500, 3), Fault("POST", "/jobs$", 503, 2), Fault("GET", "/jobs/1000", 500, 4)]
    assert run(stub).job.status == "succeeded" and stub.started() == 1


def test_500_for_ever(stub: Airbyte) -> None:
    stub.faults = [Fault("GET", "/jobs$", 500, 10**6)]
    with pytest.raises(SourceDownError, match=r"jobs answered 500\. Run again later"):
        run(stub)
    assert len(stub.asked) == 5
    stub.faults, stub.asked = [Fault("GET", "/jobs/1000", 500, 10**6)], []
    with pytest.raises(SourceDownError, match="jobs/1000 answered 500"):
        run(stub)
    stub.faults = []
    assert run(stub).attached and stub.started() == 1


def test_an_answer_that_is_not_airbytes(stub: Airbyte) -> None:
    for body in (b"<html>", {"data": [{"id": "18dccc91"}]}):
        stub.faults = [Fault("GET", "/jobs$", 200, 5, body=body)]
        with pytest.raises(SourceDownError, match="LAKEHOUSE_AIRBYTE_URL"):
            run(stub)


def test_a_server_that_is_down(stub: Airbyte) -> None:
    nowhere = "http://127.0.0.1:1"
    with pytest.raises(SourceDownError, match=r"did not answer: ConnectionError\. See that .* LAKEHOUSE_AIRBYTE_URL"):
        run(stub, rest=nowhere)


# --- how a job ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "reason", "expected"),
    [
        ("failed", "Connection refused\nby db.", r"job 1000 failed \(source: Connection refused by db\)\. What it had"),
        ("failed", "", r"job 1000 failed\. What it had"),
        ("cancelled", "", r"job 1000 was cancelled\. What it had"),
    ],
)
def test_a_job_that_does_not_succeed_states_why(stub: Airbyte, ends: str, reason: str, expected: str) -> None:
    stub.next = Sync(ends=ends, reason=reason)
    with pytest.raises(SourceError, match=expected) as error:
        run(stub)
    assert not error.value.retryable and stub.started() == 1


def test_a_job_that_never_ends_goes_on_there_and_the_next_run_waits_for_it(stub: Airbyte) -> None:
    stub.next = Sync(ends="never")
    with pytest.raises(SourceError, match=r"job 1000 is still running after 0:00:00.200000\. It goes on there") as error:
        run(stub, seconds=0.2)
    assert not error.value.retryable
    stub.next.ends = "succeeded"
    assert run(stub).attached and stub.started() == 1


def test_without_the_configuration_api_a_job_is_waited_for_all_the_same(stub: Airbyte) -> None:
    stub.faults = [Fault("POST", "/api/v1/jobs/get", 403, 10**6)]
    log: list[str] = []
    done = run(stub, log=log)
    assert done.committed is None and done.job.rows == 5 and "does not tell more of job 1000" in log[-1]
    stub.next = Sync(ends="failed", reason="unheard")
    with pytest.raises(SourceError, match=r"job 1001 failed\."):
        run(stub)


# --- what landed ------------------------------------------------------------------------------------------------------


def counted(lake: Lake, done: Done) -> dict[str, Any]:
    with lake.session() as session:
        return {stream: landed(session, lake.storage, LOJA.stream(stream).folder, done.job) for stream in LOJA.streams}


@pytest.mark.parametrize("number", [True, False])
def test_what_landed_for_a_job_is_counted_and_what_was_there_before_is_not(lake: Lake, stub: Airbyte, number: bool) -> None:
    stub.next = Sync(users=4, number_in_records=number)
    run(stub)
    time.sleep(1.1)  # a job's start is told in seconds
    stub.next = Sync(users=6, products=0, number_in_records=number)
    done = run(stub)
    found = counted(lake, done)
    assert [found[stream].records for stream in LOJA.streams] == [6, 0] and found["users"].generation == 2
    short, differs, figures = reconcile(done, found)
    assert (short, differs) == ([], [])
    assert (figures["committed_users"], figures["landed_users"], figures["landed_Produtos"]) == (6, 6, 0)


def test_records_that_did_not_land_are_found(lake: Lake, stub: Airbyte) -> None:
    stub.next = Sync(users=5, lost=2)
    done = run(stub)
    short, differs, figures = reconcile(done, counted(lake, done))
    assert short == ["users"] and not differs and figures["differ"] == "users"


def test_a_file_that_nobody_can_read_is_told_beside_what_is_missing(lake: Lake, stub: Airbyte) -> None:
    done = run(stub)
    (file,) = (lake.folder / "landing" / "raw" / "users").glob("*.gz")
    file.write_bytes(file.read_bytes()[:-9])
    (lake.folder / "landing" / "raw" / "public" / "produtos" / "x.jsonl").write_text("no record\n")
    short, _, figures = reconcile(done, counted(lake, done))
    assert (short, figures["unreadable_files"], figures["unreadable_records"]) == (["users"], 1, 1)


def test_more_than_was_committed_is_right_only_where_an_attempt_failed(lake: Lake, stub: Airbyte) -> None:
    stub.next = Sync(attempts=2)
    done = run(stub)
    found = counted(lake, done)
    assert found["users"].records == 6 and reconcile(done, found)[:2] == ([], [])
    once = Done(job=done.job, attached=False, attempts=1, committed=done.committed)
    assert reconcile(once, found)[:2] == ([], ["users", "Produtos"])


def test_without_numbers_by_stream_the_total_is_compared(lake: Lake, stub: Airbyte) -> None:
    stub.faults = [Fault("POST", "/api/v1/jobs/get", 404, 10**6)]
    stub.next = Sync(lost=1)
    done = run(stub)
    short, _, figures = reconcile(done, counted(lake, done))
    assert short == ["users", "Produtos"] and figures["committed_all streams"] == 5


# --- as an asset ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake whose tables come from a connection of the server that the test names."""
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(lake.folder / "lake"))
    monkeypatch.setenv("LAKEHOUSE_LANDING", str(lake.folder / "landing"))
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_POLL_SECONDS", str(POLL))
    monkeypatch.setattr(module, "RETRY", dg.RetryPolicy(max_retries=1, delay=0))
    before = lakehouse.tables.ALL
    for name, loaded in list(sys.modules.items()):
        if name.startswith("lakehouse.") and getattr(loaded, "ALL", None) is before:
            monkeypatch.setattr(loaded, "ALL", (*before, USUARIOS, PRODUTOS))
    return lake.folder


def materialize(*keys: str) -> dg.ExecuteInProcessResult:
    job = build_defs(load_settings()).resolve_implicit_global_asset_job_def()
    chosen = [dg.AssetKey(key.split("/")) for key in keys]
    return job.execute_in_process(asset_selection=chosen, raise_on_error=False)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The last result of each check of the landing asset."""
    found = [event for event in result.get_asset_check_evaluations() if event.asset_key.path == ["landing", "loja"]]
    return {event.check_name: event for event in found}


def test_one_run_takes_a_connection_to_silver_and_its_counts_agree(
    folder: Path, lake: Lake, stub: Airbyte, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stub.login = "Bearer token-7"
    for name, value in (("URL", stub.url), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", SECRET)):
        monkeypatch.setenv(f"LAKEHOUSE_AIRBYTE_{name}", value)
    build_defs(load_settings()).resolve_asset_graph()
    assert stub.asked == []
    tables = [f"{layer}/{name}" for layer in ("bronze", "silver") for name in ("usuarios", "artigos")]
    result = materialize("landing/loja", *tables)
    assert result.success
    assert {name for name, check in checks(result).items() if check.passed} == {"answers", "synced", "reconciled"}
    (event,) = result.asset_materializations_for_node("landing__loja")
    assert event.metadata["records"].value == 5 and event.metadata["landed_users"].value == 3
    assert len(lake.rows(USUARIOS.silver)) == 3
    assert [row["id"] for row in lake.rows(PRODUTOS.silver)] == [1, 2] and lake.storage.completed("public/produtos") == 1
    output = "".join(capfd.readouterr()) + "".join(str(event) for event in result.all_events)
    assert SECRET not in output and "token-7" not in output
    medallion = build_defs(load_settings()).resolve_job_def("medallion_etl")
    assert dg.AssetKey(["landing", "loja"]) in medallion.asset_layer.selected_asset_keys


def test_records_that_did_not_land_fail_the_check_and_complete_no_generation(
    folder: Path, lake: Lake, stub: Airbyte, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", stub.url)
    stub.next = Sync(lost=1)
    result = materialize("landing/loja")
    check = checks(result)["reconciled"]
    assert result.success and not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    assert (check.metadata["committed_users"].value, check.metadata["landed_users"].value) == (3, 2)
    assert (lake.storage.completed("users"), lake.storage.completed("public/produtos")) == (0, 1)


def test_a_server_that_is_down_is_a_failed_check_and_its_assets_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", "http://127.0.0.1:1")
    keys = build_defs(load_settings()).resolve_asset_graph().get_all_asset_keys()
    assert {dg.AssetKey(["landing", "loja"]), dg.AssetKey(["bronze", "usuarios"])} <= keys
    result = materialize("landing/loja")
    failed = checks(result)["synced"]
    assert not result.success and not failed.passed and "did not answer" in str(failed.metadata["error"].value)
    assert len([event for event in result.all_events if event.event_type_value == "STEP_RESTARTED"]) == 1


def test_a_longer_rest_than_can_be_waited_for_is_respected_between_tries(
    folder: Path, stub: Airbyte, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", stub.url)
    monkeypatch.setattr("lakehouse.landing.sources.airbyte_server._REST", 0.5)
    stub.faults = [Fault("POST", "/jobs$", 429, headers={"Retry-After": "1"})]
    began = time.monotonic()
    result = materialize("landing/loja")
    assert result.success and time.monotonic() - began >= 1 and stub.started() == 1
    (again,) = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert again.step_retry_data.seconds_to_wait == 1
    assert [event.passed for event in result.get_asset_check_evaluations() if event.check_name == "synced"] == [False, True]


def test_the_servers_absence_is_a_failed_check_without_a_sync(
    folder: Path, stub: Airbyte, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Monitoring runs it every five minutes; here alone."""
    key = dg.AssetCheckKey(dg.AssetKey(["landing", "loja"]), "answers")
    monitoring = build_defs(load_settings()).resolve_job_def("monitoring")
    assert "landing__loja_answers" in {node.name for node in monitoring.nodes}
    alone = dg.define_asset_job("alone", selection=dg.AssetSelection.checks(key))

    def look() -> dg.AssetCheckEvaluation:
        definitions = dg.Definitions.merge(build_defs(load_settings()), dg.Definitions(jobs=[alone]))
        (found,) = definitions.resolve_job_def("alone").execute_in_process().get_asset_check_evaluations()
        return found

    assert "Set LAKEHOUSE_AIRBYTE_URL" in str(look().metadata["error"].value)
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", "http://127.0.0.1:1")
    down = look()
    assert not down.passed and "did not answer" in str(down.metadata["error"].value)
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", stub.url)
    assert look().passed and stub.started() == 0
    stub.status = "inactive"
    assert not look().passed
    stub.login = "Bearer token-7"
    assert "401" in str(look().metadata["error"].value)


def test_a_sync_that_ended_while_the_server_did_not_answer_is_not_begun_again(
    folder: Path, lake: Lake, stub: Airbyte, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try starts it and hears nothing more; the next one finds it over. Another run begins another."""
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", stub.url)
    stub.faults = [Fault("GET", "/jobs/1000", 500, 5, after=True)]
    result = materialize("landing/loja")
    assert result.success and stub.started() == 1 and stub.asked.count("POST /api/public/v1/jobs") == 1
    assert lake.storage.completed("users") == 1 and checks(result)["reconciled"].passed
    assert materialize("landing/loja").success and stub.started() == 2


def test_the_servers_health_is_looked_at(lake: Lake, stub: Airbyte) -> None:
    from lakehouse.observability import services

    for rest, healthy in ((f"{stub.url}/api/public/v1", True), ("http://127.0.0.1:1/api/public/v1", False)):
        (outcome,) = services.examine(services.configured(lake.storage, databases={}, airbyte=rest))
        assert (outcome.service, outcome.target, outcome.healthy) == ("airbyte", rest, healthy)


def test_the_locations_of_a_server_follow_from_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", "http://airbyte:8000/")
    assert load_settings().airbyte_apis == ("http://airbyte:8000/api/public/v1", "http://airbyte:8000/api/v1")
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", "https://cloud.airbyte.com")
    assert load_settings().airbyte_apis == ("https://api.airbyte.com/v1", "https://cloud.airbyte.com/api/v1")


def test_what_no_other_try_can_fix_is_tried_once(folder: Path, stub: Airbyte, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_AIRBYTE_URL", stub.url)
    stub.next = Sync(ends="failed", reason="the disk is full")
    result = materialize("landing/loja")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "the disk is full" in str(failure.step_failure_data.user_failure_data) and stub.started() == 1
    assert "the disk is full" in str(checks(result)["synced"].metadata["error"].value)
    monkeypatch.delenv("LAKEHOUSE_AIRBYTE_URL")
    assert "Set LAKEHOUSE_AIRBYTE_URL" in str(checks(materialize("landing/loja"))["synced"].metadata["error"].value)


def test_what_is_declared_wrongly_is_refused() -> None:
    for given in ({"name": "Loja"}, {"connection": "loja"}, {"streams": {}}, {"streams": {"users": "../x"}}):
        with pytest.raises(LakehouseError):
            AirbyteServer(**{"name": "loja", "connection": CONNECTION, "streams": {"users": ""}, **given})
    with pytest.raises(DeclarationError, match="stream"):
        LOJA.stream("orders")


# --- killed -----------------------------------------------------------------------------------------------------------

DEFINITIONS = """
import lakehouse.tables
from lakehouse_tests.landing.airbyte_stub import PRODUTOS, USUARIOS
lakehouse.tables.ALL = (*lakehouse.tables.ALL, USUARIOS, PRODUTOS)
from lakehouse.definitions import build_defs
from lakehouse.settings import load_settings
defs = build_defs(load_settings())
"""


@pytest.mark.stack
def test_dagster_is_killed_while_it_waits_and_the_next_run_attaches_to_the_same_job(lake: Lake, stub: Airbyte) -> None:
    (lake.folder / "defs.py").write_text(DEFINITIONS)
    (lake.folder / "home").mkdir()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(lake.folder / "home"),
        "LAKEHOUSE_ROOT": str(lake.folder / "lake"),
        "LAKEHOUSE_LANDING": str(lake.folder / "landing"),
        "LAKEHOUSE_AIRBYTE_URL": stub.url,
        "LAKEHOUSE_AIRBYTE_POLL_SECONDS": "0.2",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-f", str(lake.folder / "defs.py")]
    command += ["--select", 'key:"landing/loja"']
    stub.next = Sync(ends="never")
    for kill in range(2):
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        looked, deadline = stub.asked.count("GET /api/public/v1/jobs/1000"), time.monotonic() + 120
        while stub.asked.count("GET /api/public/v1/jobs/1000") < looked + 3 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        print(f"kill {kill + 1}: {stub.started()} job, {stub.jobs[0].status}")
        assert stub.started() == 1 and stub.jobs[0].status == "running"
    stub.next.ends = "succeeded"
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "Attached to Airbyte's job 1000, which is running." in done.stderr
    assert stub.started() == 1 and stub.asked.count("POST /api/public/v1/jobs") == 1
    assert lake.storage.completed("public/produtos") == 1
