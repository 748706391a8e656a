"""The report of the model: what the gate compared, what the champion forecasts, and what came of earlier forecasts.

    ml/evaluation, ml/previsao_vendas, ml/acuracia_previsao, ops/model_decisions, gold/vendas_diarias, the champion's tags
        ─▶  reports/modelo/<date>/index.html

The date is the newest day of sales. It is made without MLflow's models: only the champion's tags are read.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.ml.resource import MlResource
from lakehouse.reports.publish import Page, Snapshots, publish, report_arguments, rows, states
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures

if TYPE_CHECKING:
    from lakehouse.reports.modelo_page import ModeloFigures

REPORT = TableRef("reports", "modelo")
_EVALUATION, _FORECAST, _ACCURACY = (TableRef("ml", name) for name in ("evaluation", "previsao_vendas", "acuracia_previsao"))
DECISIONS, _DAILY = TableRef("ops", "model_decisions"), TableRef("gold", "vendas_diarias")
TABLES = (_DAILY, TableRef("ml", "features"), _EVALUATION, _FORECAST, _ACCURACY, DECISIONS)


@dg.asset(
    deps=[_EVALUATION.key, ["ml", "promotion"], _FORECAST.key, _ACCURACY.key],
    description="The forecast's model: backtest, forecast with interval, importance, decisions. One HTML page.",
    **report_arguments(REPORT, tag="ml"),
)
def modelo_report(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource]
) -> Iterator[dg.MaterializeResult]:
    with failures():
        champion = ml.registry.alias("champion")
    number = champion.number if champion else None

    def make(session: Session, snapshots: Snapshots) -> Page | None:
        from lakehouse.reports.modelo_page import render

        figures = collect(
            session,
            snapshots,
            environment=lake.environment,
            champion=number,
            recipe=champion.recipe.name if champion and champion.recipe else "",
            importance=champion.document("importance") if champion else {},
        )
        if not figures.daily:
            return None
        return Page(max(row["data"] for row in figures.daily), render(figures), {"champion": number or 0})

    yield from publish(context, lake, report=REPORT, tables=TABLES, make=make, also={"champion": number})


def collect(
    session: Session,
    snapshots: Snapshots,
    *,
    environment: str,
    champion: int | None,
    recipe: str,
    importance: Mapping[str, float],
) -> "ModeloFigures":
    """Everything on the page: rows of the lake, and what is known of the champion."""
    from lakehouse.reports.modelo_page import ModeloFigures

    return ModeloFigures(
        environment=environment,
        champion=champion,
        recipe=recipe,
        importance=importance,
        daily=rows(session, snapshots[_DAILY]),
        folds=[row for row in rows(session, snapshots[_EVALUATION]) if row["uso"] == "relato"],
        forecast=rows(session, snapshots[_FORECAST]),
        accuracy=rows(session, snapshots[_ACCURACY]),
        decisions=rows(session, snapshots[DECISIONS]),
        tables=states(snapshots),
    )
