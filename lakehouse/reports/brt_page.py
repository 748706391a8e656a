"""The page of `reports/brt`: figures in, one self-contained HTML page out.

Belongs here: what the page says and how it looks. Does not: reading tables, choosing the moment, storing the page. `render`
knows no clock and no network and gives byte-identical HTML for equal figures. The map is a chart of longitudes and latitudes:
the buses draw the roads, and a few names say where one is.

    gold rows ─▶ BrtFigures ─▶ render ─▶ altair, Jinja2 (`page.py`) ─▶ str
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.reports import page

#: Vehicles of the sample carry it, so that nobody takes them for buses.
SIMULATED = "SIM"
_TOP = 40
_HOUR_MS = 3_600_000
_STATES = {"moving": ("accent", "em movimento"), "still": ("muted", "parados"), "stale": ("bad", "sem posição há mais de 5 min")}
#: Terminals and stations, for orientation only; to a hundred metres or so.
_LANDMARKS = (
    ("Alvorada", -43.365, -23.000),
    ("Jardim Oceânico", -43.311, -23.007),
    ("Recreio", -43.479, -23.018),
    ("Santa Cruz", -43.684, -22.916),
    ("Campo Grande", -43.556, -22.902),
    ("Deodoro", -43.384, -22.855),
    ("Madureira", -43.336, -22.877),
    ("Galeão", -43.246, -22.815),
    ("Gentileza", -43.214, -22.898),
)


@dataclass(frozen=True, kw_only=True)
class BrtFigures:
    """All that the page shows; every sequence may be empty.

    Attributes:
        captured_at: The newest capture; None when there is none.
        fleet: gold `brt_frota_atual`, the vehicles of that capture.
        minutes: gold `brt_frota_por_minuto` of the last 24 hours, summed over services: minuto, capturas, veiculos,
            recentes, atrasados, em_movimento.
        hours: gold `brt_servicos_por_hora` of the last 24 hours, by service.
        tables: layer, table, version, rows, bytes.
    """

    environment: str
    captured_at: datetime | None
    fleet: Sequence[page.Row]
    minutes: Sequence[page.Row]
    hours: Sequence[page.Row]
    tables: Sequence[page.Row]


def render(figures: BrtFigures) -> str:
    """The whole page: HTML, to be stored as UTF-8."""
    return page.page(
        "brt.html.j2",
        environment=page.text(figures.environment),
        captured_at=moment(figures.captured_at),
        tables=page.versions(figures.tables),
        **fleet(figures),
    )


def fleet(figures: BrtFigures) -> dict[str, Any]:
    """What the page says of the fleet, by the names of its template; the dashboard shows it too."""
    return {
        "simulated": bool(figures.fleet) and all(str(row["id_veiculo"]).startswith(SIMULATED) for row in figures.fleet),
        "totals": _totals(figures),
        "fleet": _map(figures.fleet),
        "minutes": _curve(figures.minutes),
        "services": _services(figures.hours),
        "speed": _speed(figures.hours),
    }


def _totals(figures: BrtFigures) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header."""
    fleet = figures.fleet
    count = {state: sum(_state(row) == state for row in fleet) for state in _STATES}
    fresh = count["moving"] + count["still"]
    served = {row["servico"] for row in fleet if row["servico"]}
    return [
        ("Veículos na última captura", page.number(len(fleet)) if fleet else page.DASH, f"{page.number(len(served))} serviços"),
        ("Com posição recente", page.number(fresh), _share(fresh, len(fleet))),
        ("Em movimento", page.number(count["moving"]), _share(count["moving"], len(fleet))),
        ("Atrasados", page.number(count["stale"]), "posição com mais de 5 minutos"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{page.number(100 * part / whole, 1)} %" if whole else ""


def _state(row: page.Row) -> str:
    return "stale" if not row["recente"] else "moving" if row["em_movimento"] else "still"


def _map(fleet: Sequence[page.Row]) -> page.Figure | None:
    """Where the fleet is, coloured by freshness."""
    if not fleet:
        return None
    count = {state: sum(_state(row) == state for row in fleet) for state in _STATES}
    listed = ", ".join(f"{page.number(count[state])} {label}" for state, (_, label) in _STATES.items())
    return page.Figure(
        title="Onde está a frota",
        caption="Última posição de cada veículo que a última captura trouxe. Os nomes são só para orientação.",
        description=f"Mapa de {page.number(len(fleet))} veículos: {listed}.",
        charts={name: _map_chart(fleet, wide=name == "wide") for name in page.WIDTHS},
        legend=[(colour, f"{label} ({page.number(count[state])})") for state, (colour, label) in _STATES.items()],
        dots=True,
    )


def _map_chart(fleet: Sequence[page.Row], *, wide: bool) -> str:
    import altair as alt

    width, height = (1000, 620) if wide else (360, 300)
    order = list(_STATES)[::-1]  # those that move are drawn last, over the others
    points = sorted(
        ({"x": row["longitude"], "y": row["latitude"], "state": _state(row)} for row in fleet),
        key=lambda point: (order.index(point["state"]), point["x"], point["y"]),
    )
    x, y = _extent([p["x"] for p in points], [p["y"] for p in points], ratio=width / height)
    names = [{"x": at_x, "y": at_y, "name": name} for name, at_x, at_y in _LANDMARKS if _inside(at_x, x) and _inside(at_y, y)]
    grid = alt.Axis(title=None, labels=False, tickCount=8)
    at: dict[str, Any] = {
        "x": alt.X("x:Q", scale=page.span(*x), axis=grid),
        "y": alt.Y("y:Q", scale=page.span(*y), axis=grid),
    }
    colour = alt.Color(
        "state:N",
        scale=alt.Scale(domain=list(_STATES), range=[page.COLOUR[colour] for colour, _ in _STATES.values()]),
        legend=None,
    )
    layers: list[Any] = [page.chart(points).mark_circle(size=34 if wide else 14, opacity=0.75).encode(**at, color=colour)]
    if names:
        marks = page.chart(names)
        layers.append(marks.mark_point(shape="cross", color=page.COLOUR["ink"], size=40 if wide else 20).encode(**at))
        layers.append(marks.mark_text(align="left", dx=8, dy=-8).encode(**at, text="name:N"))
    return page.drawn(layers, width=width, height=height, wide=wide)


def _extent(x: Sequence[float], y: Sequence[float], *, ratio: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bounds around all points, of the chart's shape: a degree of longitude is shorter than one of latitude."""
    squeeze = math.cos(math.radians(sum(y) / len(y)))
    wide = max(1.08 * (max(x) - min(x)) * squeeze, 0.02)
    high = max(1.08 * (max(y) - min(y)), 0.02)
    wide, high = max(wide, high * ratio), max(high, wide / ratio)
    middle_x, middle_y = (max(x) + min(x)) / 2, (max(y) + min(y)) / 2
    half = wide / squeeze / 2
    return (middle_x - half, middle_x + half), (middle_y - high / 2, middle_y + high / 2)


def _inside(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _curve(minutes: Sequence[page.Row]) -> page.Figure | None:
    """Vehicles per capture, as a mean of every hour."""
    hours: dict[int, list[page.Row]] = {}
    for row in minutes:
        hours.setdefault(_wall_ms(row["minuto"]) // _HOUR_MS * _HOUR_MS, []).append(row)
    if not hours:
        return None
    measures = {"em_movimento": "accent", "recentes": "daily", "atrasados": "bad"}
    series = {name: [(hour, _mean(rows, name)) for hour, rows in sorted(hours.items())] for name in measures}
    cells = [
        [_hour(hour), page.number(len(rows)), *(page.number(_mean(rows, name)) for name in measures)]
        for hour, rows in sorted(hours.items())
    ]
    return page.Figure(
        title="A frota por hora",
        caption="Média dos veículos por captura em cada hora das últimas 24, horário do Rio.",
        description=f"Veículos por hora de {_hour(min(hours))} a {_hour(max(hours))}.",
        charts={name: _lines(series, measures, wide=name == "wide") for name in page.WIDTHS},
        legend=[("daily", "com posição recente"), ("accent", "em movimento"), ("bad", "atrasados")],
        table=page.Table(
            title="Por hora",
            columns=("Hora", "Minutos", "Em movimento", "Recentes", "Atrasados"),
            rows=cells,
            numeric=frozenset(range(1, 5)),
        ),
    )


def _mean(rows: Sequence[page.Row], name: str) -> float:
    return sum(row[name] for row in rows) / max(sum(row["capturas"] for row in rows), 1)


def _speed(hours: Sequence[page.Row]) -> page.Figure | None:
    """Mean speed of all services, by hour."""
    sums: dict[int, list[float]] = {}
    for row in hours:
        if row["velocidade_media"]:
            found = sums.setdefault(_row_hour(row), [0.0, 0.0])
            found[0] += float(row["km"])
            found[1] += float(row["km"]) / float(row["velocidade_media"])
    points = [(hour, km / driven) for hour, (km, driven) in sorted(sums.items()) if driven]
    if not points:
        return None
    return page.Figure(
        title="Velocidade por hora",
        caption="km/h entre posições seguidas, paradas incluídas, de todos os serviços.",
        description=f"Velocidade média por hora; a última foi {page.number(points[-1][1], 1)} km/h.",
        charts={name: _lines({"v": points}, {"v": "accent"}, wide=name == "wide") for name in page.WIDTHS},
    )


def _lines(series: Mapping[str, Sequence[tuple[int, float]]], colours: Mapping[str, str], *, wide: bool) -> str:
    import altair as alt

    hours = [hour for points in series.values() for hour, _ in points]
    first, last = min(hours), max(hours)
    ticks = list(range(first, last + 1, _HOUR_MS * max(1, -(-((last - first) // _HOUR_MS + 1) // (13 if wide else 6)))))
    margin = _HOUR_MS // 2 if first == last else 0
    x = alt.X(
        "t:Q",
        scale=alt.Scale(type="utc", domain=[first - margin, last + margin], nice=False),
        axis=page.time_axis((ticks, "%Hh")),
    )
    top = 1.05 * max(value for points in series.values() for _, value in points)
    y = alt.Y("v:Q", scale=page.span(0, top), axis=page.value_axis(wide=wide))
    layers: list[Any] = []
    for name, points in series.items():
        drawn = page.chart([{"t": hour, "v": value} for hour, value in points])
        colour = page.COLOUR[colours[name]]
        layers.append(drawn.mark_line(color=colour, strokeWidth=2, strokeJoin="round").encode(x=x, y=y))
        layers.append(drawn.mark_circle(color=colour, opacity=1, size=30).encode(x=x, y=y))
    return page.drawn(layers, width=1000 if wide else 360, height=240 if wide else 200, wide=wide)


def _services(hours: Sequence[page.Row]) -> page.Table:
    """The services of the newest hour, those with most vehicles first."""
    newest = max((_row_hour(row) for row in hours), default=None)
    rows = [row for row in hours if _row_hour(row) == newest]
    rows.sort(key=lambda row: (-row["veiculos"], row["servico"]))
    return page.Table(
        title="Serviços" if newest is None else f"Serviços às {_hour(newest)}",
        columns=("Serviço", "Veículos", "Posições", "km", "km/h", "Parado"),
        rows=[
            [
                page.text(row["servico"]),
                page.number(row["veiculos"]),
                page.number(row["posicoes"]),
                page.number(row["km"], 1),
                page.number(row["velocidade_media"], 1),
                f"{page.number(100 * row['parte_parada'])} %",
            ]
            for row in rows[:_TOP]
        ],
        numeric=frozenset(range(1, 6)),
    )


def _row_hour(row: page.Row) -> int:
    return int((row["data"].toordinal() - 719_163) * 24 + row["hora"]) * _HOUR_MS


def _wall_ms(at: datetime) -> int:
    """The wall clock of Rio in milliseconds, as if it were UTC: so given, no chart slips by the machine's time zone."""
    local = at.astimezone(zone()).replace(tzinfo=None)
    return round((local - datetime(1970, 1, 1)).total_seconds() * 1000)


def _hour(ms: int) -> str:
    return f"{ms // _HOUR_MS % 24:02d}h"


def moment(at: datetime | None) -> str:
    return page.DASH if at is None else f"{at.astimezone(zone()):%d/%m/%Y %H:%M}"
