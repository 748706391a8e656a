"""The page of `reports/vendas`: figures in, one self-contained HTML page out.

Belongs here: what the page says and how it looks (wording, number format, charts, colours); its markup and style are
in `templates/`. Does not: reading tables, choosing the date, storing the page, anything of Dagster. `render` does no
I/O but reading its templates, knows no clock and no network, and gives byte-identical HTML for equal figures, so that
a report that is made again overwrites itself with itself.

    gold rows, outcomes of checks, ledger ─▶ VendasFigures ─▶ render
        ├─ altair ─▶ Vega-Lite ─▶ vl-convert ─▶ inline SVG ─┐
        └─ Jinja2, autoescape ◀─────────────────────────────┘ ─▶ str

The page is Portuguese and holds no script. Charts are drawn in the light colours of PALETTE; the style sheet maps each
of these to its dark counterpart by attribute selector, so one SVG serves both. Each chart is drawn twice, wide and
narrow, because an SVG scaled from 1000 to 360 pixels has 4-pixel letters. The sources name no currency, so none is
written.

Run it alone: `python -m pytest lakehouse_tests/reports/test_vendas_page.py`.
"""

import re
import xml.etree.ElementTree as ET
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

Row = Mapping[str, Any]

TEMPLATES = Path(__file__).parent / "templates"

# name -> (light, dark). Text reaches 4.5:1 and marks 3:1 against `paper` and `panel` (a test computes it); `grid` and
# `line` only decorate.
PALETTE: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#11161c"),
    "panel": ("#f5f7f9", "#1a212a"),
    "line": ("#d5dbe1", "#333e4a"),
    "grid": ("#e6eaee", "#2a343f"),
    "ink": ("#1b242e", "#e7ebf0"),
    "muted": ("#566270", "#a3afbc"),
    "accent": ("#17609c", "#74b6ee"),
    "daily": ("#6f8ea8", "#5f7f9c"),
    "bad": ("#b02a1c", "#ff9585"),
}
_COLOUR = {name: light for name, (light, _) in PALETTE.items()}

WIDTHS = ("wide", "narrow")  # classes of the style sheet, which shows one of them
MEAN_DAYS = 7
TOP_COUNTRIES = 12
TOP_PRODUCTS = 15
NAME_IN_CHART = 44  # characters; the tables below the charts hold up to NAME_IN_TABLE
NAME_IN_TABLE = 160
MONTHS_WITH_VALUES = 14  # more bars than this and the figures above them touch at 1000 pixels

_DASH = "\N{EN DASH}"
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_MONTHS = ("jan", "fev", "mar", "abr", "mai", "jun", "jul", "ago", "set", "out", "nov", "dez")
_ACTIONS = {"warn": "avisa", "quarantine": "põe em quarentena", "fail": "impede o commit"}
_MEASURES = ("pedidos", "clientes", "linhas", "quantidade", "receita")


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
    daily: Sequence[Row]
    monthly: Sequence[Row]
    by_country: Sequence[Row]
    by_segment: Sequence[Row]
    top_products: Sequence[Row]
    rules: Sequence[Row]
    ledger: Sequence[Row]
    tables: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page, every cell text already; `numeric` columns are right-aligned, `alarm` rows stand out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int]
    alarm: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart of the page. `charts` has an SVG for each of WIDTHS; `says` is its text alternative."""

    title: str
    caption: str
    says: str
    charts: Mapping[str, str]
    legend: Sequence[tuple[str, str]] = ()
    table: Table | None = None


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
    import jinja2
    import markupsafe

    daily, countries = _daily(figures.daily), _by_country_or_segment(figures)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Only what `_drawn` has parsed and written again is trusted as markup.
    environment.filters["svg"] = markupsafe.Markup
    return environment.get_template("vendas.html.j2").render(
        palette=PALETTE,
        environment=_text(figures.environment),
        report_date=_day(figures.report_date),
        empty=not (figures.daily or figures.monthly or figures.by_country),
        totals=_totals(figures),
        disagreement=_disagreement(figures),
        daily=daily,
        monthly=_monthly(figures.monthly, last_day=max(_dates(figures.daily), default=None)),
        countries=countries,
        no_countries=_why_no_countries(figures),
        products=_products(figures.top_products),
        rules_failed=_rules([row for row in figures.rules if not row["passed"]]),
        rules_passed=_rules([row for row in figures.rules if row["passed"]]),
        ledger=_ledger(figures.ledger),
        tables=_tables(figures.tables),
    )


# ---- figures of the header -------------------------------------------------------------------------------------------


def _totals(figures: VendasFigures) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header.

    Revenue and lines add up along any of the marts. Orders do not (one whose lines fall on two days is counted on
    both), but each sum is at least the true number, so the least is the closest. Customers repeat between days, months
    and countries; only segments part them.
    """
    marts = _marts(figures)
    base = next(iter(marts.values()), ())
    orders = min((_sum(rows, "pedidos") for rows in marts.values()), default=None)
    dates = sorted(_dates(figures.daily))
    months = sorted(row["mes"] for row in figures.monthly if row["mes"] is not None)
    if dates:
        period = _day(dates[0]) if dates[0] == dates[-1] else f"{_day(dates[0])} a {_day(dates[-1])}"
        remark = "1 dia com vendas" if len(dates) == 1 else f"{_number(len(dates))} dias com vendas"
    elif months:
        period, remark = f"{_month(months[0])} a {_month(months[-1])}", ""
    else:
        period, remark = _DASH, ""
    return [
        (
            "Receita",
            _number(_sum(base, "receita"), 2) if base else _DASH,
            "quantidade \N{MULTIPLICATION SIGN} valor unitário",
        ),
        ("Pedidos", _number(orders) if base else _DASH, ""),
        ("Clientes", _number(_sum(figures.by_segment, "clientes")) if figures.by_segment else _DASH, "identificados"),
        ("Linhas", _number(_sum(base, "linhas")) if base else _DASH, ""),
        ("Período", period, remark),
    ]


