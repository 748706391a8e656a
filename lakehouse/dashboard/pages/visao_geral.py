"""*Visão geral*: one look at what ran, what failed, how fresh the tables are and whether the records add up."""

from lakehouse.dashboard import executions, overview, words
from lakehouse.dashboard.overview import Overview
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.reading import Row
from lakehouse.reports import page
from lakehouse.reports.vendas_page import ledger_table

_WRONG = ("unhealthy", "broken", "unknown")


def body() -> None:
    show.heading("Visão geral")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(overview.read)
    show.totals(_totals(found))
    if not found.last_runs:
        show.empty("Nenhuma execução foi medida ainda.", "make run")
    else:
        show.table(_runs(found.last_runs))
    day = found.day
    if day.runs:
        show.table(_failed(f"O que não foi entregue em 24 horas, até {words.instant(day.until)}", day.runs))
    if day.newer:
        show.table(_failed("O que não foi entregue depois disso", day.newer))
    if found.tables:
        show.table(_tables(found.tables))
    else:
        show.empty("A saúde das tabelas não foi medida ainda.", "make trigger JOB=monitoring")
    if down := [row for row in found.services if not row["healthy"]]:
        show.table(_services(down))
    show.table(ledger_table(found.ledger), nothing="Nenhum registro entrou ainda.")


def _totals(found: Overview) -> list[tuple[str, str, str]]:
    there = [row for row in found.tables if row["outcome"] != "absent"]
    wrong = sum(row["outcome"] in _WRONG for row in there)
    unbalanced = sum(not row["balanced"] for row in found.ledger)
    down = sum(not row["healthy"] for row in found.services)
    measured = max((row["measured_at"] for row in found.tables), default=None)
    return [
        ("Falhas em 24 horas", page.number(found.day.failures), f"até {words.instant(found.day.until)}"),
        ("Incidentes abertos", page.number(len(found.incidents)), "ver Alertas"),
        ("Tabelas em ordem", f"{len(there) - wrong} de {len(there)}" if there else page.DASH, f"medidas {words.ago(measured)}"),
        ("Livro-razão", "não fecha" if unbalanced else "fecha" if found.ledger else page.DASH, f"{len(found.ledger)} tabelas"),
        (
            "Serviços em ordem",
            f"{len(found.services) - down} de {len(found.services)}" if found.services else page.DASH,
            "configurados",
        ),
    ]


def _runs(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Última execução de cada job",
        columns=("Job", "Resultado", "Terminou", "Há quanto tempo", "Duração", "SLA", "Linhas gravadas"),
        rows=[
            (
                page.text(row["job"]),
                words.outcome(row),
                words.instant(row["finished_at"]),
                words.ago(row["finished_at"]),
                words.length(row["duration_seconds"]),
                words.sla(row["sla_met"]),
                page.number(row["rows"]),
            )
            for row in rows
        ],
        numeric=frozenset({4, 6}),
        alarm=frozenset(n for n, row in enumerate(rows) if executions.is_bad(row)),
    )


def _failed(title: str, rows: list[Row]) -> page.Table:
    return page.Table(
        title=title,
        columns=("Job", "Resultado", "Terminou", "Duração", "Execução"),
        rows=[
            (
                page.text(row["job"]),
                words.outcome(row),
                words.instant(row["finished_at"]),
                words.length(row["duration_seconds"]),
                row["run_id"][:8],
            )
            for row in rows
        ],
        numeric=frozenset({3}),
        alarm=frozenset(range(len(rows))),
    )


def _tables(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Frescor das tabelas",
        columns=("Tabela", "Frescor", "Saúde", "Evento mais novo", "Último commit", "O que há"),
        rows=[
            (
                f"{page.text(row['layer'])}/{page.text(row['table'])}",
                words.fresh(row.get("stale")),
                words.named(words.HEALTH, row["outcome"]),
                words.instant(row["newest_event_at"]),
                words.ago(row["committed_at"]),
                page.text(words.problems(row["problems"]), missing=""),
            )
            for row in rows
        ],
        numeric=frozenset(),
        alarm=frozenset(n for n, row in enumerate(rows) if row["outcome"] in _WRONG),
    )


def _services(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Serviços que não respondem",
        columns=("Serviço", "Onde", "Medido", "Erro"),
        rows=[
            (page.text(row["service"]), page.text(row["target"]), words.ago(row["measured_at"]), page.text(row["error"]))
            for row in rows
        ],
        numeric=frozenset(),
        alarm=frozenset(range(len(rows))),
    )
