"""The page of `reports/manutencao`: figures in, one self-contained HTML page out.

Belongs here: what the page says and how it looks. Does not: reading tables, choosing the date. `render` knows no clock and no
network and gives byte-identical HTML for equal figures.

    rows of ops/maintenance, ops/audit, ops/backups ─▶ ManutencaoFigures ─▶ render ─▶ Jinja2 (`page.py`) ─▶ str
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.reports import page

_SHOWN = 12
_REASONS = {
    "a registered model was made from it": "um modelo registrado foi feito dela",
    "in backup": "na cópia",
    "pinned:": "fixada:",
    "readers see it": "é a publicada",
    "bytes stay for replays alone": "bytes só para repetir execuções",
    "replay of a run of": "para repetir a execução de",
    "within the retention floor": "no prazo de retenção",
}
_OUTCOMES = {
    "done": "feito",
    "nothing": "nada a fazer",
    "refused": "sem vacuum",
    "busy": "em uso",
    "broken": "danificada",
    "failed": "falhou",
}


@dataclass(frozen=True, kw_only=True)
class ManutencaoFigures:
    """All that the page shows; every sequence but `upkeep` may be empty.

    Attributes:
        upkeep: rows of `ops/maintenance` of one run.
        audit: rows of `ops/audit` of one run; `acts` are what people did.
        backups: rows of `ops/backups`.
        tables: layer, table, version, rows, bytes.
    """

    environment: str
    upkeep: Sequence[page.Row]
    audit: Sequence[page.Row]
    acts: Sequence[page.Row]
    backups: Sequence[page.Row]
    tables: Sequence[page.Row]


def render(figures: ManutencaoFigures) -> str:
    """The whole page: HTML, to be stored as UTF-8."""
    at = max(row["measured_at"] for row in figures.upkeep)
    wrong = [row for row in figures.upkeep if row["outcome"] in ("broken", "failed")]
    return page.page(
        "manutencao.html.j2",
        environment=page.text(figures.environment),
        at=_instant(at),
        wrong=[f"{_name(row)}: {page.text(row['said'])}" for row in wrong],
        totals=_totals(figures),
        upkeep=_upkeep(figures.upkeep),
        retained=_retained(figures.upkeep),
        backups=_backups(figures.backups),
        audit=_audit(figures.audit),
        acts=_acts(figures.acts),
        tables=page.versions(figures.tables),
    )


def _totals(figures: ManutencaoFigures) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header."""
    before, after = (page.total(figures.upkeep, f"stored_bytes_{when}") for when in ("before", "after"))
    files = [page.total(figures.upkeep, f"stored_files_{when}") for when in ("before", "after")]
    newest = max(figures.backups, key=lambda row: row["made_at"], default=None)
    failed = sum(1 for row in figures.audit if not row["passed"])
    seconds = page.total(figures.upkeep, "milliseconds") / 1000
    proof = "" if newest is None else f"{page.number(newest['proven'])} restauradas, {page.number(newest['damaged'])} danificadas"
    return [
        ("Tabelas", page.number(len(figures.upkeep)), f"{page.number(seconds, 1)} s"),
        ("Em disco", page.size(after), f"{page.number(files[1])} arquivos; antes {page.size(before)}, {page.number(files[0])}"),
        ("Auditoria", page.number(failed), f"falhas em {page.number(len(figures.audit))} exames"),
        ("Cópia", page.size(newest["bytes"]) if newest else page.DASH, proof),
    ]


def _upkeep(rows: Sequence[page.Row]) -> page.Table:
    ordered = sorted(rows, key=lambda row: (row["layer"], row["table"]))
    return page.Table(
        title="Tabelas, antes e depois",
        columns=("Tabela", "Resultado", "Linhas", "Arquivos", "Em disco", "Compactados", "Removidos", "Liberado", "Tempo"),
        rows=[
            (
                _name(row),
                _OUTCOMES.get(row["outcome"], page.text(row["outcome"])),
                page.number(row["rows"]),
                _pair(row, "files", page.number),
                _pair(row, "stored_bytes", page.size),
                page.number(row["compacted"]),
                page.number(row["vacuumed_files"]),
                page.size(row["vacuumed_bytes"]),
                f"{page.number(row['milliseconds'] / 1000, 2)} s",
            )
            for row in ordered
        ],
        numeric=frozenset(range(2, 9)),
        alarm=frozenset(n for n, row in enumerate(ordered) if row["outcome"] in ("broken", "failed")),
    )


