"""Series, features, backtest and gate, each alone: what they refuse, what they cannot see, what they say."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.rules import Finding
from lakehouse.ml import backtest, features, gate, recipes, scoring, series
from lakehouse_tests.ml.conftest import DAYS, START, daily, steady

np = pytest.importorskip("numpy")
pytest.importorskip("sklearn", reason="the extra ml is not installed")
PLAN = series.Plan(holidays="")


def built(rows, plan=PLAN):
    return series.build(rows, plan)


@pytest.fixture(scope="module")
def frame():
    return features.build(built(steady()), PLAN)


# --- the series ------------------------------------------------------------------------------------------------------


def test_too_few_days_state_how_many_are_needed():
    rows = steady(PLAN.days_needed - 1, closed=lambda day: False)
    with pytest.raises(series.TooLittleDataError, match=rf"covers {PLAN.days_needed - 1} days; {PLAN.days_needed} are needed"):
        built(rows)
    assert len(built(steady(PLAN.days_needed, closed=lambda day: False))) == PLAN.days_needed
    with pytest.raises(series.TooLittleDataError):
        built([])


def test_days_that_hardly_traded_do_not_count_as_days_of_trade():
    rows = daily([30_000.0] * DAYS, closed=lambda day: day.weekday() != 0)
    with pytest.raises(series.TooLittleDataError, match="43 days of trade"):
        built(rows)


def test_a_day_twice_is_refused_by_name():
    rows = steady()
    with pytest.raises(BrokenTableError, match=f"the day {rows[5]['data']} twice"):
        built([*rows, dict(rows[5])])


@pytest.mark.parametrize("column", ["data", "receita"])
def test_a_row_without_day_or_revenue_is_refused(column):
    rows = steady()
    rows[3] = {**rows[3], column: None}
    with pytest.raises(BrokenTableError, match="without day or revenue"):
        built(rows)


def test_gaps_are_days_without_trade_and_so_are_days_with_a_handful_of_lines():
    rows = steady()
    saturday = START + timedelta(5 + 7 * 10)
    rows.append({"data": saturday, "linhas": 3, "receita": "27.9000"})
    gap = {START + timedelta(at) for at in range(120, 132)}
    found = built([row for row in rows if row["data"] not in gap])
    assert len(found) == DAYS and found.last == START + timedelta(DAYS - 1)
    at = (saturday - START).days
    assert not found.traded[at] and found.revenue[at] == pytest.approx(27.9)
    assert not found.traded[120:132].any() and not found.revenue[120:132].any()
    assert found.traded.sum() == len(rows) - 1 - sum(row["data"] in gap for row in rows)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda at, row: {**row, "receita": "100.0000"}, "varies"),
        (lambda at, row: {**row, "receita": "-5.0000"} if at % 10 == 0 else row, "mostly_positive"),
        (lambda at, row: {**row, "receita": "1.0000"} if at > 245 else row, "last_week_plausible"),
    ],
)
def test_what_is_wrong_with_the_data_fails_the_check_of_that_name(spoil, check):
    rows = [spoil(at, row) for at, row in enumerate(steady())]
    failed = {finding.rule for finding in series.checks(built(rows)) if not finding.passed}
    assert failed == {check}
    assert {finding.rule for finding in series.checks(built(steady()))} == set(series.CHECKS)
    assert all(finding.passed for finding in series.checks(built(steady())))


def test_a_series_that_only_loses_money_is_too_little_to_learn_from():
    with pytest.raises(series.TooLittleDataError, match="0 days of trade with positive revenue"):
        built([{**row, "receita": "-5.0000"} for row in steady()])


@pytest.mark.parametrize("wrong", [{"folds": 7}, {"short": 0}, {"short": 40}, {"history": 7}, {"coverage": 1.0}])
def test_a_plan_that_cannot_be_is_refused(wrong):
    with pytest.raises(DeclarationError):
        series.Plan(**wrong)


# --- features --------------------------------------------------------------------------------------------------------


def test_changing_anything_after_an_origin_changes_no_feature_of_that_origin():
    """The leakage test: revenue, lines and whole days after the origin are replaced, removed or added, at random origins."""
    rng = np.random.default_rng(5)
    rows = steady()
    before = features.build(built(rows), PLAN)
    for origin in sorted(rng.integers(60, DAYS - 2, size=12)):
        day = START + timedelta(int(origin))
        changed = []
        for row in rows:
            if row["data"] <= day:
                changed.append(row)
            elif rng.random() < 0.7:
                changed.append({**row, "receita": f"{rng.normal() * 1e6:.4f}", "linhas": int(rng.integers(0, 9000))})
        changed.append({**rows[0], "data": START + timedelta(DAYS + int(rng.integers(1, 40)))})
        after = features.build(built(changed), PLAN)
        upto = START.toordinal() + int(origin)
        mine, other = before.where(before.origin <= upto), after.where(after.origin <= upto)
        assert np.array_equal(mine.x, other.x) and np.array_equal(mine.naive, other.naive), day
        assert not np.array_equal(before.x, after.x[: len(before)])  # the test sees a difference where there is one


def test_no_model_of_a_fold_is_fitted_to_a_day_after_its_origin(frame):
    origin = int(frame.origin[len(frame) // 2])
    assert frame.known(origin).target.max() <= origin
    spoiled = replace(frame, y=np.where(frame.target > origin, 1e12, frame.y))
    recipe = recipes.Recipe(name="x", learner="linear", level=28, strength=1.0)
    made, other = (backtest.forecast(each, recipe, [origin], PLAN).predicted for each in (frame, spoiled))
    assert np.array_equal(made, other)


def test_the_recipe_is_chosen_by_folds_that_end_before_the_reported_ones_begin():
    last = PLAN.days_needed - 1
    reported = {*PLAN.reported(last, PLAN.short), *PLAN.reported(last, PLAN.horizon)}
    assert max(PLAN.choosing(last)) + PLAN.horizon <= min(reported)
    assert min(PLAN.choosing(last)) == PLAN.history - 1
    assert all(len(PLAN.reported(last, h)) == PLAN.folds >= 8 for h in (7, 28))
    assert max(PLAN.reported(last, 7)) + 7 == last


def test_saturdays_an_observed_holiday_and_a_shutdown_a_year_ago_are_forecast_as_closed():
    off = {START + timedelta(at) for at in range(354, 366)}  # twelve days around the New Year
    holidays = np.zeros(800, bool)
    worked = [100, 150, 200, 405]  # Wednesdays and so on, none a Saturday
    holidays[worked] = True
    shut = off | {START + timedelta(at) for at in worked}
    rows = daily([30_000.0] * 720, closed=lambda day: day.weekday() == 5 or day in shut)
    found = built(rows)
    upto = series.Series(found.start, found.revenue[:400], found.lines[:400], found.traded[:400])
    x, _ = features.at_origin(upto, PLAN, holidays)
    opened = dict(zip(range(400, 428), x[:, features.FEATURES.index("aberto")], strict=True))
    assert {at for at, value in opened.items() if not value} == {
        at for at in range(400, 428) if (START + timedelta(at)).weekday() == 5 or at == 405
    }
    upto = series.Series(found.start, found.revenue[:715], found.lines[:715], found.traded[:715])
    x, _ = features.at_origin(upto, PLAN, holidays)
    opened = dict(zip(range(715, 743), x[:, features.FEATURES.index("aberto")], strict=True))
    a_year_ago = {at + 365 for at in range(354, 366)}
    assert all(opened[at] == 0 for at in a_year_ago if at < 743)
    assert opened[717] == 1


def test_a_holiday_on_which_the_shop_opens_is_forecast_as_open():
    holidays = np.zeros(800, bool)
    holidays[[100, 150, 200, 282]] = True
    found = built(steady(280))
    x, _ = features.at_origin(found, PLAN, holidays)
    assert x[2, features.FEATURES.index("feriado")] == 1 and x[2, features.FEATURES.index("aberto")] == 1


def test_an_unknown_country_of_holidays_is_refused():
    pytest.importorskip("holidays")
    with pytest.raises(DeclarationError, match="LAKEHOUSE_HOLIDAYS=XX"):
        features.public_holidays("XX", START, days=5)
    known = features.public_holidays("GB-ENG", date(2011, 4, 20), days=12)
    assert [at for at in range(12) if known[at]] == [2, 5, 9]  # Good Friday, Easter Monday, the wedding


def test_features_survive_being_stored_and_have_one_fingerprint(frame):
    rows = features.to_rows(frame)
    assert list(rows[0]) != [] and set(rows[0]) == set(features.COLUMNS)
    stored = [tuple(row[name] for name in features.COLUMNS) for row in reversed(rows)]
    again = features.from_rows(stored)
    assert features.fingerprint(again) == features.fingerprint(frame)
    moved = frame.x.copy()
    moved[100, 3] *= 1 + 1e-6
    assert features.fingerprint(replace(frame, x=moved)) != features.fingerprint(frame)


def test_the_naive_forecast_is_the_same_weekday_of_the_last_week_that_is_known(frame):
    revenue = {int(t): y for t, y in zip(frame.target, frame.y, strict=True) if y == y}
    for at in range(5000, 5056):
        back = int(frame.target[at])
        while back > frame.origin[at]:
            back -= 7
        assert frame.naive[at] == revenue[back]


# --- recipes and models ----------------------------------------------------------------------------------------------


def test_recipes_are_records_that_refuse_to_be_wrong_and_come_back_from_json():
    for recipe in recipes.RECIPES:
        assert recipes.Recipe.from_json(recipe.to_json()) == recipe
    for wrong in ({"learner": "redes"}, {"level": 3}, {"strength": -1.0}, {"name": "Não"}):
        with pytest.raises(DeclarationError):
            recipes.Recipe(**{"name": "x", "learner": "nivel", "level": 28, **wrong})
    for text in ("", "{}", '{"name": "x", "learner": "nivel", "level": 28, "more": 1}', "[1]"):
        with pytest.raises(DeclarationError):
            recipes.Recipe.from_json(text)
    with pytest.raises(DeclarationError, match="nivel_28"):
        recipes.recipe_named("melhor")


@pytest.mark.parametrize("recipe", recipes.RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_gives_the_same_model_twice_and_no_revenue_on_closed_days(frame, recipe):
    from lakehouse.ml import models

    one, two = (models.fit(recipe, frame, at=frame.last, seed=3).predict(frame.at(frame.last).x) for _ in range(2))
    assert np.array_equal(one, two)
    closed = frame.at(frame.last).x[:, features.FEATURES.index("aberto")] == 0
    assert closed.sum() == 4 and not one[closed].any() and (one[~closed] > 0).all()
    assert one[~closed].mean() == pytest.approx(30_000 * 1.02, rel=0.25)


def test_the_model_refuses_rows_of_other_features(frame):
    from lakehouse.ml import models

    model = models.fit(recipes.RECIPES[0], frame, at=frame.last, seed=3)
    with pytest.raises(ValueError, match="features are needed"):
        model.predict(frame.x[:3, :-1])


# --- backtest --------------------------------------------------------------------------------------------------------


def test_figures_of_a_fold_are_those_of_its_days():
    origin = np.full(7, 100)
    target = np.arange(101, 108)
    y = np.array([10.0, 20, 0, 30, 40, 0, -10])
    predicted = np.array([12.0, 15, 0, 30, 50, 5, 0])
    bounds = (np.where(predicted > 0, predicted - 3, 0), np.where(predicted > 0, predicted + 3, 0))
    (row,) = backtest.folds(backtest.Forecasts(origin, target, y, predicted, *bounds), [100], 7)
    assert row["wape"] == pytest.approx((2 + 5 + 10 + 5 + 10) / 110)
    assert row["mae"] == pytest.approx(32 / 7)
    assert row["vies"] == pytest.approx((2 - 5 + 10 + 5 + 10) / 110)
    assert row["cobertura"] == pytest.approx(2 / 5)
    assert (row["real"], row["previsto"]) == (90, 112)


def test_the_interval_of_a_fold_uses_no_error_that_was_not_known_at_its_origin(frame):
    last = frame.last
    origins = [last - 28 - 7 * back for back in reversed(range(12))]
    recipe = recipes.RECIPES[0]
    made = backtest.forecast(frame, recipe, origins, PLAN)
    cut = origins[6]
    y = np.where(frame.target > cut, frame.y * 50, frame.y)
    other = backtest.forecast(replace(frame, y=y), recipe, origins, PLAN)
    mine = made.origin <= cut
    assert np.array_equal(made.low[mine], other.low[mine], equal_nan=True)
    assert np.isfinite(made.low[made.origin == cut]).all()
    assert not np.array_equal(made.low[~mine], other.low[~mine])


def test_the_interval_covers_what_it_is_meant_to():
    covered = []
    for seed in range(6):  # the days of one series go wrong together: alone it tells its coverage to about ten points
        found = backtest.evaluate(
            features.build(built(steady(seed=seed)), PLAN), PLAN, candidate=recipes.RECIPES[0], champion=None
        )
        numbers = backtest.summary(found.rows)
        covered.append((numbers["candidato_7"]["cobertura"], numbers["candidato_28"]["cobertura"]))
        assert numbers["candidato_7"]["folds"] == numbers["ingenuo_28"]["folds"] == 12
    assert np.mean(covered, axis=0) == pytest.approx(PLAN.coverage, abs=0.05)


def test_the_champions_recipe_is_compared_on_the_very_same_folds(frame):
    found = backtest.evaluate(frame, PLAN, candidate=recipes.RECIPES[0], champion=recipes.RECIPES[1])
    by = {}
    for row in found.rows:
        by.setdefault(row["modelo"], set()).add((row["horizonte"], row["origem"], row["real"]))
    assert by["candidato"] == by["campeao"] == by["ingenuo"]
    same = backtest.evaluate(frame, PLAN, candidate=recipes.RECIPES[0], champion=replace(recipes.RECIPES[0], name="outra"))
    numbers = backtest.summary(same.rows)
    assert numbers["campeao_7"] == numbers["candidato_7"]


# --- the gate --------------------------------------------------------------------------------------------------------


def numbers(candidate, naive=0.4, champion=None, *, long=0.3, folds=12.0):
    out = {"candidato_7": {"wape": candidate, "folds": folds}, "ingenuo_7": {"wape": naive, "folds": folds}}
    out |= {"candidato_28": {"wape": long, "folds": folds}, "ingenuo_28": {"wape": naive, "folds": folds}}
    if champion is not None:
        out["campeao_7"] = {"wape": champion, "folds": folds}
    return out


@pytest.mark.parametrize(
    ("found", "promoted", "sound", "expected"),
    [
        (numbers(0.3), True, True, "promoted: +25.0% against seasonal naive; there was no champion"),
        (numbers(0.36), True, True, "promoted: +10.0%"),
        (numbers(0.361), False, False, "refused: +9.8% against seasonal naive, 10% is needed"),
        (numbers(0.5), False, False, "refused: -25.0%"),
        (numbers(0.3, long=0.41), False, False, "at 28 days"),
        (numbers(0.3, 0.0), False, False, "makes no error"),
        (numbers(float("inf")), False, False, "nothing to be better than"),
        (numbers(0.3, folds=7.0), False, False, "7 folds, 8 are needed"),
        (numbers(0.3, champion=0.31), True, True, "+3.2% against the champion's recipe"),
        (numbers(0.3, champion=0.3), False, True, "refused: +0.0% against the champion's recipe, 2% is needed"),
        (numbers(0.3, champion=0.305), False, True, "refused"),
        (numbers(0.3, champion=0.0), False, True, "nothing to gain"),
    ],
)
def test_the_gate_promotes_only_by_its_margins(found, promoted, sound, expected):
    decision = gate.decide(gate.Gate(), found, short=7, horizon=28, champion="campeao_7" in found)
    assert (decision.promote, decision.sound) == (promoted, sound)
    assert np.array_equal(decision.numbers, found)
    assert expected in decision.reason


def test_a_failed_data_check_refuses_whatever_the_numbers():
    findings = [Finding("varies", True, "warn"), Finding("last_week_plausible", False, "warn", 1, 1)]
    decision = gate.decide(gate.Gate(), numbers(0.1), short=7, horizon=28, champion=False, findings=findings)
    assert not decision.promote and not decision.sound and "last_week_plausible" in decision.reason


def test_a_bar_makes_a_promotion_a_refusal_and_leaves_a_refusal_as_it_is():
    good = gate.decide(gate.Gate(), numbers(0.3), short=7, horizon=28, champion=False)
    bad = gate.decide(gate.Gate(), numbers(0.5), short=7, horizon=28, champion=False)
    assert good.unless("refused: it was rolled back").reason == "refused: it was rolled back"
    assert not good.unless("refused: it was rolled back").promote
    assert good.unless("") is good and bad.unless("refused: it was rolled back") is bad


@pytest.mark.parametrize("wrong", [{"over_naive": 1.0}, {"over_naive": -0.1}, {"over_champion": 0.0}, {"fewest_folds": 7}])
def test_a_gate_that_lets_everything_pass_cannot_be_declared(wrong):
    with pytest.raises(DeclarationError, match="gate"):
        gate.Gate(**wrong)


# --- scoring ---------------------------------------------------------------------------------------------------------


def test_accuracy_compares_the_days_that_have_come_and_a_day_without_sales_earned_nothing():
    day = date(2024, 1, 5)
    base = {"origem": day, "versao": 1}
    made = [
        {**base, "data": day + timedelta(n), "horizonte": n, "previsto": p, "baixo": p * 0.5, "alto": p * 2}
        for n, p in ((1, 0.0), (2, 100.0), (3, 50.0), (4, 10.0))
    ]
    rows = scoring.accuracy(made, {day: 1.0, day + timedelta(2): 80.0, day + timedelta(3): 200.0})
    assert [(row["horizonte"], row["real"], row["erro"], row["no_intervalo"]) for row in rows] == [
        (1, 0.0, 0.0, None), (2, 80.0, 20.0, True), (3, 200.0, -150.0, False),
    ]  # fmt: skip
    assert scoring.wape(rows) == pytest.approx(170 / 280)
    assert scoring.wape([]) is None