def _marts(figures: VendasFigures) -> dict[str, Sequence[Row]]:
    every = {"vendas_diarias": figures.daily, "vendas_mensais": figures.monthly, "vendas_por_pais": figures.by_country}
    return {name: rows for name, rows in every.items() if rows}


def _disagreement(figures: VendasFigures) -> list[str]:
    """The totals of each mart, when they are not all the same: they were then made from different silver versions."""
    totals = {name: (_sum(rows, "linhas"), _sum(rows, "receita")) for name, rows in _marts(figures).items()}
    if len(set(totals.values())) < 2:
        return []
    return [f"{name}: {_number(lines)} linhas, receita {_number(revenue, 2)}" for name, (lines, revenue) in totals.items()]


# ---- charts ----------------------------------------------------------------------------------------------------------


def _daily(rows: Sequence[Row]) -> Figure | None:
    """Revenue per day with its mean over seven calendar days; a day without a row is a day that sold nothing."""
    revenue: dict[int, Decimal] = {}
    for row in rows:
        if row["data"] is not None:
            day = row["data"].toordinal()
            revenue[day] = revenue.get(day, Decimal(0)) + _decimal(row["receita"])
    if not revenue:
        return None
    first, last = min(revenue), max(revenue)
    negative = sorted(day for day, value in revenue.items() if value < 0)
    low, high = min(revenue, key=lambda day: (revenue[day], day)), max(revenue, key=lambda day: (revenue[day], -day))
    has_mean = last - first >= MEAN_DAYS - 1

    caption = "Cada dia de calendário; um dia sem vendas conta como zero."
    if has_mean:
        caption += f" A média é dos {MEAN_DAYS} dias até o dia, e começa no sétimo."
    else:
        caption += f" São menos de {MEAN_DAYS} dias: não há média."
    if undated := _sum((row for row in rows if row["data"] is None), "linhas"):
        caption += f" {_number(undated)} linhas sem data não aparecem aqui."
    legend = [("daily", "receita do dia")]
    if has_mean:
        legend.append(("accent", f"média de {MEAN_DAYS} dias"))
    if negative:
        days = "1 dia" if len(negative) == 1 else f"{_number(len(negative))} dias"
        legend.append(("bad", f"receita negativa ({days})"))
    return Figure(
        title="Receita por dia",
        caption=caption,
        says=f"Receita por dia de {_ordinal(first)} a {_ordinal(last)}:"
        f" a maior foi {_number(revenue[high], 2)} em {_ordinal(high)},"
        f" a menor {_number(revenue[low], 2)} em {_ordinal(low)}.",
        charts={name: _daily_chart(revenue, negative=negative, wide=name == "wide") for name in WIDTHS},
        legend=legend,
    )


