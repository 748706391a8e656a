"""The page of `reports/modelo`: figures in, one self-contained HTML page out.

Belongs here: what the page says and how it looks. Does not: reading tables or MLflow, choosing the date. `render` knows
no clock and no network and gives byte-identical HTML for equal figures.

    rows of ml/*, ops/model_decisions, gold ─▶ ModeloFigures ─▶ render ─▶ altair, Jinja2 (`page.py`) ─▶ str
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from lakehouse.reports import page

_SHOWN = 56  # days of sales before the forecast
_DECISIONS = 12
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_MODELS = {
    "candidato": ("accent", "candidato"),
    "ingenuo": ("daily", "ingênuo sazonal"),
    "campeao": ("bad", "receita do campeão"),
}


@dataclass(frozen=True, kw_only=True)
class ModeloFigures:
    """All that the page shows; every sequence but `daily` may be empty.

    Attributes:
        champion: The version that forecasts; None when none has passed the gate. `recipe` is its recipe's name.
        importance: By how much the error grows without a feature, as a share.
        daily: gold `vendas_diarias`.
        folds: reported rows of `ml/evaluation`.
        forecast: `ml/previsao_vendas`; the newest origin is shown.
        accuracy: `ml/acuracia_previsao`.
        decisions: `ops/model_decisions`.
        tables: layer, table, version, rows, bytes.
    """

    environment: str
    champion: int | None
    recipe: str
    importance: Mapping[str, float]
    daily: Sequence[page.Row]
    folds: Sequence[page.Row]
    forecast: Sequence[page.Row]
    accuracy: Sequence[page.Row]
    decisions: Sequence[page.Row]
    tables: Sequence[page.Row]


def render(figures: ModeloFigures) -> str:
    """The whole page: HTML, to be stored as UTF-8."""
    return page.page(
        "modelo.html.j2",
        environment=page.text(figures.environment),
        last_day=page.day(max(row["data"] for row in figures.daily)),
        champion=figures.champion,
        tables=page.versions(figures.tables),
        **model(figures),
    )


def model(figures: ModeloFigures) -> dict[str, Any]:
    """What the page says of the model, by the names of its template; the dashboard shows it too."""
    origin = max((row["origem"] for row in figures.forecast), default=None)
    newest = sorted((row for row in figures.forecast if row["origem"] == origin), key=lambda row: row["data"])
    return {
        "totals": _totals(figures, newest),
        "forecast": _forecast(figures.daily, newest),
        "folds": [figure for horizon in (7, 28) if (figure := _folds(figures.folds, horizon))],
        "importance": _importance(figures.importance),
        "accuracy": _accuracy(figures.accuracy),
        "decisions": _decisions(figures.decisions),
    }


def _totals(figures: ModeloFigures, newest: Sequence[page.Row]) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header."""
    wape = {name: _mean(figures.folds, name, 7) for name in ("candidato", "ingenuo")}
    mine, naive = wape["candidato"], wape["ingenuo"]
    gain = f"{page.number(100 * (1 - mine / naive), 1)} % melhor que o ingênuo" if mine is not None and naive else ""
    week = [row["previsto"] for row in newest[:7]]
    promoted = sum(row["promovido"] for row in figures.decisions)
    return [
        ("Campeão", f"versão {figures.champion}" if figures.champion else page.DASH, page.text(figures.recipe, missing="")),
        ("WAPE do candidato, 7 dias", _percent(mine), gain),
        ("Receita prevista, 7 dias", page.number(sum(week)) if week else page.DASH, _span(newest[:7])),
        (
            "Decisões",
            page.number(len(figures.decisions)),
            "1 promoção" if promoted == 1 else f"{page.number(promoted)} promoções",
        ),
    ]


def _mean(folds: Sequence[page.Row], model: str, horizon: int) -> float | None:
    mine = [row["wape"] for row in folds if row["modelo"] == model and row["horizonte"] == horizon]
    return sum(mine) / len(mine) if mine else None


def _percent(value: float | None) -> str:
    return page.DASH if value is None else f"{page.number(100 * value, 1)} %"


def _span(rows: Sequence[page.Row]) -> str:
    return f"{page.day(rows[0]['data'])} a {page.day(rows[-1]['data'])}" if rows else ""


# ---- charts ----------------------------------------------------------------------------------------------------------


