"""The private names of Dagster: each is there and does what the lakehouse relies on, and no other module names one."""

import ast
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.storage.dagster_run import DagsterRunStatus
from sqlalchemy import select

from lakehouse.runtime import dagster_private as private
from lakehouse.settings import project_folder

PACKAGE = project_folder() / "lakehouse"


def _private(path: Path) -> list[str]:
    """The private names of Dagster that a module has, in imports, attributes and texts."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("dg", "dagster"):
            found.append(f"dagster.{node.attr}")
    return [name for name in found if name.startswith("dagster._") and not name.startswith("dagster.__")]


def test_no_other_module_names_a_private_part_of_dagster(tmp_path):
    own = PACKAGE / "runtime" / "dagster_private.py"
    assert len(_private(own)) > 20
    assert {path: names for path in PACKAGE.rglob("*.py") if path != own and (names := _private(path))} == {}
    for line in ("import dagster._core", "from dagster import _utils", 'run("dagster._daemon")', "dg._core.x"):
        (tmp_path / "m.py").write_text(line)
        assert _private(tmp_path / "m.py"), line


def test_importing_it_imports_no_dagster():
    program = "import sys, lakehouse.runtime.dagster_private; print([n for n in sys.modules if n.startswith('dagster')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_type_that_is_announced_is_there_and_no_other():
    for name in private._TYPES:
        assert isinstance(getattr(private, name), type), name
    with pytest.raises(AttributeError, match="Remote"):
        _ = private.Remote


# --- steps -------------------------------------------------------------------------------------------------------------


def _steps_after_an_interrupt(note: bool) -> list[str]:
    """The tries of the steps of a run in which the first is interrupted, and what is raised is no interrupt any more."""
    tries = []

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=3, delay=0))
    def first() -> None:
        tries.append("first")
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException as error:
            assert private.is_interrupt(error)
            if note:
                private.interrupt_again()
            raise dg.Failure("interrupted", allow_retries=False) from error

    @dg.op
    def other() -> None:
        tries.append("other")

    @dg.job
    def job() -> None:
        first()
        other()

    with dg.DagsterInstance.ephemeral() as instance:
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
    return tries


def test_an_interrupt_in_a_step_is_known_and_noted_again_ends_the_run():
    assert _steps_after_an_interrupt(note=False) == ["first", "other"]
    assert _steps_after_an_interrupt(note=True) == ["first"]
    assert private.is_interrupt(KeyboardInterrupt())
    assert not private.is_interrupt(RuntimeError())


#: The last step has a skipped input and one that is not executed, and no step is left to run after it is known.
_STUCK = """
import sys
import dagster as dg
from lakehouse.runtime import dagster_private

@dg.asset(output_required=False)
def a_skipped():
    yield from ()

@dg.asset
def broken():
    raise ValueError

@dg.asset(deps=[broken])
def abandoned(): ...

@dg.asset(deps=[a_skipped, abandoned])
def last(): ...

if "ends" in sys.argv:
    dagster_private.end_what_cannot_go_on()