def _daily_chart(revenue: Mapping[int, Decimal], *, negative: Sequence[int], wide: bool) -> str:
    import altair as alt

    first, last = min(revenue), max(revenue)
    points = [{"t": _ms(day), "v": float(revenue.get(day, 0))} for day in _vertices(revenue)]
    means = [
        {"t": _ms(day), "v": float(sum(revenue.get(day - back, Decimal(0)) for back in range(MEAN_DAYS)) / MEAN_DAYS)}
        for day in _vertices(revenue)
        if day >= first + MEAN_DAYS - 1
    ]
    values = [float(value) for value in revenue.values()]
    at = {
        "x": alt.X(
            "t:Q",
            scale=alt.Scale(type="utc", domain=[_ms(first), _ms(last)] if first < last else [_ms(first - 1), _ms(last + 1)]),
            axis=_time_axis(_day_ticks(first, last, most=13 if wide else 5)),
        ),
        # five hundredths below and two above keep the stroke and the points of the extremes inside the chart
        "y": alt.Y("v:Q", scale=_span(1.05 * min(0, *values), 1.02 * max(0, *values)), axis=_value_axis(wide=wide)),
    }
    layers: list[Any] = [
        _chart(points).mark_line(color=_COLOUR["daily"], strokeWidth=1 if wide else 0.75, strokeJoin="round").encode(**at)
    ]
    if len(points) <= 31:  # a line of one point is nothing, and one of a few points hides where they are
        layers.append(_chart(points).mark_circle(color=_COLOUR["daily"], opacity=1, size=30).encode(**at))
    if means:
        thickness = 2.25 if wide else 1.75
        layers.append(_chart(means).mark_line(color=_COLOUR["accent"], strokeWidth=thickness, strokeJoin="round").encode(**at))
    if negative:
        below = [{"t": _ms(day), "v": float(revenue[day])} for day in negative]
        layers.append(_chart(below).mark_circle(color=_COLOUR["bad"], opacity=1, size=34).encode(**at))
    return _drawn(layers, width=1000 if wide else 360, height=300 if wide else 230, wide=wide)


def _vertices(revenue: Mapping[int, Decimal]) -> list[int]:
    """The days at which the daily line or its mean can bend.

    Within a long gap both lie flat, so its inner days say nothing; leaving them out keeps a stray date in the year 1
    from making a page of 700,000 points.
    """
    first, last = min(revenue), max(revenue)
    return sorted({near for day in revenue for near in range(day - 1, day + MEAN_DAYS + 1) if first <= near <= last})


def _monthly(rows: Sequence[Row], *, last_day: date | None) -> Figure | None:
    """Revenue per month, and a table of all its measures."""
    dated = sorted((row for row in rows if row["mes"] is not None), key=lambda row: row["mes"])
    if not dated:
        return None
    caption = "Meses de calendário, em UTC."
    partial = (
        last_day is not None and _month_start(dated[-1]["mes"]) == last_day.replace(day=1) and _is_before_month_end(last_day)
    )
    if partial and last_day is not None:
        caption += f" Há dados de {_month(dated[-1]['mes'])} só até o dia {last_day.day}."
    if undated := _sum((row for row in rows if row["mes"] is None), "linhas"):
        caption += f" {_number(undated)} linhas sem data não aparecem aqui."
    low, high = (
        min(dated, key=lambda row: _decimal(row["receita"])),
        max(dated, key=lambda row: _decimal(row["receita"])),
    )
    return Figure(
        title="Receita por mês",
        caption=caption,
        says=f"Receita por mês de {_month(dated[0]['mes'])} a {_month(dated[-1]['mes'])}:"
        f" a maior foi {_number(high['receita'], 2)} em {_month(high['mes'])},"
        f" a menor {_number(low['receita'], 2)} em {_month(low['mes'])}.",
        charts={name: _monthly_chart(dated, wide=name == "wide") for name in WIDTHS},
        table=_measures_table("Por mês", "Mês", [(_month(row["mes"]), row) for row in dated], _MEASURES),
    )


