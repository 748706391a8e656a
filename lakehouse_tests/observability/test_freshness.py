"""A table is as fresh in Dagster, in the check and on the dashboard: one decides, the others repeat it.

Dagster's side is its own daemon's evaluation of the declared policies, stored where its UI reads it.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest
from dagster._daemon.freshness import FreshnessDaemon

from benchmarks.past_runs import PastRun, put
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.dashboard import overview
from lakehouse.dashboard.reading import Reader
from lakehouse.observability import outbox, table_health
from lakehouse.observability.assets import Surroundings, monitoring_assets
from lakehouse.reports import page
from lakehouse.resources import build_resources
from lakehouse.runtime.dagster_private import overdue
from lakehouse.runtime.freshness import with_freshness
from lakehouse.settings import Settings
from lakehouse.silver.assets import silver_asset
from lakehouse.tables.spec import Health
from lakehouse.tables.vendas import VENDAS

HOUR = timedelta(hours=1)
FRESH, OLD = HOUR, 100 * HOUR
BY_EVENTS = replace(VENDAS, freshness=26 * HOUR, health=Health(event_time="updated_at", max_event_age=50 * HOUR))
BY_RUNS = replace(BY_EVENTS, health=Health(event_time="updated_at"))
NEITHER = replace(BY_RUNS, freshness=None)
#: spec, age of the last run, age of the newest event (0: a table without rows), and whether the table is stale.
CASES = {
    "fresh run, old events": (BY_EVENTS, FRESH, OLD, True),
    "old run, fresh events": (BY_EVENTS, OLD, FRESH, False),
    "both fresh": (BY_EVENTS, FRESH, FRESH, False),
    "both old": (BY_EVENTS, OLD, OLD, True),
    "a run, and nothing was ever delivered": (BY_EVENTS, OLD, timedelta(), None),
    "no run and no table": (BY_EVENTS, None, None, None),
    "no age of events, fresh run, old events": (BY_RUNS, FRESH, OLD, False),
    "no age of events, old run, fresh events": (BY_RUNS, OLD, FRESH, True),
    "no age of events, a run long ago that made no table": (BY_RUNS, OLD, None, True),
    "no age of events, never a run": (BY_RUNS, None, None, None),
    "nothing is declared": (NEITHER, OLD, OLD, None),
}
DAGSTER = {"PASS": False, "FAIL": True, "UNKNOWN": None, "NOT_APPLICABLE": None}


@pytest.mark.parametrize("case", CASES)
def test_dagster_check_and_dashboard_report_the_same_of_a_table(case, storage):
    spec, ran, newest, stale = CASES[case]
    now = datetime.now(UTC)
    settings = Settings(root=storage.root)
    with dg.DagsterInstance.ephemeral() as instance:
        if ran is not None:
            put(instance, [PastRun(now - ran, 5, "medallion_etl")])
        if newest is not None:
            _table(storage, now - newest if newest else None)
        state = _state_in_dagster(instance, spec)
        assets = monitoring_assets(settings, (spec,), surroundings=Surroundings((), (), dict))
        result = dg.materialize(assets[:1], instance=instance, resources=build_resources(settings))
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    (row,) = [row for row in Reader(settings).ask(overview.read).tables if row["table"] == "vendas"]
    assert row["stale"] is stale
    assert checks["silver_vendas"].passed is not stale if stale else checks["silver_vendas"].passed
    # Where events decide, the check is all that Dagster shows: there is no policy that could report otherwise.
    assert DAGSTER[state] is (None if spec.health.max_event_age else stale)


def test_an_age_that_only_the_routing_gives_comes_beside_the_policy():
    measured = table_health.Measured("silver", "vendas", "ok", stale=True, problems="the newest at is 2 h old, allowed are 1 h")
    assert table_health.with_policy(measured, None) == measured
    assert table_health.with_policy(measured, False).stale
    both = table_health.with_policy(replace(measured, stale=False, problems="", outcome="ok"), True)
    assert (both.stale, both.outcome, both.problems) == (True, "unhealthy", table_health.OVERDUE)
    broken = table_health.with_policy(replace(measured, outcome="broken"), True)
    assert (broken.outcome, table_health.OVERDUE in broken.problems) == ("broken", True)


def test_a_measurement_of_an_earlier_release_is_shown_without_freshness(storage):
    columns = {name: kind for name, kind in table_health.COLUMNS.items() if name != "stale"}
    row = {"measured_at": datetime.now(UTC), "layer": "silver", "table": "vendas", "outcome": "ok"}
    outbox.record(storage, table_health.HEALTH_TABLE, columns=columns, rows=[row])
    from lakehouse.dashboard.pages import visao_geral

    rows = Reader(Settings(root=storage.root)).ask(overview.read).tables
    assert visao_geral._tables(rows).rows[0][1] == page.DASH
    outbox.record(storage, table_health.HEALTH_TABLE, columns=table_health.COLUMNS, rows=[{**row, "stale": True}])


def _table(storage, newest: datetime | None) -> None:
    columns = {"id": "bigint", "updated_at": "timestamp"}
    table = open_table(storage.uri(TableRef("silver", "vendas")), columns)
    with outbox.small_session(storage) as session:
        rows = [{"id": 1, "updated_at": newest}] if newest else []
        add = session.write(session.table(rows, columns), table.uri, columns=columns)
        commit_staged(Transaction(table=table, add=add))


def _state_in_dagster(instance: dg.DagsterInstance, spec) -> str:
    """What Dagster's daemon stores of the table's policy, which is what `ops/table_health` is given."""
    graph = with_freshness(
        dg.Definitions(assets=[silver_asset(spec)], resources=build_resources(Settings())), (spec,)
    ).resolve_asset_graph()
    node = graph.get(dg.AssetKey(spec.silver.key))
    daemon, context = FreshnessDaemon(), LoadingContextForTest(instance)
    asyncio.run(daemon._evaluate_asset(context=context, node=node))
    state = asyncio.run(daemon._compute_asset_freshness_state(LoadingContextForTest(instance), node)).value
    assert overdue(instance, [spec.silver.key]).get(str(spec.silver)) == DAGSTER[state]
    return state
