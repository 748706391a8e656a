"""Hints: why delivered texts are no values of their column, and the declaration that would accept them.

    refused texts ─▶ cast under each declaration that might be meant ─▶ the one that accepts most ─▶ a line for a person

One source for what the console says of a batch (`refresh.py`) and what `make doctor` says of a lake (`grammar.py`). Values of
personal columns are never shown. Pure: no dagster.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw

from lakehouse.core.engines.casts import BLANKS, EPOCHS, INTEGERS
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import DeclarationError
from lakehouse.core.rules import Finding
from lakehouse.silver.checks import TYPES
from lakehouse.silver.validate import DELETED, TEXT, cast_of
from lakehouse.tables.spec import Column, TableSpec

_SHOWN, _TRIED, _LONGEST = 3, 20, 40
#: Words for true and false in pairs, as `plain_word` writes them.
YES_NO = (
    *(("s", "n"), ("sim", "nao"), ("v", "f"), ("verdadeiro", "falso")),
    *(("y", "n"), ("yes", "no"), ("on", "off"), ("t", "f"), ("true", "false"), ("1", "0")),
)
YES, NO = (frozenset(words) for words in zip(*YES_NO, strict=True))
#: Days first: where both ways of reading a date accept everything, the other one is named too.
_FORMATS = ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y%m%d")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")


@dataclass(frozen=True)
class Hint:
    """What refused texts are, and what to do. `declare` is empty where no declaration accepts them."""

    cause: str
    declare: str
    otherwise: str = ""

    @property
    def way(self) -> str:
        """What to do, as a sentence."""
        return f"{self.declare or self.otherwise}."


def hint(session: Session, column: Column, texts: Sequence[str]) -> Hint:
    """Why texts are refused by a column, found by casting them under other declarations of it."""
    other = [(replace(column, **changes), changes, cause) for changes, cause in _others(column, texts) if _fits(column, changes)]
    if texts and other:
        casts = {f"c{number}": ("text", cast_of(each)) for number, (each, _, _) in enumerate(other)}
        frame = session.cast(session.table([{"text": text} for text in texts], {"text": "string"}), casts)
        rows = session.rows(frame.select(*casts))
        accepted = [sum(row[number] is not None for row in rows) for number in range(len(other))]
        best = max(range(len(other)), key=lambda number: (accepted[number], -number))
        if accepted[best] * 2 >= len(texts):
            _, changes, cause = other[best]
            twin = [o["format"] for (_, o, _), n in zip(other, accepted, strict=True) if "format" in o and n == accepted[best]]
            unclear = f" (or {twin[1]}: look)" if "format" in changes and len(twin) > 1 else ""
            return Hint(cause + unclear, _declare(column, changes))
    if column.type in ("date", "timestamp"):
        otherwise = f"Add the format that the source writes to {_shown(column)}, or correct the source"
    else:
        otherwise = f"Correct the source, or declare {column.name!r} as it is written"
    return Hint("none of the known ways to write one", "", otherwise)


def told(
    session: Session,
    spec: TableSpec,
    finding: Finding,
    refused: "nw.LazyFrame[Any]",
    counts: Mapping[str, int],
    *,
    validated: int,
) -> Finding:
    """The finding about casts with a line for each column that it is about.

    Args:
        counts: refused records by rule.
    """
    failed = {name.removeprefix(f"{TYPES}_"): n for name, n in counts.items() if n and name.startswith(f"{TYPES}_")}
    return replace(finding, lines=tuple(cast_lines(session, spec, refused, failed, validated=validated)))


def cast_lines(
    session: Session, spec: TableSpec, bad: "nw.LazyFrame[Any]", counts: Mapping[str, int], *, validated: int
) -> Iterator[str]:
    """A line per column of which values could not be cast or calculated.

    Args:
        bad: the refused records with their flags, and texts as `TEXT<column>`, kept.
        counts: how many of each column.
        validated: records of the batch.
    """
    columns = {column.name: column for column in (*spec.columns, *([spec.array] if spec.array is not None else []))}
    personal = {(column.parent, column.field) for column in columns.values() if column.personal and column.delivered}
    for name, count in counts.items():
        table = f"{spec.silver} {name if name != DELETED else 'deleted'}: {count:,} of {validated:,}"
        column = columns.get(name)
        if column is None or not column.delivered:
            formula = spec.deleted if column is None else column.expression
            kind = "a condition" if column is None else column.type
            yield (
                f"{table} could not be calculated as {kind} ({formula}): an overflow, a bad cast, or digits that it has no room "
                "for. Correct it (round(…) says to how many digits), or widen its type."
            )
            continue
        text = nw.col(TEXT + name).alias("text")
        of_column = bad.filter(nw.col(f"_is_{TYPES}_{name}")).select(text).group_by("text").agg(n=nw.len())
        texts = [str(row[0]) for row in session.rows(of_column.sort("n", "text", descending=[True, False]).head(_TRIED))]
        hidden = (column.parent, column.field) in personal
        sample = shown(texts, hidden=hidden)
        if column is spec.array:
            of_what = "objects" if any(each.within for each in spec.of_elements) else "values"
            way = f"Correct explode={spec.explode!r}, declare path='$' for an element itself, or correct the source"
            yield f"{table} records have no array of {of_what} there{sample}. {way}."
            continue
        of = "records have elements whose " if column in spec.of_elements else ""  # what is counted are records
        if column.steps and column.type == "string":
            yield f"{table} {of}values are no documents{sample}. Correct the path {column.path!r} or the source."
            continue
        if spec.transform is not None and (made := _accepted(session, column, texts)):
            yield (
                f"{table} {of}values are no {column.type} after the transform {spec.transform!r}{shown(made, hidden=hidden)}: "
                "its result is beyond the type, or has digits that it has no room for. Round it there, or widen the type."
            )
            continue
        found = hint(session, column, texts)
        again = f" Then make rebuild TABLE={spec.name}." if found.declare else ""
        yield (
            f"{table} {of}values are no {column.type}{sample}: {found.cause}. "
            f"{unnamed(column) if hidden and column.type == 'boolean' else found.way}{again}"
        )


def plain_word(text: str) -> str:
    """A word without blanks around it, accents and capitals."""
    return unicodedata.normalize("NFKD", text.strip(BLANKS)).encode("ascii", "ignore").decode().lower()


def _accepted(session: Session, column: Column, texts: Sequence[str]) -> list[str]:
    """Those of some texts that the column's own cast accepts."""
    frame = session.table([{"text": text} for text in texts], {"text": "string"})
    rows = session.rows(session.cast(frame, {"value": ("text", cast_of(column))}).select("text", "value"))
    return [text for text, value in rows if value is not None]


