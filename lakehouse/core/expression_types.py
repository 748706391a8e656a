"""What an expression compares its columns with: a literal that is no value of the column's type is found when it is declared.

Here: comparisons of a column with a literal, functions of texts over another column. Engines tell when they compute, one with a
failed batch, the other with a violation a row; a text that is no exact value they round. Not here: what an expression may be made
of (`expressions.py`).
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

_COMPARISONS = frozenset(("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ"))
_OF_TEXTS = frozenset(("Length", "Like", "Lower", "RegexpLike", "Replace", "StartsWith", "Substring", "Trim", "Upper"))
_NO_NUMBERS = frozenset(("string", "date", "timestamp"))
_LARGEST = {"int": 2**31 - 1, "bigint": 2**63 - 1}
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.([0-9]*?)0*)?|\.([0-9]*?)0*)")
_DOUBLE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_INSTANT = rf"{_DAY}(?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?(?:Z|[+-][0-9]{{2}}(?::?[0-9]{{2}})?)?)?"
_BOOLEANS = frozenset(("true", "false", "t", "f", "1", "0"))


def misfit(tree: Any, types: Mapping[str, str]) -> str:
    """What of an expression cannot fit the types of its columns, as the end of a sentence; empty when nothing is known.

    Args:
        tree: its checked syntax tree (sqlglot).
        types: the spec type of each column.
    """
    from sqlglot import exp

    for node in tree.walk():
        kind = type(node).__name__
        if kind in _OF_TEXTS and isinstance(node.this, exp.Column) and types[node.this.name] != "string":
            return f"reads {node.this.name!r}, a {types[node.this.name]}, as a text"
        for column, literal in _pairs(node, kind):
            of = types[column.name]
            value = str(literal.this)
            if literal.is_string and not _is_value(value, of):
                return f"compares {column.name!r}, a {of}, with the text {value[:40]!r}, which is no {of}"
            if not literal.is_string and (of in _NO_NUMBERS or (of == "boolean" and kind not in ("EQ", "NEQ"))):
                return f"compares {column.name!r}, a {of}, with the number {value[:40]}"
    return ""


def _pairs(node: Any, kind: str) -> Iterator[tuple[Any, Any]]:
    """Columns with the literals that a node compares them with."""
    from sqlglot import exp

    if kind in _COMPARISONS:
        sides = [(node.this, node.expression), (node.expression, node.this)]
    elif kind == "In":
        sides = [(node.this, value) for value in node.expressions]
    elif kind == "Between":
        sides = [(node.this, node.args["low"]), (node.this, node.args["high"])]
    else:
        return
    for one, other in sides:
        column, value = one.unnest(), other.unnest()
        literal = value.this if isinstance(value, exp.Neg) else value
        if isinstance(column, exp.Column) and isinstance(literal, exp.Literal):
            yield column, literal


def _is_value(text: str, kind: str) -> bool:
    """Whether a text is a value of a type as it stands, on every engine."""
    if kind in ("date", "timestamp"):
        return bool(re.fullmatch(_DAY if kind == "date" else _INSTANT, text)) and _is_instant(text)
    if kind == "boolean":
        return text.lower() in _BOOLEANS
    if kind == "double":
        return bool(_DOUBLE.fullmatch(text))
    return kind == "string" or _is_number(text, kind)


def _is_number(text: str, kind: str) -> bool:
    """Whether a text is an integer or a decimal of so many digits; zeros at the end are none."""
    number = _DECIMAL.fullmatch(text)
    if number is None or not any(character.isdigit() for character in text):
        return False
    before, after = text.lstrip("+-").partition(".")[0].lstrip("0"), len(number[1] or number[2] or "")
    if kind in _LARGEST:
        return after == 0 and int(before or "0") <= _LARGEST[kind] + text.startswith("-")
    precision, scale = map(int, re.findall(r"[0-9]+", kind))
    return after <= scale and len(before) <= precision - scale


def _is_instant(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
