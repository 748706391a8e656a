"""The report of the BRT: reads the marts of the last day and writes one page.

    gold/brt_*  ─▶  reports/brt/<date>/index.html

The date is that of the newest capture, so a day's page is written again at every export until the day is over. What is read is
two days of each mart, however many are stored.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from lakehouse.core import files
from lakehouse.core.captures import TIMEZONE
from lakehouse.core.delta import Snapshot, open_existing
from lakehouse.core.engines import Session
from lakehouse.core.names import TableRef
from lakehouse.lake import LakeResource
from lakehouse.steps import RETRY, code_version, failures
from lakehouse.tables.brt import BRT_GPS

REPORT = TableRef("reports", "brt")
FLEET, MINUTES, HOURS = (TableRef("gold", f"brt_{name}") for name in ("frota_atual", "frota_por_minuto", "servicos_por_hora"))
_TABLES = (BRT_GPS.bronze, BRT_GPS.silver, FLEET, MINUTES, HOURS)
_SHOWN = timedelta(hours=24)
_MADE = "made.json"
_SUMMED = ("recentes", "atrasados", "em_movimento")


@dg.asset(
    key=REPORT.key,
    group_name="reports",
    deps=[ref.key for ref in (FLEET, MINUTES, HOURS)],
    description="Where the BRT's fleet is and how it ran: one HTML page a day.",
    owners=["team:dados"],
    kinds={"html"},
    tags={"brt": ""},
    retry_policy=RETRY,
    io_manager_key=None,
)
def brt_report(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    from lakehouse.reports.brt_page import render

    storage = lake.storage
    folder = storage.uri(REPORT)
    with failures():
        snapshots = {ref: open_existing(storage.uri(ref)) for ref in _TABLES}
        # With the id: a table that was made anew begins at version 0 again.
        inputs = {str(ref): [snapshot.version, snapshot.id] for ref, snapshot in snapshots.items() if snapshot}
        made = _made(folder)
        unchanged = made.get("inputs") == inputs and str(made.get("page")) in files.listing(folder, below=True)
        if unchanged:
            context.log.info("The report %s is current.", made["page"])
        else:
            with lake.session() as session:
                figures = collect(session, snapshots, environment=lake.environment)
            moment = figures.captured_at or datetime.fromtimestamp(0, tz=ZoneInfo("UTC"))
            made = {"page": f"{moment.astimezone(ZoneInfo(TIMEZONE)):%Y-%m-%d}/index.html", "code": _code(), "inputs": inputs}
            made["veiculos"] = len(figures.fleet)
            storage.put(REPORT, made["page"], render(figures).encode())
            storage.put(REPORT, _MADE, json.dumps(made, indent=1).encode())
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(f"{folder}/{made['page']}"),
                "veiculos": made["veiculos"],
                "bytes": files.stat(f"{folder}/{made['page']}").size,
                "nothing_to_do": unchanged,
            }
        )


def collect(session: Session, snapshots: Mapping[TableRef, Snapshot | None], *, environment: str) -> Any:
    """Everything on the page, read from the lake: `brt_page.BrtFigures`."""
    from lakehouse.reports.brt_page import BrtFigures

    fleet = _rows(session, snapshots[FLEET])
    captured_at = max((row["capturado_em"] for row in fleet), default=None)
    minutes: list[dict[str, Any]] = []
    hours: list[dict[str, Any]] = []
    if captured_at is not None:
        since = captured_at - _SHOWN
        local = since.astimezone(ZoneInfo(TIMEZONE))
        minutes = [row for row in _rows(session, snapshots[MINUTES], since=local) if row["minuto"] > since]
        shown = [row for row in _rows(session, snapshots[HOURS], since=local)]
        hours = [row for row in shown if (row["data"], row["hora"]) > (local.date(), local.hour)]
    return BrtFigures(
        environment=environment,
        captured_at=captured_at,
        fleet=[row for row in fleet if row["visto_em"] == captured_at],
        minutes=_by_minute(minutes),
        hours=hours,
        tables=[
            {"layer": ref.layer, "table": ref.table, "version": s.version, "rows": s.rows, "bytes": s.bytes}
            for ref, s in snapshots.items()
            if s is not None
        ],
    )


def _by_minute(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summed over services. Every capture has vehicles of some service, not of every one: the most is their number."""
    found: dict[datetime, dict[str, Any]] = {}
    for row in rows:
        into = found.setdefault(row["minuto"], {"minuto": row["minuto"], "capturas": 0, **dict.fromkeys(_SUMMED, 0)})
        into["capturas"] = max(into["capturas"], row["capturas"])
        for name in _SUMMED:
            into[name] += row[name]
    return [found[minute] for minute in sorted(found)]


def _rows(session: Session, snapshot: Snapshot | None, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """The rows of a mart; of one that is partitioned by `data`, those from a day on."""
    if snapshot is None:
        return []
    chosen = [f for f in snapshot.files if since is None or str((f.partition or {})["data"]) >= f"{since:%Y-%m-%d}"]
    frame = session.read(snapshot.paths(chosen), snapshot.columns)
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
    sources = [here / "brt.py", here / "brt_page.py", here / "page.py", *sorted((here / "templates").glob("*.j2"))]
    return code_version(*[source.read_text() for source in sources])
