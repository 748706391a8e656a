"""Digits: JSON numbers as the text that was delivered, in SQL of DuckDB.

DuckDB makes a double of a JSON number on the way to text: `99999999999999.99` comes out as `…99.98`, `1.10` as `1.1`. A number
of at most fifteen digits, without an exponent and without a zero at its end comes out as it was. The others become strings
before the document is parsed, with this process's mark at the beginning, and the mark is taken off again what is read.

    document ─▶ exact() ─▶ JSON with marked strings ─▶ -> and ->> ─▶ unmarked()
"""

import uuid
from collections.abc import Iterable

#: A private-use character, and what no delivered text begins with: it is made anew by each process.
MARK = f"\ue000{uuid.uuid4().hex[:8]}"
_BEFORE = "[:,\\[][ \\t\\r\\n]*"
_EXPONENT = "[eE][+-]?[0-9]+"
#: A number that comes out with other digits, but for `-0`: RE2 cannot look ahead, and `-0.5` comes out as it is.
_OTHER = f"-?(?:[0-9]+(?:\\.[0-9]+)?{_EXPONENT}|[0-9.]{{17,}}|0\\.000000[0-9]*|[0-9]+\\.[0-9]+0)\\b"
_MINUS_ZERO = "-0(?:[ \\t\\r\\n,}\\]]|$)"
_ESCAPES = (("\\\\", "\x01"), ('\\"', "\x02"))


def altered(document: str) -> str:
    """SQL: whether a JSON text may hold a number that would come out with other digits. A text in it may look like one."""
    # What DuckDB writes as it was delivered, which needs no blanks and no escaped letters, has no such number.
    same = f"CASE WHEN json_valid({document}) THEN CAST(json({document}) AS VARCHAR) = {document} END"
    return f"CASE WHEN {same} THEN false ELSE regexp_matches({document}, '{_BEFORE}(?:{_OTHER}|{_MINUS_ZERO})') END"


def exact(document: str) -> str:
    """SQL: a valid JSON text with such numbers as marked strings."""
    quick = f"""regexp_replace({document}, '({_BEFORE})({_OTHER})', '\\1"{MARK}\\2"', 'g')"""
    # A mark after the first quote within a string is no JSON, so what is valid has none there.
    enough = f"json_valid({quick}) AND NOT regexp_matches({document}, '{_MINUS_ZERO}')"
    return f"CASE WHEN {enough} THEN {quick} ELSE {_careful(document)} END"


def _careful(document: str) -> str:
    """The same, string by string: every second part between quotes is one."""
    safe = document
    for escaped, control in _ESCAPES:  # raw JSON has no control characters
        safe = f"replace({safe}, '{escaped}', '{control}')"
    marked = f"regexp_replace(part, '(-?[0-9][0-9.eE+-]*)', '\"{MARK}\\1\"', 'g')"
    parts = f"list_transform(string_split({safe}, '\"'), lambda part, n: CASE WHEN n % 2 = 1 THEN {marked} ELSE part END)"
    joined = f"array_to_string({parts}, '\"')"
    for escaped, control in reversed(_ESCAPES):
        joined = f"replace({joined}, '{control}', '{escaped}')"
    return joined


def fingerprint(columns: Iterable[str]) -> str:
    """SQL of every engine: a digest of text columns. Each has a length of its own, so that none runs into the next."""
    each = ", ".join(f"coalesce(md5({column}), '-')" for column in columns)
    return f"md5(concat({each}))"


def unmarked(value: str) -> str:
    """SQL: a value that was read of such a document as it was delivered: a number, or the JSON text of a nested value."""
    nested = f"""regexp_replace({value}, '"{MARK}([^"]*)"', '\\1', 'g')"""
    number = f"WHEN starts_with({value}, '{MARK}') THEN substr({value}, {len(MARK) + 1})"
    return f"CASE WHEN NOT contains({value}, '{MARK}') THEN {value} {number} ELSE {nested} END"