def shown(texts: Sequence[str], *, hidden: bool) -> str:
    """Three samples in brackets; nothing of a personal column."""
    cut = [text if len(text) <= _LONGEST else text[:_LONGEST] + "…" for text in texts[:_SHOWN]]
    return f" ({', '.join(map(repr, cut))})" if cut and not hidden else ""


def _others(column: Column, texts: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Other declarations of a column that may be meant: what they change, and the cause. The likeliest come first."""
    kind, money = column.type, "written with a decimal comma, thousands marks or a currency sign"
    if kind.startswith("decimal"):
        yield {"rounding": "half_up"}, "more digits after the mark than the type has"
    if kind != "string":
        yield {"trim": True}, "blanks around the value"
    if kind.startswith("decimal") or kind in (*INTEGERS, "double"):
        for mark in (",", "."):
            yield {"decimal": mark}, money
            if kind.startswith("decimal"):
                yield {"decimal": mark, "rounding": "half_up"}, f"{money}, and more digits than the type has"
    if kind in INTEGERS:
        yield {"type": "bigint"}, "beyond the type"
        yield {"type": "decimal(18,2)"}, "digits after the mark"
        yield {"type": "decimal(18,2)", "decimal": ","}, money
    if kind.startswith("decimal"):
        yield {"type": f"decimal(38,{cast_of(column).size[1]})"}, "beyond the type"
    if kind == "boolean":
        true, false = (tuple(sorted({t for t in texts if plain_word(t) in words})) for words in (YES, NO))
        yield {"true": (*column.true, *true), "false": (*column.false, *false)}, "other words for true and false"
    if kind in ("date", "timestamp"):
        for clock in _CLOCKS:
            for written in _FORMATS:
                yield {"format": written + clock}, f"days written as {written}{clock}"
        for form in EPOCHS:
            yield {"form": form}, f"numbers since 1970 ({form})"


def _fits(column: Column, changes: Mapping[str, Any]) -> bool:
    """Whether a column may be declared like that, and is not already."""
    try:
        return bool(replace(column, **changes) != column)
    except DeclarationError:
        return False


def _declare(column: Column, changes: Mapping[str, Any]) -> str:
    if "type" in changes:
        column = replace(column, **changes)
        return f"Declare {_shown(column, **{name: value for name, value in changes.items() if name != 'type'})}"
    return f"Add {', '.join(_written(name, value) for name, value in changes.items() if value)} to {_shown(column)}"


def _shown(column: Column, **changes: Any) -> str:
    parts = [repr(column.name), repr(column.type), *[_written(name, value) for name, value in changes.items()], "..."]
    return f"Column({', '.join(parts)})"


def _written(name: str, value: Any) -> str:
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}"


def unnamed(column: Column) -> str:
    """A way without the texts of a personal column."""
    return f"Add their words as true=(…), false=(…) to {_shown(column)}."
