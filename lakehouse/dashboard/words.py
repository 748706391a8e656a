"""Words: how the pages write states, instants and lengths of time. Numbers and sizes are the reports' (`reports/page.py`)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.core.text import span
from lakehouse.reports import page

#: What a run delivered, `canceled` besides: it has no delivery.
OUTCOMES = {
    "delivered": "entregue",
    "nothing": "nada de novo",
    "empty": "vazia",
    "degraded": "degradada",
    "stopped": "parada por regra",
    "failed": "falha",
    "canceled": "cancelada",
}
SEVERITIES = {"info": "informação", "warning": "aviso", "error": "erro", "critical": "crítico"}
KINDS = {
    "run_failure": "execução falhou",
    "check_failed": "verificação falhou",
    "sla_miss": "SLA perdido",
    "stale_table": "tabela atrasada",
    "table_health": "saúde de tabela",
    "service_unhealthy": "serviço fora",
    "automation": "automação",
    "run_worker_gone": "processo morreu",
    "notice": "recado",
}
HEALTH = {
    "ok": "em ordem",
    "unhealthy": "fora do limite",
    "broken": "ilegível",
    "absent": "ainda não existe",
    "unknown": "sem resposta",
}
_LENGTH = r"[\d,.]+ (?:days|h \d+ min|h|min \d+ s|min|s)"
#: What `observability/table_health.py` says of a table, and the same in the words of the pages.
_PROBLEMS = (
    (rf"the newest (\w+) is ({_LENGTH}) old, allowed are ({_LENGTH})", r"o \1 mais novo tem \2; o limite é \3"),
    (rf"the newest (\w+) is ({_LENGTH}) ahead of this clock", r"o \1 mais novo está \2 à frente deste relógio"),
    (r"no run made it within its freshness policy", r"nenhuma execução a fez no prazo que o Dagster cobra"),
    (r"no file says how new (\w+) is", r"nenhum arquivo diz quão novo é \1"),
    (rf"the last commit was ({_LENGTH}) ago, allowed are ({_LENGTH})", r"o último commit foi há \1; o limite é \2"),
    (rf"the last commit is ({_LENGTH}) ahead of this clock", r"o último commit está \1 à frente deste relógio"),
    (r"(\S+) of ([\d,]+) files are small, allowed are (\S+)", r"\1 de \2 arquivos são pequenos; o limite é \3"),
    (r"([\d,]+) files, ([\d,]+) of them small; allowed are ([\d,]+)", r"\1 arquivos, \2 pequenos; o limite é \3"),
    (r"([\d,]+) commits since the last checkpoint, allowed are ([\d,]+)", r"\1 commits desde o último checkpoint; o limite é \2"),
    (r"(\S+) of the records are in quarantine, allowed are (\S+)", r"\1 dos registros estão em quarentena; o limite é \2"),
)


def problems(message: str | None) -> str:
    """What is wrong with a table, in Portuguese; what is not known stays as it was said."""
    for pattern, words in _PROBLEMS:
        message = re.sub(pattern, words, message or "")
    return re.sub(r"(?<=\d),(?=\d{3}\b)", ".", message or "").replace(" days", " dias")


def instant(at: datetime | None) -> str:
    """An instant on the business's clock: 21/11/2026 14:05."""
    return page.DASH if at is None else f"{at.astimezone(zone()):%d/%m/%Y %H:%M}"


def wall(at: datetime) -> str:
    """The business's clock without its zone: Vega shows such an instant as it is, whatever the browser's zone."""
    return at.astimezone(zone()).replace(tzinfo=None).isoformat()


def length(seconds: float | None) -> str:
    """A length of time: `2 h 05 min`, `4 min 10 s`, `8,3 s`."""
    if seconds is None:
        return page.DASH
    return (
        f"{page.number(seconds, 1)} s"
        if seconds < 10
        else span(timedelta(seconds=seconds)).replace(" days", " dias").replace(",", ".")
    )


def ago(at: datetime | None, *, now: datetime | None = None) -> str:
    """How long ago an instant was; one that is to come is `agora`."""
    if at is None:
        return page.DASH
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    return f"há {length(round(seconds))}" if seconds >= 1 else "agora"


def percent(share: float | None, decimals: int = 1) -> str:
    return page.DASH if share is None else f"{page.number(100 * share, decimals)} %"


def sla(met: bool | None) -> str:
    """Whether a run ended in time; a dash where nothing is promised."""
    return page.DASH if met is None else "cumprido" if met else "perdido"


def fresh(stale: bool | None) -> str:
    """Whether a table is as fresh as it has to be; a dash where nothing decides on it."""
    return page.DASH if stale is None else "atrasada" if stale else "em dia"


def named(words: dict[str, str], value: str | None) -> str:
    """A word of ours for a value, or the value as a text that may be shown."""
    return words.get(value or "", page.text(value))


def outcome(run: Mapping[str, Any]) -> str:
    """What a run delivered, or how it ended where it has no delivery."""
    return named(OUTCOMES, run["delivery"] or run["outcome"])
