"""The queries of *Vendas*, *BRT* and *Modelos*: what the reports show, drawn again when a table of theirs has changed."""

from typing import Any

from lakehouse.core.names import TableRef
from lakehouse.dashboard.executions import WINDOWS
from lakehouse.dashboard.reading import Lake, Row

FEEDS_TABLE = TableRef("gold", "slo_feeds")


def sales(lake: Lake) -> dict[str, Any]:
    """See `vendas_page.sales`; `empty` where there are no sales."""
    from lakehouse.reports import vendas, vendas_page

    snapshots = {ref: lake.opened(ref) for ref in vendas.tables()}

    def draw() -> dict[str, Any]:
        figures = vendas.collect(lake.session, lake.storage, snapshots, environment=lake.settings.env)
        return {"empty": not (figures.daily or figures.monthly), **vendas_page.sales(figures)}

    return lake.once("sales", list(snapshots.values()), draw)


def fleet(lake: Lake) -> dict[str, Any]:
    """See `brt_page.fleet`; `captured_at` is the newest capture, None where there is none."""
    from lakehouse.reports import brt, brt_page

    snapshots = {ref: lake.opened(ref) for ref in brt.TABLES}

    def draw() -> dict[str, Any]:
        figures = brt.collect(lake.session, snapshots, environment=lake.settings.env)
        return {"captured_at": figures.captured_at, **brt_page.fleet(figures)}

    return lake.once("fleet", list(snapshots.values()), draw)


def feeds(lake: Lake) -> list[Row]:
    """Rows of `gold/slo_feeds`: minutes captured of minutes due, by window; none before job `slo` ran."""
    order = [*WINDOWS]
    return sorted(lake.rows(FEEDS_TABLE), key=lambda row: (row["feed"], order.index(row["time_window"])))


def model(lake: Lake) -> dict[str, Any]:
    """See `modelo_page.model`; `empty` before the first evaluation. MLflow is not asked: the champion is the last promoted."""
    from lakehouse.reports import modelo, modelo_page
    from lakehouse.reports.publish import rows

    snapshots = {ref: lake.opened(ref) for ref in modelo.TABLES}

    def draw() -> dict[str, Any]:
        promoted = [row for row in rows(lake.session, snapshots[modelo.DECISIONS]) if row["promovido"]]
        champion = max(promoted, key=lambda row: row["decidido_em"], default={})
        figures = modelo.collect(
            lake.session,
            snapshots,
            environment=lake.settings.env,
            champion=champion.get("versao"),
            recipe=champion.get("receita_modelo") or "",
            importance={},
        )
        empty = not (figures.daily and (figures.folds or figures.forecast or figures.decisions))
        return {"empty": True} if empty else {"empty": False, **modelo_page.model(figures)}

    return lake.once("model", list(snapshots.values()), draw)
