"""Rows: a silver table beside another Delta table, by key and column, or by content where the table has no key.

    silver ─▶ frame ─┐
                     ├─▶ joined by key ─▶ Difference: rows of one side, repeated keys, values of each column; with examples
    theirs ─▶ frame ─┘

What differs in type is compared as a value of our type, so `10.5` as a text equals `10.5000` as a decimal. Only decimals are
rounded: 5.5 is not the whole number 6. What is no value of our type differs from every value and from null. A nested value equals
the JSON text of the same value; without a key it is compared as that text. Columns that only one side has are named and left out.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from lakehouse.core.engines.casts import Cast
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import column_name
from lakehouse.core.table.foreign import NESTED, ForeignTable
from lakehouse.core.table.snapshot import Snapshot, spec_type
from lakehouse.tables.spec import DeltaSource, TableSpec

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.duckdb import DuckDBSession

    Frame = nw.LazyFrame[Any]

_EXAMPLES = 3
_THERE, _WRITTEN, _HERE, _HIDDEN = "_there_", "_written_", "_here", "***"


@dataclass(frozen=True)
class Side:
    """A table that is compared, at its version."""

    uri: str
    version: int
    rows: int


@dataclass(frozen=True)
class Example:
    """One row that differs: its key, or all of it; and the two values of a column. Nothing personal is in it."""

    row: str
    here: str | None = None
    there: str | None = None


@dataclass(frozen=True)
class Difference:
    """What differs, in so many rows. `column` is the one whose values differ; empty where whole rows do."""

    what: str
    rows: int
    column: str = ""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two tables beside each other.

    Args:
        key: by which rows were found on both sides; none where they were by their content.
        columns: how many columns were compared, the key not counted.
        both: rows that are on both sides.
        only_here, only_there: columns of one side.
    """

    here: Side
    there: Side
    key: tuple[str, ...]
    columns: int
    both: int
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    differences: tuple[Difference, ...]


def compared(session: "DuckDBSession", spec: TableSpec, mine: Snapshot, theirs: ForeignTable) -> Comparison:
    """Compare a silver table with another one. Streaming: what does not fit in memory is on disk.

    Raises:
        DeclarationError: the other table has no column of the key, or none of ours.
        BrokenTableError: it cannot be read.
        ForeignTableError: it has something that is not read here.
    """
    names = _shared(spec, mine, theirs)
    missing = [name for name in spec.key if name not in names]
    if missing:
        raise DeclarationError(
            f"{theirs.uri} has no column {', '.join(missing)}.", remedy=f"The key of {spec.name} is needed there."
        )
    if not names:
        raise DeclarationError(f"{theirs.uri} has no column of {spec.silver}.", remedy="Compare it with another table.")
    columns = {name: mine.columns[name] for name in names}
    there = _as_ours(session, theirs, columns, names=names)
    personal = frozenset(column.name for column in spec.columns if column.personal)
    found = _Found(session, spec.key, personal, mine, theirs.kinds, names)
    both, differences = found.by_key(there) if spec.key else found.by_content(there)
    return Comparison(
        here=Side(mine.uri, mine.version, mine.rows),
        there=Side(theirs.uri, theirs.version, session.count(there)),
        key=spec.key,
        columns=len(names) - len(spec.key),
        both=both,
        only_here=tuple(sorted(set(mine.columns) - set(names))),
        only_there=tuple(sorted(set(theirs.kinds) - set(names.values()))),
        differences=tuple(one for one in differences if one.rows),
    )


def _shared(spec: TableSpec, mine: Snapshot, theirs: ForeignTable) -> dict[str, str]:
    """Our columns that the other table has too, each with its name there: the same, the field that the column is declared to come
    from, or one that bronze would call so. Of the table that it is made of the field counts first."""
    named = {column_name(name): name for name in theirs.kinds}
    source = {column.name: column.source for column in spec.columns if column.source is not None}
    own = any(isinstance(part.origin, DeltaSource) and part.origin.uri == theirs.uri for part in spec.parts)
    found = {}
    for name in mine.columns:
        likely = (source.get(name, name), name) if own else (name, source.get(name, name))
        found[name] = next((one for one in likely if one in theirs.kinds), named.get(name))
    return {name: there for name, there in found.items() if there is not None}