def _forecast(daily: Sequence[page.Row], newest: Sequence[page.Row]) -> page.Figure | None:
    if not newest:
        return None
    origin = newest[0]["origem"]
    came = {row["data"]: float(row["receita"]) for row in daily}
    table = page.Table(
        title="Previsão",
        columns=("Dia", "Previsto", "De", "Até"),
        rows=[(page.day(row["data"]), *(page.number(row[name]) for name in ("previsto", "baixo", "alto"))) for row in newest],
        numeric=frozenset({1, 2, 3}),
    )
    return page.Figure(
        title="Previsão da receita diária",
        caption="A faixa deve conter oito de cada dez dias de venda. Um dia previsto como fechado vale zero.",
        description=f"Receita prevista de {_span(newest)}, de {page.number(min(row['previsto'] for row in newest))} a"
        f" {page.number(max(row['previsto'] for row in newest))} por dia.",
        charts={name: _forecast_chart(came, newest, origin, wide=name == "wide") for name in page.WIDTHS},
        legend=(("daily", "vendido"), ("accent", "previsto"), ("line", "faixa de 80 %")),
        table=table,
    )


def _forecast_chart(came: Mapping[date, float], newest: Sequence[page.Row], origin: date, *, wide: bool) -> str:
    import altair as alt

    first = max(min(came), origin - timedelta(_SHOWN if wide else _SHOWN // 2))
    days = [first + timedelta(n) for n in range((origin - first).days + 1)]
    sold = [{"t": _ms(day), "v": came.get(day, 0.0)} for day in days]
    made = [
        {"t": _ms(row["data"]), "v": row["previsto"], "low": row["baixo"] or 0.0, "high": row["alto"] or row["previsto"]}
        for row in newest
    ]
    start, end = first.toordinal(), newest[-1]["data"].toordinal()
    step = -(-(end - start + 1) // (12 if wide else 5))
    ticks = [_ms(date.fromordinal(at)) for at in range(start, end + 1, step)]
    lowest, highest = min(0.0, *(row["v"] for row in sold)), max(row.get("high", row["v"]) for row in [*sold, *made])
    scale, axis = page.span(lowest, 1.03 * highest), page.value_axis(wide=wide)
    at: dict[str, Any] = {
        "x": alt.X(
            "t:Q",
            scale=alt.Scale(type="utc", domain=[_ms(first), _ms(newest[-1]["data"]) + _DAY_MS]),
            axis=page.time_axis((ticks, "%d/%m")),
        ),
        "y": alt.Y("v:Q", scale=scale, axis=axis),
    }
    band = page.chart(made).mark_rule(color=page.COLOUR["line"], strokeWidth=13 if wide else 5)
    layers = [
        band.encode(x=at["x"], y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q"),
        page.chart(sold).mark_line(color=page.COLOUR["daily"], strokeWidth=1.5, strokeJoin="round").encode(**at),
        page.chart(made).mark_line(color=page.COLOUR["accent"], strokeWidth=2, strokeJoin="round").encode(**at),
        page.chart(made).mark_circle(color=page.COLOUR["accent"], opacity=1, size=30 if wide else 14).encode(**at),
    ]
    return page.drawn(layers, width=1000 if wide else 360, height=300 if wide else 230, wide=wide)


def _folds(rows: Sequence[page.Row], horizon: int) -> page.Figure | None:
    """WAPE of each fold, by model."""
    mine = sorted((row for row in rows if row["horizonte"] == horizon), key=lambda row: (row["origem"], row["modelo"]))
    if not mine:
        return None
    shown = [name for name in _MODELS if any(row["modelo"] == name for row in mine)]
    same = [row["wape"] for row in mine if row["modelo"] == "campeao"] == [r["wape"] for r in mine if r["modelo"] == "candidato"]
    shown = [name for name in shown if not (name == "campeao" and same)]
    origins = sorted({row["origem"] for row in mine})
    by = {(row["origem"], row["modelo"]): row for row in mine}
    listed = "; ".join(f"{_MODELS[name][1]} {_percent(_mean(rows, name, horizon))}" for name in shown)
    covered = [row["cobertura"] for row in mine if row["modelo"] == "candidato" and row["cobertura"] is not None]
    remark = f" A faixa conteve {_percent(sum(covered) / len(covered))} dos dias." if covered else ""
    return page.Figure(
        title=f"Erro por origem, {horizon} dias",
        caption=f"WAPE de cada previsão feita como teria sido no dia. Média: {listed}.{remark}",
        description=f"WAPE por origem de {page.day(origins[0])} a {page.day(origins[-1])}. Média: {listed}.",
        charts={width: _folds_chart(by, origins, shown, wide=width == "wide") for width in page.WIDTHS},
        legend=[_MODELS[name] for name in shown],
        table=page.Table(
            title=f"Erro por origem, {horizon} dias",
            columns=("Origem", *(_MODELS[name][1].capitalize() for name in shown), "Viés", "Cobertura"),
            rows=[
                (
                    page.day(origin),
                    *(_percent(by[origin, name]["wape"]) for name in shown),
                    _percent(by[origin, "candidato"]["vies"]),
                    _percent(by[origin, "candidato"]["cobertura"]),
                )
                for origin in origins
            ],
            numeric=frozenset(range(1, len(shown) + 3)),
        ),
    )


def _folds_chart(by: Mapping[Any, page.Row], origins: Sequence[date], shown: Sequence[str], *, wide: bool) -> str:
    import altair as alt

    highest = max(row["wape"] for row in by.values())
    days = [_ms(origin) for origin in origins]
    ticks = days if wide else days[::3]
    percent = alt.Axis(title=None, tickCount=5, labelExpr="format(datum.value * 100, '.0f') + ' %'", labelPadding=6)
    layers = []
    for name in shown:
        points = [{"t": _ms(origin), "v": by[origin, name]["wape"]} for origin in origins]
        at: dict[str, Any] = {
            "x": alt.X(
                "t:Q",
                scale=alt.Scale(type="utc", domain=[days[0] - 2 * _DAY_MS, days[-1] + 2 * _DAY_MS]),
                axis=page.time_axis((ticks, "%d/%m")),
            ),
            "y": alt.Y("v:Q", scale=page.span(0.0, 1.05 * highest), axis=percent),
        }
        colour = page.COLOUR[_MODELS[name][0]]
        layers.append(page.chart(points).mark_line(color=colour, strokeWidth=2, strokeJoin="round").encode(**at))
        layers.append(page.chart(points).mark_circle(color=colour, opacity=1, size=40 if wide else 20).encode(**at))
    return page.drawn(layers, width=496 if wide else 360, height=240 if wide else 210, wide=wide)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _importance(shares: Mapping[str, float]) -> page.Table:
    used = [(name, share) for name, share in shares.items() if share > 0.0005]
    return page.Table(
        title="O que o modelo usa",
        columns=("Variável", "Erro a mais sem ela"),
        rows=[(page.text(name), _percent(share)) for name, share in used],
        numeric=frozenset({1}),
    )


def _accuracy(rows: Sequence[page.Row]) -> page.Table:
    """What was forecast against what came, by origin, newest first."""
    cells = []
    for origin in sorted({row["origem"] for row in rows}, reverse=True)[:_DECISIONS]:
        mine = [row for row in rows if row["origem"] == origin]
        real = sum(abs(row["real"]) for row in mine)
        inside = [row["no_intervalo"] for row in mine if row["no_intervalo"] is not None]
        cells.append(
            (
                page.day(origin),
                str(mine[0]["versao"]),
                page.number(len(mine)),
                page.number(sum(row["previsto"] for row in mine)),
                page.number(sum(row["real"] for row in mine)),
                _percent(sum(abs(row["erro"]) for row in mine) / real if real else None),
                _percent(sum(inside) / len(inside) if inside else None),
            )
        )
    return page.Table(
        title="Previsto e realizado",
        columns=("Origem", "Versão", "Dias", "Previsto", "Realizado", "WAPE", "Na faixa"),
        rows=cells,
        numeric=frozenset(range(1, 7)),
    )


def _decisions(rows: Sequence[page.Row]) -> page.Table:
    newest = sorted(rows, key=lambda row: row["decidido_em"], reverse=True)[:_DECISIONS]
    return page.Table(
        title="Decisões",
        columns=("Quando (UTC)", "Versão", "Receita do modelo", "Sobre o ingênuo", "Sobre o campeão", "Motivo"),
        rows=[
            (
                f"{row['decidido_em']:%d/%m/%Y %H:%M}",
                page.number(row["versao"]),
                page.text(row["receita_modelo"]),
                _percent(row["ganho_ingenuo"]),
                _percent(row["ganho_campeao"]),
                page.text(row["motivo"]),
            )
            for row in newest
        ],
        numeric=frozenset({1, 3, 4}),
    )


def _ms(day: date) -> int:
    """Milliseconds since 1970 of the start of a day, UTC."""
    return (day.toordinal() - _EPOCH) * _DAY_MS
