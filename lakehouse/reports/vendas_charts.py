"""The charts of the page of `reports/vendas`: rows of the marts in, a `page.Figure` each out.

Belongs here: what a chart draws, its ticks, its text alternative and the table below it. Does not: the other figures of the page
and its layout (`vendas_page.py`), reading tables, Dagster. Each chart is drawn twice, wide and narrow, because an SVG scaled from
1000 to 360 pixels has 4-pixel letters.
"""

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lakehouse.reports import page

if TYPE_CHECKING:
    import altair as alt

    from lakehouse.reports.vendas_page import VendasFigures

MEAN_DAYS = 7
TOP_COUNTRIES = 12
TOP_PRODUCTS = 15
NAME_IN_CHART = 44  # characters; the tables below the charts show up to page.NAME_IN_TABLE
MONTHS_WITH_VALUES = 14  # more bars than this and the figures above them touch at 1000 pixels

_EPOCH = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_MONTHS = ("jan", "fev", "mar", "abr", "mai", "jun", "jul", "ago", "set", "out", "nov", "dez")
_MEASURES = ("pedidos", "clientes", "linhas", "quantidade", "receita")


# ---- charts ----------------------------------------------------------------------------------------------------------


def daily(rows: Sequence[page.Row]) -> page.Figure | None:
    """Revenue per day with its mean over seven calendar days; a day without a row is a day that sold nothing."""
    revenue: dict[int, Decimal] = {}
    for row in rows:
        if row["data"] is not None:
            day = row["data"].toordinal()
            revenue[day] = revenue.get(day, Decimal(0)) + page.decimal(row["receita"])
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
    if undated := page.total((row for row in rows if row["data"] is None), "linhas"):
        caption += f" {page.number(undated)} linhas sem data não aparecem aqui."
    legend = [("daily", "receita do dia")]
    if has_mean:
        legend.append(("accent", f"média de {MEAN_DAYS} dias"))
    if negative:
        days = "1 dia" if len(negative) == 1 else f"{page.number(len(negative))} dias"
        legend.append(("bad", f"receita negativa ({days})"))
    return page.Figure(
        title="Receita por dia",
        caption=caption,
        description=f"Receita por dia de {_ordinal(first)} a {_ordinal(last)}:"
        f" a maior foi {page.number(revenue[high], 2)} em {_ordinal(high)},"
        f" a menor {page.number(revenue[low], 2)} em {_ordinal(low)}.",
        charts={name: _daily_chart(revenue, negative=negative, wide=name == "wide") for name in page.WIDTHS},
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
            axis=page.time_axis(_day_ticks(first, last, most=13 if wide else 5)),
        ),
        # five hundredths below and two above keep the stroke and the points of the extremes inside the chart
        "y": alt.Y("v:Q", scale=page.span(1.05 * min(0, *values), 1.02 * max(0, *values)), axis=page.value_axis(wide=wide)),
    }
    layers: list[Any] = [
        page.chart(points).mark_line(color=page.COLOUR["daily"], strokeWidth=1 if wide else 0.75, strokeJoin="round").encode(**at)
    ]
    if len(points) <= 31:  # a line of one point is nothing, and one of a few points hides where they are
        layers.append(page.chart(points).mark_circle(color=page.COLOUR["daily"], opacity=1, size=30).encode(**at))
    if means:
        thickness = 2.25 if wide else 1.75
        layers.append(
            page.chart(means).mark_line(color=page.COLOUR["accent"], strokeWidth=thickness, strokeJoin="round").encode(**at)
        )
    if negative:
        below = [{"t": _ms(day), "v": float(revenue[day])} for day in negative]
        layers.append(page.chart(below).mark_circle(color=page.COLOUR["bad"], opacity=1, size=34).encode(**at))
    return page.drawn(layers, width=1000 if wide else 360, height=300 if wide else 230, wide=wide)


def _vertices(revenue: Mapping[int, Decimal]) -> list[int]:
    """The days at which the daily line or its mean can bend.

    Within a long gap both lie flat, so its inner days say nothing; leaving them out keeps a stray date in the year 1
    from making a page of 700,000 points.
    """
    first, last = min(revenue), max(revenue)
    return sorted({shown for day in revenue for shown in range(day - 1, day + MEAN_DAYS + 1) if first <= shown <= last})


