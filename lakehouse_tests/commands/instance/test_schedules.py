"""Schedules and sensors are listed with what was measured, and switched where Dagster looks; `status` and `logs` of runs.

A webserver and a daemon that see the same: `lakehouse_tests/stack/test_commands.py`.
"""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun

from benchmarks.past_runs import PastRun, put
from lakehouse.automation import JOBS
from lakehouse.commands import foreground
from lakehouse.commands.instance import cli, runlog
from lakehouse.core.errors import DeclarationError

SCHEDULES = {job.schedule_name for job in JOBS if job.cron}
SENSORS = {"deliver", "landing_files", "watch"}


def output(capsys, command, *arguments, **named):
    assert command(*arguments, as_json=True, **named) == 0
    return json.loads(capsys.readouterr().out)


def one(capsys, name):
    (found,) = output(capsys, cli.schedules, name)["automations"]
    return found


# --- init and schedules ------------------------------------------------------------------------------------------------


def test_in_dev_init_switches_all_on_and_a_second_time_nothing(instance, capsys):
    first = output(capsys, cli.init)
    assert set(first["switched_on"]) == SCHEDULES | SENSORS
    second = output(capsys, cli.init)
    assert (second["switched_on"], set(second["already_on"])) == ([], SCHEDULES | SENSORS)


def test_in_staging_init_undoes_what_was_switched_off_and_leaves_what_prod_alone_starts(environment, instance, capsys):
    environment("staging")
    assert one(capsys, "pedidos_daily")["on"]  # declared so, nobody has switched it
    output(capsys, cli.schedules, "pedidos_daily", on=0)
    assert not one(capsys, "pedidos_daily")["on"]
    found = output(capsys, cli.init)
    assert found["switched_on"] == ["pedidos_daily"]
    assert found["left"] == ["bronze_to_silver_daily"]
    assert one(capsys, "pedidos_daily")["on"]


@pytest.mark.parametrize("name", ["medallion_etl_daily", "watch"])
def test_one_is_switched_on_and_off_and_the_others_stay(instance, capsys, name):
    found = output(capsys, cli.schedules, name, on=1)["automations"]
    assert [(each["name"], each["on"]) for each in found] == [(name, True)]
    listed = output(capsys, cli.schedules)["automations"]
    assert {each["name"] for each in listed if each["on"]} == {name}
    output(capsys, cli.schedules, name, on=0)
    assert not one(capsys, name)["on"]


def test_the_next_tick_is_that_of_the_cron_in_the_schedules_time_zone_while_it_is_on(instance, capsys):
    assert one(capsys, "medallion_etl_daily")["next_at"] is None
    found = output(capsys, cli.schedules, "medallion_etl_daily", on=1)["automations"][0]
    due = datetime.fromisoformat(found["next_at"])
    assert timedelta() < due - datetime.now(UTC) <= timedelta(days=1)
    assert due.astimezone(ZoneInfo("America/Sao_Paulo")).strftime("%H:%M") == "06:00"


def test_a_name_that_is_not_there_is_an_error_that_lists_those_that_are(instance):
    with pytest.raises(DeclarationError, match=r"no schedule or sensor 'nightly'\. Use one of bronze_to_silver_daily, .*watch\."):
        cli.schedules("nightly", on=1)
    with pytest.raises(DeclarationError, match="ON says nothing without SCHEDULE"):
        cli.schedules(on=1)


# --- status ------------------------------------------------------------------------------------------------------------


