"""The real sales: a year of one shop, closed on Saturdays and for twelve days at New Year. The promise of 10 % is tested here."""

import shutil

import pytest

from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.ml.conftest import MlLake, errors

pytest.importorskip("skops", reason="the extra ml is not installed")
pytestmark = [pytest.mark.real_data]


@pytest.fixture(scope="module")
def days(real_data, tmp_path_factory):
    """Rows of the daily mart, from silver, as `vendas_diarias.sql` makes them."""
    from lakehouse.core.engines.duckdb import literal
    from lakehouse.core.table.snapshot import open_existing
    from lakehouse_tests.conftest import Lake

    lake = Lake(tmp_path_factory.mktemp("sales"))
    target = lake.folder / "landing" / "raw" / "vendas"
    shutil.copytree(real_data / "vendas" / "landing" / "raw" / "vendas", target)
    lake.run(VENDAS)
    silver = open_existing(lake.storage.uri(VENDAS.silver))
    with lake.session() as session:
        sales = session.connection.read_parquet([literal(path) for path in silver.paths()])
        found = sales.aggregate("created_date, count(*), sum(total)", "created_date").fetchall()
    own = {"pedidos": 1, "clientes": 1, "quantidade": 1}
    return [{"data": day, "linhas": lines, "receita": f"{total:.4f}", **own} for day, lines, total in sorted(found)]


@pytest.mark.slow
def test_the_chosen_recipe_beats_seasonal_naive_by_a_tenth_over_twelve_folds(days, capsys):
    from lakehouse.ml import backtest, features, gate, series

    plan = series.Plan(holidays="GB-ENG")  # the shop is English
    found = series.build(days, plan)
    assert len(found) == 374 and found.traded.sum() == 305
    assert not found.traded[24:34].any(), "no trade around New Year"
    assert not any(found.traded[at] for at in range(3, 374, 7)), "no trade on Saturdays"
    assert all(finding.passed for finding in series.checks(found))
    frame = features.build(found, plan)
    best, _ = backtest.choose(frame, plan)
    numbers = backtest.summary(backtest.evaluate(frame, plan, candidate=best, champion=None).rows)
    mine, naive = numbers["candidato_7"], numbers["ingenuo_7"]
    with capsys.disabled():
        for name, of in ((best.name, mine), ("seasonal naive", naive)):
            spread = f"± {of['wape_dp']:.4f}, {of['wape_min']:.3f} to {of['wape_max']:.3f} over {of['folds']:.0f} folds"
            print(f"\n{name}: WAPE at 7 days {of['wape']:.4f} {spread}", end="")
    assert mine["folds"] == 12 and mine["wape"] <= 0.9 * naive["wape"]
    decision = gate.decide(gate.Gate(), numbers, short=7, horizon=28, champion=False)
    assert decision.promote, decision.reason


@pytest.mark.stack
def test_version_1_becomes_champion_and_a_second_run_is_not_promoted(ml_lake: MlLake, days, few_recipes):
    ml_lake.gold(days)
    first = ml_lake.run()
    assert first.success, errors(first)
    assert ml_lake.champion() == 1
    assert ml_lake.run().success
    assert [row["promovido"] for row in ml_lake.decisions()] == [True, False]
    assert ml_lake.champion() == 1
