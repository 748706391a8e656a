"""`make health` finds each thing that can be wrong, and says nothing is when nothing is."""

import json
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from benchmarks.past_runs import PastRun, put
from lakehouse.commands.instance import cli, location
from lakehouse.commands.instance.health import findings
from lakehouse.landing.sources.captures import Captures
from lakehouse.landing.sources.fetch import Answer
from lakehouse.observability import notifier
from lakehouse.observability.alerts import Alert, raise_alert
from lakehouse.observability.channels import DeliveryError
from lakehouse.observability.routing import Routing
from lakehouse.settings import load_settings
from lakehouse_tests.observability.test_outcome import FOLDER, HISTORY, past


@pytest.fixture
def wrong(instance):
    """What is wrong, as `(said, ...)`."""

    def look(**changes):
        return tuple(each.message for each in findings(load_settings(), instance, **changes) if each.state == "WRONG")

    return look


def beat(instance, *, age: float = 0.0) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, "SCHEDULER", "a-daemon", []))


def made(instance, key: str, **past) -> None:
    put(instance, [PastRun(datetime.now(UTC) - timedelta(**past), 1.0, job="medallion_etl", asset=key)])


def test_an_empty_lake_that_nobody_switched_on_is_well(wrong, instance, capsys):
    assert wrong() == ()
    assert cli.health(as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] and {each["state"] for each in found["findings"]} <= {"ok", "note", "empty"}


def test_a_job_whose_last_run_failed_is_named_with_step_error_and_what_to_type(wrong, instance, capsys):
    failed = PastRun(datetime.now(UTC), 1.0, job="pedidos", outcome="failure", error="ValueError: at postgres://a:pw@db/x\n")
    put(instance, [PastRun(datetime.now(UTC), 1.0, job="mlops"), failed])
    (output,) = wrong()
    assert output.startswith(f"pedidos: last run {failed.run_id[:8]} of ")
    assert output.endswith(f"{failed.step}: ValueError: at postgres://***@db/x make logs RUN={failed.run_id[:8]}")
    assert cli.health() == 1
    assert "WRONG  pedidos: last run" in capsys.readouterr().err
    put(instance, [PastRun(datetime.now(UTC), 1.0, job="pedidos")])
    assert wrong() == ()


def test_a_recipient_of_alerts_that_does_not_exist_is_named(wrong):
    class Mailbox:
        def __init__(self, refused: bool) -> None:
            self.refused = refused

        def send(self, message) -> None:
            if self.refused:
                raise DeliveryError("The mail server h refused it: 550 5.1.1 No such user.", remedy="", refused=True)

    storage = load_settings().storage
    raise_alert(storage, Alert("run_failure", "error", "pedidos failed"))
    for _ in range(2):  # what is refused is an alert of its own, which the next call takes in
        notifier.notify(storage, {"email:a@b.c": Mailbox(False), "email:x@b.c": Mailbox(True)}, routing=Routing())
    (output,) = wrong()
    assert output.startswith("alerts: email:x@b.c gets none. The mail server h refused it: 550 5.1.1 No such user")


def test_schedules_that_are_on_without_a_daemon_and_a_daemon_that_is_silent_are_wrong(wrong, instance, capsys):
    cli.schedules("slo_hourly", on=1)
    assert wrong() == ("daemon: none works for the 1 schedules and sensors that are on. Run make start.",)
    beat(instance)
    assert wrong() == ()
    beat(instance, age=600)
    assert wrong() == ("daemon:scheduler (dagster-daemon): The SCHEDULER daemon had its last heartbeat 10 min ago.",)


def test_old_tables_are_wrong_where_something_should_renew_them_and_else_a_note(wrong, instance, capsys):
    made(instance, "silver/pedidos", hours=1)
    assert wrong(now=datetime.now(UTC) + timedelta(days=30)) == ()
    cli.schedules("slo_hourly", on=1)
    beat(instance)
    later = datetime.now(UTC) + timedelta(days=30)
    output = [each for each in wrong(now=later) if "assets are older" in each]
    assert len(output) == 1 and "silver/pedidos (30 days, allowed 26 h)" in output[0]
    assert [each for each in wrong() if "assets are older" in each] == []


def test_definitions_that_do_not_load_are_reported_and_the_locations_all_the_same(instance, monkeypatch):
    def broken(instance):
        raise dg.DagsterInvalidDefinitionError("Two assets of one key.")

    monkeypatch.setattr(location, "repository", broken)
    found = list(findings(load_settings(), instance))
    assert [each.message for each in found if each.state == "WRONG"] == ["definitions: Two assets of one key."]
    assert any(each.message.startswith("LAKEHOUSE_ROOT ") for each in found)


def test_a_root_that_cannot_be_written_is_wrong(wrong, tmp_path):
    (tmp_path / "lake").write_text("a file")
    assert wrong()[0].startswith("LAKEHOUSE_ROOT ")


def test_the_last_run_of_a_job_is_reported_as_it_is_counted(instance):
    put(instance, past(datetime.now(UTC)))
    told = {each.message.partition(":")[0]: each for each in findings(load_settings(), instance)}
    states = {job: told[job].state for job in HISTORY}
    assert states == {"medallion_etl": "note", "pedidos": "WRONG", "mlops": "WRONG", "maintenance": "ok"}
    assert told["medallion_etl"].message.endswith(f"found no data: no file is in {FOLDER}")
    assert "is degraded, a source was down: extracted of landing/pedidos_api." in told["pedidos"].message
    assert "was stopped by a rule: min_rows_1 of silver/vendas." in told["mlops"].message


def test_a_measurement_that_found_what_is_wrong_is_not_well(wrong, instance):
    put(instance, [PastRun(datetime.now(UTC), 1.0, job="monitoring", asset="ops/kafka_health", failed=("lag",))])
    (output,) = wrong()
    assert output.startswith("monitoring: last run ") and "found what is wrong: lag of ops/kafka_health." in output


def test_a_feed_without_a_good_capture_for_three_minutes_is_wrong_while_its_schedule_is_on(wrong, instance, capsys):
    now = datetime.now(UTC)
    captures = Captures(landing=load_settings().landing, source="brt", stream="brt_gps", field="veiculos")
    captures.persist(Answer(b'{"veiculos": []}', round(now.timestamp() * 1000), None))
    put(instance, [PastRun(now, 1.0, job="brt_capture", asset="landing/brt_captura")])
    later = now + timedelta(minutes=3)
    assert wrong(now=later) == ()
    cli.schedules("brt_capture_minutely", on=1)
    beat(instance)
    assert [each for each in wrong(now=now + timedelta(seconds=100)) if "capture" in each] == []
    (output,) = (each for each in wrong(now=later) if each.startswith("landing/brt_captura"))
    assert "the newest capture is 3 min old, and brt_capture_minutely is on" in output
