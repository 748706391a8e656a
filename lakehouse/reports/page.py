"""What every report page shares: the look of its charts and tables, and how numbers and names are written.

Belongs here: palette, the drawing of a chart as inline SVG, formats, the records of a chart and a table, which
`templates/macros.html.j2` lays out. Does not: what one page says (`vendas_page.py`, `brt_page.py`), reading tables, Dagster.

Charts are drawn in the light colours of PALETTE; the style sheet maps each of these to its dark counterpart by attribute
selector, so one SVG serves both.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
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

COLOUR = {name: light for name, (light, _) in PALETTE.items()}

WIDTHS = ("wide", "narrow")  # classes of the style sheet, which shows one of them

NAME_IN_TABLE = 160

DASH = "\N{EN DASH}"


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
    """A chart of the page. `charts` has an SVG for each of WIDTHS; `description` is its text alternative.

    The legend has lines, or `dots`.
    """

    title: str
    caption: str
    description: str
    charts: Mapping[str, str]
    legend: Sequence[tuple[str, str]] = ()
    table: Table | None = None
    dots: bool = False


def page(template: str, **values: Any) -> str:
    """A page of `templates/`, with the palette for its style.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Only what `drawn` has parsed and written again is trusted as markup.
    environment.filters["svg"] = markupsafe.Markup
    return environment.get_template(template).render(palette=PALETTE, **values)


# ---- charts ------------------------------------------------------------------------------------------------------------


def chart(rows: list[dict[str, Any]]) -> "alt.Chart":
    import altair as alt

    # As text: altair copies and checks objects one by one at every step.
    return alt.Chart(alt.InlineData(values=json.dumps(rows), format=alt.JsonDataFormat(type="json")))


def span(low: float, high: float) -> "alt.Scale":
    """Exactly from low to high, where Vega would round outwards and leave an empty band; never of no extent."""
    import altair as alt

    return alt.Scale(domain=[low, high if high > low else low + 1], nice=False, zero=False)


def value_axis(*, wide: bool) -> "alt.Axis":
    import altair as alt

    scaled = "abs(datum.value) >= {at} ? format(datum.value / {at}, ',.2~f') + ' {unit}' : "
    steps = "".join(scaled.format(at=at, unit=unit) for at, unit in (("1e9", "bi"), ("1e6", "mi"), ("1e3", "mil")))
    return alt.Axis(title=None, tickCount=6 if wide else 4, labelExpr=f"{steps}format(datum.value, ',.2~f')", labelPadding=6)


def time_axis(ticks: tuple[Sequence[int], str]) -> "alt.Axis":
    import altair as alt

    values, pattern = ticks
    return alt.Axis(
        title=None,
        grid=False,
        values=list(values),
        labelExpr=f"lower(utcFormat(datum.value, '{pattern}'))",
        labelPadding=6,
    )


_NOISE = frozenset({"class", "role", "pointer-events", "font-family"})
_LONG_DECIMAL = re.compile(r"(-?\d+\.\d)\d+")
_SVG = "{http://www.w3.org/2000/svg}"


def drawn(layers: Sequence[Any], *, width: int, height: int, wide: bool) -> str:
    """The layers in the one look of every chart, as an SVG element without script, style, id or size of its own.

    The style sheet gives it width, font and dark colours. The font named here, by which vl-convert measures, is one
    that it carries, so that text has the same extent on every machine.
    """
    import altair as alt
    import vl_convert

    size = 13 if wide else 12
    # All at once: every configure_ method copies the whole chart.
    chart = alt.layer(
        *layers,
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        padding=0,
        config=alt.Config(
            font="Liberation Sans, Arial, sans-serif",
            background="transparent",
            aria=False,
            view=alt.ViewConfig(stroke=None),
            text=alt.MarkConfig(fontSize=size, color=COLOUR["ink"]),
            axis=alt.AxisConfig(
                domain=False,
                ticks=False,
                gridColor=COLOUR["grid"],
                labelColor=COLOUR["muted"],
                labelFontSize=size,
            ),
        ),
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


# ---- tables, text and numbers ------------------------------------------------------------------------------------------


def versions(rows: Sequence[Row]) -> Table:
    return Table(
        title="Versões das tabelas",
        columns=("Tabela", "Versão", "Linhas", "Tamanho"),
        rows=[
            (
                f"{text(row['layer'])}/{text(row['table'])}",
                number(row["version"]),
                number(row["rows"]),
                size(row["bytes"]),
            )
            for row in rows
        ],
        numeric=frozenset({1, 2, 3}),
    )


def text(value: Any, *, missing: str = DASH) -> str:
    """A name as one line of bounded length, free of control, direction and surrogate characters; Jinja2 escapes."""
    if value is None:
        return missing
    # vl-convert 1.9 aborts the whole process at a NUL in a text, so this is more than good looks
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in str(value)).split())
    return shortened(line, NAME_IN_TABLE) or missing


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def number(value: Any, decimals: int = 0) -> str:
    """1.234.567,89; a dash for what is not known."""
    if value is None:
        return DASH
    text = f"{decimal(value):,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # -0,00 reads as an error
    return text.translate(str.maketrans(",.", ".,"))


def size(value: Any) -> str:
    if value is None:
        return DASH
    amount = decimal(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{number(amount, 0 if unit == 'B' else 1)} {unit}"
        amount /= 1000
    return f"{number(amount, 1)} TB"


def decimal(value: Any) -> Decimal:
    """A measure to count with; an unknown one counts nothing."""
    return Decimal(0) if value is None else Decimal(str(value)) if isinstance(value, float) else Decimal(value)


def total(rows: Iterable[Row], column: str) -> Decimal:
    """The sum of a measure."""
    return sum((decimal(row[column]) for row in rows), Decimal(0))


def day(day: date) -> str:
    return f"{day.day:02}/{day.month:02}/{day.year:04}"
