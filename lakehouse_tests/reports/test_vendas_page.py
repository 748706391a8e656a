"""What the page of `reports/vendas` promises: the figures it shows, that it stands alone, and that no input breaks it.

Belongs here: `render` seen from outside, through the HTML it returns and the browser that shows it. How the figures are
read from the lake is tested with the asset.
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lakehouse.reports.page import PALETTE
from lakehouse.reports.vendas_page import VendasFigures, render

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}\x00\u202e]]>--><svg onload=alert(2)></title></style>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


def measures(receita: str, *, pedidos: int = 2, linhas: int = 10) -> dict[str, Any]:
    return {"pedidos": pedidos, "clientes": 2, "linhas": linhas, "quantidade": 100, "receita": Decimal(receita)}


def days(count: int, *, first: date = date(2011, 1, 1), receita: str = "100.5000") -> list[dict[str, Any]]:
    return [{"data": first + timedelta(days=day), **measures(receita)} for day in range(count)]


def months(daily: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`daily` summed by month, so that the two marts agree."""
    sums: dict[str, dict[str, Any]] = {}
    for row in daily:
        month = row["data"].isoformat()[:7]
        so_far = sums.get(month, dict.fromkeys(measures("0"), 0))
        sums[month] = {"mes": month, **{name: row[name] + so_far[name] for name in measures("0")}}
    return list(sums.values())


EMPTY = VendasFigures(
    environment="staging",
    report_date=date(2011, 12, 9),
    daily=[],
    monthly=[],
    by_country=[],
    by_segment=[],
    top_products=[],
    rules=[],
    ledger=[],
    tables=[],
)


def full() -> VendasFigures:
    """Forty days whose marts agree: 1,234,567.89 in 400 lines."""
    daily = days(40, receita="30000.0000")
    daily[7] = {**daily[7], "receita": Decimal("-1566.2300")}
    daily[39] = {**daily[39], "receita": Decimal("96134.1200")}
    return VendasFigures(
        environment="prod",
        report_date=date(2011, 2, 9),
        daily=daily,
        monthly=months(daily),
        by_country=[
            {"pais": "United Kingdom", **measures("1000000.0000", pedidos=60, linhas=300)},
            {"pais": None, **measures("234567.8900", pedidos=15, linhas=100)},
        ],
        by_segment=[
            {"segmento": "campeoes", "clientes": 12, "receita": Decimal("900000.00")},
            {"segmento": None, "clientes": 1230, "receita": Decimal("-5.00")},
        ],
        top_products=[
            {"produto_id": "85123A", "nome": "LANTERNA", "linhas": 3, "quantidade": 5, "receita": Decimal("50.00")},
            {"produto_id": "M", "nome": None, "linhas": 1, "quantidade": 1, "receita": Decimal("40.00")},
        ],
        rules=[
            {"table": "silver/vendas", "rule": "pais_ok", "action": "warn", "failed": 0, "passed": True},
            {"table": "silver/vendas", "rule": "qtd_ok", "action": "quarantine", "failed": 1463, "passed": False},
        ],
        ledger=[
            ledger_row("vendas", in_rows=586213, written=539446, deduplicated=46767),
            ledger_row("produtos", in_rows=4070, written=4070),
        ],
        tables=[{"layer": "gold", "table": "vendas_diarias", "version": 3, "rows": 40, "bytes": 15_300}],
    )


def ledger_row(table: str, *, balanced: bool = True, **counts: int) -> dict[str, Any]:
    parts = {"in_rows": 0, "written": 0, "deduplicated": 0, "deleted": 0, "quarantined": 0}
    return {"layer": "silver", "table": table, **parts, **counts, "balanced": balanced}


