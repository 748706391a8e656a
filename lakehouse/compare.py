"""`make compare TABLE=vendas WITH=<uri>`: does another Delta table say the same as ours, by key and column?

For whoever moves here from another flow: the old flow's table beside the silver table. What differs in type is compared as a
value of our type, so `10.5` as a text equals `10.5000` as a decimal. Columns that only one side has are named and left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import narwhals as nw

from lakehouse.core import files
from lakehouse.core.delta import Snapshot, open_existing
from lakehouse.core.engines import Session, duckdb_session
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.lake import scratch
from lakehouse.repair import declared
from lakehouse.settings import load_settings
from lakehouse.tables.spec import TableSpec

_EXAMPLES = 3
_THERE, _HERE, _HIDDEN = "_there_", "_here", "***"


def compare(table: str, place: str) -> int:
    """Print what differs; 0 when nothing does, 1 otherwise.

    Raises:
        DeclarationError: `place` is neither an absolute folder nor in a bucket, or the tables share no key.
        BrokenTableError: one of the tables is not there, or damaged.
    """
    spec, settings = declared(table), load_settings()
    if not files.is_remote(place):
        place = str(Path(place).expanduser())
        if not Path(place).is_absolute():
            raise DeclarationError(
                f"{place!r} is not an absolute folder.", remedy="Give WITH=/path/to/table or s3://bucket/table."
            )
    mine, theirs = (_open(uri) for uri in (settings.storage.uri(spec.silver), place.rstrip("/")))
    if not spec.key:
        raise DeclarationError(f"{spec.silver} has no key to compare rows by.", remedy="Compare a table that has one.")
    missing = [name for name in spec.key if name not in theirs.columns]
    if missing:
        raise DeclarationError(f"{place} has no column {', '.join(missing)}.", remedy=f"The key of {spec.name} is needed there.")
    print(f"here:  {mine.uri}, version {mine.version}, {mine.rows:,} rows")
    print(f"there: {theirs.uri}, version {theirs.version}, {theirs.rows:,} rows")
    folders = [*settings.storage.folders(), *([] if files.is_remote(place) else [place])]
    with (
        scratch(settings.spill) as spill,
        duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=folders) as session,
    ):
        return _differences(session, spec, mine, theirs)


def _open(uri: str) -> Snapshot:
    found = open_existing(uri)
    if found is None:
        raise BrokenTableError(f"There is no Delta table in {uri}.", remedy="Look at WITH, or materialise the table first.")
    return found


def _differences(session: Session, spec: TableSpec, mine: Snapshot, theirs: Snapshot) -> int:
    shared = [name for name in mine.columns if name in theirs.columns]
    key, values = list(spec.key), [name for name in shared if name not in spec.key]
    for where, names in (("here", set(mine.columns) - set(shared)), ("there", set(theirs.columns) - set(shared))):
        if names:
            print(f"only {where}: column {', '.join(sorted(names))}")
    here = session.read(mine.paths(), {name: mine.columns[name] for name in shared})
    there = _as_ours(session, theirs, {name: mine.columns[name] for name in shared})
    repeated = there.group_by(*[_THERE + name for name in key]).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    doubled = _count(session, repeated)
    joined = here.with_columns(nw.lit(True).alias(_HERE)).join(
        there.with_columns(nw.lit(True).alias(_THERE)), left_on=key, right_on=[_THERE + name for name in key], how="full"
    )
    joined = session.keep(joined)
    both = joined.filter(~nw.col(_HERE).is_null() & ~nw.col(_THERE).is_null())
    personal = {column.name for column in spec.columns if column.personal}
    found = [
        _say(session, joined.filter(nw.col(_THERE).is_null()), key, "rows are only here", personal),
        _say(session, joined.filter(nw.col(_HERE).is_null()), [_THERE + n for n in key], "rows are only there", personal),
        _tell(doubled, "keys occur more than once there", []),
    ]
    for name in values:
        a, b = nw.col(name), nw.col(_THERE + name)
        differs = (a != b).fill_null(False) | (a.is_null() & ~b.is_null()) | (~a.is_null() & b.is_null())
        found.append(
            _say(session, both.filter(differs), [*key, name, _THERE + name], f"rows differ in {name}", personal, names=len(key))
        )
    same = _count(session, both)
    print(f"{same:,} rows are in both; {len(values)} columns were compared" + ("" if any(found) else ", and nothing differs"))
    return int(any(found))


def _as_ours(session: Session, theirs: Snapshot, columns: Mapping[str, str]) -> "nw.LazyFrame[Any]":
    """The other table's columns as values of our types, each under `_there_<name>`."""
    frame = session.read(theirs.paths(), {name: theirs.columns[name] for name in columns})
    other = {name: kind for name, kind in columns.items() if theirs.columns[name] != kind}
    if other:
        text = frame.with_columns(*[nw.col(name).cast(nw.String).alias(f"_text_{name}") for name in other]).drop(*other)
        frame = session.cast(text, {name: (f"_text_{name}", kind) for name, kind in other.items()})
    return frame.select(*[nw.col(name).alias(_THERE + name) for name in columns])


def _say(
    session: Session, frame: "nw.LazyFrame[Any]", columns: list[str], what: str, personal: set[str], *, names: int = 0
) -> int:
    """Print how many rows there are, with some of them; the columns after the first `names` are the two values."""
    count = _count(session, frame)
    examples = []
    for row in session.rows(frame.select(*columns).sort(*columns).head(_EXAMPLES)) if count else ():
        shown = [
            _HIDDEN if column.removeprefix(_THERE) in personal else value for column, value in zip(columns, row, strict=True)
        ]
        words = ", ".join(str(value) for value in shown[: names or len(shown)])
        examples.append(f"{words}: {shown[-2]} here, {shown[-1]} there" if names else words)
    return _tell(count, what, examples)


def _tell(count: int, what: str, examples: list[str]) -> int:
    if count:
        print(f"{count:,} {what}" + "".join(f"\n    {example}" for example in examples))
    return count


def _count(session: Session, frame: "nw.LazyFrame[Any]") -> int:
    return int(session.rows(frame.select(nw.len().alias("n")))[0][0])
