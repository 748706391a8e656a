"""What the page of `reports/brt` promises: it stands alone, says when its buses are simulated, and no input breaks it."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from lakehouse.reports.brt_page import BrtFigures, render

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}\x00\u202e]]></title></style>"
AT = datetime(2025, 10, 28, 21, 10, tzinfo=UTC)
EMPTY = BrtFigures(environment="dev", captured_at=None, fleet=[], minutes=[], hours=[], tables=[])


def vehicle(number: int, **given: Any) -> dict[str, Any]:
    position = {"latitude": -22.9 - number / 1_000, "longitude": -43.4 + number / 500}
    row = {"id_veiculo": f"9{number:05d}", "servico": "10", "recente": number % 4 > 0, "em_movimento": number % 2 > 0}
    return {**row, **position, **given}


def figures(**given: Any) -> BrtFigures:
    minute = {"capturas": 1, "recentes": 30, "atrasados": 10, "em_movimento": 20}
    hour = {"servico": "10", "veiculos": 40, "posicoes": 90, "km": Decimal("12.5"), "velocidade_media": Decimal(25)}
    values: dict[str, Any] = {
        "environment": "dev",
        "captured_at": AT,
        "fleet": [vehicle(n) for n in range(40)],
        "minutes": [{"minuto": AT - timedelta(minutes=n), **minute} for n in range(100)],
        "hours": [{"data": date(2025, 10, 28), "hora": h, "parte_parada": Decimal("0.25"), **hour} for h in (17, 18)],
        "tables": [{"layer": "gold", "table": "brt_frota_atual", "version": 1, "rows": 40, "bytes": 5_000}],
    }
    return BrtFigures(**{**values, **given})


def test_the_page_states_how_many_buses_are_where():
    page = render(figures())
    assert "28/10/2025 18:10" in page
    text = re.sub(r"<[^>]+>", " ", page)
    for output in ("em movimento (20)", "parados (10)", "sem posição há mais de 5 min (10)", "Serviços às 18h", "25,0"):
        assert output in text, output
    assert page.count("<svg") == 6


def test_the_page_stands_alone_and_is_the_same_for_the_same_figures():
    page = render(figures())
    assert page == render(figures())
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert not re.search(r"url\((?!data:)", page)


def test_nothing_to_show_is_reported():
    page = render(EMPTY)
    assert "Não há posições no lake" in page
    assert "<svg" not in page


@pytest.mark.parametrize(("prefix", "expected"), [("SIM", True), ("901", False)])
def test_simulated_buses_are_called_so(prefix, expected):
    page = render(figures(fleet=[vehicle(n, id_veiculo=f"{prefix}{n}") for n in range(3)]))
    assert ("Dados simulados" in page) == expected


def test_hostile_names_are_text():
    hours = [{**figures().hours[0], "servico": HOSTILE}]
    page = render(figures(hours=hours, fleet=[vehicle(1, servico=HOSTILE, id_veiculo=HOSTILE)], environment=HOSTILE))
    assert "<script" not in page
    assert "\x00" not in page


@pytest.mark.parametrize(
    "fleet",
    [
        [vehicle(1)],
        [vehicle(1), vehicle(1, id_veiculo="again")],
        [vehicle(1, latitude=-22.7, longitude=-43.1), vehicle(2, latitude=-23.1, longitude=-43.8)],
    ],
    ids=["one", "one place", "far apart"],
)
def test_a_map_of_any_extent_is_drawn(fleet):
    page = render(figures(fleet=fleet))
    assert "NaN" not in page
    assert "Infinity" not in page
