"""Columns: every delivered field as a column, and those within documents; each with what all of its values say.

trial ─▶ fields, and the values within JSON documents ─▶ a sample of texts ─▶ `guess.py` ─▶ measured over all records
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import narwhals as nw

from lakehouse.core.engines.casts import BLANKS
from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.profile.guess import Guess, Guesser
from lakehouse.profile.personal import WITHIN, shown
from lakehouse.profile.trial import Trial, plain_name, sample, text_frame
from lakehouse.silver.validate import cast_of
from lakehouse.tables.spec import EXTRA, Column

_SAMPLE, _BEGINNING = 20_000, 1_000
_DISTINCT = 1_000
#: A document with more values is a map, and stays one text.
_WITHIN, _DEEP = 30, 3
#: Few values are all that there are, where so many records have each of them and so many have one.
_FEW, _EACH, _FILLED = 12, 4, 20
_REFUSED = 3


@dataclass(frozen=True)
class Measured:
    """A column over all records.

    Args:
        filled: records with a value, refused ones included.
        refused: records with a text that its type does not accept, and `samples` of them as they may be shown.
        distinct: about how many different values there are.
        minimum, maximum: of the typed values; None of texts, and of what is personal.
        values: all of them as text, where they are few; none of what is personal.
    """

    guess: Guess
    filled: int
    refused: int
    distinct: int
    minimum: Any = None
    maximum: Any = None
    values: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    @property
    def column(self) -> Column:
        return self.guess.column

    @property
    def name(self) -> str:
        return self.guess.column.name


def measured(
    session: DuckDBSession, trial: Trial, *, comma: bool, known: Mapping[str, str], exact: Mapping[str, str] | None = None
) -> tuple[list[Measured], int]:
    """The columns of a trial, and how many of its records have a value that is refused.

    Args:
        comma: whether numbers that do not tell have a decimal comma.
        known: types of fields that the source itself has, in the words of the specs.
        exact: of fields whose every value is of the known type, what the source calls that. They stay one column each.
    """
    exact = exact or {}
    fields = {**trial.fields, **_extra_fields(session, trial)}
    columns = list(_expanded(session, trial, list(fields.values()), exact))
    some = sample(session, text_frame(session, trial, columns), trial.rows, most=_SAMPLE)
    guesser = Guesser(session, comma=comma)
    types = {**{name: kind for name, kind in map(_of_arrow, trial.types.items()) if kind}, **known}
    guesses = {}
    for column in columns:
        own = types.get(column.field, "") if not column.steps else ""
        guesses[column.name] = guesser.guess(column, _distinct(some, column.name), known=own, exact=exact.get(column.field, ""))
    found, refused = _measure(session, trial, guesses)
    # What the sample did not have is looked at too, once.
    for one in found:
        if one.refused:
            texts = _distinct(some, one.name) + _refused_texts(session, trial, one.guess, _DISTINCT)
            column = next(column for column in columns if column.name == one.name)
            own = types.get(column.field, "") if not column.steps else ""
            guesses[one.name] = guesser.guess(column, texts, known=own, exact=exact.get(column.field, ""))
    if any(guesses[one.name] != one.guess for one in found):
        found, refused = _measure(session, trial, guesses)
    return [_with_values(session, trial, one) for one in found], refused


def _extra_fields(session: DuckDBSession, trial: Trial) -> dict[str, Column]:
    """The fields whose names make no column of bronze's; they are declared by their own name."""
    frame = session.read(trial.bronze.paths(), {EXTRA: "string"}).to_native()
    keys = frame.filter(f"{EXTRA} IS NOT NULL").limit(_SAMPLE).select(f"unnest(json_keys({EXTRA})) AS name").distinct()
    out: dict[str, Column] = {}
    taken = [column.name for column in trial.fields.values()]
    for (name,) in sorted(keys.fetchall()):
        if name not in trial.fields:
            column = plain_name(name, taken)
            taken.append(column)
            out[name] = Column(column, "string", source=name)
    return out


# --- documents ---------------------------------------------------------------------------------------------------------


def _expanded(session: DuckDBSession, trial: Trial, columns: Sequence[Column], whole: Collection[str]) -> Iterator[Column]:
    """The columns; instead of one with JSON objects those of the values within."""
    some = session.persist(text_frame(session, trial, columns).head(_BEGINNING)).to_native()
    taken = [column.name for column in columns]
    for column in columns:
        texts = [text for text, _ in _distinct(some, column.name) if text.strip()]
        objects = bool(texts) and column.field not in whole
        paths = _paths(texts) if objects and all(text.lstrip().startswith("{") for text in texts) else []
        if not paths:
            yield column
        for steps in paths:
            name = plain_name("_".join((column.name, *steps)), taken)
            taken.append(name)
            yield Column(name, "string", path=_path(column.field, steps))


