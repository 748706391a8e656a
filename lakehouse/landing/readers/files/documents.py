"""Documents: records as JSON text. Which kind each one is, and how the records of a group are read with one parse each.

    text ─▶ types, keys (first pass) ─▶ Documents: where the fields are ─▶ values (second pass)

Here: SQL over texts. Not here: files and their columns (`scan.py`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lakehouse.core.engines.digits import altered, exact, unmarked
from lakehouse.core.engines.duckdb import text
from lakehouse.core.json_path import pointer
from lakehouse.landing.readers.files.fields import DATA

#: Kinds of records: their fields are the whole text, an object within it, or an object's text within it.
FLAT, WITHIN, AS_TEXT = "OBJECT", "data OBJECT", "data VARCHAR"
_INNER = f"(_line ->> '/{DATA}')"


def kind_sql(text: str, *, lines: bool) -> str:
    """The kind of a text; null when it is no JSON, and another one when it is no record.

    Args:
        lines: the text has Airbyte's envelope, and may have the fields in `_airbyte_data`.
    """
    kind = f"coalesce('data ' || json_type({text}, '/{DATA}'), json_type({text}))" if lines else f"json_type({text})"
    return f"CASE WHEN json_valid({text}) THEN {kind} END"


def look_sql(text: str, *, lines: bool) -> dict[str, str]:
    """What a look at a text tells, step by step: its type and that of the record in it (`types`), the names of their fields
    (`keys`), those of a record that is a text in it (`own_keys`), and whether its digits need care (`altered`)."""
    parts = f"['', '/{DATA}']" if lines else "['']"
    inner = _object(f"({text} ->> '/{DATA}')")
    return {
        "types": f"CASE WHEN json_valid({text}) THEN json_type({text}, {parts}) END",
        "keys": f"CASE WHEN types IS NOT NULL THEN json_keys({text}, {parts}) END",
        "own_keys": f"CASE WHEN types[2] = 'VARCHAR' THEN json_keys({inner}) END",
        "altered": f"CASE WHEN types[2] = 'VARCHAR' THEN true ELSE {altered(text)} END",
    }


def shape_sql() -> dict[str, str]:
    """Of such a look: the kind, and the names of the record's fields (`k`), null when it is no record."""
    return {
        "kind": "coalesce('data ' || types[2], types[1])",
        "k": f"CASE kind WHEN '{FLAT}' THEN keys[1] WHEN '{WITHIN}' THEN keys[2] WHEN '{AS_TEXT}' THEN own_keys END",
    }


@dataclass(frozen=True)
class Documents:
    """How the records of a group are read.

    Args:
        kinds: those that occur.
        lines: see `kind_sql`.
        altered: whether a number in them may come out with other digits.
        broken: whether some are no records.
    """

    kinds: frozenset[str]
    lines: bool
    altered: bool
    broken: bool

    def columns(self, text: str, fields: Sequence[str], envelope: Collection[str]) -> list[dict[str, str]]:
        """SQL of what is added to the records, step by step: `_document`, null of what is no record, and `_values`, which
        are the texts of the fields and then of the envelope; `text` is the SQL of a record's text."""
        kind = kind_sql(text, lines=self.lines)
        within = [f"/{name}" for name in envelope]
        given = exact(text) if self.altered else text
        if len(self.kinds) <= 1 and AS_TEXT not in self.kinds:
            prefix = f"/{DATA}" if WITHIN in self.kinds else ""
            document = f"CASE WHEN {kind} IN ('{FLAT}', '{WITHIN}') THEN {given} END" if self.broken else given
            return [{"_document": document}, {"_values": _values("_document", [*_pointers(fields, prefix), *within])}]
        inner = _object(_INNER)
        document = f"CASE _kind WHEN '{WITHIN}' THEN CAST(_line -> '/{DATA}' AS VARCHAR) WHEN '{AS_TEXT}' THEN "
        document += f"{exact(inner)} WHEN '{FLAT}' THEN _line END"
        values = f"list_concat({_values('_document', _pointers(fields))}, {_values('_line', within)})"
        return [
            {"_kind": kind},
            {"_line": f"CASE WHEN _kind IS NOT NULL THEN {given} END"},
            {"_document": document},
            {"_values": values},
        ]

    def value(self, position: int) -> str:
        """SQL of a text in `_values`."""
        text = f"_values[{position + 1}]"
        return unmarked(text) if self.altered else text

    @property
    def content(self) -> str:
        """SQL of all that was delivered of a record: the same in whichever group it is read."""
        if self.kinds <= {FLAT}:
            return "_payload"
        single = self.kinds == {WITHIN}
        text = f"CAST(json_extract(_document, '/{DATA}') AS VARCHAR)" if single else "_document"
        return unmarked(text) if self.altered else text


def _object(text: str) -> str:
    """A text, null when it is not a JSON object."""
    return f"CASE WHEN json_valid({text}) AND json_type({text}) = 'OBJECT' THEN {text} END"


def _pointers(names: Sequence[str], prefix: str = "") -> list[str]:
    return [prefix + pointer((name,)) for name in names]


def _values(document: str, pointers: Sequence[str]) -> str:
    return f"json_extract_string({document}, [{', '.join(map(text, pointers))}]::VARCHAR[])"
