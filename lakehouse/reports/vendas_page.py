"""The page of `reports/vendas`: figures in, one self-contained HTML page out.

Belongs here: what the page says and how it looks (wording, number format, colours); its markup and style are
in `templates/`. Does not: reading tables, choosing the date, storing the page, anything of Dagster. `render` does no
I/O but reading its templates, knows no clock and no network, and gives byte-identical HTML for equal figures, so that
a report that is made again overwrites itself with itself.

    gold rows, outcomes of checks, ledger ─▶ VendasFigures ─▶ render
        ├─ altair ─▶ Vega-Lite ─▶ vl-convert ─▶ inline SVG ─┐
        └─ Jinja2, autoescape ◀─────────────────────────────┘ ─▶ str

The page is Portuguese and has no script. Its charts are drawn in `vendas_charts.py`. The sources name no currency, so none is
written. What all pages share is in `page.py`.

Run it alone: `python -m pytest lakehouse_tests/reports/test_vendas_page.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lakehouse.reports import page
from lakehouse.reports import vendas_charts as charts

_ACTIONS = {"warn": "avisa", "quarantine": "põe em quarentena", "fail": "impede o commit"}


@dataclass(frozen=True, kw_only=True)
class VendasFigures:
    """All that the page shows. Rows are mappings from column to value, as `pyarrow.Table.to_pylist` gives them.

    Every sequence may be empty; a `None` in a name or a measure is shown as missing. Measures are `int` or `Decimal`.

    Attributes:
        environment: `dev`, `staging` or `prod`; shown beside the title.
        report_date: The date that the report is of.
        daily: gold `vendas_diarias`: data (date), pedidos, clientes, linhas, quantidade, receita.
        monthly: gold `vendas_mensais`: mes ('YYYY-MM') and the same measures.
        by_country: gold `vendas_por_pais`: pais and the same measures.
        by_segment: gold `clientes_rfm` by segment: segmento, clientes (count), receita. A customer is in one segment.
        top_products: produto_id, nome, linhas, quantidade, receita; the page shows the first 15 by receita.
        rules: the latest outcome of each check: table, rule, action, failed (count), passed (bool).
        ledger: layer, table, in_rows, written, deduplicated, deleted, quarantined, balanced (bool).
        tables: layer, table, version, rows, bytes.
    """

    environment: str
    report_date: date
    daily: Sequence[page.Row]
    monthly: Sequence[page.Row]
    by_country: Sequence[page.Row]
    by_segment: Sequence[page.Row]
    top_products: Sequence[page.Row]
    rules: Sequence[page.Row]
    ledger: Sequence[page.Row]
    tables: Sequence[page.Row]


def render(figures: VendasFigures) -> str:
    """The whole page.

    Args:
        figures: What to show; see `VendasFigures`.

    Returns:
        HTML, to be stored as UTF-8. Equal figures give equal text.

    Raises:
        KeyError: A row lacks a column that its table promises.
        ValueError: A `mes` is not 'YYYY-MM', or a chart could not be drawn.
    """
    return page.page(
        "vendas.html.j2",
        environment=page.text(figures.environment),
        report_date=page.day(figures.report_date),
        empty=not (figures.daily or figures.monthly or figures.by_country),
        rules_failed=rules_table([row for row in figures.rules if not row["passed"]]),
        rules_passed=rules_table([row for row in figures.rules if row["passed"]]),
        ledger=ledger_table(figures.ledger),
        tables=page.versions(figures.tables),
        **sales(figures),
    )


def sales(figures: VendasFigures) -> dict[str, Any]:
    """What the page says of sales, by the names of its template; the dashboard shows it too."""
    return {
        "totals": _totals(figures),
        "disagreement": _disagreement(figures),
        "daily": charts.daily(figures.daily),
        "monthly": charts.monthly(figures.monthly, last_day=max(charts.dates_of(figures.daily), default=None)),
        "countries": charts.by_country_or_segment(figures),
        "no_countries": charts.why_no_countries(figures),
        "products": charts.products(figures.top_products),
    }


# ---- figures of the header -------------------------------------------------------------------------------------------


def _totals(figures: VendasFigures) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header.

    Revenue and lines add up along any of the marts. Orders do not (one whose lines fall on two days is counted on
    both), but each sum is at least the true number, so the least is the closest. Customers repeat between days, months
    and countries; only segments part them.
    """
    marts = _marts(figures)
    base = next(iter(marts.values()), ())
    orders = min((page.total(rows, "pedidos") for rows in marts.values()), default=None)
    dates = sorted(charts.dates_of(figures.daily))
    months = sorted(row["mes"] for row in figures.monthly if row["mes"] is not None)
    if dates:
        period = page.day(dates[0]) if dates[0] == dates[-1] else f"{page.day(dates[0])} a {page.day(dates[-1])}"
        remark = "1 dia com vendas" if len(dates) == 1 else f"{page.number(len(dates))} dias com vendas"
    elif months:
        period, remark = f"{charts.month_of(months[0])} a {charts.month_of(months[-1])}", ""
    else:
        period, remark = page.DASH, ""
    return [
        (
            "Receita",
            page.number(page.total(base, "receita"), 2) if base else page.DASH,
            "quantidade \N{MULTIPLICATION SIGN} valor unitário",
        ),
        ("Pedidos", page.number(orders) if base else page.DASH, ""),
        (
            "Clientes",
            page.number(page.total(figures.by_segment, "clientes")) if figures.by_segment else page.DASH,
            "identificados",
        ),
        ("Linhas", page.number(page.total(base, "linhas")) if base else page.DASH, ""),
        ("Período", period, remark),
    ]


