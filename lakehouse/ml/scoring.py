"""Scoring: the champion's forecast from the newest origin, and what was forecast against what came."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from lakehouse.ml.backtest import Forecasts, apply_interval
from lakehouse.ml.features import Frame
from lakehouse.ml.series import Plan

if TYPE_CHECKING:
    from lakehouse.ml.models import RevenueModel

FORECAST = {
    "origem": "date",
    "data": "date",
    "horizonte": "bigint",
    "previsto": "double",
    "baixo": "double",
    "alto": "double",
    "versao": "bigint",
    "receita_modelo": "string",
    "run_id_treino": "string",
}
ACCURACY = {
    "origem": "date",
    "data": "date",
    "horizonte": "bigint",
    "versao": "bigint",
    "previsto": "double",
    "real": "double",
    "erro": "double",
    "no_intervalo": "boolean",
}


def score(model: "RevenueModel", frame: Frame, interval: Mapping[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """The forecast of each day after the newest origin: `origem`, `data`, `horizonte`, `previsto`, `baixo`, `alto`."""
    import numpy as np

    day = frame.at(frame.last)
    predicted = model.predict(day.x)
    nothing = np.full(len(day), np.nan)
    made = Forecasts(day.origin, day.target, day.y, predicted, nothing, nothing)
    low, high = apply_interval({name: tuple(pair) for name, pair in interval.items()}, made, plan)
    return [
        {
            "origem": date.fromordinal(int(day.origin[at])),
            "data": date.fromordinal(int(day.target[at])),
            "horizonte": int(day.horizon[at]),
            "previsto": round(float(predicted[at]), 2),
            "baixo": round(float(low[at]), 2) if low[at] == low[at] else None,
            "alto": round(float(high[at]), 2) if high[at] == high[at] else None,
        }
        for at in range(len(day))
    ]


def accuracy(forecasts: Sequence[Mapping[str, Any]], revenue: Mapping[date, float]) -> list[dict[str, Any]]:
    """Each forecast whose day has come, beside what came. A day without sales earned nothing.

    Args:
        forecasts: rows of FORECAST.
        revenue: revenue of every day with sales, at least one.
    """
    newest = max(revenue)
    out = []
    for row in sorted(forecasts, key=lambda row: (row["origem"], row["data"])):
        if row["data"] > newest:
            continue
        real = revenue.get(row["data"], 0.0)
        inside = None if row["baixo"] is None or not row["previsto"] else row["baixo"] <= real <= row["alto"]
        own = {name: row[name] for name in ("origem", "data", "horizonte", "versao", "previsto")}
        out.append({**own, "real": real, "erro": round(row["previsto"] - real, 2), "no_intervalo": inside})
    return out


def wape(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """WAPE of rows of ACCURACY; None where there is nothing to compare."""
    scale = sum(abs(row["real"]) for row in rows)
    return sum(abs(row["erro"]) for row in rows) / scale if scale else None
