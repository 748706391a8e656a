"""The report of the maintenance: what it found, what it did, what it kept and why, and what the backup's proof has shown.

    ops/maintenance, ops/audit, ops/backups  ─▶  reports/manutencao/<date>/index.html

The date is that of the newest maintenance, in the business's time zone.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse.core.clock import zone
from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.reports.publish import Page, Snapshots, publish, report_arguments, rows, states
from lakehouse.runtime.lake import LakeResource

if TYPE_CHECKING:
    from lakehouse.reports.manutencao_page import ManutencaoFigures

REPORT = TableRef("reports", "manutencao")
_UPKEEP, _AUDIT, _BACKUPS = (TableRef("ops", name) for name in ("maintenance", "audit", "backups"))


@dg.asset(
    deps=[_UPKEEP.key, _AUDIT.key, _BACKUPS.key],
    description="Per table before and after, bytes and time, what was kept and why, audit, backups and their proof. One page.",
    **report_arguments(REPORT, tag="upkeep"),
)
def manutencao_report(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
    def make(session: Session, snapshots: Snapshots) -> Page:
        from lakehouse.reports.manutencao_page import render

        figures = collect(session, snapshots, environment=lake.environment)
        day = max(row["measured_at"] for row in figures.upkeep).astimezone(zone()).date()
        return Page(day, render(figures), {"tables": len(figures.upkeep)})

    yield from publish(context, lake, report=REPORT, tables=(_UPKEEP, _AUDIT, _BACKUPS), make=make)


def collect(session: Session, snapshots: Snapshots, *, environment: str) -> "ManutencaoFigures":
    """The newest maintenance and audit, and every backup."""
    from lakehouse.reports.manutencao_page import ManutencaoFigures

    upkeep, audit = (rows(session, snapshots[ref]) for ref in (_UPKEEP, _AUDIT))
    newest = max((row["measured_at"] for row in upkeep), default=None)
    looked = max((row["at"] for row in audit if row["kind"] != "act"), default=None)
    return ManutencaoFigures(
        environment=environment,
        upkeep=[row for row in upkeep if row["measured_at"] == newest],
        audit=[row for row in audit if row["at"] == looked],
        acts=[row for row in audit if row["kind"] == "act"],
        backups=rows(session, snapshots[_BACKUPS]),
        tables=states(snapshots),
    )
