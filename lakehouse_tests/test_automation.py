"""What starts a run: jobs, schedules and the commands, with what each says when it cannot."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from lakehouse import __main__
from lakehouse.automation import JOBS, OWN_JOBS, TIMEZONE
from lakehouse.commands import foreground, runs
from lakehouse.definitions import build_defs
from lakehouse.settings import Settings, project_folder

ENVIRONMENTS = ("dev", "staging", "prod")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs(Settings())


# --- jobs and schedules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "tag"),
    [
        ("medallion_etl", {"landing", "bronze", "silver", "gold", "warehouse", "reports"}, "medallion"),
        ("bronze_to_silver", {"silver"}, "bronze-to-silver"),
        ("mlops", {"ml", "reports"}, "mlops"),
    ],
)
def test_a_job_has_every_table_of_its_layers_that_has_no_job_of_its_own_and_carries_its_tags(definitions, name, layers, tag):
    job = definitions.resolve_job_def(name)
    graph = definitions.resolve_asset_graph()
    graph_tags = {key: {*graph.get(key).tags} & {*OWN_JOBS} for key in graph.materializable_asset_keys}
    wanted = {key for key, own in graph_tags.items() if (own == {"ml"} if name == "mlops" else not own)}
    assert set(job.asset_layer.selected_asset_keys) == {key for key in wanted if key.path[0] in layers}
    assert {"etl", tag, "owner", "dagster/max_runtime"} <= set(job.tags)
    assert int(job.tags["dagster/max_runtime"]) > 0
    assert job.owners == ["team:dados"]
    assert len(job.description) > 20


def test_every_schedule_and_sensor_states_what_it_starts(definitions):
    for starter in (*definitions.schedules, *definitions.sensors):
        assert len(starter.description or "") > 20, starter.name


def test_a_layer_that_was_a_group_is_selected_as_before(definitions):
    graph = definitions.resolve_asset_graph()
    for select in ("group:gold", 'key:"silver/vendas"+ and group:gold', "group:bronze or group:silver"):
        found = dg.AssetSelection.from_string(foreground.by_key(select)).resolve(graph)
        assert found and {key.path[0] for key in found} <= {"bronze", "silver", "gold"}, select
    assert foreground.by_key("group:vendas and group:ml") == "group:vendas and group:ml"


def test_a_run_timeout_is_enforced_because_run_monitoring_is_on():
    import yaml

    instance = yaml.safe_load((project_folder() / "dagster.yaml").read_text())
    assert instance["run_monitoring"]["enabled"] is True


def test_every_step_is_retried_later_and_later_and_not_all_at_once(definitions):
    graph = definitions.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        policy = definitions.resolve_assets_def(key).op.retry_policy
        assert policy.max_retries >= 2, key
        assert policy.jitter is not None
        # declared in settings/retries.py: a source or a target outside the lake
        if policy.backoff != dg.Backoff.EXPONENTIAL:
            assert key.path[0] == "warehouse" or "pedidos" in graph.get(key).tags, key
            assert policy.delay >= 5


@pytest.mark.parametrize(
    ("name", "job", "hour"),
    [
        ("medallion_etl_daily", "medallion_etl", 6),
        ("bronze_to_silver_daily", "bronze_to_silver", 2),
        ("pedidos_daily", "pedidos", 2),
    ],
)
def test_a_schedule_ticks_daily_at_its_hour_in_sao_paulo(definitions, name, job, hour):
    schedule = definitions.resolve_schedule_def(name)
    assert schedule.job_name == job
    assert schedule.execution_timezone == TIMEZONE == "America/Sao_Paulo"
    ticks = schedule_execution_time_iterator(
        datetime(2024, 1, 1, 12, tzinfo=UTC).timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    days = [next(ticks) for _ in range(3)]
    assert [(tick.hour, tick.minute) for tick in days] == [(hour, 0)] * 3
    assert {str(tick.tzinfo) for tick in days} == {TIMEZONE}
    assert [tick.day for tick in days] == [2, 3, 4]


def test_the_model_is_trained_on_sundays_at_two_on_what_saturday_left(definitions):
    schedule = definitions.resolve_schedule_def("mlops_weekly")
    start = datetime(2024, 1, 1, 12, tzinfo=UTC).timestamp()
    ticks = schedule_execution_time_iterator(start, schedule.cron_schedule, schedule.execution_timezone)
    found = [next(ticks) for _ in range(2)]
    assert [(tick.strftime("%a %H:%M"), tick.day) for tick in found] == [("Sun 02:00", 7), ("Sun 02:00", 14)]
    assert schedule.job_name == "mlops" and schedule.execution_timezone == TIMEZONE


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_schedules_and_the_sensor_start_by_themselves_only_where_that_is_declared(env):
    found = build_defs(Settings(env=env))
    running = {s.name for s in found.schedules if s.default_status == dg.DefaultScheduleStatus.RUNNING}
    assert running == {job.schedule_name for job in JOBS if env in job.starts_in}
    assert {sensor.name for sensor in found.sensors} == {"landing_files", "watch", "deliver"}
    assert {sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in found.sensors} == {env != "dev"}
    assert ("medallion_etl_daily" in running, "bronze_to_silver_daily" in running) == (env != "dev", env == "prod")


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """`python -m lakehouse …` in this process, over a lake and a Dagster of its own: exit code and what it said."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lakehouse", *words])
        capsys.readouterr()
        try:
            code = __main__.main()
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, output.out + output.err

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trigger", "medalion"], "There is no job 'medalion'. Use one of bronze_to_silver, "),
        (["trigger", "__ASSET_JOB"], "There is no job '__ASSET_JOB'."),
        (["rebuild", "venda"], "There is no table 'venda'. Use one of brt_gps, pedidos, vendas, produtos, clientes"),
        (["rebuild", "vendas"], "needs bronze/vendas, which does not exist. Materialise bronze/vendas first: make materialize "),
        (["materialize", "nonsense!!"], "'nonsense!!' selects nothing"),
        (["materialize", 'key:"gold/nothing"'], "selects no asset. Try group:vendas"),
        (["materialize", "key:landing/vendas"], "selects no asset."),
        (["trigger", "bronze_to_silver", "--source-table", "venda"], "There is no table 'venda'."),
        (["trigger", "bronze_to_silver", "--target-table", "x"], "'x' needs a source table."),
        (["trigger", "bronze_to_silver", "--source-table", "vendas", "--target-table", "../x"], "'../x' cannot be a table name."),
        (["trigger", "bronze_to_silver", "--source-table", "vendas", "--target-table", "produtos"], "table of another source"),
        (["trigger", "medallion_etl", "--source-table", "vendas"], "medallion_etl runs for all tables."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_with_the_remedy_and_exit_code_2(command, tmp_path, words, expected):
    code, text = command(*words)
    assert code == 2
    assert expected in text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert line.endswith(".")
    assert "Traceback" not in text
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_a_bad_setting_is_one_sentence_that_names_it(command, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_ENV", "production")
    code, text = command("trigger", "medallion_etl")
    assert code == 2
    assert text.startswith("error: LAKEHOUSE_ENV is 'production'")
    assert "Traceback" not in text


@pytest.mark.parametrize("home", ["", "/nowhere/at/all"])
def test_a_missing_dagster_home_is_one_sentence_that_states_what_to_do(command, monkeypatch, tmp_path, home):
    monkeypatch.setattr("lakehouse.settings.light.project_folder", lambda: tmp_path)  # no .env there
    monkeypatch.setenv("DAGSTER_HOME", home)
    code, text = command("summary")
    assert code == 2
    assert text.startswith("error: DAGSTER_HOME is")
    assert "make setup" in text


def test_an_unknown_command_is_a_usage_error(command):
    code, text = command("explode")
    assert code == 2
    assert "No such command" in text


def test_a_failing_step_is_named_and_the_exit_code_is_1(command, tmp_path):
    """Silver without bronze: nothing to try again, so no retries either."""
    code, text = command("materialize", 'key:"silver/vendas"')
    assert code == 1
    assert "failed step: silver__vendas" in text
    assert "silver/vendas needs bronze/vendas, which does not exist. Materialise bronze/vendas first: make materialize " in text


def test_the_summary_of_an_empty_lake_reports_that_nothing_is_there(command):
    code, text = command("summary")
    assert code == 0
    assert "report: none of vendas yet" in text


def test_the_exit_code_reaches_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse", "summary"],
        env={**os.environ, "DAGSTER_HOME": "not/absolute"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: DAGSTER_HOME is 'not/absolute', .*\n", done.stderr)
    assert done.stdout == ""


# --- interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("Query interrupted")], ids=["python", "in DuckDB"])
def test_an_interrupt_ends_the_run_instead_of_being_tried_again(monkeypatch, tmp_path, interrupt):
    """Dagster answers ^C and Terminate with the step's retry policy; DuckDB puts an error of its own in the interrupt's place."""

    def interrupted(*_args, **_kwargs):
        raise interrupt

    monkeypatch.setattr("lakehouse.bronze.ingest.stage_batch", interrupted)
    job = build_defs(Settings(root=str(tmp_path))).resolve_job_def("medallion_etl")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not instance.get_run_by_id(result.run_id).is_success
    types = [event.event_type_value for event in result.all_events if event.is_step_event]
    assert "STEP_UP_FOR_RETRY" not in types
    assert len([event for event in result.all_events if event.is_step_start]) <= 2
    assert not result.success
    assert runs.newest_report(str(tmp_path)) is None
