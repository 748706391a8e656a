"""Code: declared records as the text that makes them, as `ruff format` writes it. Pure.

record ─▶ call_of(record) ─▶ Call ─▶ statement("LOJA", call) ─▶ lines
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Any

from lakehouse.tables.spec import Setting

WIDTH = 130
#: How many arguments have no keyword, where it is not one.
_POSITIONAL = {"TableSpec": 0, "Pages": 0, "Offset": 0, "Column": 2}
#: What is told also where it is the default, since it is what a reader looks for.
_TOLD = {("Table", "cursor")}


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


def quoted(text: str) -> str:
    """A text as ruff quotes it."""
    inner = "".join(map(escaped, text))
    if '"' in text and "'" not in text:
        return f"'{inner}'"
    return '"' + inner.replace('"', '\\"') + '"'


def literal(value: Any) -> str:
    """A declared value as ruff writes it."""
    if isinstance(value, str):
        return quoted(value)
    return _tuple(value) if isinstance(value, tuple) else repr(value)


def _tuple(values: Sequence[Any]) -> str:
    inner = ", ".join(map(literal, values))
    return f"({inner},)" if len(values) == 1 else f"({inner})"


def escaped(letter: str) -> str:
    """A letter as it stands between quotes."""
    if letter == "\\" or not (letter.isascii() or letter.isalpha()) or not letter.isprintable():
        return letter.encode("unicode_escape").decode()
    return letter


def call_of(
    record: Any, used: set[str], *, given: Mapping[str, Any] | None = None, comments: Sequence[tuple[Any, str]] = ()
) -> Call:
    """A record as the call that makes it: what is not the default, the first arguments without their keyword.

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
        if number and (value == default or derived) and (type(record).__name__, part.name) not in _TOLD:
            continue
        arguments.append(("" if number < _POSITIONAL.get(type(record).__name__, 1) else part.name, value))
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
        return call_of(value, used, comments=comments)
    return value


# --- lines -------------------------------------------------------------------------------------------------------------


def statement(variable: str, made: Call) -> list[str]:
    """The lines of an assignment."""
    return _lines(f"{variable} = ", made, 0, "")


def _lines(before: str, node: Any, indent: int, after: str) -> list[str]:
    """A node on one line, else its parts on the next one, else each part on its own."""
    margin = " " * indent
    comment = [f"{margin}# {printable(node.comment)[: WIDTH - indent - 2]}"] if isinstance(node, Call) and node.comment else []
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


def printable(text: str) -> str:
    """A text for a comment or a docstring: printable, and nothing that would end it."""
    return "".join(letter if letter.isprintable() and letter not in '"\\' else " " for letter in text)
