"""JSON documents in Spark's SQL: the value at a path, with the digits that the document has.

Spark makes a double of a JSON number on the way to text, as DuckDB does (`digits.py`), so numbers are strings with this
process's mark while the document is parsed. Pure text.
"""

from collections.abc import Sequence

from lakehouse.core.engines.digits import MARK
from lakehouse.core.engines.spark_casts import CASTS
from lakehouse.core.json_path import Step

_OBJECT, _LIST = "map<string,string>", "array<string>"
#: A string, or a number; a raw document has no control characters, so one can stand beside what was a number.
_PIECE = r'("(?:[^"\\]|\\.)*+")|(-?[0-9][0-9.eE+-]*)'
_NUMBER = "\x01([^\x01]*)\x01"


def document(text: str) -> str:
    """A text, null when it is no JSON object and no list."""
    kinds = ((r"\s*\{(?s:.*)", _OBJECT), (r"\s*\[(?s:.*)", _LIST))
    arms = " ".join(
        f"WHEN {CASTS.matches(text, begin)} AND from_json({text}, '{kind}') IS NOT NULL THEN {text}" for begin, kind in kinds
    )
    return f"CASE {arms} END"


def elements_of(text: str) -> str:
    """The elements of a JSON list as texts, numbers marked; null when the text is no list."""
    begin = CASTS.matches(text, r"\s*\[(?s:.*)\]\s*")
    return f"CASE WHEN {begin} AND from_json({text}, '{_LIST}') IS NOT NULL THEN from_json({_marked(text)}, '{_LIST}') END"


def value_at(text: str, steps: Sequence[Step]) -> str:
    """The text of the value at a path of a document, null where the path leads nowhere."""
    found = _marked(text)
    for step in steps:
        key = CASTS.quoted(step) if isinstance(step, str) else str(step + 1)
        found = f"try_element_at(from_json({found}, '{_OBJECT if isinstance(step, str) else _LIST}'), {key})"
    return unmarked(found)


def _marked(text: str) -> str:
    """A document with its numbers as marked strings."""
    found = CASTS.replaced(text, _PIECE, "$1\x01$2\x01")
    return CASTS.replaced(f"replace({found}, '\x01\x01', '')", _NUMBER, f'"{MARK}$1"')


def unmarked(found: str) -> str:
    """A value that was read of a marked document, as it was delivered."""
    nested = CASTS.replaced(found, f'"{MARK}([^"]*)"', "$1")
    return f"CASE WHEN startswith({found}, '{MARK}') THEN substr({found}, {len(MARK) + 1}) ELSE {nested} END"