def test_average_and_last_run_are_those_of_the_run_storage(instance, capsys):
    begun = datetime.now(UTC) - timedelta(hours=1)
    past = [PastRun(begun + timedelta(minutes=n), seconds, job="pedidos") for n, seconds in enumerate((2.0, 4.0))]
    failed = PastRun(begun + timedelta(minutes=9), 100.0, job="pedidos", outcome="failure")
    put(instance, [*past, failed, PastRun(begun, 50.0, job="mlops")])
    found = one(capsys, "pedidos_daily")
    assert (found["average_seconds"], found["averaged"]) == (pytest.approx(3.0, abs=0.01), 2)
    assert (found["last_run"]["run_id"], found["last_run"]["outcome"]) == (failed.run_id, "failure")
    assert found["last_run"]["seconds"] == pytest.approx(100.0, abs=0.01)
    cli.schedules("pedidos_daily")
    assert f"{failed.run_id[:8]} failure, 1 min 40 s" in capsys.readouterr().out


def test_status_names_what_waits_and_what_is_under_way(instance, capsys, home):
    for number, state in enumerate(("NOT_STARTED", "NOT_STARTED", "STARTED", "SUCCESS")):
        instance.add_run(DagsterRun("pedidos", f"{number}{number}aaaaaa-0000", status=dg.DagsterRunStatus[state]))
    found = output(capsys, cli.status)
    assert (found["queued"]["count"], [run["job"] for run in found["running"]["runs"]]) == (2, ["pedidos"])
    assert found["environment"] == "dev" and found["processes"] == {} and found["dagster_home"] == str(home)
    assert {each["name"] for each in found["automations"]} == SCHEDULES | SENSORS
    assert cli.status() == 0
    text = capsys.readouterr().out
    assert "running      22aaaaaa pedidos" in text and "nothing is started here" in text


# --- logs --------------------------------------------------------------------------------------------------------------


@dg.op
def _prints() -> None:
    print("reading postgres://ana:hunter2@db/shop", flush=True)


@dg.op(ins={"after": dg.In(dg.Nothing)})
def _breaks() -> None:
    raise ValueError("no orders")


@dg.job
def _both() -> None:
    _breaks(after=_prints())


def test_logs_has_events_errors_and_what_steps_printed_and_no_password(instance, capfd):
    run = _both.execute_in_process(instance=instance, raise_on_error=False).run_id
    capfd.readouterr()
    found = output(capfd, cli.logs, run[:8])
    assert (found["run"]["run_id"], found["run"]["outcome"]) == (run, "failure")
    failed = [event for event in found["events"] if event["kind"] == "STEP_FAILURE"]
    assert [(event["step"], event["error"]) for event in failed] == [("_breaks", "ValueError: no orders")]
    assert "reading postgres://***@db/shop" in "".join(each["stdout"] for each in found["printed"])
    assert cli.logs() == 0  # the newest
    text = capfd.readouterr().out
    assert f"{run} _both: failure" in text and "_breaks: " in text and "ValueError: no orders" in text
    assert "hunter2" not in text + json.dumps(found)


def test_a_run_in_the_foreground_states_as_json_how_it_ended(instance, capfd):
    assert foreground.execute(_both, {}, as_json=True) == 1
    output, errors = capfd.readouterr()
    found = json.loads(output.splitlines()[-1])
    assert (found["success"], found["failed_steps"], found["failed_checks"]) == (False, ["_breaks"], [])
    assert instance.get_run_by_id(found["run_id"]).status == dg.DagsterRunStatus.FAILURE
    assert "failed step: _breaks" in errors


def test_a_run_is_found_by_a_beginning_that_is_its_own(instance):
    with pytest.raises(DeclarationError, match="There is no run yet"):
        runlog.find(instance, "")
    for run in ("abcd1111-0000", "abcd2222-0000"):
        instance.add_run(DagsterRun("pedidos", run))
    assert runlog.find(instance, "abcd2").dagster_run.run_id == "abcd2222-0000"
    with pytest.raises(DeclarationError, match=r"Several runs begin with 'abcd': .*abcd1111-0000.*Give more"):
        runlog.find(instance, "abcd")
    with pytest.raises(DeclarationError, match="There is no run 'abce'"):
        runlog.find(instance, "abce")
    with pytest.raises(DeclarationError, match="does not begin a run's id"):
        runlog.find(instance, "%")