def _monthly_chart(rows: Sequence[Row], *, wide: bool) -> str:
    import altair as alt

    bars = []
    for row in rows:
        start, value = _month_start(row["mes"]).toordinal(), _decimal(row["receita"])
        bars.append(
            {
                # 26 of a month's 28 to 31 days are painted: neighbours stay apart without a band scale, which would
                # need every empty month of a gap.
                "from": _ms(start + 1),
                "mid": _ms(start + 14),
                "to": _ms(start + 27),
                "v": float(value),
                "zero": 0,
                "text": _compact(value),
                "sign": "neg" if value < 0 else "pos",
            }
        )
    first, last = _month_start(rows[0]["mes"]).toordinal(), _month_start(rows[-1]["mes"]).toordinal()
    # Room for six months at least: one bar as wide as the page says nothing more than one of a sixth.
    margin = max(0, 180 - (last + 28 - first)) // 2
    scale = alt.Scale(type="utc", domain=[_ms(first - 4 - margin), _ms(last + 32 + margin)], nice=False)
    axis = _time_axis(_month_ticks(first, last, most=14 if wide else 6, offset=14))
    y = alt.Y("v:Q", scale=alt.Scale(zero=True), axis=_value_axis(wide=wide))
    from_, mid = alt.X("from:Q", scale=scale, axis=axis), alt.X("mid:Q", scale=scale, axis=axis)
    layers: list[Any] = [_chart(bars).mark_rect().encode(x=from_, x2="to:Q", y=y, y2="zero:Q", color=_sign_colour())]
    if wide and len(bars) <= MONTHS_WITH_VALUES:
        above, below = ([bar for bar in bars if bar["sign"] == sign] for sign in ("pos", "neg"))
        layers.append(_chart(above).mark_text(baseline="bottom", dy=-4).encode(x=mid, y=y, text="text:N"))
        layers.append(_chart(below).mark_text(baseline="top", dy=4).encode(x=mid, y=y, text="text:N"))
    return _drawn(layers, width=1000 if wide else 360, height=260 if wide else 210, wide=wide)


def _by_country_or_segment(figures: VendasFigures) -> Figure | None:
    """Countries, the smaller ones summed; segments of customers when there is only one country to show."""
    if len(figures.by_country) > 1:
        ranked = _ranked(figures.by_country)
        named = [(_text(row["pais"], missing="(sem país)"), row) for row in ranked]
        bars = [(name, _decimal(row["receita"])) for name, row in named]
        if len(bars) > TOP_COUNTRIES:
            rest = bars[TOP_COUNTRIES - 1 :]
            bars = [
                *bars[: TOP_COUNTRIES - 1],
                (f"Outros {len(rest)} países", sum((value for _, value in rest), Decimal(0))),
            ]
        return _ranking(
            "Receita por país",
            bars,
            _measures_table("Por país", "País", named, _MEASURES, share=True),
            caption="Do maior para o menor; os menores somados." if len(named) > TOP_COUNTRIES else "Do maior para o menor.",
        )
    if not figures.by_segment:
        return None
    named = [(_text(row["segmento"], missing="(sem segmento)"), row) for row in _ranked(figures.by_segment)]
    return _ranking(
        "Receita por segmento de clientes",
        [(name, _decimal(row["receita"])) for name, row in named],
        _measures_table("Por segmento", "Segmento", named, ("clientes", "receita"), share=True),
        caption=f"{_why_no_countries(figures)} RFM: recência, frequência, valor; só clientes identificados.",
    )


def _why_no_countries(figures: VendasFigures) -> str:
    """Why the page shows segments, or nothing at all, in the place of countries."""
    if len(figures.by_country) == 1:
        reason = f"Todas as vendas são de um só país ({_text(figures.by_country[0]['pais'], missing='sem nome')})"
    else:
        reason = "Não há vendas por país"
    return (
        f"{reason}; por isso a receita aparece por segmento RFM dos clientes."
        if figures.by_segment
        else f"{reason}, e não há segmentos de clientes."
    )


def _products(rows: Sequence[Row]) -> Figure | None:
    if not rows:
        return None
    top = _ranked(rows)[:TOP_PRODUCTS]
    named = [(_text(row["nome"], missing=f"(sem nome) {_text(row['produto_id'])}"), row) for row in top]
    return _ranking(
        "Produtos de maior receita",
        [(name, _decimal(row["receita"])) for name, row in named],
        Table(
            title="Por produto",
            columns=("Produto", "Código", "Linhas", "Quantidade", "Receita"),
            rows=[
                (
                    name,
                    _text(row["produto_id"]),
                    _number(row["linhas"]),
                    _number(row["quantidade"]),
                    _number(row["receita"], 2),
                )
                for name, row in named
            ],
            numeric=frozenset({2, 3, 4}),
        ),
        caption="O maior de todos." if len(top) == 1 else f"Os {len(top)} maiores, por receita.",
    )