def monthly(rows: Sequence[page.Row], *, last_day: date | None) -> page.Figure | None:
    """Revenue per month, and a table of all its measures."""
    dated = sorted((row for row in rows if row["mes"] is not None), key=lambda row: row["mes"])
    if not dated:
        return None
    caption = "Meses de calendário, em UTC."
    partial = (
        last_day is not None and _month_start(dated[-1]["mes"]) == last_day.replace(day=1) and _is_before_month_end(last_day)
    )
    if partial and last_day is not None:
        caption += f" Há dados de {month_of(dated[-1]['mes'])} só até o dia {last_day.day}."
    if undated := page.total((row for row in rows if row["mes"] is None), "linhas"):
        caption += f" {page.number(undated)} linhas sem data não aparecem aqui."
    low, high = (
        min(dated, key=lambda row: page.decimal(row["receita"])),
        max(dated, key=lambda row: page.decimal(row["receita"])),
    )
    return page.Figure(
        title="Receita por mês",
        caption=caption,
        description=f"Receita por mês de {month_of(dated[0]['mes'])} a {month_of(dated[-1]['mes'])}:"
        f" a maior foi {page.number(high['receita'], 2)} em {month_of(high['mes'])},"
        f" a menor {page.number(low['receita'], 2)} em {month_of(low['mes'])}.",
        charts={name: _monthly_chart(dated, wide=name == "wide") for name in page.WIDTHS},
        table=_measures_table("Por mês", "Mês", [(month_of(row["mes"]), row) for row in dated], _MEASURES),
    )


def _monthly_chart(rows: Sequence[page.Row], *, wide: bool) -> str:
    import altair as alt

    bars = []
    for row in rows:
        start, value = _month_start(row["mes"]).toordinal(), page.decimal(row["receita"])
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
    axis = page.time_axis(_month_ticks(first, last, most=14 if wide else 6, offset=14))
    y = alt.Y("v:Q", scale=alt.Scale(zero=True), axis=page.value_axis(wide=wide))
    from_, mid = alt.X("from:Q", scale=scale, axis=axis), alt.X("mid:Q", scale=scale, axis=axis)
    layers: list[Any] = [page.chart(bars).mark_rect().encode(x=from_, x2="to:Q", y=y, y2="zero:Q", color=_sign_colour())]
    if wide and len(bars) <= MONTHS_WITH_VALUES:
        above, below = ([bar for bar in bars if bar["sign"] == sign] for sign in ("pos", "neg"))
        layers.append(page.chart(above).mark_text(baseline="bottom", dy=-4).encode(x=mid, y=y, text="text:N"))
        layers.append(page.chart(below).mark_text(baseline="top", dy=4).encode(x=mid, y=y, text="text:N"))
    return page.drawn(layers, width=1000 if wide else 360, height=260 if wide else 210, wide=wide)


def by_country_or_segment(figures: "VendasFigures") -> page.Figure | None:
    """Countries, the smaller ones summed; segments of customers when there is only one country to show."""
    if len(figures.by_country) > 1:
        ranked = _ranked(figures.by_country)
        named = [(page.text(row["pais"], missing="(sem país)"), row) for row in ranked]
        bars = [(name, page.decimal(row["receita"])) for name, row in named]
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
    named = [(page.text(row["segmento"], missing="(sem segmento)"), row) for row in _ranked(figures.by_segment)]
    return _ranking(
        "Receita por segmento de clientes",
        [(name, page.decimal(row["receita"])) for name, row in named],
        _measures_table("Por segmento", "Segmento", named, ("clientes", "receita"), share=True),
        caption=f"{why_no_countries(figures)} RFM: recência, frequência, valor; só clientes identificados.",
    )


def why_no_countries(figures: "VendasFigures") -> str:
    """Why the page shows segments, or nothing at all, in the place of countries."""
    if len(figures.by_country) == 1:
        reason = f"Todas as vendas são de um só país ({page.text(figures.by_country[0]['pais'], missing='sem nome')})"
    else:
        reason = "Não há vendas por país"
    return (
        f"{reason}; por isso a receita aparece por segmento RFM dos clientes."
        if figures.by_segment
        else f"{reason}, e não há segmentos de clientes."
    )


def products(rows: Sequence[page.Row]) -> page.Figure | None:
    if not rows:
        return None
    top = _ranked(rows)[:TOP_PRODUCTS]
    named = [(page.text(row["nome"], missing=f"(sem nome) {page.text(row['produto_id'])}"), row) for row in top]
    return _ranking(
        "Produtos de maior receita",
        [(name, page.decimal(row["receita"])) for name, row in named],
        page.Table(
            title="Por produto",
            columns=("Produto", "Código", "Linhas", "Quantidade", "Receita"),
            rows=[
                (
                    name,
                    page.text(row["produto_id"]),
                    page.number(row["linhas"]),
                    page.number(row["quantidade"]),
                    page.number(row["receita"], 2),
                )
                for name, row in named
            ],
            numeric=frozenset({2, 3, 4}),
        ),
        caption="O maior de todos." if len(top) == 1 else f"Os {len(top)} maiores, por receita.",
    )


