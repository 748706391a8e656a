"""The sales report asset: reads the marts, the ledger and what every table says of itself; writes one page.

    gold/vendas_*, gold/clientes_rfm, ops/ledger, commits of bronze and silver  ─▶  reports/vendas/<date>/index.html

The date is the newest day of sales, not today: the same lake gives the same page, whenever it is asked for.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.engines.session import Session
from lakehouse.core.ledger import ERASED
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.snapshot import Snapshot
from lakehouse.reports.publish import Page, Snapshots, publish, report_arguments, rows, states
from lakehouse.runtime.lake import LakeResource
from lakehouse.tables.vendas import TABLES

if TYPE_CHECKING:
    from lakehouse.reports.vendas_page import VendasFigures

REPORT = TableRef("reports", "vendas")
MARTS = ("vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto", "clientes_rfm")
_TOP = 15


@dg.asset(
    deps=[["gold", name] for name in MARTS],
    description="Sales report: one HTML page a day of data.",
    **report_arguments(REPORT, tag="vendas"),
)
def vendas_report(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
    def make(session: Session, snapshots: Snapshots) -> Page | None:
        from lakehouse.reports.vendas_page import render

        figures = collect(session, lake.storage, snapshots, environment=lake.environment)
        if not figures.daily:
            return None
        receita = float(sum(row["receita"] for row in figures.monthly))
        return Page(figures.report_date, render(figures), {"preview": _preview(figures), "receita": receita})

    yield from publish(context, lake, report=REPORT, tables=tables(), make=make)


def tables() -> list[TableRef]:
    """Every table whose state is on the page."""
    own = [ref for spec in TABLES for ref in (spec.bronze, spec.silver)]
    return [*own, *[TableRef("gold", name) for name in MARTS]]


def collect(session: Session, storage: Storage, snapshots: Snapshots, *, environment: str) -> "VendasFigures":
    """Everything on the page, read from the lake: `vendas_page.VendasFigures`."""
    from lakehouse.reports.vendas_page import VendasFigures

    accounted = [ref for spec in TABLES for ref in (spec.bronze, spec.silver)]
    marts = {name: rows(session, snapshots[TableRef("gold", name)]) for name in MARTS}
    products = sorted(marts["vendas_por_produto"], key=lambda row: (-row["receita"], row["produto_id"]))[:_TOP]
    countries = sorted(marts["vendas_por_pais"], key=lambda row: (-row["receita"], row["pais"]))
    days = [row["data"] for row in marts["vendas_diarias"] if row["data"]]
    return VendasFigures(
        environment=environment,
        report_date=max(days, default=date(1970, 1, 1)),
        daily=sorted(marts["vendas_diarias"], key=lambda row: str(row["data"])),
        monthly=sorted(marts["vendas_mensais"], key=lambda row: str(row["mes"])),
        by_country=countries,
        by_segment=_segments(marts["clientes_rfm"]),
        top_products=products,
        rules=[rule for ref, snapshot in snapshots.items() if snapshot for rule in rules_of(ref, snapshot)],
        ledger=ledger_of(session, storage, {ref: found.version if (found := snapshots[ref]) else None for ref in accounted}),
        tables=states(snapshots),
    )


def _segments(customers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    segments: dict[str, dict[str, Any]] = {}
    for row in customers:
        into = segments.setdefault(row["segmento_rfm"], {"segmento": row["segmento_rfm"], "clientes": 0, "receita": 0})
        into["clientes"] += 1
        into["receita"] += row["receita"]
    return sorted(segments.values(), key=lambda row: (-row["receita"], row["segmento"]))


def rules_of(ref: TableRef, snapshot: Snapshot) -> list[dict[str, Any]]:
    """What the newest commit of a table said of its rules that validated something: table, rule, action, failed, passed."""
    return [
        {"table": str(ref), "rule": rule, "action": found.action, "failed": found.failed, "passed": found.passed}
        for rule, found in sorted(snapshot.provenance.findings.items())
        if found.validated or not found.passed
    ]


def ledger_of(session: Session, storage: Storage, tables: Mapping[TableRef, int | None]) -> list[dict[str, Any]]:
    """Everything that ever came into each of these tables, and where it went, since its last rebuild.

    Args:
        tables: up to which version of each; None for all.
    """
    entries = rows(session, open_input(storage, TableRef("ops", "ledger")))
    out = []
    for ref, until in tables.items():
        mine = [row for row in entries if (row["layer"], row["table"]) == (ref.layer, ref.table)]
        mine = [row for row in mine if until is None or row["version"] <= until]
        start = max((row["version"] for row in mine if row["batch_from"] == 0), default=0)
        mine = [row for row in mine if row["version"] >= start and row["operation"] not in ERASED]
        names = ("written", "deduplicated", "deleted", "quarantined")
        sums = {name: sum(row[name] for row in mine) for name in ("records_in", *names)}
        balanced = sums["records_in"] == sum(sums[name] for name in names)
        if mine:
            figures = {"in_rows": sums["records_in"], **{name: sums[name] for name in names}, "balanced": balanced}
            out.append({"layer": ref.layer, "table": ref.table, **figures})
    return out


def _preview(figures: "VendasFigures") -> str:
    lines = ["| mês | pedidos | linhas | receita |", "|---|---:|---:|---:|"]
    lines += [f"| {r['mes']} | {r['pedidos']:,} | {r['linhas']:,} | {r['receita']:,.2f} |" for r in figures.monthly[-13:]]
    return "\n".join(lines)
