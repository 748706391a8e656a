"""The report of the BRT: reads the marts of the last day and writes one page.

    gold/brt_*  ─▶  reports/brt/<date>/index.html

The date is that of the newest capture, so a day's page is written again at every export until the day is over. What is read is
two days of each mart, however many are stored.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from lakehouse.core.clock import zone
from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.reports.publish import Page, Snapshots, publish, report_arguments, rows, states
from lakehouse.runtime.lake import LakeResource
from lakehouse.tables.brt import BRT_GPS

REPORT = TableRef("reports", "brt")
FLEET, MINUTES, HOURS = (TableRef("gold", f"brt_{name}") for name in ("frota_atual", "frota_por_minuto", "servicos_por_hora"))
TABLES = (BRT_GPS.bronze, BRT_GPS.silver, FLEET, MINUTES, HOURS)
_SHOWN = timedelta(hours=24)
_SUMMED = ("recentes", "atrasados", "em_movimento")


@dg.asset(
    deps=[ref.key for ref in (FLEET, MINUTES, HOURS)],
    description="Where the BRT's fleet is and how it ran: one HTML page a day.",
    **report_arguments(REPORT, tag="brt"),
)
def brt_report(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
    def make(session: Session, snapshots: Snapshots) -> Page | None:
        from lakehouse.reports.brt_page import render

        figures = collect(session, snapshots, environment=lake.environment)
        if figures.captured_at is None:
            return None
        return Page(figures.captured_at.astimezone(zone()).date(), render(figures), {"veiculos": len(figures.fleet)})

    yield from publish(context, lake, report=REPORT, tables=TABLES, make=make)


def collect(session: Session, snapshots: Snapshots, *, environment: str) -> Any:
    """Everything on the page, read from the lake: `brt_page.BrtFigures`."""
    from lakehouse.reports.brt_page import BrtFigures

    fleet = rows(session, snapshots[FLEET])
    captured_at = max((row["capturado_em"] for row in fleet), default=None)
    minutes: list[dict[str, Any]] = []
    hours: list[dict[str, Any]] = []
    if captured_at is not None:
        since = captured_at - _SHOWN
        local = since.astimezone(zone())
        minutes = _by_minute(session, snapshots[MINUTES], since)
        shown = rows(session, snapshots[HOURS], chosen=_files_since(snapshots[HOURS], local))
        hours = [row for row in shown if (row["data"], row["hora"]) > (local.date(), local.hour)]
    return BrtFigures(
        environment=environment,
        captured_at=captured_at,
        fleet=[row for row in fleet if row["visto_em"] == captured_at],
        minutes=minutes,
        hours=hours,
        tables=states(snapshots),
    )


def _by_minute(session: Session, snapshot: Snapshot | None, since: datetime) -> list[dict[str, Any]]:
    """Summed over services. Every capture has vehicles of some service, not of every one: the most is their number."""
    import narwhals as nw

    if snapshot is None:
        return []
    paths = snapshot.paths(_files_since(snapshot, since.astimezone(zone())))
    frame = session.read(paths, snapshot.columns).filter(nw.col("minuto") > nw.lit(since))
    sums = [nw.col(name).sum().cast(nw.Int64).alias(name) for name in _SUMMED]
    frame = frame.group_by("minuto").agg(nw.col("capturas").max().alias("capturas"), *sums).sort("minuto")
    return session.dicts(frame, "minuto", "capturas", *_SUMMED)


def _files_since(snapshot: Snapshot | None, day: datetime) -> list[DataFile]:
    """The files of a mart that is partitioned by `data`, from a day on."""
    files = snapshot.files if snapshot is not None else ()
    return [file for file in files if str((file.partition or {})["data"]) >= f"{day:%Y-%m-%d}"]
