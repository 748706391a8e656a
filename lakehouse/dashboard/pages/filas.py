"""*Filas*: Kafka's topics, and what their groups have not read."""

from lakehouse.dashboard import queues, words
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.queues import Queues
from lakehouse.reports import page


def body() -> None:
    show.heading("Filas")
    _parts()


@show.refreshed
def _parts() -> None:
    found = show.ask(queues.read)
    if not found.topics:
        show.empty("Nenhum tópico do Kafka foi medido ainda; LAKEHOUSE_KAFKA_BOOTSTRAP o liga.", "make trigger JOB=monitoring")
        return
    show.totals(_totals(found))
    show.table(_topics(found))
    if found.partitions:
        show.table(_partitions(found))


def _totals(found: Queues) -> list[tuple[str, str, str]]:
    wrong = sum(map(found.is_bad, found.topics))
    unread = [row["lag"] for row in found.topics if row["lag"] is not None]
    return [
        ("Tópicos e grupos", page.number(len(found.topics)), f"{wrong} fora do limite" if wrong else "todos em ordem"),
        (
            "Mensagens não lidas",
            page.number(sum(unread)) if unread else page.DASH,
            "1 grupo" if len(unread) == 1 else f"{len(unread)} grupos",
        ),
        ("Medidas", words.ago(found.topics[0]["measured_at"]), "pelo job monitoring"),
    ]


def _topics(found: Queues) -> page.Table:
    return page.Table(
        title="Tópicos e grupos",
        columns=(
            "Tópico",
            "Grupo",
            "Partições",
            "Mensagens",
            "Desde a última medição",
            "Não lidas",
            "Limite",
            "Mais nova",
            "Erro",
        ),
        rows=[
            (
                page.text(row["topic"]),
                page.text(row["group"], missing=""),
                page.number(row["partitions"]),
                page.number(row["messages"]),
                page.number(row["since_last"]),
                page.number(row["lag"]),
                page.number(int(bound)) if (bound := found.bound(row)) != float("inf") else page.DASH,
                words.ago(row["newest_at"]),
                page.text(row["error"] or ("sem líder" if row["leaderless"] else ""), missing=""),
            )
            for row in found.topics
        ],
        numeric=frozenset({2, 3, 4, 5, 6}),
        alarm=frozenset(n for n, row in enumerate(found.topics) if found.is_bad(row)),
    )


def _partitions(found: Queues) -> page.Table:
    return page.Table(
        title="Partições, a fila mais longa primeiro",
        columns=("Tópico", "Grupo", "Partição", "Início", "Fim", "Posição do grupo", "Não lidas"),
        rows=[
            (
                page.text(row["topic"]),
                page.text(row["group"]),
                page.number(row["partition"]),
                page.number(row["begin_offset"]),
                page.number(row["end_offset"]),
                page.number(row["committed"]) if row["committed"] is not None else "nunca leu",
                page.number(row["lag"]),
            )
            for row in found.partitions
        ],
        numeric=frozenset({2, 3, 4, 5, 6}),
    )
