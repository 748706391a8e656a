"""*Modelos*: what the champion forecasts, what the gate compared and decided, and what came of earlier forecasts."""

import streamlit as st

from lakehouse.dashboard import business
from lakehouse.dashboard.pages import show


def body() -> None:
    show.heading("Modelos", "Previsão da receita diária.")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(business.model)
    if found["empty"]:
        show.empty("Nenhum modelo foi treinado ainda.", "make trigger JOB=mlops")
        return
    show.totals(found["totals"])
    show.figure(found["forecast"])
    for column, figure in zip(st.columns(max(len(found["folds"]), 1)), found["folds"], strict=False):
        with column:
            show.figure(figure)
    show.table(found["accuracy"], nothing="Nenhum dia previsto chegou ainda.")
    show.table(found["decisions"], nothing="Nenhuma decisão foi tomada ainda.")