done = dg.materialize([a_skipped, broken, abandoned, last], raise_on_error=False)
print([event.step_key for event in done.all_events if event.event_type_value == "STEP_SKIPPED"])
"""


def test_a_run_ends_whose_last_step_has_a_skipped_and_an_abandoned_input():
    done = subprocess.run([sys.executable, "-c", _STUCK, "ends"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "['last']\n"
    with pytest.raises(subprocess.TimeoutExpired):  # when Dagster ends it by itself, what stands in for that can go
        subprocess.run([sys.executable, "-c", _STUCK], capture_output=True, check=False, timeout=10)


def test_a_run_in_which_nothing_is_ready_or_waits_is_an_error_that_names_the_steps():
    private.end_what_cannot_go_on()
    waiting = SimpleNamespace(
        _instance_concurrency_context=None, _waiting_to_retry={}, _in_flight=set(), _executable=[], is_complete=False,
        _pending={"last": {"first"}}, _pending_skip=[], _pending_abandon=[], _abandoned={"first"}, _failed=set(),
    )  # fmt: skip
    with pytest.raises(dg.DagsterInvariantViolationError, match=r"No step can go on: last wait for .* \(first\)"):
        ActiveExecution.sleep_til_ready(waiting)
    assert hasattr(ActiveExecution, "sleep_interval")


def test_the_logger_that_is_silenced_is_the_one_that_warns_of_blocking_checks_of_skipped_steps(caplog):
    logger = logging.getLogger(private.PLAN_LOGGER)
    level = logger.level
    check = dg.AssetCheckSpec("c", asset="first", blocking=True)

    @dg.multi_asset(specs=[dg.AssetSpec("first", skippable=True)], check_specs=[check], can_subset=True)
    def skipped() -> Iterator[dg.Output]:
        yield from ()

    @dg.asset(deps=["first"])
    def second() -> None:
        """Reads the one that was skipped."""

    logger.setLevel(logging.WARNING)
    try:
        assert dg.materialize([skipped, second], raise_on_error=False).success
    finally:
        logger.setLevel(level)
    assert [record.name for record in caplog.records if "Blocking asset check" in record.message] == [private.PLAN_LOGGER]


# --- the instance's tables ---------------------------------------------------------------------------------------------


@dg.asset
def _made() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows_written": 7})


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def test_events_are_read_from_the_event_logs_table_with_what_was_stored(instance):
    result = dg.materialize([_made], instance=instance)
    log = private.event_log_table()
    chosen = select(log.c.id, log.c.run_id, log.c.step_key, log.c.timestamp, log.c.asset_key, log.c.event).where(
        log.c.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value
    )
    with instance.event_log_storage.index_connection() as connection:
        (row,) = connection.execute(chosen).fetchall()
    assert (row.id > 0, row.run_id, row.step_key, row.asset_key) == (True, result.run_id, "_made", '["_made"]')
    event = private.event_of(row.event)
    assert isinstance(event, dg.EventLogEntry)
    stored = event.get_dagster_event().step_materialization_data.materialization.metadata
    assert stored["rows_written"].value == 7


def test_an_instance_in_a_folder_has_a_file_of_events_per_run_and_one_in_memory_does_not(instance):
    result = dg.materialize([_made], instance=instance)
    storage = instance.event_log_storage
    assert private.has_file_per_run(storage)
    assert Path(storage.path_for_shard(result.run_id)).is_file()
    assert result.run_id in storage.conn_string_for_shard(result.run_id)
    with dg.DagsterInstance.ephemeral() as other:
        assert not private.has_file_per_run(other.event_log_storage)


def test_runs_are_found_by_the_first_characters_of_their_id(instance):
    result = dg.materialize([_made], instance=instance)
    runs = private.runs_table()
    with instance.run_storage.connect() as connection:
        found = connection.execute(select(runs.c.run_id).where(runs.c.run_id.startswith(result.run_id[:8]))).fetchall()
    assert [row.run_id for row in found] == [result.run_id]


def test_what_came_of_a_freshness_policy_is_the_newest_state_that_the_daemon_stored(instance):
    from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

    key, asked = dg.AssetKey(["silver", "vendas"]), [["silver", "vendas"], ["silver", "other"]]
    assert private.overdue(instance, asked) == {}
    states = (("FAIL", {"silver/vendas": True}), ("PASS", {"silver/vendas": False}), ("NOT_APPLICABLE", {}), ("UNKNOWN", {}))
    for name, expected in states:
        change = FreshnessStateChange(
            key=key,
            new_state=FreshnessState(name),
            previous_state=FreshnessState.UNKNOWN,
            state_change_timestamp=datetime.now(UTC).timestamp(),
        )
        instance._report_runless_asset_event(change)
        assert private.overdue(instance, asked) == expected


# --- schedules and sensors ---------------------------------------------------------------------------------------------


@dg.job
def _job() -> None:
    """A job without steps."""


@dg.sensor(job=_job)
def a_sensor() -> None:
    """A sensor that never asks for a run."""


a_schedule = dg.ScheduleDefinition(name="a_schedule", job=_job, cron_schedule="0 6 * * *")
defs = dg.Definitions(jobs=[_job], schedules=[a_schedule], sensors=[a_sensor])


def test_a_modules_definitions_are_loaded_with_schedules_and_sensors_that_the_instance_can_switch(instance):
    found = private.repository(instance, module=__name__, location="here")
    assert isinstance(found, private.RemoteRepository)
    (schedule,), (sensor,) = found.get_schedules(), found.get_sensors()
    assert (isinstance(schedule, private.RemoteSchedule), isinstance(sensor, private.RemoteSchedule)) == (True, False)
    assert isinstance(sensor, private.RemoteSensor)
    instance.start_schedule(schedule)
    instance.start_sensor(sensor)
    assert {state.instigator_name for state in instance.all_instigator_state() if state.is_running} == {"a_schedule", "a_sensor"}
    assert schedule.selector_id and schedule.get_remote_origin_id() != sensor.get_remote_origin_id()
    assert "here" in str(schedule.handle)


def test_a_cron_ticks_in_its_timezone_from_an_instant_on():
    at = datetime(2026, 1, 1, 9, tzinfo=UTC)  # 6 o'clock in São Paulo
    found = list(islice(private.ticks(at, "0 6 * * *", "America/Sao_Paulo"), 2))
    assert found == [at, at + timedelta(days=1)]
    assert next(private.ticks(at + timedelta(seconds=1), "0 6 * * *", "America/Sao_Paulo")) == at + timedelta(days=1)


def test_the_daemon_is_a_module_that_runs():
    done = subprocess.run(
        [sys.executable, "-m", private.DAEMON_MODULE, "run", "--help"], capture_output=True, text=True, check=True
    )
    assert "--workspace" in done.stdout


def test_runs_of_a_location_are_those_that_its_pages_ask_for_and_no_others_are():
    @dg.job
    def work() -> None:
        pass

    with dg.DagsterInstance.ephemeral() as instance:
        with private.runs_of(instance, module="lakehouse.definitions", location="lakehouse"):
            mine = work.execute_in_process(instance=instance).run_id
        work.execute_in_process(instance=instance)
        shown = instance.get_runs(dg.RunsFilter(job_name="work", tags={".dagster/repository": "__repository__@lakehouse"}))
        assert [run.run_id for run in shown] == [mine]
        assert shown[0].tags["dagster/code_location"] == "lakehouse"


# --- code servers, storage, launcher, runs -----------------------------------------------------------------------------


def test_the_launcher_and_the_storage_are_called_with_what_dagster_gives_them():
    from lakehouse.runtime.launcher import WatchedRunLauncher

    assert issubclass(WatchedRunLauncher, private.DefaultRunLauncher)
    assert not private.DefaultRunLauncher().supports_check_run_worker_health
    assert {"RUNNING", "FAILED", "NOT_FOUND"} <= {status.value for status in private.WorkerStatus}
    result = private.CheckRunHealthResult(private.WorkerStatus.FAILED, "gone", run_worker_id="7")
    assert (result.status, result.msg, result.run_worker_id) == (private.WorkerStatus.FAILED, "gone", "7")
    given = private.ConfigurableClassData("lakehouse.runtime.launcher", "WatchedRunLauncher", "{}")
    assert isinstance(given.rehydrate(as_type=private.DefaultRunLauncher), WatchedRunLauncher)
    assert given.rehydrate(as_type=private.DefaultRunLauncher).inst_data == given


def test_the_public_call_returns_the_type_of_job_that_the_commands_take():
    job = dg.build_reconstructable_job("lakehouse.commands.foreground", "job_of_settings", ("medallion_etl",))
    assert isinstance(job, private.ReconstructableJob)


def test_a_run_that_no_code_server_started_has_none():
    assert private.code_server(SimpleNamespace(tags={})) == {}


def test_a_real_code_server_is_asked_for_the_worker_of_a_run(instance, tmp_path):
    """It says that it has none; once the server has ended there is no answer; and a run that is over is not asked about."""
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.server import wait_for_grpc_server

    port = _free_port()
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--module-name", __name__, "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=project_folder(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    launcher = private.DefaultRunLauncher()
    launcher.register_instance(instance)
    try:
        wait_for_grpc_server(server, DagsterGrpcClient(port=port, host="127.0.0.1"), command, timeout=60)
        tags = {".dagster/grpc_info": f'{{"host": "127.0.0.1", "port": {port}}}'}
        run = instance.create_run_for_job(_job, tags=tags, status=DagsterRunStatus.STARTED)
        assert private.code_server(run) == {"host": "127.0.0.1", "port": port}
        assert private.ask_for_worker(launcher, run.run_id, timeout=10) == "gone"
    finally:
        server.kill()  # it ends by itself on SIGTERM only when no call of its own is under way
        server.wait(timeout=30)
    assert private.ask_for_worker(launcher, run.run_id, timeout=2) == "no answer"
    instance.report_run_canceled(run)
    assert private.ask_for_worker(launcher, run.run_id, timeout=2) == "run over"


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
