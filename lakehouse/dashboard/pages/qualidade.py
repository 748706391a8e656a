"""*Qualidade*: what the rules have found, what is in quarantine and why, and whether the records add up."""

import streamlit as st

from lakehouse.dashboard import quality, words
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.quality import Quality
from lakehouse.dashboard.reading import Row
from lakehouse.reports import page
from lakehouse.reports.vendas_page import ledger_table, rules_table


def body() -> None:
    show.heading("Qualidade", "O que cada regra achou no último commit de cada tabela, e o que foi para a quarentena.")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(quality.read)
    if not found.rules:
        show.empty("Nenhuma regra julgou nada ainda.", "make run")
        return
    broken = [row for row in found.rules if not row["passed"]]
    show.totals(_totals(found, broken))
    st.markdown("##### Regras que acharam algo")
    show.table(rules_table(broken), nothing="Todas as regras passaram.", title=False)
    with st.expander(f"As {len(found.rules) - len(broken)} regras que passaram"):
        show.table(rules_table([row for row in found.rules if row["passed"]]), title=False)
    show.table(_quarantined(found.quarantined), nothing="A quarentena está vazia.")
    if found.newest:
        show.table(_newest(found.newest))
        st.caption("O conteúdo, sem dados pessoais: `make quarantine TABLE=…`; depois de consertar: `make redrive TABLE=…`.")
    show.table(ledger_table(found.ledger))
    if found.audited:
        show.table(_audit(found.audit), nothing="A última auditoria não achou nada.")


def _totals(found: Quality, broken: list[Row]) -> list[tuple[str, str, str]]:
    stops = sum(row["action"] == "fail" for row in broken)
    quarantined = sum(row["records"] for row in found.quarantined)
    came = sum(row["in_rows"] for row in found.ledger if row["layer"] == "bronze")
    closes = sum(row["balanced"] for row in found.ledger)
    return [
        ("Regras", page.number(len(found.rules)), f"{len(broken)} acharam algo, {stops} impedem o commit"),
        ("Em quarentena", page.number(quarantined), f"{words.percent(quarantined / came, 3)} do que entrou" if came else ""),
        ("Livro-razão", f"{closes} de {len(found.ledger)}", "tabelas fecham"),
    ]


def _quarantined(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Quarentena",
        columns=("Tabela", "Camada", "Regras", "Registros", "Último"),
        rows=[
            (
                page.text(row["table"]),
                page.text(row["layer"]),
                page.text(row["rules"]),
                page.number(row["records"]),
                words.instant(row["last_at"]),
            )
            for row in rows
        ],
        numeric=frozenset({3}),
    )


def _newest(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Os mais novos em quarentena",
        columns=("Tabela", "Quando", "Motivo", "Arquivo", "Lote"),
        rows=[
            (
                page.text(row["table"]),
                words.instant(row["quarantined_at"]),
                page.text(row["reason"]),
                page.text(row["source_file"]),
                page.number(row["batch_id"]),
            )
            for row in rows
        ],
        numeric=frozenset({4}),
    )


def _audit(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Auditoria: o que não passou",
        columns=("Tabela", "Exame", "Falhas", "De"),
        rows=[
            (
                f"{page.text(row['layer'])}/{page.text(row['table'])}",
                f"{page.text(row['kind'])}: {page.text(row['name'])}",
                page.number(row["failed"]),
                page.number(row["judged"]),
            )
            for row in rows
        ],
        numeric=frozenset({2, 3}),
        alarm=frozenset(range(len(rows))),
    )