def _ranking(title: str, bars: Sequence[tuple[str, Decimal]], table: page.Table, *, caption: str) -> page.Figure:
    listed = "; ".join(f"{name} {page.number(value, 2)}" for name, value in bars[:5])
    return page.Figure(
        title=title,
        caption=caption,
        description=f"{title}, do maior para o menor: {listed}.",
        charts={name: _ranking_chart(bars, wide=name == "wide") for name in page.WIDTHS},
        table=table,
    )


def _ranking_chart(bars: Sequence[tuple[str, Decimal]], *, wide: bool) -> str:
    """Horizontal bars, each below its own name and figure: no margin for labels, however long the name."""
    import altair as alt

    width, row_height = (496, 36) if wide else (360, 34)
    data = [
        {
            "name": page.shortened(name, NAME_IN_CHART),
            "text": page.number(value, 2),
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
    x = alt.X("from:Q", scale=page.span(min(0, *values), max(0, *values)), axis=None)
    y_scale = alt.Scale(domain=[len(bars), 0], nice=False, zero=False)
    base, top = alt.Y("base:Q", scale=y_scale, axis=None), alt.Y("top:Q", scale=y_scale, axis=None)
    names = page.chart(data).mark_text(align="left", baseline="bottom", limit=width - 112)
    figures = page.chart(data).mark_text(align="right", baseline="bottom", color=page.COLOUR["muted"])
    layers = [
        page.chart(data).mark_rect().encode(x=x, x2="to:Q", y=top, y2="bottom:Q", color=_sign_colour()),
        names.encode(x=alt.value(0), y=base, text="name:N"),
        figures.encode(x=alt.value(width), y=base, text="text:N"),
    ]
    return page.drawn(layers, width=width, height=row_height * len(bars), wide=wide)


def _sign_colour() -> "alt.Color":
    import altair as alt

    return alt.Color(
        "sign:N", scale=alt.Scale(domain=["pos", "neg"], range=[page.COLOUR["accent"], page.COLOUR["bad"]]), legend=None
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


# ---- tables ----------------------------------------------------------------------------------------------------------


def _measures_table(
    title: str, first_column: str, named: Sequence[tuple[str, page.Row]], measures: Sequence[str], *, share: bool = False
) -> page.Table:
    total = page.total((row for _, row in named), "receita")
    columns = [first_column, *(measure.capitalize() for measure in measures)]
    rows = [[name, *(page.number(row[measure], 2 if measure == "receita" else 0) for measure in measures)] for name, row in named]
    # A share of a total that is not positive, or of which a part is negative, misleads.
    if share and total > 0 and all(page.decimal(row["receita"]) >= 0 for _, row in named):
        columns.append("Parte")
        for cells, (_, row) in zip(rows, named, strict=True):
            cells.append(f"{page.number(100 * page.decimal(row['receita']) / total, 1)} %")
    return page.Table(title=title, columns=columns, rows=rows, numeric=frozenset(range(1, len(columns))))


# ---- text and numbers ------------------------------------------------------------------------------------------------


def _compact(value: Decimal) -> str:
    """A figure for a tight place: 1,46 mi; 684 mil."""
    for at, unit, decimals in ((10**9, " bi", 2), (10**6, " mi", 2), (10**3, " mil", 0)):
        if abs(value) >= at:
            return page.number(value / at, decimals) + unit
    return page.number(value)


def _ranked(rows: Sequence[page.Row]) -> list[page.Row]:
    return sorted(rows, key=lambda row: page.decimal(row["receita"]), reverse=True)


def dates_of(rows: Sequence[page.Row]) -> Iterator[date]:
    return (row["data"] for row in rows if row["data"] is not None)


def _ordinal(day: int) -> str:
    return page.day(date.fromordinal(day))


def _month_start(month: str) -> date:
    if not re.fullmatch(r"\d{4}-\d{2}", month):
        raise ValueError(f"`mes` is {month!r}, not 'YYYY-MM': fix gold vendas_mensais")
    return date.fromisoformat(f"{month}-01")


def month_of(month: str) -> str:
    start = _month_start(month)
    return f"{_MONTHS[start.month - 1]}/{start.year:04}"


def _is_before_month_end(day: date) -> bool:
    return day.day < monthrange(day.year, day.month)[1]


def _ms(day: int) -> int:
    """Milliseconds since 1970 of the start of a day, UTC: so given, no chart slips by the machine's time zone."""
    return (day - _EPOCH) * _DAY_MS
