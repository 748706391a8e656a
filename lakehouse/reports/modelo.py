"""The report of the model: what the gate compared, what the champion forecasts, and what came of earlier forecasts.

    ml/evaluation, ml/previsao_vendas, ml/acuracia_previsao, ops/model_decisions, gold/vendas_diarias, the champion's tags
        ─▶  reports/modelo/<date>/index.html

The date is the newest day of sales. It is made without MLflow's models: only the champion's tags are read.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core import files
from lakehouse.core.delta import Snapshot, open_existing
from lakehouse.core.engines import Session
from lakehouse.core.names import TableRef
from lakehouse.lake import LakeResource
from lakehouse.ml.resource import MlResource
from lakehouse.steps import RETRY, code_version, failures

if TYPE_CHECKING:
    from lakehouse.ml.registry import Version
    from lakehouse.reports.modelo_page import ModeloFigures

REPORT = TableRef("reports", "modelo")
_EVALUATION, _FORECAST, _ACCURACY = (TableRef("ml", name) for name in ("evaluation", "previsao_vendas", "acuracia_previsao"))
_DECISIONS, _DAILY = TableRef("ops", "model_decisions"), TableRef("gold", "vendas_diarias")
_TABLES = (_DAILY, TableRef("ml", "features"), _EVALUATION, _FORECAST, _ACCURACY, _DECISIONS)
_MADE = "made.json"


@dg.asset(
    key=REPORT.key,
    group_name="reports",
    deps=[_EVALUATION.key, ["ml", "promotion"], _FORECAST.key, _ACCURACY.key],
    description="The forecast's model: backtest, forecast with interval, importance, decisions. One HTML page.",
    owners=["team:dados"],
    kinds={"html"},
    tags={"ml": ""},
    retry_policy=RETRY,
    io_manager_key=None,
)
def modelo_report(context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource) -> dg.MaterializeResult:
    from lakehouse.reports.modelo_page import render

    storage = lake.storage
    folder = storage.uri(REPORT)
    with failures():
        champion = ml.registry.alias("champion")
        snapshots = {ref: open_existing(storage.uri(ref)) for ref in _TABLES}
        # With the id: a table that was made anew begins at version 0 again.
        inputs: dict[str, Any] = {str(ref): [snapshot.version, snapshot.id] for ref, snapshot in snapshots.items() if snapshot}
        inputs["champion"] = champion.number if champion else None
        made = _made(folder)
        unchanged = made.get("inputs") == inputs and str(made.get("page")) in files.listing(folder, below=True)
        if unchanged:
            context.log.info("The report %s is current.", made["page"])
        else:
            with lake.session() as session:
                figures = _collect(session, snapshots, champion, environment=lake.environment)
            day = max(row["data"] for row in figures.daily)
            made = {"page": f"{day.isoformat()}/index.html", "code": _code(), "inputs": inputs}
            storage.put(REPORT, made["page"], render(figures).encode())
            storage.put(REPORT, _MADE, json.dumps(made, indent=1).encode())
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(f"{folder}/{made['page']}"),
                "champion": inputs["champion"] or 0,
                "bytes": files.stat(f"{folder}/{made['page']}").size,
                "nothing_to_do": unchanged,
            }
        )


def _collect(
    session: Session, snapshots: dict[TableRef, Snapshot | None], champion: "Version | None", *, environment: str
) -> "ModeloFigures":
    from lakehouse.reports.modelo_page import ModeloFigures

    return ModeloFigures(
        environment=environment,
        champion=champion.number if champion else None,
        recipe=champion.recipe.name if champion and champion.recipe else "",
        importance=champion.document("importance") if champion else {},
        daily=_rows(session, snapshots[_DAILY]),
        folds=[row for row in _rows(session, snapshots[_EVALUATION]) if row["uso"] == "relato"],
        forecast=_rows(session, snapshots[_FORECAST]),
        accuracy=_rows(session, snapshots[_ACCURACY]),
        decisions=_rows(session, snapshots[_DECISIONS]),
        tables=[
            {"layer": ref.layer, "table": ref.table, "version": s.version, "rows": s.rows, "bytes": s.bytes}
            for ref, s in snapshots.items()
            if s is not None
        ],
    )


def _rows(session: Session, snapshot: Snapshot | None) -> list[dict[str, Any]]:
    if snapshot is None:
        return []
    frame = session.read(snapshot.paths(), snapshot.columns)
    return [dict(zip(snapshot.columns, row, strict=True)) for row in session.rows(frame)]


def _made(folder: str) -> dict[str, Any]:
    """What the newest page was made of; nothing when there is none, or when another version of this code made it."""
    try:
        made: dict[str, Any] = json.loads(files.read(f"{folder}/{_MADE}"))
    except FileNotFoundError:
        return {}
    return made if made.get("code") == _code() else {}


def _code() -> str:
    here = Path(__file__).parent
    sources = [here / "modelo.py", here / "modelo_page.py", here / "page.py", *sorted((here / "templates").glob("*.j2"))]
    return code_version(*[source.read_text() for source in sources])