def _retained(rows: Sequence[page.Row]) -> page.Table:
    """What was protected besides the current version and the floor, or left out, and why."""
    cells = []
    for row in sorted(rows, key=lambda row: (row["layer"], row["table"])):
        for entry in (row["kept_versions"] or "").split("; "):
            version, _, reason = entry.partition(": ")
            if version.isdigit() and reason not in ("current", "within the retention floor"):
                cells.append((_name(row), page.number(int(version)), page.text(_reason(reason))))
        if row["said"]:
            cells.append((_name(row), page.DASH, page.text(row["said"])))
    return page.Table(
        title="O que foi protegido, e por quê", columns=("Tabela", "Versão", "Motivo"), rows=cells, numeric=frozenset({1})
    )


def _reason(reason: str) -> str:
    """A reason of `lakehouse/maintenance/protect.py` in the words of the page."""
    for own, words in _REASONS.items():
        reason = reason.replace(own, words)
    return reason


def _backups(rows: Sequence[page.Row]) -> page.Table:
    newest = sorted(rows, key=lambda row: row["made_at"], reverse=True)[:_SHOWN]
    return page.Table(
        title="Cópias de segurança e sua prova",
        columns=(
            "Quando",
            "Tabelas",
            "Tamanho",
            "Arquivos novos",
            "Copiado",
            "Restauradas iguais",
            "Sem mudança",
            "Danificadas",
            "Tempo",
        ),
        rows=[
            (
                _instant(row["made_at"]),
                page.number(row["tables"]),
                page.size(row["bytes"]),
                page.number(row["files_written"]),
                page.size(row["bytes_written"]),
                page.number(row["proven"]),
                page.number(row["unchanged"]),
                page.number(row["damaged"]),
                f"{page.number(row['milliseconds'] / 1000, 1)} s",
            )
            for row in newest
        ],
        numeric=frozenset(range(1, 9)),
        alarm=frozenset(n for n, row in enumerate(newest) if row["damaged"] or row["skipped"]),
    )


def _audit(rows: Sequence[page.Row]) -> page.Table:
    """What did not pass; what did is a number of the header."""
    broken = [row for row in rows if not row["passed"]]
    return page.Table(
        title="Auditoria: o que não passou",
        columns=("Tabela", "Exame", "Falhas", "De", "Nota"),
        rows=[
            (
                _name(row),
                f"{page.text(row['kind'])}: {page.text(row['name'])}",
                page.number(row["failed"]),
                page.number(row["judged"]),
                page.text(row["said"]),
            )
            for row in sorted(broken, key=lambda row: (row["layer"], row["table"], row["kind"], row["name"]))
        ],
        numeric=frozenset({2, 3}),
    )


def _acts(rows: Sequence[page.Row]) -> page.Table:
    newest = sorted(rows, key=lambda row: row["at"], reverse=True)[:_SHOWN]
    return page.Table(
        title="O que pessoas fizeram",
        columns=("Tabela", "Quando", "Ato", "Nota"),
        rows=[(_name(row), _instant(row["at"]), page.text(row["name"]), page.text(row["said"])) for row in newest],
        numeric=frozenset(),
    )


def _pair(row: page.Row, name: str, shown: Any) -> str:
    before, after = shown(row[f"{name}_before"]), shown(row[f"{name}_after"])
    return str(after) if before == after else f"{before} → {after}"


def _name(row: page.Row) -> str:
    return f"{page.text(row['layer'])}/{page.text(row['table'])}"


def _instant(at: datetime) -> str:
    return f"{at.astimezone(zone()):%d/%m/%Y %H:%M}"
