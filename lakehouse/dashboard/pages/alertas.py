"""*Alertas*: what stands and what was; who is told, from when on, and what is silent, in forms that write the declared record."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import streamlit as st

from lakehouse.core.clock import zone
from lakehouse.core.errors import LakehouseError
from lakehouse.dashboard import alerts, words
from lakehouse.dashboard.alerts import Alerts, Document
from lakehouse.dashboard.pages import show
from lakehouse.dashboard.reading import Row, reader
from lakehouse.observability.alerts import KINDS, SEVERITIES
from lakehouse.observability.routing import CHANNELS
from lakehouse.reports import page

_FORMS = ("Silêncios", "Rotas", "Mensagens", "Limites")
_MESSAGE = "alertas_dito"


def body() -> None:
    show.heading("Alertas")
    _parts()
    with show.explained():
        _forms(show.ask(alerts.read))


@show.refreshed
def _parts() -> None:
    found = show.ask(alerts.read)
    show.totals(_totals(found))
    show.table(_standing(found.standing), nothing="Nenhum incidente aberto.")
    with st.expander(f"Histórico: {len(found.past)} incidentes encerrados, {len(found.deliveries)} entregas"):
        show.table(_past(found.past), nothing="Nenhum incidente encerrado nos últimos sete dias.")
        show.table(_deliveries(found.deliveries), nothing="Nenhuma mensagem foi enviada ainda.")


def _totals(found: Alerts) -> list[tuple[str, str, str]]:
    silent = sum(row["silent"] for row in found.standing)
    failed = sum(row["outcome"] == "failed" for row in found.deliveries)
    return [
        ("Abertos", page.number(len(found.standing)), f"{silent} em silêncio" if silent else "nenhum em silêncio"),
        ("Encerrados", page.number(len(found.past)), "guardados por sete dias"),
        ("Entregas", page.number(len(found.deliveries)), f"as últimas; {failed} falharam"),
        ("Canais", page.number(len(found.configured)), ", ".join(found.configured) or "nenhum configurado"),
    ]


def _standing(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Incidentes abertos",
        columns=("Gravidade", "O que houve", "Chave", "Vezes", "Desde", "Último", "Avisos"),
        rows=[
            (
                words.named(words.SEVERITIES, row["severity"]),
                page.text(row["subject"]),
                page.text(row["key"]),
                page.number(row["count"]),
                words.instant(row["first_at"]),
                words.ago(row["last_at"]),
                "em silêncio" if row["silent"] else "ativos",
            )
            for row in rows
        ],
        numeric=frozenset({3}),
        alarm=frozenset(n for n, row in enumerate(rows) if row["severity"] in ("error", "critical") and not row["silent"]),
    )


def _past(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Encerrados",
        columns=("O que houve", "Chave", "Vezes", "Desde", "Encerrado"),
        rows=[
            (
                page.text(row["subject"]),
                page.text(row["key"]),
                page.number(row["count"]),
                words.instant(row["first_at"]),
                words.instant(row["resolved_at"]),
            )
            for row in rows
        ],
        numeric=frozenset({2}),
    )


def _deliveries(rows: list[Row]) -> page.Table:
    return page.Table(
        title="Últimas entregas",
        columns=("Quando", "Canal", "Mensagem", "Resultado", "Demora"),
        rows=[
            (
                words.instant(row["sent_at"]),
                page.text(row["channel"]),
                page.text(row["subject"]),
                "enviada" if row["outcome"] == "sent" else f"falhou: {page.text(row['error'])}",
                words.length(row["lag_seconds"]),
            )
            for row in rows
        ],
        numeric=frozenset({4}),
        alarm=frozenset(n for n, row in enumerate(rows) if row["outcome"] != "sent"),
    )


# --- forms -------------------------------------------------------------------------------------------------------------


def _forms(found: Alerts) -> None:
    st.header("Configuração", anchor=False)
    if message := st.session_state.pop(_MESSAGE, ""):
        st.success(show.plain(message), icon=":material/check:")
    if found.wrong:
        st.error(f"**O arquivo das rotas está errado e não é usado.** {show.plain(found.wrong)}")
        return
    st.caption(
        "Cada mudança é conferida e grava o registro declarado inteiro (`ops/routing/routing.json`); vale em até 30 segundos."
    )
    shown = st.segmented_control("Parte", _FORMS, default=_FORMS[0], required=True, label_visibility="collapsed")
    {"Silêncios": _silences, "Rotas": _routes, "Mensagens": _messages, "Limites": _limits}[shown or _FORMS[0]](found)


def _save(found: Alerts, change: Callable[[], Document], message: str) -> None:
    """Make and write a change, and show the page as it is then; or say why not."""
    try:
        alerts.change(reader(), change(), seen=found.seen, message=message)
    except LakehouseError as error:
        st.error(f"{show.plain(error.what)} {show.plain(error.remedy)}")
        return
    st.session_state[_MESSAGE] = message
    st.rerun()


def _silences(found: Alerts) -> None:
    now = datetime.now(zone())
    for n, silence in enumerate(found.routing.silences):
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            over = silence.until <= now
            ends = f"{'acabou em' if over else 'até'} {words.instant(silence.until)}"
            st.markdown(f"**{show.plain(silence.keys)}** {ends}: {show.plain(silence.reason)}", width="stretch")
            if st.button("Remover" if over else "Encerrar", key=f"silence_{n}"):
                _save(found, partial(alerts.without, found.document, "silences", n), f"Silêncio de {silence.keys} removido.")
    if not found.routing.silences:
        st.caption("Nada está em silêncio.")
    with st.form("silence", clear_on_submit=False):
        st.markdown("**Novo silêncio**")
        keys = st.text_input(
            "Chave",
            key="silence_keys",
            placeholder="run_failure:pedidos",
            help="De um incidente acima; * vale por qualquer texto.",
        )
        until = st.datetime_input(
            "Até", value=(now + timedelta(hours=4)).replace(tzinfo=None, second=0, microsecond=0), key="silence_until"
        )
        reason = st.text_input("Motivo", key="silence_reason", placeholder="recarga de novembro")
        sent = st.form_submit_button("Silenciar", type="primary")
    if sent:
        silenced = alerts.matching(found.standing, keys)
        message = f"Silêncio de {keys.strip()} gravado; incidentes abertos que ele cala: {len(silenced)}."
        assert isinstance(until, datetime)
        at = until.replace(tzinfo=zone())
        _save(found, lambda: alerts.with_silence(found.document, keys=keys, until=at, reason=reason), message)


def _routes(found: Alerts) -> None:
    st.caption("Um alerta vai aos canais de todas as rotas que o aceitam.")
    for n, route in enumerate(found.document["routes"]):
        title = f"{', '.join(route['channels'])}: a partir de {words.SEVERITIES[route['minimum']]}"
        with st.expander(f"{title}, {show.plain(route['keys'])}"):
            _route_form(found, n, route)
    with st.expander("Nova rota", icon=":material/add:"):
        _route_form(found, None, {"channels": [], "minimum": "warning", "kinds": [], "keys": "*"})


def _route_form(found: Alerts, n: int | None, route: dict[str, Any]) -> None:
    name = "new" if n is None else str(n)
    with st.form(f"route_{name}"):
        chosen = st.multiselect("Canais", CHANNELS, default=route["channels"], key=f"route_channels_{name}")
        minimum = st.selectbox(
            "Gravidade mínima",
            SEVERITIES,
            index=SEVERITIES.index(route["minimum"]),
            format_func=lambda value: words.SEVERITIES[value],
            key=f"route_minimum_{name}",
        )
        kinds = st.multiselect(
            "Tipos",
            KINDS,
            default=route["kinds"],
            format_func=lambda value: words.KINDS[value],
            placeholder="todos",
            key=f"route_kinds_{name}",
        )
        keys = st.text_input("Chaves", value=route["keys"], key=f"route_keys_{name}", help="* vale por qualquer texto.")
        with st.container(horizontal=True):
            sent = st.form_submit_button("Gravar rota", type="primary")
            removed = n is not None and st.form_submit_button("Remover rota")
    made = {"channels": list(chosen), "minimum": minimum, "kinds": list(kinds), "keys": keys.strip()}
    if sent:
        _save(found, lambda: alerts.with_route(found.document, n, made), f"Rota para {', '.join(chosen)} gravada.")
    elif removed and n is not None:
        _save(found, lambda: alerts.without(found.document, "routes", n), f"Rota para {', '.join(route['channels'])} removida.")


def _messages(found: Alerts) -> None:
    with st.form("messages"):
        window = st.number_input(
            "Janela, minutos", min_value=1.0, max_value=10_080.0, value=float(found.document["window_minutes"]), step=5.0,
            key="messages_window", help="Repetições dentro dela são contadas; no fim, uma mensagem diz quantas foram.",
        )  # fmt: skip
        limit = st.number_input(
            "Mensagens por chave, canal e janela", min_value=2, max_value=100, value=found.document["limit"], key="messages_limit"
        )
        sent = st.form_submit_button("Gravar", type="primary")
    if sent:
        message = f"Janela de {page.number(window)} minutos, até {limit} mensagens."
        _save(found, lambda: alerts.with_messages(found.document, window_minutes=window, limit=int(limit)), message)


def _limits(found: Alerts) -> None:
    st.caption("O que é igual ao declarado no código volta a valer como declarado.")
    left, right = st.columns(2)
    with left:
        table = st.selectbox("Tabela", list(found.bounds), key="limits_table", index=_first(found.bounds, "silver/vendas"))
        declared = found.bounds[table]
        force = {**declared, **found.document["tables"].get(table, {})}
        with st.form("limits_of_table"):
            given: dict[str, float | None] = {}
            if declared["event_time"]:
                given["max_event_age_hours"] = _hours(
                    "Idade máxima do evento mais novo, horas", force["max_event_age_hours"], f"event_{table}"
                )
            given["max_commit_age_hours"] = _hours(
                "Idade máxima do último commit, horas", force["max_commit_age_hours"], f"commit_{table}"
            )
            share = st.number_input(
                "Parte máxima em quarentena, %",
                min_value=0.0,
                max_value=100.0,
                value=100 * float(force["max_quarantine"]),
                step=0.5,
                key=f"quarantine_{table}",
            )
            given["max_quarantine"] = round(share / 100, 6)
            sent = st.form_submit_button("Gravar limites", type="primary")
        if sent:
            _save(
                found,
                lambda: alerts.with_bounds(found.document, table, given, declared=declared),
                f"Limites de {table} gravados.",
            )
    with right:
        job = st.selectbox("Job", list(found.slas), key="limits_job")
        force_of_job = float(found.document["jobs"].get(job, {}).get("sla_minutes", found.slas[job]))
        with st.form("limits_of_job"):
            minutes = st.number_input(
                "SLA, minutos", min_value=0.5, max_value=10_080.0, value=force_of_job, step=1.0, key=f"sla_{job}",
                help=f"Declarado: {page.number(found.slas[job], 1)} minutos.",
            )  # fmt: skip
            sent = st.form_submit_button("Gravar SLA", type="primary")
        if sent:
            _save(
                found,
                lambda: alerts.with_sla(found.document, job, minutes, declared=found.slas[job]),
                f"SLA de {job} gravado: {page.number(minutes, 1)} minutos.",
            )


def _hours(label: str, value: float | None, key: str) -> float | None:
    return st.number_input(
        label,
        min_value=0.1,
        max_value=87_840.0,
        value=None if value is None else float(value),
        step=1.0,
        key=key,
        placeholder="sem limite",
    )


def _first(options: Any, wanted: str) -> int:
    return list(options).index(wanted) if wanted in options else 0