def _as_ours(session: "DuckDBSession", theirs: ForeignTable, columns: Mapping[str, str], *, names: Mapping[str, str]) -> "Frame":
    """The other table's columns as `_there_<name>`, values of our types; the text of one of another type as `_written_<name>`.
    Its stream is read once, and what is wrong with it is raised as that."""
    import narwhals as nw

    from lakehouse.core.engines.duckdb_texts import with_texts

    other = {name: kind for name, kind in columns.items() if spec_type(theirs.kinds[names[name]]) != kind}
    with theirs.reading(list(dict.fromkeys(names.values()))) as rows:
        frame = with_texts(session.stream(rows), {names[name]: _WRITTEN + name for name in other}, variants=theirs.variants)
        if other:
            frame = session.cast(frame, {_THERE + name: (_WRITTEN + name, _cast_of(kind)) for name, kind in other.items()})
        same = [nw.col(names[name]).alias(_THERE + name) for name in columns if name not in other]
        return session.persist(frame.select(*same, *[_THERE + name for name in other], *[_WRITTEN + name for name in other]))


def _cast_of(kind: str) -> Cast:
    return Cast(kind, rounding="half_up" if kind.startswith("decimal") else "")


def between(
    session: "DuckDBSession", here: Snapshot, there: Snapshot, *, key: Sequence[str] = (), personal: Collection[str] = ()
) -> Comparison:
    """Compare two versions of a table of ours, or the same table of two lakes.

    Args:
        key: what identifies a row; without one rows are compared by their content, and columns by their values.
        personal: columns that no example shows.
    """
    import narwhals as nw

    then = there.columns
    names = {name: name for name, kind in here.columns.items() if then.get(name) == kind}
    other = session.read(there.paths(), {name: then[name] for name in names})
    frame = session.persist(other.select(*[nw.col(name).alias(_THERE + name) for name in names]))
    found = _Found(session, tuple(key), frozenset(personal), here, then, names)
    both, differences = found.by_key(frame) if key else found.by_content(frame)
    if not key:
        differences += found.columns(frame) if any(one.rows for one in differences) else []
    return Comparison(
        here=Side(here.uri, here.version, here.rows),
        there=Side(there.uri, there.version, there.rows),
        key=tuple(key),
        columns=len(names) - len(key),
        both=both,
        only_here=tuple(sorted(set(here.columns) - set(names))),
        only_there=tuple(sorted(set(then) - set(names))),
        differences=tuple(one for one in differences if one.rows),
    )


