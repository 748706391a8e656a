"""Source files: a source system, its tables and its job as the text of a module of `tables/`, as `ruff format` writes it.

    (name, system, tables) ─▶ module(...) ─▶ lakehouse/tables/<name>.py

What is written is made of the records themselves, so a declaration that is refused is never written. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Any

from lakehouse.profile.render import RULES, WIDTH, literal, quoted, rule_arguments
from lakehouse.tables.spec import Setting, SourceSystem, TableSpec


@dataclass(frozen=True)
class Call:
    """A call in a text: what is called, its arguments with their keywords, and a comment above it."""

    name: str
    arguments: tuple[tuple[str, Any], ...]
    comment: str = ""


@dataclass(frozen=True)
class Raw:
    """A piece of code as it stands."""

    text: str


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
    parts += ["", *_statement(variable, call(system, used, comments=[(streams[one], text) for one, text in comments.items()]))]
    for spec in tables:
        stream = by_source[repr(spec.source)]
        made = call(spec, used, given={"source": Raw(f"{variable}.{method}({quoted(stream)})"), "rules": _rules(spec, used)})
        parts += ["", *_statement(spec.name.upper(), made)]
    names = ", ".join(spec.name.upper() for spec in tables)
    listed = f"TABLES = ({names}{',' if len(tables) == 1 else ''})"
    parts += ["", f"SOURCES = ({variable},)"]
    parts += [listed] if len(listed) <= WIDTH else ["TABLES = (", *(f"    {spec.name.upper()}," for spec in tables), ")"]
    parts += [f'JOBS = (Job("{name}", cron="0 2 * * *", sla=timedelta(hours=1)),)', ""]
    imports = sorted(used, key=lambda one: (not one[0].isupper(), one))
    one_line = f"from lakehouse.tables.spec import {', '.join(imports)}"
    broken = ["from lakehouse.tables.spec import (", *(f"    {one}," for one in imports), ")"]
    head = [
        f'"""{_ascii(title)}: made by `make connect`.',
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


def call(
    record: Any, used: set[str], *, given: Mapping[str, Any] | None = None, comments: Sequence[tuple[Any, str]] = ()
) -> Call:
    """A record as the call that makes it: what is not the default, the first argument without its keyword.

    Args:
        used: gets the names that the call needs.
        given: arguments that stand for others.
        comments: of records within it.
    """
    if isinstance(record, Setting):
        used.add("setting")
        named = {"default": record.default, "description": record.description, "unset": record.unset, "secret": record.secret}
        return Call("setting", (("", record.name), *((key, value) for key, value in named.items() if value)))
    used.add(type(record).__name__)
    arguments: list[tuple[str, Any]] = []
    for number, part in enumerate(part for part in fields(record) if part.init):
        value = (given or {}).get(part.name, getattr(record, part.name))
        default = part.default_factory() if part.default_factory is not MISSING else part.default
        derived = part.name == "silver_name" and value == getattr(record, "name", None)
        if number and (value == default or derived):
            continue
        arguments.append(("" if number == 0 and part.name in ("name", "path", "token", "key", "size") else part.name, value))
    if type(record).__name__ == "TableSpec" or type(record).__name__ in ("Pages", "Offset"):
        arguments = [(key or ("name" if type(record).__name__ == "TableSpec" else "size"), value) for key, value in arguments]
    elif type(record).__name__ == "Column":
        arguments = [("" if key == "type" else key, value) for key, value in arguments]
    return Call(
        type(record).__name__,
        tuple((key, _node(value, used, comments)) for key, value in arguments),
        comment=next((text for one, text in comments if one is record), ""),
    )


def _node(value: Any, used: set[str], comments: Sequence[tuple[Any, str]]) -> Any:
    if isinstance(value, tuple):
        return tuple(_node(each, used, comments) for each in value)
    if isinstance(value, timedelta):
        return Raw(f"timedelta(seconds={value.total_seconds():g})")
    if is_dataclass(value) and not isinstance(value, (Raw, Call)):
        return call(value, used, comments=comments)
    return value


# --- lines -------------------------------------------------------------------------------------------------------------


def _statement(variable: str, made: Call) -> list[str]:
    return _lines(f"{variable} = ", made, 0, "")


def _lines(before: str, node: Any, indent: int, after: str) -> list[str]:
    """A node on one line, else its parts on the next one, else each part on its own."""
    margin = " " * indent
    comment = [f"{margin}# {_ascii(node.comment)[: WIDTH - indent - 2]}"] if isinstance(node, Call) and node.comment else []
    whole = f"{margin}{before}{_flat(node)}{after}"
    if not isinstance(node, (Call, tuple)) or (len(whole) <= WIDTH and not _commented(node)):
        return [*comment, whole]
    parts = node.arguments if isinstance(node, Call) else tuple(("", each) for each in node)
    name = node.name if isinstance(node, Call) else ""
    inner = ", ".join(_argument(key, each) for key, each in parts)
    if isinstance(node, Call) and indent + 4 + len(inner) <= WIDTH and not _commented(node):
        return [*comment, f"{margin}{before}{name}(", f"{margin}    {inner}", f"{margin}){after}"]
    broken = [line for key, each in parts for line in _lines(f"{key}=" if key else "", each, indent + 4, ",")]
    return [*comment, f"{margin}{before}{name}(", *broken, f"{margin}){after}"]


def _commented(node: Any) -> bool:
    """Whether something within a node has a comment, and so its own line."""
    parts = [each for _, each in node.arguments] if isinstance(node, Call) else node if isinstance(node, tuple) else ()
    return any((isinstance(each, Call) and bool(each.comment)) or _commented(each) for each in parts)


def _argument(key: str, node: Any) -> str:
    return f"{key}={_flat(node)}" if key else _flat(node)


def _flat(node: Any) -> str:
    if isinstance(node, Call):
        return f"{node.name}({', '.join(_argument(key, each) for key, each in node.arguments)})"
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, tuple):
        return f"({', '.join(map(_flat, node))}{',' if len(node) == 1 else ''})"
    return literal(node)


def _ascii(text: str) -> str:
    """A text for a comment or a docstring: printable, and nothing that would end it."""
    return "".join(letter if letter.isprintable() and letter not in '"\\' else " " for letter in text)
