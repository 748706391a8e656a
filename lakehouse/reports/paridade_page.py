"""The page of `make compare ... HTML=`: a parity report in, one self-contained HTML page out.

Belongs here: what the page says and how it looks. Does not: comparing tables. `render` knows no clock and no network and gives
byte-identical HTML for equal reports.

    document of a report (`commands/parity/report.py`) ─▶ render ─▶ Jinja2 (`page.py`) ─▶ str
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.reports import page

_OUTCOMES = {"equal": "igual", "differs": "difere", "refused": "não comparada"}
_BY = {"source": "(feita dela)", "name": "", "": ""}
_WHAT = {
    "rows are only here": "linhas só aqui",
    "rows are only there": "linhas só lá",
    "keys occur more than once there": "chaves repetidas lá",
}


def render(report: Mapping[str, Any]) -> str:
    """The whole page: HTML, to be stored as UTF-8."""
    tables: Sequence[Mapping[str, Any]] = report["tables"]
    return page.page(
        "paridade.html.j2",
        at=f"{datetime.fromisoformat(report['at']).astimezone(zone()):%d/%m/%Y %H:%M}",
        here=page.text(report["here"]),
        there=page.text(report["there"]),
        totals=_totals(report),
        summary=_summary(tables),
        details=[_details(entry) for entry in tables if entry["outcome"] == "differs"],
        refused=_refused([entry for entry in tables if entry["outcome"] == "refused"]),
        only_there=_only_there(report["only_there"]),
        only_here=[page.text(name) for name in report["only_here"]],
    )


def _totals(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each total of the header."""
    counts, there = report["counts"], len(report["only_there"])
    compared = [entry["comparison"] for entry in report["tables"] if entry["comparison"] is not None]
    rows = sum(found["both"] for found in compared)
    return [
        ("Tabelas iguais", page.number(counts["equal"]), f"de {page.number(len(report['tables']))} que há nos dois"),
        ("Com diferença", page.number(counts["differs"]), f"{page.number(counts['refused'])} não comparadas"),
        ("Só no outro lake", page.number(there), f"só aqui: {page.number(len(report['only_here']))}"),
        ("Linhas nos dois", page.number(rows), ""),
    ]


def _summary(tables: Sequence[Mapping[str, Any]]) -> page.Table:
    rows = []
    for entry in tables:
        found = entry["comparison"]
        counts = [page.DASH] * 3 if found is None else [found["here"]["rows"], found["there"]["rows"], found["both"]]
        there = " ".join(part for part in (page.text(entry["path"]), _BY[entry["by"]]) if part)
        name = page.text(entry["table"])
        rows.append(
            (
                name if entry["path"] == entry["table"] else f"{name} ← {there}",
                *(count if isinstance(count, str) else page.number(count) for count in counts),
                _OUTCOMES[entry["outcome"]],
            )
        )
    return page.Table(
        title="Tabela por tabela",
        columns=("Tabela", "Aqui", "Lá", "Nos dois", "Resultado"),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        alarm=frozenset(number for number, entry in enumerate(tables) if entry["outcome"] != "equal"),
    )


def _details(entry: Mapping[str, Any]) -> tuple[str, list[str], page.Table]:
    """(heading, remarks, table) of one that differs."""
    found = entry["comparison"]
    remarks = [
        f"Lá: {page.text(found['there']['uri'])}, versão {page.number(found['there']['version'])}. "
        f"Aqui: versão {page.number(found['here']['version'])}.",
        f"Linhas pareadas pela chave {', '.join(found['key'])}." if found["key"] else "Linhas pareadas pelo conteúdo.",
    ]
    for where, names in (("aqui", found["only_here"]), ("lá", found["only_there"])):
        if names:
            remarks.append(f"Colunas só {where}, fora da comparação: {', '.join(page.text(name) for name in names)}.")
    table = page.Table(
        title=f"Diferenças de {page.text(entry['table'])}",
        columns=("Diferença", "Linhas", "Linha", "Aqui", "Lá"),
        rows=[row for difference in found["differences"] for row in _rows(difference)],
        numeric=frozenset({1}),
    )
    return page.text(entry["table"]), remarks, table


def _rows(difference: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    column = difference["column"]
    what = f"coluna {page.text(column)}" if column else _WHAT.get(difference["what"], page.text(difference["what"]))
    for number, example in enumerate(difference["examples"] or [None]):
        first = (what, page.number(difference["rows"]) if number == 0 else "")
        if example is None:
            yield *first, page.DASH, page.DASH, page.DASH
        else:
            values = (_value(example["here"]), _value(example["there"])) if column else ("", "")
            yield *first, page.text(example["row"]), *values


def _value(value: str | None) -> str:
    """A value as a cell; null and an empty text look alike nowhere."""
    return "nulo" if value is None else "(texto vazio)" if value == "" else page.text(value)


def _refused(entries: Sequence[Mapping[str, Any]]) -> page.Table:
    return page.Table(
        title="Não comparadas, e por quê",
        columns=("Aqui", "Lá", "Motivo"),
        rows=[(page.text(entry["table"]), page.text(entry["path"]), page.text(entry["refusal"])) for entry in entries],
        numeric=frozenset(),
    )


def _only_there(pairs: Sequence[Mapping[str, Any]]) -> page.Table:
    return page.Table(
        title="Só no outro lake",
        columns=("Tabela", "Nota"),
        rows=[(page.text(pair["path"]), _why(pair)) for pair in pairs],
        numeric=frozenset(),
    )


def _why(pair: Mapping[str, Any]) -> str:
    """Why a table of the other lake is compared with none of ours."""
    if not pair["namesake"]:
        return "não existe aqui"
    namesake = page.text(pair["namesake"])
    return f"{namesake} é comparada com {page.text(pair['instead'])}" if pair["instead"] else f"várias se chamam como {namesake}"
