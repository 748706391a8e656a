"""*Vendas*: the charts of the sales report."""

import streamlit as st

from lakehouse.dashboard import business
from lakehouse.dashboard.pages import show


def body() -> None:
    show.heading("Vendas")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(business.sales)
    if found["empty"]:
        show.empty("Não há vendas.", "make run")
        return
    show.totals(found["totals"])
    for total in found["disagreement"]:
        st.warning(f"Os totais diferem: {show.plain(total)}")
    show.figure(found["daily"])
    show.figure(found["monthly"])
    left, right = st.columns(2)
    with left:
        if found["countries"]:
            show.figure(found["countries"])
        else:
            st.caption(show.plain(found["no_countries"]))
    with right:
        show.figure(found["products"])