def _ranking(title: str, bars: Sequence[tuple[str, Decimal]], table: Table, *, caption: str) -> Figure:
    said = "; ".join(f"{name} {_number(value, 2)}" for name, value in bars[:5])
    return Figure(
        title=title,
        caption=caption,
        says=f"{title}, do maior para o menor: {said}.",
        charts={name: _ranking_chart(bars, wide=name == "wide") for name in WIDTHS},
        table=table,
    )


def _ranking_chart(bars: Sequence[tuple[str, Decimal]], *, wide: bool) -> str:
    """Horizontal bars, each below its own name and figure: no margin for labels, however long the name."""
    import altair as alt

    width, row_height = (496, 36) if wide else (360, 34)
    data = [
        {
            "name": _shortened(name, NAME_IN_CHART),
            "text": _number(value, 2),
            "from": 0,
            "to": float(value),
            "base": rank + 0.46,
            "top": rank + 0.58,
            "bottom": rank + 0.86,
            "sign": "neg" if value < 0 else "pos",
        }
        for rank, (name, value) in enumerate(bars)
    ]
    values = [float(value) for _, value in bars]
    x = alt.X("from:Q", scale=_span(min(0, *values), max(0, *values)), axis=None)
    y_scale = alt.Scale(domain=[len(bars), 0], nice=False, zero=False)
    base, top = alt.Y("base:Q", scale=y_scale, axis=None), alt.Y("top:Q", scale=y_scale, axis=None)
    names = _chart(data).mark_text(align="left", baseline="bottom", limit=width - 112)
    figures = _chart(data).mark_text(align="right", baseline="bottom", color=_COLOUR["muted"])
    layers = [
        _chart(data).mark_rect().encode(x=x, x2="to:Q", y=top, y2="bottom:Q", color=_sign_colour()),
        names.encode(x=alt.value(0), y=base, text="name:N"),
        figures.encode(x=alt.value(width), y=base, text="text:N"),
    ]
    return _drawn(layers, width=width, height=row_height * len(bars), wide=wide)


def _chart(rows: list[dict[str, Any]]) -> "alt.Chart":
    import altair as alt

    return alt.Chart(alt.InlineData(values=rows))


def _span(low: float, high: float) -> "alt.Scale":
    """Exactly from low to high, where Vega would round outwards and leave an empty band; never of no extent."""
    import altair as alt

    return alt.Scale(domain=[low, high if high > low else low + 1], nice=False, zero=False)


def _sign_colour() -> "alt.Color":
    import altair as alt

    return alt.Color("sign:N", scale=alt.Scale(domain=["pos", "neg"], range=[_COLOUR["accent"], _COLOUR["bad"]]), legend=None)


def _value_axis(*, wide: bool) -> "alt.Axis":
    import altair as alt

    scaled = "abs(datum.value) >= {at} ? format(datum.value / {at}, ',.2~f') + ' {unit}' : "
    steps = "".join(scaled.format(at=at, unit=unit) for at, unit in (("1e9", "bi"), ("1e6", "mi"), ("1e3", "mil")))
    return alt.Axis(title=None, tickCount=6 if wide else 4, labelExpr=f"{steps}format(datum.value, ',.2~f')", labelPadding=6)


def _time_axis(ticks: tuple[Sequence[int], str]) -> "alt.Axis":
    import altair as alt

    values, pattern = ticks
    return alt.Axis(
        title=None,
        grid=False,
        values=list(values),
        labelExpr=f"lower(utcFormat(datum.value, '{pattern}'))",
        labelPadding=6,
    )


