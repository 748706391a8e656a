"""The backtest: forecasts as they would have been made, at origins a week apart, each by a model fitted to what was
known then.

    Frame, recipe, origins ─▶ Forecasts ─▶ per fold: WAPE, MAE, bias, coverage of the interval

WAPE is the sum of absolute errors over the sum of absolute revenue of the fold's days, closed ones included. The interval of a
fold is made of the errors of earlier folds whose days had come by its origin, as the interval of the real forecast is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from lakehouse.ml.features import Frame
from lakehouse.ml.recipes import RECIPES, Recipe
from lakehouse.ml.series import Plan

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

NAIVE = "ingenuo"
FOLDS = {
    "modelo": "string",
    "receita_modelo": "string",
    "uso": "string",
    "horizonte": "bigint",
    "origem": "date",
    "wape": "double",
    "mae": "double",
    "vies": "double",
    "cobertura": "double",
    "real": "double",
    "previsto": "double",
}
#: Errors from which an interval may be made.
_FEWEST = 20


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of several origins, in the order of origin and day. `low` and `high` are NaN where no interval could be made."""

    origin: "Array"
    target: "Array"
    y: "Array"
    predicted: "Array"
    low: "Array"
    high: "Array"

    def where(self, mask: "Array") -> "Forecasts":
        return Forecasts(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


Interval = Mapping[str, tuple[float, float]]


def forecast(frame: Frame, recipe: Recipe | None, origins: Sequence[int], plan: Plan) -> Forecasts:
    """The forecasts of a recipe, or of the seasonal naive method for None, at these origins (ordinals, ascending)."""
    import numpy as np

    from lakehouse.ml.models import fit

    parts = []
    for origin in origins:
        day = frame.at(origin)
        predicted = day.naive if recipe is None else fit(recipe, frame, at=origin, seed=plan.seed).predict(day.x)
        empty = np.full(len(day), np.nan)
        parts.append(Forecasts(day.origin, day.target, day.y, predicted, empty, empty))
    made = Forecasts(*(np.concatenate([getattr(p, n) for p in parts]) for n in Forecasts.__dataclass_fields__))
    low, high = made.low.copy(), made.high.copy()
    for origin in origins:
        mine = made.origin == origin
        before = (made.origin < origin) & (made.target <= origin)
        low[mine], high[mine] = apply_interval(interval(made.where(before), plan), made.where(mine), plan)
    return Forecasts(made.origin, made.target, made.y, made.predicted, low, high)


def interval(made: Forecasts, plan: Plan) -> Interval:
    """Factors by which what came lay below and above what was forecast, for short and longer horizons; {} with too few errors."""
    import numpy as np

    known = (made.predicted > 0) & (made.y > 0)
    ratio = np.log(made.y[known] / made.predicted[known])
    short = (made.target - made.origin)[known] <= plan.short
    tail = (1 - plan.coverage) / 2
    out = {}
    for name, part in (("curto", ratio[short]), ("longo", ratio[~short])):
        enough = part if len(part) >= _FEWEST else ratio
        if len(enough) >= _FEWEST:
            # ⌈(n+1)q⌉-th of n: the finite-sample quantile of conformal prediction, which a plain one falls short of
            ranks = np.sort(enough)
            reach = min(len(ranks), int(np.ceil((len(ranks) + 1) * (1 - tail))))
            out[name] = (float(np.exp(ranks[len(ranks) - reach])), float(np.exp(ranks[reach - 1])))
    return out


def apply_interval(found: Interval, made: Forecasts, plan: Plan) -> "tuple[Array, Array]":
    """Bounds of these forecasts; a day forecast as closed has bounds of 0."""
    import numpy as np

    if not found:
        return np.full(len(made.y), np.nan), np.full(len(made.y), np.nan)
    short = (made.target - made.origin) <= plan.short
    return tuple(  # type: ignore[return-value]
        made.predicted * np.where(short, found["curto"][side], found["longo"][side]) for side in (0, 1)
    )


def folds(made: Forecasts, origins: Sequence[int], horizon: int) -> list[dict[str, Any]]:
    """The figures of each fold."""
    import numpy as np

    out = []
    for origin in origins:
        fold = made.where((made.origin == origin) & (made.target <= origin + horizon))
        error = fold.predicted - fold.y
        scale = float(np.abs(fold.y).sum())
        bounded = (fold.predicted > 0) & np.isfinite(fold.low)
        inside = (fold.y >= fold.low) & (fold.y <= fold.high)
        wrong = float(np.abs(error).sum())
        out.append(
            {
                "horizonte": horizon,
                "origem": date.fromordinal(int(origin)),
                "wape": wrong / scale if scale else (0.0 if not wrong else float("inf")),
                "mae": float(np.abs(error).mean()),
                "vies": float(error.sum()) / scale if scale else 0.0,
                "cobertura": float(inside[bounded].mean()) if bounded.any() else None,
                "real": float(fold.y.sum()),
                "previsto": float(fold.predicted.sum()),
            }
        )
    return out


def choose(frame: Frame, plan: Plan, recipes: Sequence[Recipe] = RECIPES) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the least WAPE over both horizons on the folds that are not reported, and what each one had."""
    first = int(frame.last) - (plan.days_needed - 1)
    origins = [first + at for at in plan.choosing(plan.days_needed - 1)]
    rows: list[dict[str, Any]] = []
    scores = {}
    for recipe in recipes:
        made = forecast(frame, recipe, origins, plan)
        found = [row for horizon in (plan.short, plan.horizon) for row in folds(made, origins, horizon)]
        scores[recipe.name] = sum(row["wape"] for row in found) / len(found)
        rows += [{"modelo": "candidato", "receita_modelo": recipe.name, "uso": "escolha", **row} for row in found]
    best = min(recipes, key=lambda recipe: scores[recipe.name])
    return best, rows


@dataclass(frozen=True)
class Evaluation:
    """Reported folds of every model that was compared, and the candidate's forecasts and errors."""

    rows: list[dict[str, Any]]
    made: Forecasts
    interval: Interval


def evaluate(frame: Frame, plan: Plan, *, candidate: Recipe, champion: Recipe | None) -> Evaluation:
    """Backtest the candidate, the champion's recipe and the seasonal naive method on the same reported folds."""
    last = frame.last
    reported = {h: plan.reported(last, h) for h in (plan.short, plan.horizon)}
    first = last - (plan.days_needed - 1)
    earlier = [first + at for at in plan.choosing(plan.days_needed - 1)]
    origins = sorted({*earlier, *reported[plan.short], *reported[plan.horizon]})
    rows: list[dict[str, Any]] = []
    forecasts: dict[str, Forecasts] = {}
    for name, recipe in (("candidato", candidate), ("campeao", champion), (NAIVE, None)):
        if name == "campeao" and recipe is None:
            continue
        same = name == "campeao" and recipe is not None and recipe.made == candidate.made
        forecasts[name] = forecasts["candidato"] if same else forecast(frame, recipe, origins, plan)
        for horizon, at in reported.items():
            label = {"modelo": name, "receita_modelo": recipe.name if recipe else NAIVE, "uso": "relato"}
            rows += [{**label, **row} for row in folds(forecasts[name], at, horizon)]
    made = forecasts["candidato"]
    return Evaluation(rows, made, interval(made.where(made.target <= last), plan))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean figures over the folds, by `<modelo>_<horizonte>`, with the spread of WAPE."""
    import numpy as np

    out: dict[str, dict[str, float]] = {}
    for key in sorted({(row["modelo"], row["horizonte"]) for row in rows}):
        mine = [row for row in rows if (row["modelo"], row["horizonte"]) == key]
        wape = [row["wape"] for row in mine]
        covered = [row["cobertura"] for row in mine if row["cobertura"] is not None]
        out[f"{key[0]}_{key[1]}"] = {
            "wape": float(np.mean(wape)),
            "wape_dp": float(np.std(wape)),
            "wape_min": min(wape),
            "wape_max": max(wape),
            "mae": float(np.mean([row["mae"] for row in mine])),
            "vies": float(np.mean([row["vies"] for row in mine])),
            "cobertura": float(np.mean(covered)) if covered else 0.0,
            "folds": float(len(mine)),
        }
    return out