def _marts(figures: VendasFigures) -> dict[str, Sequence[page.Row]]:
    every = {"vendas_diarias": figures.daily, "vendas_mensais": figures.monthly, "vendas_por_pais": figures.by_country}
    return {name: rows for name, rows in every.items() if rows}


def _disagreement(figures: VendasFigures) -> list[str]:
    """The totals of each mart, when they are not all the same: they were then made from different silver versions."""
    totals = {name: (page.total(rows, "linhas"), page.total(rows, "receita")) for name, rows in _marts(figures).items()}
    if len(set(totals.values())) < 2:
        return []
    return [
        f"{name}: {page.number(lines)} linhas, receita {page.number(revenue, 2)}" for name, (lines, revenue) in totals.items()
    ]


# ---- tables ----------------------------------------------------------------------------------------------------------


def rules_table(rows: Sequence[page.Row]) -> page.Table:
    """The latest outcome of rules; those that failed stand out."""
    ordered = sorted(rows, key=lambda row: (page.text(row["table"]), page.text(row["rule"])))
    return page.Table(
        title="Qualidade dos dados",
        columns=("Tabela", "Regra", "Se falhar", "Reprovados", "Resultado"),
        rows=[
            (
                page.text(row["table"]),
                page.text(row["rule"]),
                _ACTIONS.get(row["action"], page.text(row["action"])),
                page.number(row["failed"]),
                "passou" if row["passed"] else "falhou",
            )
            for row in ordered
        ],
        numeric=frozenset({3}),
        alarm=frozenset(index for index, row in enumerate(ordered) if not row["passed"]),
    )


_LEDGER_PARTS = ("written", "deduplicated", "deleted", "quarantined")


def ledger_table(rows: Sequence[page.Row]) -> page.Table:
    """The ledger and its difference, computed here: a row stands out when that or the recorded result is wrong."""
    cells, alarm = [], set()
    for index, row in enumerate(rows):
        difference = page.decimal(row["in_rows"]) - sum(page.decimal(row[part]) for part in _LEDGER_PARTS)
        if difference or not row["balanced"]:
            alarm.add(index)
        cells.append(
            (
                f"{page.text(row['layer'])}/{page.text(row['table'])}",
                page.number(row["in_rows"]),
                *(page.number(row[part]) for part in _LEDGER_PARTS),
                page.number(difference),
                "não fecha" if index in alarm else "fecha",
            )
        )
    return page.Table(
        title="Livro-razão",
        columns=("Tabela", "Entraram", "Gravados", "Repetidos", "Apagados", "Em quarentena", "Diferença", "Resultado"),
        rows=cells,
        numeric=frozenset(range(1, 7)),
        alarm=frozenset(alarm),
    )
