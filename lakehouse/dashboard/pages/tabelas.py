"""*Tabelas*: health, growth and versions of every table, with a way to its lineage."""

from typing import Any

import streamlit as st

from lakehouse.dashboard import markup, tables, words
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.reading import Row, reader
from lakehouse.dashboard.tables import TableStory
from lakehouse.reports import page

_MEASURES = {"rows": "Linhas", "bytes": "Tamanho", "files": "Arquivos"}


def body() -> None:
    show.heading("Tabelas")
    _parts()


@show.refreshed
def _parts() -> None:
    rows = show.ask(tables.health)
    if not rows:
        show.empty("A saúde das tabelas não foi medida ainda.", "make trigger JOB=monitoring")
        return
    show.totals(_totals(rows))
    names = [f"{row['layer']}/{row['table']}" for row in rows]
    first = names.index("silver/vendas") if "silver/vendas" in names else 0
    chosen = st.selectbox("Tabela", names, index=first)
    if chosen:
        _story(*chosen.split("/"))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shown = st.pills("Camadas", layers, selection_mode="multi")
    show.table(_health([row for row in rows if not shown or row["layer"] in shown]))


def _story(layer: str, table: str) -> None:
    found = show.ask(tables.story, layer, table)
    st.link_button("Linhagem no Dagster", tables.lineage(reader().settings.ui_url, layer, table), icon=":material/account_tree:")
    if len(found.growth) > 1:
        measure = st.segmented_control(
            "Crescimento", list(_MEASURES), format_func=lambda name: _MEASURES[name], default="rows", required=True
        )
        st.altair_chart(
            _growth(found, measure or "rows"), alt=f"{_MEASURES[measure or 'rows']} de {layer}/{table} ao longo do tempo."
        )
    elif found.growth:
        st.caption("Só há uma medição; o crescimento aparece com a próxima.")
    show.table(_versions(found, f"{layer}/{table}"))


def _totals(rows: list[Row]) -> list[tuple[str, str, str]]:
    wrong = sum(row["outcome"] != "ok" for row in rows)
    small, files = (sum(row[name] or 0 for row in rows) for name in ("small_files", "files"))
    return [
        ("Tabelas", page.number(len(rows)), f"{wrong} fora do limite" if wrong else "todas em ordem"),
        ("Linhas", page.number(sum(row["rows"] or 0 for row in rows)), ""),
        ("Tamanho", page.size(sum(row["bytes"] or 0 for row in rows)), "das versões atuais"),
        ("Arquivos", page.number(files), f"{page.number(small)} pequenos"),
        ("Medidas", words.ago(max(row["measured_at"] for row in rows)), "pelo job monitoring"),
    ]


def _health(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Saúde",
        columns=(
            "Tabela",
            "Estado",
            "Versão",
            "Linhas",
            "Tamanho",
            "Arquivos",
            "Pequenos",
            "Último commit",
            "Quarentena",
            "O que há",
        ),
        rows=[
            (
                f"{page.text(row['layer'])}/{page.text(row['table'])}",
                words.named(words.HEALTH, row["outcome"]),
                page.number(row["version"]),
                page.number(row["rows"]),
                page.size(row["bytes"]),
                page.number(row["files"]),
                page.number(row["small_files"]),
                words.ago(row["committed_at"]),
                words.percent(row["quarantine_share"], 3),
                page.text(words.problems(row["problems"]), missing=""),
            )
            for row in rows
        ],
        numeric=frozenset({2, 3, 4, 5, 6, 8}),
        alarm=frozenset(n for n, row in enumerate(rows) if row["outcome"] != "ok"),
    )


def _versions(found: TableStory, name: str) -> page.Table:
    return page.Table(
        title=f"Versões de {name}",
        columns=("Versão", "Quando", "Operação", "Registros", "Execução"),
        rows=[
            (
                page.number(version.number),
                words.instant(version.at),
                page.text(version.operation),
                page.text(version.figures, missing=""),
                page.text(version.run_id[:8], missing=""),
            )
            for version in found.versions
        ],
        numeric=frozenset({0}),
    )


def _growth(found: TableStory, measure: str) -> Any:
    import altair as alt

    points = [
        {"t": words.wall(row["measured_at"]), "v": row[measure], "said": words.instant(row["measured_at"])}
        for row in found.growth
    ]
    drawn = alt.Chart(alt.InlineData(values=points)).mark_line(
        color=markup.colours(dark=show.dark())["accent"], point=True, interpolate="step-after"
    )
    return show.located(
        drawn.encode(
            x=alt.X("t:T", title=None, axis=alt.Axis(labelOverlap=True, tickCount=6, format="%d/%m %H:%M")),
            y=alt.Y("v:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=page.value_axis(wide=False)),
            tooltip=[alt.Tooltip("said:N", title="Medido"), alt.Tooltip("v:Q", title=_MEASURES[measure], format=",")],
        ).properties(height=220)
    )
