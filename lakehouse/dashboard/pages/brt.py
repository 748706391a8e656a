"""*BRT*: where the fleet is and how the services run, as in the report."""

import streamlit as st

from lakehouse.dashboard import business, words
from lakehouse.dashboard.executions import WINDOWS
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.reading import Row
from lakehouse.reports import brt_page, page

#: As in the mart's own test.
_OBJECTIVE = 0.99


def body() -> None:
    show.heading("BRT")
    _parts()


@show.refreshed
def _parts() -> None:
    if delivery := show.ask(business.feeds):
        show.table(_delivery(delivery))
        st.caption(f"De gold/slo_feeds, até {words.instant(max(row['as_of'] for row in delivery))}.")
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


def _delivery(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Entrega da fonte, por minuto",
        columns=("Período", "Minutos devidos", "Minutos capturados", "Entrega", "Última captura"),
        rows=[
            (
                WINDOWS[row["time_window"]][0],
                page.number(row["minutes_due"]),
                page.number(row["minutes_captured"]),
                words.percent(row["delivery_rate"]),
                words.instant(row["newest_minute"]),
            )
            for row in rows
        ],
        numeric=frozenset({1, 2, 3}),
        alarm=frozenset(n for n, row in enumerate(rows) if row["minutes_due"] and row["delivery_rate"] < _OBJECTIVE),
    )