def _day_ticks(first: int, last: int, *, most: int) -> tuple[Sequence[int], str]:
    """Where to label the days from `first` to `last` (ordinals), at most `most` times, and how (a d3 pattern)."""
    days = last - first + 1
    if days > 92:
        return _month_ticks(first, last, most=most, offset=0)
    return [_ms(day) for day in range(first, last + 1, -(-days // most))], "%d/%m"


def _month_ticks(first: int, last: int, *, most: int, offset: int) -> tuple[Sequence[int], str]:
    """The same for months: the tick is `offset` days after the month's first, itself within the days shown."""
    start, end = date.fromordinal(first), date.fromordinal(last)
    from_month, to_month = start.year * 12 + start.month - 1, end.year * 12 + end.month - 1
    count = to_month - from_month + 1
    step = next((step for step in (1, 2, 3, 6) if count <= step * most), 12 * -(-count // (12 * most)))
    months = (date(month // 12, month % 12 + 1, 1).toordinal() for month in range(from_month, to_month + 1) if month % step == 0)
    values = [_ms(month + offset) for month in months if month >= first]
    return values, "%Y" if step >= 12 else "%b/%y"


_NOISE = frozenset({"class", "role", "pointer-events", "font-family"})
_LONG_DECIMAL = re.compile(r"(-?\d+\.\d)\d+")
_SVG = "{http://www.w3.org/2000/svg}"


def _drawn(layers: Sequence[Any], *, width: int, height: int, wide: bool) -> str:
    """The layers in the one look of every chart, as an SVG element without script, style, id or size of its own.

    The style sheet gives it width, font and dark colours. The font named here, by which vl-convert measures, is one
    that it carries, so that text has the same extent on every machine.
    """
    import altair as alt
    import vl_convert

    chart: Any = alt.layer(*layers)
    chart = (
        chart.properties(width=width, height=height, autosize={"type": "fit", "contains": "padding"}, padding=0)
        .configure(font="Liberation Sans, Arial, sans-serif", background="transparent", aria=False)
        .configure_view(stroke=None)
        .configure_text(fontSize=13 if wide else 12, color=_COLOUR["ink"])
        .configure_axis(
            domain=False,
            ticks=False,
            gridColor=_COLOUR["grid"],
            labelColor=_COLOUR["muted"],
            labelFontSize=13 if wide else 12,
        )
    )
    text = vl_convert.vegalite_to_svg(
        chart.to_dict(validate=False),
        # the version that altair writes for: vl-convert carries several and takes its newest otherwise
        vl_version=".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]),
        allowed_base_urls=[],
        format_locale="pt-BR",
        time_format_locale="pt-BR",
    )
    ET.register_namespace("", _SVG[1:-1])
    root = ET.fromstring(text)  # nosec B314 # drawn by vl-convert just now, not delivered
    _prune(root)
    for element in root.iter():
        for name in [name for name in element.attrib if name in _NOISE or name.startswith("aria-")]:
            del element.attrib[name]
        for name in {"d", "transform"} & element.attrib.keys():
            # a tenth of a pixel is enough, and halves a line of a thousand days
            element.set(name, _LONG_DECIMAL.sub(r"\1", element.attrib[name]))
    root.attrib = {"viewBox": root.attrib["viewBox"], "aria-hidden": "true", "focusable": "false", "fill": "none"}
    return ET.tostring(root, encoding="unicode")


def _prune(parent: ET.Element) -> None:
    """Removes what paints nothing: Vega writes empty groups and undrawn backgrounds around every mark."""
    for child in list(parent):
        _prune(child)
        hollow = child.tag == f"{_SVG}g" and len(child) == 0
        undrawn = child.tag == f"{_SVG}path" and (child.get("d", "") == "" or not ({"fill", "stroke"} & child.attrib.keys()))
        if hollow or undrawn:
            parent.remove(child)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _measures_table(
    title: str, first_column: str, named: Sequence[tuple[str, Row]], measures: Sequence[str], *, share: bool = False
) -> Table:
    total = _sum((row for _, row in named), "receita")
    columns = [first_column, *(measure.capitalize() for measure in measures)]
    rows = [[name, *(_number(row[measure], 2 if measure == "receita" else 0) for measure in measures)] for name, row in named]
    # A share of a total that is not positive, or of which a part is negative, misleads.
    if share and total > 0 and all(_decimal(row["receita"]) >= 0 for _, row in named):
        columns.append("Parte")
        for cells, (_, row) in zip(rows, named, strict=True):
            cells.append(f"{_number(100 * _decimal(row['receita']) / total, 1)} %")
    return Table(title=title, columns=columns, rows=rows, numeric=frozenset(range(1, len(columns))))


def _rules(rows: Sequence[Row]) -> Table:
    """The latest outcome of rules; those that failed stand out."""
    ordered = sorted(rows, key=lambda row: (_text(row["table"]), _text(row["rule"])))
    return Table(
        title="Qualidade dos dados",
        columns=("Tabela", "Regra", "Se falhar", "Reprovados", "Resultado"),
        rows=[
            (
                _text(row["table"]),
                _text(row["rule"]),
                _ACTIONS.get(row["action"], _text(row["action"])),
                _number(row["failed"]),
                "passou" if row["passed"] else "falhou",
            )
            for row in ordered
        ],
        numeric=frozenset({3}),
        alarm=frozenset(index for index, row in enumerate(ordered) if not row["passed"]),
    )


_LEDGER_PARTS = ("written", "deduplicated", "deleted", "quarantined")


def _ledger(rows: Sequence[Row]) -> Table:
    """The ledger and its difference, computed here: a row stands out when that or the recorded verdict says so."""
    cells, alarm = [], set()
    for index, row in enumerate(rows):
        difference = _decimal(row["in_rows"]) - sum(_decimal(row[part]) for part in _LEDGER_PARTS)
        if difference or not row["balanced"]:
            alarm.add(index)
        cells.append(
            (
                f"{_text(row['layer'])}/{_text(row['table'])}",
                _number(row["in_rows"]),
                *(_number(row[part]) for part in _LEDGER_PARTS),
                _number(difference),
                "não fecha" if index in alarm else "fecha",
            )
        )
    return Table(
        title="Livro-razão",
        columns=("Tabela", "Entraram", "Gravados", "Repetidos", "Apagados", "Em quarentena", "Diferença", "Resultado"),
        rows=cells,
        numeric=frozenset(range(1, 7)),
        alarm=frozenset(alarm),
    )


def _tables(rows: Sequence[Row]) -> Table:
    return Table(
        title="Versões das tabelas",
        columns=("Tabela", "Versão", "Linhas", "Tamanho"),
        rows=[
            (
                f"{_text(row['layer'])}/{_text(row['table'])}",
                _number(row["version"]),
                _number(row["rows"]),
                _size(row["bytes"]),
            )
            for row in rows
        ],
        numeric=frozenset({1, 2, 3}),
    )


# ---- text and numbers ------------------------------------------------------------------------------------------------


def _text(value: Any, *, missing: str = _DASH) -> str:
    """A name as one line of bounded length, free of control, direction and surrogate characters; Jinja2 escapes."""
    if value is None:
        return missing
    # vl-convert 1.9 aborts the whole process at a NUL in a text, so this is more than good looks
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in str(value)).split())
    return _shortened(line, NAME_IN_TABLE) or missing


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _number(value: Any, places: int = 0) -> str:
    """1.234.567,89; a dash for what is not known."""
    if value is None:
        return _DASH
    text = f"{_decimal(value):,.{places}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # -0,00 reads as an error
    return text.translate(str.maketrans(",.", ".,"))


def _compact(value: Decimal) -> str:
    """A figure for a tight place: 1,46 mi; 684 mil."""
    for at, unit, places in ((10**9, " bi", 2), (10**6, " mi", 2), (10**3, " mil", 0)):
        if abs(value) >= at:
            return _number(value / at, places) + unit
    return _number(value)


def _size(value: Any) -> str:
    if value is None:
        return _DASH
    amount = _decimal(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{_number(amount, 0 if unit == 'B' else 1)} {unit}"
        amount /= 1000
    return f"{_number(amount, 1)} TB"


def _decimal(value: Any) -> Decimal:
    """A measure to count with; an unknown one counts nothing."""
    return Decimal(0) if value is None else Decimal(str(value)) if isinstance(value, float) else Decimal(value)


def _sum(rows: Iterable[Row], column: str) -> Decimal:
    return sum((_decimal(row[column]) for row in rows), Decimal(0))


def _ranked(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: _decimal(row["receita"]), reverse=True)


def _dates(rows: Sequence[Row]) -> Iterator[date]:
    return (row["data"] for row in rows if row["data"] is not None)


def _day(day: date) -> str:
    return f"{day.day:02}/{day.month:02}/{day.year:04}"


def _ordinal(day: int) -> str:
    return _day(date.fromordinal(day))


def _month_start(month: str) -> date:
    if not re.fullmatch(r"\d{4}-\d{2}", month):
        raise ValueError(f"`mes` is {month!r}, not 'YYYY-MM': mend gold vendas_mensais")
    return date.fromisoformat(f"{month}-01")


def _month(month: str) -> str:
    start = _month_start(month)
    return f"{_MONTHS[start.month - 1]}/{start.year:04}"


def _is_before_month_end(day: date) -> bool:
    return day.day < monthrange(day.year, day.month)[1]


def _ms(day: int) -> int:
    """Milliseconds since 1970 of the start of a day, UTC: so given, no chart slips by the machine's time zone."""
    return (day - _EPOCH) * _DAY_MS