class Page(HTMLParser):
    """The elements of a page, as a browser would build them: (tag, attributes), with the text directly in each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "an element is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and (not self.open or self.open[-1] not in {"style", "title"}):
            self.texts.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def svgs(html: str, title: str) -> Iterator[ET.Element]:
    """The wide and the narrow drawing of a figure."""
    figure = next(part for part in re.findall(r"<figure.*?</figure>", html, re.S) if f"<h2>{title}</h2>" in part)
    return (ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", figure, re.S))


def painted(svg: ET.Element, tag: str, attribute: str, colour: str) -> list[ET.Element]:
    return [
        element for element in svg.iter(f"{{http://www.w3.org/2000/svg}}{tag}") if element.get(attribute) == PALETTE[colour][0]
    ]


def rows_of(html: str, title: str) -> list[tuple[bool, list[str]]]:
    """(stands out, cells) of each row of the table under a heading."""
    section = next(part for part in re.findall(r"<section>.*?</section>", html, re.S) if f"<h2>{title}</h2>" in part)
    bodies = "".join(re.findall(r"<tbody>(.*?)</tbody>", section, re.S))
    rows = re.findall(r"<tr( class=\"alarm\")?>(.*?)</tr>", bodies, re.S)
    return [(bool(alarm), re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", cells)) for alarm, cells in rows]


def test_the_header_has_the_totals_in_brazilian_format() -> None:
    texts = Page(render(full())).texts
    shown = {name: texts[texts.index(name) + 1] for name in ("Receita", "Pedidos", "Clientes", "Linhas", "Período")}
    assert shown == {
        "Receita": "1.234.567,89",
        "Pedidos": "75",  # by country; by day it would be 80, which counts twice what falls on two days
        "Clientes": "1.242",
        "Linhas": "400",
        "Período": "01/01/2011 a 09/02/2011",
    }
    assert "prod" in texts
    assert not any("não concordam" in text for text in texts)


def test_marts_that_disagree_are_reported() -> None:
    figures = full()
    html = render(replace(figures, monthly=figures.monthly[1:]))
    assert "não concordam" in html
    assert "vendas_mensais: 90 linhas, receita 336.134,12" in html


@pytest.mark.stack
def test_equal_figures_give_identical_bytes_whatever_the_process() -> None:
    program = (
        "import hashlib, sys; from lakehouse_tests_page import full, render;"
        "print(hashlib.sha256(render(full()).encode()).hexdigest())"
    )
    loader = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('lakehouse_tests_page', {str(Path(__file__))!r});"
        "module = importlib.util.module_from_spec(spec); sys.modules['lakehouse_tests_page'] = module;"
        "spec.loader.exec_module(module);"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", loader + program],
            env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for zone, seed in (("UTC", "1"), ("America/Sao_Paulo", "2"), ("Pacific/Kiritimati", "3"))
    }
    assert len(digests) == 1
    assert render(full()) == render(full())


def test_import_is_free_and_rendering_does_without_pandas() -> None:
    program = (
        "import sys; import lakehouse.reports.vendas_page as page;"
        "heavy = {'altair', 'jinja2', 'vl_convert', 'pandas'} & sys.modules.keys(); assert not heavy, heavy;"
        "from datetime import date; names = page.VendasFigures.__dataclass_fields__;"
        "rows = [{'data': date(2011, 1, 1), 'pedidos': 1, 'linhas': 1, 'receita': 1}];"
        "values = {'environment': 'dev', 'report_date': date(2011, 1, 1), 'daily': rows};"
        "page.render(page.VendasFigures(**{name: values.get(name, []) for name in names}));"
        "assert 'altair' in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("figures", [full(), EMPTY], ids=["full", "empty"])
def test_the_page_needs_nothing_from_outside_and_runs_nothing(figures: VendasFigures) -> None:
    html = render(figures)
    page = Page(html)
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg\")", html)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "iframe", "object", "image", "use", "foreignobject"})
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    # inline SVGs share one document: an id in one would answer for another, and Vega numbers its own per process
    assert not [attributes for _, attributes in page.elements if "id" in attributes]


def test_no_currency_is_invented() -> None:
    assert not re.search(r"[$€£¥]|BRL|GBP|USD|EUR\b|reais", render(full()))


def test_an_empty_lake_is_reported_plainly() -> None:
    texts = " ".join(Page(render(EMPTY)).texts)
    assert "Não há vendas no lake" in texts
    for absent in ("Não há dias", "Não há meses", "Não há vendas por país", "Não há produtos", "Nenhuma regra"):
        assert absent in texts
    assert "Nenhuma carga" in texts and "Nenhuma tabela" in texts
    assert "Não há vendas no lake" not in render(full())


EMPTIED = [name for name in VendasFigures.__dataclass_fields__ if name not in {"environment", "report_date"}]


@pytest.mark.parametrize("name", EMPTIED)
def test_any_one_table_may_be_empty(name: str) -> None:
    figures = full()
    page = Page(render(VendasFigures(**{**vars(figures), name: []})))
    before = Page(render(figures))
    assert len(page.elements) < len(before.elements)


def test_hostile_text_is_shown_and_never_interpreted() -> None:
    figures = full()
    hostile = replace(
        figures,
        environment=HOSTILE,
        by_country=[{**row, "pais": f"{HOSTILE}{index}"} for index, row in enumerate(figures.by_country)],
        top_products=[{**row, "nome": HOSTILE, "produto_id": HOSTILE} for row in figures.top_products],
        rules=[{**row, "table": HOSTILE, "rule": HOSTILE, "action": HOSTILE} for row in figures.rules],
        ledger=[{**row, "layer": HOSTILE, "table": HOSTILE} for row in figures.ledger],
        tables=[{**row, "layer": HOSTILE, "table": HOSTILE} for row in figures.tables],
    )
    html = render(hostile)
    page, harmless = Page(html), Page(render(figures))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "\x00" not in html and "\u202e" not in html
    shown = [text for text in page.texts if text.startswith("<script>alert(1)</script>\"'&{{ 7*7 }}")]
    assert len(shown) > 10
    html.encode()  # a page that cannot be written is no page


def test_long_and_equal_names_have_a_bar_each() -> None:
    product = {"linhas": 1, "quantidade": 1, "receita": Decimal(5)}
    products = [{**product, "produto_id": str(number), "nome": "PALAVRA" * 500} for number in range(40)]
    html = render(replace(full(), top_products=products))
    for svg in svgs(html, "Produtos de maior receita"):
        assert len(painted(svg, "path", "fill", "accent")) == 15
    assert "PALAVRA" * 40 not in html


def test_missing_names_and_measures_are_shown_as_missing() -> None:
    figures = full()
    unknown = {**figures.by_country[0], "pais": "Chile", "clientes": None, "receita": None}
    html = render(replace(figures, by_country=[*figures.by_country, unknown]))
    texts = Page(html).texts
    assert "(sem país)" in texts and "(sem nome) M" in texts
    assert re.search(r"Chile</th><td class=\"n\">60</td><td class=\"n\">\N{EN DASH}</td>", html)


def test_a_negative_day_is_marked_and_drawn_below_zero() -> None:
    html = render(full())
    assert "receita negativa (1 dia)" in html
    assert "a menor -1.566,23 em 08/01/2011" in html
    for svg in svgs(html, "Receita por dia"):
        assert len(painted(svg, "path", "fill", "bad")) == 1
    positive = render(replace(full(), daily=days(40)))
    assert "receita negativa" not in positive


def test_a_negative_month_and_a_negative_country_are_bars_of_their_own_colour() -> None:
    figures = full()
    monthly = [figures.monthly[0], {**figures.monthly[1], "receita": Decimal("-9000")}]
    html = render(replace(figures, monthly=monthly, by_country=[*figures.by_country, {"pais": "X", **measures("-70")}]))
    for title, positive in (("Receita por mês", 1), ("Receita por país", 2)):
        for svg in svgs(html, title):
            assert len(painted(svg, "path", "fill", "bad")) == 1
            assert len(painted(svg, "path", "fill", "accent")) == positive
    assert "Parte" not in html.split("Receita por país")[1].split("</figure>")[0]  # shares of a mixed total mislead


def vertices(path: ET.Element) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_the_mean_is_of_seven_calendar_days_and_absent_days_are_zero() -> None:
    """700 sold on the first of fourteen days, nothing until the last: the mean is 100 on the 7th and 0 from the 8th."""
    daily = [*days(1, receita="700"), *days(1, first=date(2011, 1, 14), receita="0")]
    for svg in svgs(render(replace(EMPTY, daily=daily)), "Receita por dia"):
        (line,), (mean,) = painted(svg, "path", "stroke", "daily"), painted(svg, "path", "stroke", "accent")
        (left, top), (second_x, bottom), (right, _) = vertices(line)[0], vertices(line)[1], vertices(line)[-1]
        assert vertices(mean)[0][1] == pytest.approx(bottom - (bottom - top) / 7, abs=0.2)
        assert vertices(mean)[0][0] == pytest.approx(left + (right - left) * 6 / 13, abs=0.2)
        assert {y for _, y in vertices(mean)[1:]} == {bottom}
        assert second_x == pytest.approx(left + (right - left) / 13, abs=0.2)


def test_less_than_a_week_has_no_mean_and_the_page_reports_it() -> None:
    for count, has_mean in ((1, False), (6, False), (7, True)):
        html = render(replace(EMPTY, daily=days(count)))
        assert ("não há média" in html) is not has_mean
        for svg in svgs(html, "Receita por dia"):
            assert bool(painted(svg, "path", "stroke", "accent")) is has_mean
            assert len(painted(svg, "path", "fill", "daily")) == count  # so few days are also drawn as points


def test_one_day_is_a_report() -> None:
    daily = days(1)
    html = render(replace(EMPTY, daily=daily, monthly=months(daily)))
    assert "01/01/2011" in html and "1 dia com vendas" in html
    assert "Há dados de jan/2011 só até o dia 1." in html


@pytest.mark.parametrize(
    ("daily", "most"),
    [
        (days(3 * 365), 200_000),
        (days(15 * 365), 400_000),
        ([*days(1, first=date.min), *days(40), *days(1, first=date.max)], 100_000),
    ],
    ids=["three years", "fifteen years", "stray dates"],
)
def test_the_page_stays_small(daily: list[dict[str, Any]], most: int) -> None:
    assert len(render(replace(full(), daily=daily, monthly=months(daily))).encode()) < most


def test_every_month_is_a_bar_as_high_as_its_revenue() -> None:
    monthly = [{"mes": f"2011-{month:02}", **measures(str(month * 1000))} for month in (1, 2, 4, 12)]
    for svg in svgs(render(replace(EMPTY, monthly=monthly)), "Receita por mês"):
        bars = [vertices_of_rect(path) for path in painted(svg, "path", "fill", "accent")]
        assert [height / bars[0] for height in bars] == pytest.approx([1, 2, 4, 12], rel=0.03)


def vertices_of_rect(path: ET.Element) -> float:
    """The height of a rectangle that is written M x,y h w v height."""
    (height,) = re.findall(r"v(-?[\d.]+)h", path.attrib["d"])
    return abs(float(height))


def test_rows_without_a_date_are_counted_and_named() -> None:
    daily = [*days(2), {"data": None, **measures("7", linhas=33)}]
    html = render(replace(EMPTY, daily=daily))
    assert "33 linhas sem data não aparecem aqui" in html
    assert "208,00" in html  # 100,50 + 100,50 + 7: the total has them


def test_small_countries_are_summed_and_none_is_lost_from_the_table() -> None:
    countries = [{"pais": f"pais {number:02}", **measures(str(1000 - number))} for number in range(38)]
    html = render(replace(full(), by_country=countries))
    assert "Outros 27 países" in html
    assert len(re.findall(r"<th scope=\"row\">pais \d\d</th>", html)) == 38
    for svg in svgs(html, "Receita por país"):
        assert len(painted(svg, "path", "fill", "accent")) == 12


def test_one_country_shows_segments_and_states_why() -> None:
    figures = replace(full(), by_country=full().by_country[:1])
    html = render(figures)
    assert "<h2>Receita por segmento de clientes</h2>" in html and "<h2>Receita por país</h2>" not in html
    assert "Todas as vendas são de um só país (United Kingdom)" in html
    assert "(sem segmento)" in html
    without = render(replace(figures, by_segment=[]))
    assert "Todas as vendas são de um só país (United Kingdom), e não há segmentos" in without
    assert "Todas as vendas são de um só país" not in render(full())


def test_failed_rules_come_first_and_stand_out() -> None:
    html = render(full())
    assert rows_of(html, "Qualidade dos dados") == [
        (True, ["silver/vendas", "qtd_ok", "põe em quarentena", "1.463", "falhou"]),
        (False, ["silver/vendas", "pais_ok", "avisa", "0", "passou"]),
    ]
    assert "1 de 2 regras passaram" in html


def test_a_ledger_row_stands_out_when_the_sum_or_the_result_is_wrong() -> None:
    rows = [
        ledger_row("certa", in_rows=10, written=4, deduplicated=3, deleted=2, quarantined=1),
        ledger_row("perdeu", in_rows=10, written=8),  # recorded as balanced, and is not
        ledger_row("dobrou", in_rows=10, written=11),
        ledger_row("recusada", in_rows=10, written=10, balanced=False),
    ]
    html = render(replace(full(), ledger=rows))
    shown = [(alarm, cells[0], *cells[-2:]) for alarm, cells in rows_of(html, "Livro-razão")]
    assert shown == [
        (False, "silver/certa", "0", "fecha"),
        (True, "silver/perdeu", "2", "não fecha"),
        (True, "silver/dobrou", "-1", "não fecha"),
        (True, "silver/recusada", "0", "não fecha"),
    ]
    assert "3 de 4 não fecham" in html
    assert "Todas as tabelas fecham" in render(full())


def test_the_footer_lists_the_versions_that_were_read() -> None:
    assert rows_of(render(full()), "Versões das tabelas") == [(False, ["gold/vendas_diarias", "3", "40", "15,3 kB"])]


def test_every_chart_and_table_can_be_used_without_seeing_it() -> None:
    page = Page(render(full()))
    figures, pictures = page.all("figure"), [a for a in page.all("div") if a.get("role") == "img"]
    assert len(figures) == len(page.all("figcaption")) == len(pictures) == 4
    assert all(figure["aria-label"] for figure in figures) and all(len(a["aria-label"] or "") > 40 for a in pictures)
    assert all(svg["aria-hidden"] == "true" and svg["viewbox"] for svg in page.all("svg"))
    boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table")) and all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert ("html", {"lang": "pt-BR"}) in page.elements


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("variant", [0, 1], ids=["light", "dark"])
def test_contrast_reaches_wcag_aa(variant: int) -> None:
    for name, least in (("ink", 4.5), ("muted", 4.5), ("accent", 4.5), ("bad", 4.5), ("daily", 3.0)):
        for ground in ("paper", "panel"):
            light, dark = sorted((luminance(PALETTE[name][variant]), luminance(PALETTE[ground][variant])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, f"{name} on {ground}"


def test_a_broken_row_is_refused_with_its_reason() -> None:
    with pytest.raises(KeyError, match="receita"):
        render(replace(EMPTY, daily=[{"data": date(2011, 1, 1), "pedidos": 1, "linhas": 1}]))
    with pytest.raises(ValueError, match="'2011/01', not 'YYYY-MM'"):
        render(replace(EMPTY, monthly=[{"mes": "2011/01", **measures("1")}]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-quic"])
        yield running
        running.close()


def hostile_and_wide() -> VendasFigures:
    figures = full()
    return replace(
        figures,
        environment="W" * 200,
        top_products=[{**row, "nome": "W" * 400} for row in figures.top_products],
        rules=[{**row, "rule": HOSTILE + "W" * 200} for row in figures.rules],
        daily=[{**row, "receita": Decimal("9876543210987654.32")} for row in figures.daily],
    )


@pytest.mark.browser
@pytest.mark.parametrize("make", [full, hostile_and_wide, lambda: EMPTY], ids=["full", "wide", "empty"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_overflows_nor_calls_out_nor_runs(
    browser: Any, tmp_path: Path, make: Callable[[], VendasFigures], width: int
) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(make()), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    try:
        events: list[str] = []

        def refuse(dialog: Any) -> None:
            events.append(dialog.message)
            dialog.dismiss()

        page.on("request", lambda request: events.append(request.url))
        page.on("console", lambda message: events.append(message.text))
        page.on("dialog", refuse)
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [event for event in events if event not in {file.as_uri(), "data:,"}] == []
    finally:
        page.close()


@pytest.mark.browser
def test_the_charts_follow_the_colour_scheme_and_the_width(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(full()), encoding="utf-8")
    for variant, scheme in enumerate(("light", "dark")):
        page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme=scheme)
        try:
            page.goto(file.as_uri())
            red, green, blue = (int(PALETTE["accent"][variant][at : at + 2], 16) for at in (1, 3, 5))
            bar = page.locator(f'.narrow path[fill="{PALETTE["accent"][0]}"]').first
            assert bar.evaluate("it => getComputedStyle(it).fill") == f"rgb({red}, {green}, {blue})"
            assert page.locator(".narrow svg").first.is_visible() and not page.locator(".wide svg").first.is_visible()
            letters = page.evaluate(
                "Array.from(document.querySelectorAll('.narrow svg text'),"
                " it => parseFloat(getComputedStyle(it).fontSize) * it.ownerSVGElement.getScreenCTM().a)"
            )
            assert min(letters) >= 11  # pixels, as shown
        finally:
            page.close()