@dataclass(frozen=True)
class _Found:
    """What differs between two tables; `kinds` are the types there, `names` our columns with their names there."""

    session: "DuckDBSession"
    key: tuple[str, ...]
    personal: frozenset[str]
    mine: Snapshot
    kinds: Mapping[str, str]
    names: Mapping[str, str]

    @property
    def here(self) -> "Frame":
        return self.session.read(self.mine.paths(), {name: self.mine.columns[name] for name in self.names})

    def written(self, name: str) -> str:
        """The column with what is there: the text where it is of another type, else the value."""
        same = spec_type(self.kinds[self.names[name]]) == self.mine.columns[name]
        return (_THERE if same else _WRITTEN) + name

    def by_key(self, there: "Frame") -> tuple[int, list[Difference]]:
        """The rows of both sides by their key, and what differs."""
        import narwhals as nw

        key = list(self.key)
        repeated = there.group_by(*[_THERE + name for name in key]).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
        joined = self.session.persist(
            self.here.with_columns(nw.lit(True).alias(_HERE)).join(
                there.with_columns(nw.lit(True).alias(_THERE)),
                left_on=key,
                right_on=[_THERE + name for name in key],
                how="full",
            )
        )
        both = joined.filter(~nw.col(_HERE).is_null() & ~nw.col(_THERE).is_null())
        found = [
            self.rows(joined.filter(nw.col(_THERE).is_null()), key, "rows are only here"),
            self.rows(joined.filter(nw.col(_HERE).is_null()), [_THERE + name for name in key], "rows are only there"),
            Difference("keys occur more than once there", self.session.count(repeated)),
            *(self.values(both, name) for name in self.names if name not in key),
        ]
        return self.session.count(both), found

    def by_content(self, there: "Frame") -> tuple[int, list[Difference]]:
        """The same of rows without a key: each counts as often as it is there."""
        import narwhals as nw

        # What is no value of our type is null as one: its text beside it tells it from null.
        odd = {name: self.written(name) for name in self.names if self.written(name) != _THERE + name}
        texts = {f"_odd_{name}": nw.when(nw.col(_THERE + name).is_null()).then(nw.col(text)) for name, text in odd.items()}
        theirs = there.select(*[nw.col(_THERE + name).alias(name) for name in self.names], **texts)
        ours = self.here.select(*self.names, **{name: nw.lit(None, dtype=nw.String()) for name in texts})
        only = [self.session.persist(self.session.without(one, other)) for one, other in ((ours, theirs), (theirs, ours))]
        columns = [*self.names]
        found = [
            self.rows(frame, columns, f"rows are only {where}") for frame, where in zip(only, ("here", "there"), strict=True)
        ]
        return self.mine.rows - found[0].rows, found

    def columns(self, there: "Frame") -> list[Difference]:
        """By column how many values are only here, each counted as often as it is there."""
        import narwhals as nw

        found = []
        for name in self.names:
            theirs = there.select(nw.col(_THERE + name).alias(name))
            only = self.session.persist(self.session.without(self.here.select(name), theirs))
            found.append(self.rows(only, [name], f"values of {name} are only here"))
        return found

    def values(self, both: "Frame", name: str) -> Difference:
        """The rows whose values of a column differ."""
        import narwhals as nw

        kind, written, key = self.kinds[self.names[name]], self.written(name), list(self.key)
        a, b, text = nw.col(name), nw.col(_THERE + name), nw.col(written)
        differs = (a != b).fill_null(False) | (a.is_null() & ~text.is_null()) | (~a.is_null() & b.is_null())
        frame, what, columns = both.filter(differs), f"rows differ in {name}", [*key, name, written]
        if kind in NESTED and self.mine.columns[name] == "string":
            return self.nested(frame, columns, what, name=name, sparse=NESTED[kind])
        return self.rows(frame, columns, what, name=name)

    def rows(self, frame: "Frame", columns: list[str], what: str, *, name: str = "") -> Difference:
        """How many rows there are, with some of them; the last two columns are the values of `name`, where one is given."""
        count = self.session.count(frame)
        rows = self.session.rows(frame.select(*columns).sort(*columns).head(_EXAMPLES)) if count else []
        return Difference(what, count, name, tuple(self.example(row, columns, values=bool(name)) for row in rows))

    def nested(self, frame: "Frame", columns: list[str], what: str, *, name: str, sparse: bool) -> Difference:
        """The same of texts that differ, for those that are other values too."""
        count, examples = 0, []
        for row in chain.from_iterable(self.session.batches(frame.select(*columns).sort(*columns[:-2]))):
            if _value(row[-2], sparse=sparse) != _value(row[-1], sparse=sparse):
                count += 1
                if count <= _EXAMPLES:
                    examples.append(self.example(row, columns, values=True))
        return Difference(what, count, name, tuple(examples))

    def example(self, row: tuple[Any, ...], columns: list[str], *, values: bool) -> Example:
        """A row as text; what is personal is hidden."""
        plain = (column.removeprefix(_THERE).removeprefix(_WRITTEN) for column in columns)
        shown = [_HIDDEN if name in self.personal else value for name, value in zip(plain, row, strict=True)]
        words = ", ".join(str(value) for value in (shown[:-2] if values else shown))
        here, there = (None if value is None else str(value) for value in (shown[-2:] if values else (None, None)))
        return Example(words, here, there)


def _value(text: str | None, *, sparse: bool) -> Any:
    """What a JSON text stands for, to be compared: numbers by value, objects without order, `true` apart from 1."""
    if text is None:
        return None
    try:
        return _tagged(json.loads(text, parse_float=Decimal), sparse=sparse)
    except ValueError:
        return text


def _tagged(value: Any, *, sparse: bool) -> Any:
    if isinstance(value, dict):
        return {name: _tagged(part, sparse=sparse) for name, part in value.items() if not (sparse and part is None)}
    if isinstance(value, list):
        return [_tagged(part, sparse=sparse) for part in value]
    return ("boolean", value) if isinstance(value, bool) else ("", value)
