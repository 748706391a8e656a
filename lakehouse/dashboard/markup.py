"""Markup: tables and charts of the reports (`reports/page.py`) as HTML that Streamlit shows. Every text is escaped."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lakehouse.reports import page

#: Follows the page's own colours, so that it fits the light theme and the dark one.
STYLE = """<style>
.lh { container-type: inline-size; margin: 0 0 1rem; }
.lh h3 { font-size: 1.05rem; margin: 0 0 .2rem; padding: 0; }
.lh p { font-size: .875rem; margin: 0 0 .4rem; opacity: .8; }
.lh .legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; opacity: 1; }
.lh .legend i { display: inline-block; width: 1.1rem; height: .25rem; margin-right: .4rem; vertical-align: middle; }
.lh .legend.dots i { width: .65rem; height: .65rem; border-radius: 50%; }
.lh img { width: 100%; height: auto; display: block; }
.lh img.narrow { display: none; }
@container (max-width: 560px) { .lh img.wide { display: none; } .lh img.narrow { display: block; } }
.lh details { margin-top: .4rem; } .lh summary { cursor: pointer; font-size: .875rem; }
.lh .scroll { overflow-x: auto; }
.lh table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
.lh th, .lh td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid rgba(127, 137, 147, .3);
  font-weight: 400; vertical-align: top; border-width: 0 0 1px; }
.lh thead th { font-weight: 600; white-space: nowrap; opacity: .8; }
.lh td.n, .lh th.n { text-align: right; white-space: nowrap; }
.lh tr.alarm th, .lh tr.alarm td { color: ALARM; }
@container (max-width: 560px) { .lh table { width: max-content; min-width: 100%; } .lh td { max-width: 18rem; } }
.lh.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.lh.totals > div { border: 1px solid rgba(127, 137, 147, .35); border-radius: .5rem; padding: .7rem .9rem; }
.lh.totals span { font-size: .875rem; opacity: .8; }
.lh.totals b { display: block; font-size: 1.4rem; font-weight: 400; line-height: 1.3; }
.lh.totals p { font-size: .8125rem; margin: 0; }
</style>"""
#: A picture knows no font of the page around it.
_FONT = "Liberation Sans, Arial, sans-serif"
#: Characters that a cell keeps on one line.
_SHORT = 28
_LIGHT = {light: (light, dark) for light, dark in page.PALETTE.values()}
_COLOURS = re.compile("|".join(map(re.escape, _LIGHT)))


def style(*, dark: bool) -> str:
    """The style sheet of what is below."""
    return STYLE.replace("ALARM", page.PALETTE["bad"][dark])


def totals(figures: Sequence[tuple[str, str, str]]) -> str:
    """(name, value, remark) of each total, beside each other."""
    return str(_parts(dark=False).totals(figures))


def table(shown: page.Table) -> str:
    """A table, without its title. Only long texts are broken into lines."""
    rows = [[cell if len(cell) > _SHORT else cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row] for row in shown.rows]
    return str(_parts(dark=False).table(replace(shown, rows=rows)))


def figure(shown: page.Figure, *, dark: bool) -> str:
    """A chart with its title, caption, legend, text alternative and numbers: wide or narrow, as there is room."""
    pictures = {width: _picture(svg, dark=dark) for width, svg in shown.charts.items()}
    return str(_parts(dark=dark).figure_of(shown, pictures))


def _picture(svg: str, *, dark: bool) -> str:
    """An SVG drawn in the light colours as the address of a picture, in the colours of the theme."""
    coloured = _COLOURS.sub(lambda found: _LIGHT[found[0]][dark], svg)
    coloured = coloured.replace("<svg ", f'<svg font-family="{_FONT}" ', 1)
    return "data:image/svg+xml;base64," + base64.b64encode(coloured.encode()).decode()


def colours(*, dark: bool) -> Mapping[str, str]:
    """The reports' palette in one of the themes."""
    return {name: pair[dark] for name, pair in page.PALETTE.items()}


@cache
def _parts(*, dark: bool) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", page.TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = str  # the reports' own macro of a chart has it; here charts are pictures
    environment.globals["colours"] = colours(dark=dark)
    return environment.get_template("parts.html.j2").module
