"""*BRT*: where the fleet is and how the services run, as in the report."""

import streamlit as st

from lakehouse.dashboard import business
from lakehouse.dashboard.pages import show
from lakehouse.reports import brt_page


def body() -> None:
    show.heading("BRT")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(business.fleet)
    if found["captured_at"] is None:
        show.empty("Não há capturas do BRT.", "make run")
        return
    st.caption(f"Última captura exportada: {brt_page.moment(found['captured_at'])}, horário do Rio.")
    if found["simulated"]:
        st.warning("Veículos simulados: o serviço da cidade não foi consultado.", icon=":material/science:")
    show.totals(found["totals"])
    show.figure(found["fleet"])
    show.figure(found["minutes"])
    show.figure(found["speed"])
    show.table(found["services"])
