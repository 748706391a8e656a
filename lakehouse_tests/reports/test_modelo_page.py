"""The page of the model: what it says of a champion, of none, and that it is one file without script or network."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from lakehouse.reports.modelo_page import ModeloFigures, render

DAY = date(2024, 3, 1)


def fold(model: str, horizon: int, at: int, wape: float) -> dict:
    row = {
        "modelo": model,
        "receita_modelo": "nivel_28",
        "uso": "relato",
        "horizonte": horizon,
        "origem": DAY - timedelta(7 * at),
    }
    return {**row, "wape": wape, "mae": 1.0, "vies": -0.1, "cobertura": 0.8, "real": 100.0, "previsto": 90.0}


FIGURES = ModeloFigures(
    environment="dev",
    champion=3,
    recipe="nivel_28",
    importance={"nivel_28": 0.31, "aberto": 0.12, "feriado": 0.0},
    daily=[{"data": DAY - timedelta(n), "receita": 1000 + n} for n in range(90)],
    folds=[fold(m, h, at, w) for m, w in (("candidato", 0.2), ("ingenuo", 0.4)) for h in (7, 28) for at in range(9)],
    forecast=[
        {"origem": DAY, "data": DAY + timedelta(n), "previsto": 0.0 if n == 2 else 500.0, "baixo": 0.0 if n == 2 else 300.0,
         "alto": 0.0 if n == 2 else 800.0, "horizonte": n, "versao": 3}
        for n in range(1, 29)
    ],
    accuracy=[
        {"origem": DAY - timedelta(7), "data": DAY - timedelta(6), "horizonte": 1, "versao": 2, "previsto": 80.0, "real": 100.0,
         "erro": -20.0, "no_intervalo": True}
    ],
    decisions=[
        {"decidido_em": datetime(2024, 3, 3, 5, tzinfo=UTC), "versao": 3, "receita_modelo": "nivel_28", "promovido": True,
         "ganho_ingenuo": 0.5, "ganho_campeao": None, "motivo": "promoted: <b>+50%</b>"}
    ],
    tables=[{"layer": "ml", "table": "features", "version": 4, "rows": 8932, "bytes": 1_200_000}],
)  # fmt: skip


def test_the_page_states_who_forecasts_how_well_and_what_was_decided():
    html = render(FIGURES)
    for text in ("versão 3", "20,0 %", "50,0 % melhor que o ingênuo", "3.000", "1 promoção", "nivel_28", "31,0 %", "ml/features"):
        assert text in html, text
    assert "feriado" not in html, "a variable that nothing depends on is not shown"
    assert "&lt;b&gt;+50%" in html and "<b>+50" not in html
    assert html.count("<svg") == 2 * 3
    assert render(FIGURES) == html


def test_the_page_is_one_file_without_script_or_network():
    html = render(FIGURES)
    assert not re.search(r"<script|<link rel=\"style|https?://(?!www\.w3\.org)|@import|url\(", html)


@pytest.mark.parametrize("missing", ["forecast", "folds", "accuracy", "decisions"])
def test_what_is_not_there_is_reported(missing):
    html = render(replace(FIGURES, **{missing: []}))
    assert "<h1>Previsão de vendas</h1>" in html


def test_without_a_champion_the_page_states_that_none_has_passed():
    html = render(replace(FIGURES, champion=None, recipe="", importance={}, forecast=[], accuracy=[]))
    assert "Nenhum modelo passou pelo critério ainda" in html and "Não há campeão" in html
