"""The entry that Streamlit runs for every look: the pages by name. `make dashboard` starts it."""

from pathlib import Path

import streamlit as st

from lakehouse.dashboard.pages import alertas, brt, execucoes, filas, modelos, qualidade, tabelas, vendas, visao_geral

PAGES = (
    (visao_geral.body, "Visão geral", "dashboard", ""),
    (execucoes.body, "Execuções", "history", "execucoes"),
    (qualidade.body, "Qualidade", "rule", "qualidade"),
    (tabelas.body, "Tabelas", "table", "tabelas"),
    (vendas.body, "Vendas", "payments", "vendas"),
    (brt.body, "BRT", "directions_bus", "brt"),
    (modelos.body, "Modelos", "query_stats", "modelos"),
    (filas.body, "Filas", "stacks", "filas"),
    (alertas.body, "Alertas", "notifications", "alertas"),
)
#: Of this package: the icon of a page would be fetched from elsewhere.
_ICON = str(Path(__file__).parents[1] / "icon.svg")


def main() -> None:
    st.set_page_config(page_title="Lakehouse", layout="wide", page_icon=_ICON)
    pages = [
        st.Page(body, title=title, icon=f":material/{icon}:", url_path=path or None, default=not path)
        for body, title, icon, path in PAGES
    ]
    st.navigation(pages).run()


if __name__ == "__main__":
    main()
