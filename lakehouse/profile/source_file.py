"""Source files: a source system, its tables and its job as the text of a module of `tables/`, as `ruff format` writes it.

    (name, system, tables) ─▶ module(...) ─▶ lakehouse/tables/<name>.py

What is written is made of the records themselves, so a declaration that is refused is never written. Pure.
"""

from collections.abc import Mapping, Sequence

from lakehouse.profile.code import WIDTH, Raw, call_of, printable, quoted, statement
from lakehouse.profile.render import RULES, rule_arguments
from lakehouse.tables.spec import SourceSystem, TableSpec


def module(*, name: str, title: str, system: SourceSystem, tables: Sequence[TableSpec], comments: Mapping[str, str]) -> str:
    """The text of a source's file.

    Args:
        title: what the source is, for the docstring.
        tables: each with its source among the system's streams.
        comments: of a stream, by its name: why it is declared so.
    """
    variable = name.upper()
    method = {"rest": "resource", "sql": "table"}[system.kind]
    streams = {stream.name: stream for stream in system.streams}
    by_source = {repr(system.stream(stream)): stream for stream in streams}
    parts: list[str] = []
    used: set[str] = {"Job"}
    parts += ["", *statement(variable, call_of(system, used, comments=[(streams[one], text) for one, text in comments.items()]))]
    for spec in tables:
        stream = by_source[repr(spec.source)]
        made = call_of(spec, used, given={"source": Raw(f"{variable}.{method}({quoted(stream)})"), "rules": _rules(spec, used)})
        parts += ["", *statement(spec.name.upper(), made)]
    names = ", ".join(spec.name.upper() for spec in tables)
    listed = f"TABLES = ({names}{',' if len(tables) == 1 else ''})"
    parts += ["", f"SOURCES = ({variable},)"]
    parts += [listed] if len(listed) <= WIDTH else ["TABLES = (", *(f"    {spec.name.upper()}," for spec in tables), ")"]
    parts += [f'JOBS = (Job("{name}", cron="0 2 * * *", sla=timedelta(hours=1)),)', ""]
    imports = sorted(used, key=lambda one: (not one[0].isupper(), one))
    one_line = f"from lakehouse.tables.spec import {', '.join(imports)}"
    broken = ["from lakehouse.tables.spec import (", *(f"    {one}," for one in imports), ")"]
    head = [
        f'"""{printable(title)}: made by `make connect`.',
        "",
        f"    landing/{name} ─▶ bronze ─▶ silver",
        "",
        f"Run it: `make trigger JOB={name}`. Change what is wrong, then `make sync`.",
        '"""',
        "",
        "from datetime import timedelta",
        "",
        *([one_line] if len(one_line) <= WIDTH else broken),
    ]
    return "\n".join([*head, *parts])


def _rules(spec: TableSpec, used: set[str]) -> tuple[Raw, ...]:
    """The rules of a table as the calls that make them."""
    used.update(RULES[rule.kind] for rule in spec.rules)
    return tuple(Raw(f"{RULES[rule.kind]}({', '.join(rule_arguments(rule))})") for rule in spec.rules)
