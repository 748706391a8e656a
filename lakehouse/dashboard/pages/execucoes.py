"""*Execuções*: the history of runs with filters, their service levels, and when they ran."""

from typing import Any

import streamlit as st

from lakehouse.dashboard import executions, markup, words
from lakehouse.dashboard.executions import Executions
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.reading import Row
from lakehouse.observability import outcome
from lakehouse.reports import page

_LISTED = 100
_COLOURS = {
    **{words.OUTCOMES[name]: "accent" for name in outcome.GOOD},
    **{words.OUTCOMES[name]: "bad" for name in outcome.BAD},
    words.OUTCOMES["canceled"]: "muted",
}


def body() -> None:
    show.heading("Execuções")
    _parts()


@show.refreshed
def _parts() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        window = st.segmented_control(
            "Período", list(executions.WINDOWS), format_func=lambda name: executions.WINDOWS[name][0], default="7d", required=True
        )
        outcomes = st.pills(
            "Resultado", list(words.OUTCOMES), format_func=lambda name: words.OUTCOMES[name], selection_mode="multi"
        )
    known = show.ask(executions.read, window or "7d").jobs
    jobs = st.multiselect("Jobs", known, placeholder="todos")
    found = show.ask(executions.read, window or "7d", tuple(jobs), tuple(outcomes or ()))
    if found.until is None:
        show.empty("Nenhuma execução foi medida ainda.", "make trigger JOB=monitoring")
        return
    show.totals(_totals(found))
    st.caption(f"O período termina em {words.instant(found.until)}.")
    if found.levels:
        show.table(_levels(found.levels))
        st.caption("De gold/slo_jobs, sem o filtro de resultado.")
    else:
        show.empty("Taxas e percentis não foram calculados ainda.", "make trigger JOB=slo")
    if found.newer:
        show.table(_history("Depois do período", found.newer[:_LISTED]))
        st.caption("Os níveis de serviço contam estas execuções na próxima execução do job slo.")
    if found.runs:
        st.markdown("##### Linha do tempo")
        st.altair_chart(_timeline(found.runs), alt=f"Linha do tempo de {len(found.runs)} execuções, por job.")
        if found.total > len(found.runs):
            st.caption(f"As {len(found.runs)} mais novas de {page.number(found.total)}.")
        show.table(_history("Histórico", found.runs[:_LISTED]))
        if found.total > _LISTED:
            st.caption(f"As {_LISTED} mais novas de {page.number(found.total)}.")
    else:
        st.caption("Nenhuma execução com estes filtros.")


def _totals(found: Executions) -> list[tuple[str, str, str]]:
    runs, good, bad = (sum(row[name] for row in found.levels) for name in ("runs", "successes", "failures"))
    with_sla, missed = (sum(row[name] for row in found.levels) for name in ("sla_judged", "sla_misses"))
    return [
        ("Execuções", page.number(found.total), "com estes filtros"),
        ("Taxa de sucesso", words.percent(good / (good + bad) if good + bad else None), f"de {page.number(runs)} execuções"),
        ("Falhas", page.number(found.failures), ""),
        ("SLA perdidos", page.number(missed) if found.levels else page.DASH, f"de {page.number(with_sla)} com SLA"),
    ]


def _levels(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Níveis de serviço",
        columns=(
            "Job",
            "Execuções",
            "Sucesso",
            "Falhas",
            "p50",
            "p95",
            "p99",
            "SLA perdidos",
            "Tentativas a mais",
            "Margem de erro",
        ),
        rows=[
            (
                page.text(row["job"]),
                page.number(row["runs"]),
                words.percent(row["success_rate"]),
                page.number(row["failures"]),
                *(words.length(row[name]) for name in ("p50_seconds", "p95_seconds", "p99_seconds")),
                f"{page.number(row['sla_misses'])} de {page.number(row['sla_judged'])}" if row["sla_judged"] else page.DASH,
                page.number(row["retries"]),
                words.percent(row["error_budget_left"], 0),
            )
            for row in rows
        ],
        numeric=frozenset(range(1, 10)),
        alarm=frozenset(n for n, row in enumerate(rows) if row["failures"] or row["sla_misses"]),
    )


def _history(title: str, rows: list[Row]) -> page.Table:
    return page.Table(
        title=title,
        columns=("Job", "Resultado", "Começou", "Duração", "SLA", "Tentativas a mais", "Linhas gravadas", "Execução"),
        rows=[
            (
                page.text(row["job"]),
                words.outcome(row),
                words.instant(row["started_at"] or row["finished_at"]),
                words.length(row["duration_seconds"]),
                words.sla(row["sla_met"]),
                page.number(row["retries"]),
                page.number(row["rows"]),
                row["run_id"][:8],
            )
            for row in rows
        ],
        numeric=frozenset({3, 5, 6}),
        alarm=frozenset(n for n, row in enumerate(rows) if executions.is_bad(row)),
    )


def _timeline(runs: list[Row]) -> Any:
    """A bar from start to end of every run, with a mark that can be seen where the bar is too short."""
    import altair as alt

    colours = markup.colours(dark=show.dark())
    points = [
        {
            "job": page.text(row["job"]),
            "from": words.wall(row["started_at"] or row["finished_at"]),
            "to": words.wall(row["finished_at"]),
            "outcome": words.outcome(row),
            "took": words.length(row["duration_seconds"]),
            "at": words.instant(row["started_at"] or row["finished_at"]),
        }
        for row in runs
    ]
    names = sorted({point["outcome"] for point in points})
    drawn = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("job:N", title=None, axis=alt.Axis(labelLimit=140)),
        x=alt.X("from:T", title=None, axis=alt.Axis(labelOverlap=True, tickCount=6, format="%d/%m %H:%M")),
        color=alt.Color(
            "outcome:N",
            scale=alt.Scale(domain=names, range=[colours[_COLOURS.get(name, "daily")] for name in names]),
            legend=alt.Legend(title=None, orient="top"),
        ),
        tooltip=[
            alt.Tooltip(f"{name}:N", title=title)
            for name, title in (("job", "Job"), ("outcome", "Resultado"), ("at", "Começou"), ("took", "Duração"))
        ],
    )
    bars = drawn.mark_bar(height=10).encode(x2="to:T")
    return show.located(alt.layer(bars, drawn.mark_point(filled=True, size=45, opacity=0.8)).properties(height=alt.Step(30)))