def _paths(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The places of values within JSON objects: scalars and lists; none where they are too many to be columns."""
    found: dict[tuple[str, ...], None] = {}

    def walk(value: Any, steps: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value and len(steps) < _DEEP:
            for key, part in value.items():
                walk(part, (*steps, key))
        elif value not in ({}, None):
            found.setdefault(steps)

    for text in texts:
        try:
            value = json.loads(text)
        except ValueError:
            return []
        if not isinstance(value, dict):
            return []
        walk(value, ())
    readable = all(re.fullmatch(r"[^\x00-\x1f\x7f\"']{1,60}", step) for steps in found for step in steps)
    within = [steps for steps in found if not any(other != steps and other[: len(steps)] == steps for other in found)]
    return within if readable and 0 < len(found) <= _WITHIN and len(within) == len(found) else []


def _path(delivered: str, steps: Sequence[str]) -> str:
    """Steps as the text that `Column(path=...)` takes."""
    plain = r"[^.\[\]\"'\s$][^.\[\]\"']*"
    first, *rest = (delivered, *steps)
    text = first if re.fullmatch(plain, first) else f'$["{first}"]'
    for step in rest:
        text += f".{step}" if re.fullmatch(plain, step) else f'["{step}"]'
    return text


# --- all records -------------------------------------------------------------------------------------------------------


def typed(session: DuckDBSession, trial: Trial, columns: Sequence[Column]) -> "nw.LazyFrame[Any]":
    """All records with the columns' values, and `_text_<name>` beside each."""
    frame = text_frame(session, trial, columns).select(**{f"_text_{c.name}": nw.col(c.name) for c in columns})
    return session.cast(frame, {column.name: (f"_text_{column.name}", cast_of(column)) for column in columns})


def is_refused(column: Column) -> str:
    """SQL: whether the column does not accept a text."""
    if column.type == "string":
        return "false"
    text = quoted(f"_text_{column.name}")
    text = f"trim({text}, {_sql(BLANKS)})" if column.trim else text
    return f"({quoted(column.name)} IS NULL AND coalesce({text}, '') <> '')"


def _measure(session: DuckDBSession, trial: Trial, guesses: Mapping[str, Guess]) -> tuple[list[Measured], int]:
    columns = [guess.column for guess in guesses.values()]
    parts = []
    for column in columns:
        name, text = quoted(column.name), quoted(f"_text_{column.name}")
        bounds = column.type not in ("string", "boolean") and not column.personal
        parts += [
            f"count({text}) - count_if({text} = '' AND {str(column.type != 'string').lower()})",
            f"count_if({is_refused(column)})",
            f"approx_count_distinct({name})",
            f"min({name})" if bounds else "NULL",
            f"max({name})" if bounds else "NULL",
            f"count_if(regexp_matches({text}, {_sql(WITHIN)}))" if column.type == "string" and not column.personal else "0",
        ]
    parts.append(f"count_if({' OR '.join(map(is_refused, columns))})")
    [row] = typed(session, trial, columns).to_native().aggregate(", ".join(parts)).fetchall()
    out = []
    for position, guess in enumerate(guesses.values()):
        filled, refused, distinct, low, high, about = row[6 * position : 6 * position + 6]
        filled, refused = filled or 0, refused or 0  # of a column without a value DuckDB counts null
        found = guess
        if about:  # beyond the sample
            note = f"personal: {about:,} values have a CPF, CNPJ, e-mail or telephone in them"
            found = replace(guess, column=replace(guess.column, personal=True), evidence=(*guess.evidence, note))
        texts = _refused_texts(session, trial, guess, _REFUSED) if refused else []
        samples = tuple(shown(text, hidden=found.column.personal) for text, _ in texts)
        out.append(Measured(found, filled, refused, min(distinct or 0, filled), low, high, samples=samples))
    return out, int(row[-1])


def _with_values(session: DuckDBSession, trial: Trial, one: Measured) -> Measured:
    if one.column.type != "string" or one.column.personal or not 0 < one.distinct <= 2 * _FEW:
        return one
    relation = text_frame(session, trial, [one.column]).to_native().aggregate(f"{quoted(one.name)} AS v").filter("v IS NOT NULL")
    values = [str(value) for (value,) in relation.order("v").limit(_FEW + 1).fetchall()]
    few = (
        1 < len(values) <= _FEW
        and one.filled >= max(_EACH * len(values), _FILLED)
        and all(len(value) <= 40 and value.isprintable() and value.strip() for value in values)
    )
    return replace(one, distinct=len(values) if len(values) <= _FEW else one.distinct, values=tuple(values) if few else ())


def _refused_texts(session: DuckDBSession, trial: Trial, guess: Guess, most: int) -> list[tuple[str, int]]:
    relation = typed(session, trial, [guess.column]).to_native().filter(is_refused(guess.column))
    texts = relation.aggregate(f"{quoted(f'_text_{guess.column.name}')} AS t, count(*) AS n").order("n DESC, t").limit(most)
    return [(str(text), int(n)) for text, n in texts.fetchall()]


def _distinct(relation: duckdb.DuckDBPyRelation, name: str) -> list[tuple[str, int]]:
    """The distinct texts of a column with how often they occur, the most frequent first."""
    found = relation.aggregate(f"{quoted(name)} AS t, count(*) AS n").filter("t IS NOT NULL")
    found = found.order("n DESC, hash(t)").limit(_DISTINCT)  # not the first by name: those of dates are all of one day
    return [(str(text), int(n)) for text, n in found.fetchall()]


def _of_arrow(field: tuple[str, str]) -> tuple[str, str]:
    """A Parquet field with its type in the words of the specs; an empty one where its texts decide."""
    name, kind = field
    decimal = re.fullmatch(r"decimal\d+\((\d+), (\d+)\)", kind)
    known = {
        "bool": "boolean",
        "double": "double",
        "float": "double",
        "date32[day]": "date",
        "string": "string",
        "large_string": "string",
    }
    if decimal:
        return name, f"decimal({decimal[1]},{decimal[2]})"
    if re.fullmatch(r"u?int(8|16|32)|int64", kind):
        return name, "bigint"
    return name, "timestamp" if kind.startswith("timestamp") else known.get(kind, "")


def _sql(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
