"""`make compare TABLE=vendas WITH=<uri>`: does another Delta table say the same as ours, by key and column?

For whoever moves here from another flow: the old flow's table beside the silver table. The other table is read as its protocol
says (`core/table/foreign.py`). What differs in type is compared as a value of our type, so `10.5` as a text equals `10.5000`
as a decimal. Only decimals are rounded: 5.5 is not the whole number 6. What is no value of our type differs from every value
and from null. A nested value equals the JSON text of the same value. Columns that only one side has are named and left out.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.commands.options import Table
from lakehouse.commands.tables import declared
from lakehouse.core.engines.casts import Cast
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_timezone, column_name, is_remote
from lakehouse.core.table.foreign import NESTED, ForeignTable, require_foreign
from lakehouse.core.table.snapshot import Snapshot, require_table, spec_type
from lakehouse.settings import load_settings
from lakehouse.tables.spec import TableSpec

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.duckdb import DuckDBSession

app = typer.Typer()
_EXAMPLES = 3
_THERE, _WRITTEN, _HERE, _HIDDEN = "_there_", "_written_", "_here", "***"
_REMEDY = "Look at WITH, or materialise the table first."


@app.command()
def compare(
    table: Table,
    location: Annotated[str, typer.Argument(help="another Delta table: a folder, or s3://...")],
    timezone: Annotated[str, typer.Option(help="of instants in its partition values that have none")] = "",
) -> int:
    """Compare a silver table with another Delta table, by key and column; exit code 1 when something differs."""
    from lakehouse.runtime.lake import scratch

    spec, settings = declared(table), load_settings()
    if not is_remote(location):
        location = str(Path(location).expanduser())
        if not Path(location).is_absolute():
            raise DeclarationError(
                f"{location!r} is not an absolute folder.", remedy="Give WITH=/path/to/table or s3://bucket/table."
            )
    if timezone:
        check_timezone(timezone, "TIMEZONE")
    uri = settings.storage.uri(spec.silver)
    mine = require_table(uri, uri, remedy=_REMEDY)
    theirs = require_foreign(location.rstrip("/"), timezone=timezone, remedy=_REMEDY)
    if not spec.key:
        raise DeclarationError(f"{spec.silver} has no key to compare rows by.", remedy="Compare a table that has one.")
    names = _shared(mine, theirs)
    missing = [name for name in spec.key if name not in names]
    if missing:
        raise DeclarationError(
            f"{location} has no column {', '.join(missing)}.", remedy=f"The key of {spec.name} is needed there."
        )
    with (
        scratch(settings.spill) as spill,
        duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=settings.storage.folders()) as session,
    ):
        return _differences(session, spec, mine, theirs, names=names)


def _shared(mine: Snapshot, theirs: ForeignTable) -> dict[str, str]:
    """Our columns that the other table has too, each with its name there: the same, or one that bronze would call so."""
    named = {column_name(name): name for name in theirs.kinds}
    found = {name: name if name in theirs.kinds else named.get(name) for name in mine.columns}
    return {name: there for name, there in found.items() if there is not None}


def _differences(
    session: "DuckDBSession", spec: TableSpec, mine: Snapshot, theirs: ForeignTable, *, names: Mapping[str, str]
) -> int:
    import narwhals as nw

    key, values = list(spec.key), [name for name in names if name not in spec.key]
    columns = {name: mine.columns[name] for name in names}
    there = _as_ours(session, theirs, columns, names=names)
    print(f"here:  {mine.uri}, version {mine.version}, {mine.rows:,} rows")
    print(f"there: {theirs.uri}, version {theirs.version}, {session.count(there):,} rows")
    for where, only in (("here", set(mine.columns) - set(names)), ("there", set(theirs.kinds) - set(names.values()))):
        if only:
            print(f"only {where}: column {', '.join(sorted(only))}")
    here = session.read(mine.paths(), columns)
    repeated = there.group_by(*[_THERE + name for name in key]).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    doubled = session.count(repeated)
    joined = here.with_columns(nw.lit(True).alias(_HERE)).join(
        there.with_columns(nw.lit(True).alias(_THERE)), left_on=key, right_on=[_THERE + name for name in key], how="full"
    )
    joined = session.persist(joined)
    both = joined.filter(~nw.col(_HERE).is_null() & ~nw.col(_THERE).is_null())
    personal = {column.name for column in spec.columns if column.personal}
    found = [
        _report(session, joined.filter(nw.col(_THERE).is_null()), key, "rows are only here", personal),
        _report(session, joined.filter(nw.col(_HERE).is_null()), [_THERE + n for n in key], "rows are only there", personal),
        _tell(doubled, "keys occur more than once there", []),
    ]
    for name in values:
        kind = theirs.kinds[names[name]]
        written = (_THERE if spec_type(kind) == columns[name] else _WRITTEN) + name
        a, b, text = nw.col(name), nw.col(_THERE + name), nw.col(written)
        differs = (a != b).fill_null(False) | (a.is_null() & ~text.is_null()) | (~a.is_null() & b.is_null())
        frame, what = both.filter(differs), f"rows differ in {name}"
        if kind in NESTED and columns[name] == "string":
            shown = [*key, name, written]
            found.append(_report_nested(session, frame, shown, what, personal, sparse=NESTED[kind]))
        else:
            found.append(_report(session, frame, [*key, name, written], what, personal, names=len(key)))
    same = session.count(both)
    print(f"{same:,} rows are in both; {len(values)} columns were compared" + ("" if any(found) else ", and nothing differs"))
    return int(any(found))


def _as_ours(
    session: "DuckDBSession", theirs: ForeignTable, columns: Mapping[str, str], *, names: Mapping[str, str]
) -> "nw.LazyFrame[Any]":
    """The other table's columns as `_there_<name>`, values of our types; the text of one of another type as `_written_<name>`.
    Its stream is read once, and what is wrong with it is raised as that."""
    import narwhals as nw

    from lakehouse.core.engines.duckdb_texts import with_texts

    other = {name: kind for name, kind in columns.items() if spec_type(theirs.kinds[names[name]]) != kind}
    with theirs.reading(list(names.values())) as rows:
        frame = with_texts(session.stream(rows), {names[name]: _WRITTEN + name for name in other}, variants=theirs.variants)
        if other:
            frame = session.cast(frame, {_THERE + name: (_WRITTEN + name, _cast_of(kind)) for name, kind in other.items()})
        same = [nw.col(names[name]).alias(_THERE + name) for name in columns if name not in other]
        return session.persist(frame.select(*same, *[_THERE + name for name in other], *[_WRITTEN + name for name in other]))


def _cast_of(kind: str) -> Cast:
    return Cast(kind, rounding="half_up" if kind.startswith("decimal") else "")


def _report(
    session: "DuckDBSession", frame: "nw.LazyFrame[Any]", columns: list[str], what: str, personal: set[str], *, names: int = 0
) -> int:
    """Print how many rows there are, with some of them; the columns after the first `names` are the two values."""
    count = session.count(frame)
    rows = session.rows(frame.select(*columns).sort(*columns).head(_EXAMPLES)) if count else []
    return _tell(count, what, [_example(row, columns, personal, names=names) for row in rows])


def _report_nested(
    session: "DuckDBSession", frame: "nw.LazyFrame[Any]", columns: list[str], what: str, personal: set[str], *, sparse: bool
) -> int:
    """The same of texts that differ, for those that are other values too; the last two columns are the texts."""
    count, examples = 0, []
    ordered = frame.select(*columns).sort(*columns[:-2])
    for row in chain.from_iterable(session.batches(ordered)):
        if _value(row[-2], sparse=sparse) != _value(row[-1], sparse=sparse):
            count += 1
            if count <= _EXAMPLES:
                examples.append(_example(row, columns, personal, names=len(columns) - 2))
    return _tell(count, what, examples)


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


def _example(row: tuple[Any, ...], columns: list[str], personal: set[str], *, names: int) -> str:
    shown = [
        _HIDDEN if column.removeprefix(_THERE).removeprefix(_WRITTEN) in personal else value
        for column, value in zip(columns, row, strict=True)
    ]
    words = ", ".join(str(value) for value in shown[: names or len(shown)])
    return f"{words}: {shown[-2]} here, {shown[-1]} there" if names else words


def _tell(count: int, what: str, examples: list[str]) -> int:
    if count:
        print(f"{count:,} {what}" + "".join(f"\n    {example}" for example in examples))
    return count
