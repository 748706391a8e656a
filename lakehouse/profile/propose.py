"""Propose: from a trial to a declaration, with what would be refused and the texts of its two modules.

trial ─▶ columns ─▶ key, order ─▶ rules as warnings ─▶ Proposal: five rows, counts, module, test
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.landing.sources.database import SqlTable
from lakehouse.profile import invent, render
from lakehouse.profile.columns import Measured, measured, typed
from lakehouse.profile.database import database_source
from lakehouse.profile.dialect import Dialect
from lakehouse.profile.keys import Key, is_named, key_of
from lakehouse.profile.personal import masked, shown
from lakehouse.profile.trial import Trial, silver_rows, storage_of
from lakehouse.tables.spec import (
    AirbyteStream,
    Csv,
    DeltaSource,
    RowRule,
    TableRule,
    accepted_values,
    in_range,
    matches,
    min_rows,
    not_null,
)

_ROWS = 5
#: A rule's name is the column's with its kind before it, and has at most 63 letters.
_NAMED = 45
_SHAPES = {
    "CPF": (r"^[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}$", "999.999.999-99"),
    "CNPJ": (r"^[0-9A-Z]{2}\.?[0-9A-Z]{3}\.?[0-9A-Z]{3}/?[0-9A-Z]{4}-?[0-9]{2}$", "99.999.999/9999-99"),
}


@dataclass(frozen=True)
class Hints:
    """What a source itself knows of its fields.

    Args:
        types: in the words of the specs, by field.
        key: the columns of its key.
        filled: columns that it stores no null in.
        exact: what the source calls those types of which every value is one.
        about: what was found of the source as a whole.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    filled: frozenset[str] = frozenset()
    exact: Mapping[str, str] = field(default_factory=dict)
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A declaration with what it would make of the source.

    Args:
        refused: records of bronze that silver would refuse.
        first: five rows as texts, what is personal as its shape.
        module, test: the texts of the two files.
    """

    trial: Trial
    declaration: render.Declaration
    refused: int
    first: Sequence[Mapping[str, str]]
    module: str
    test: str


def propose(
    session: DuckDBSession,
    trial: Trial,
    dialect: Dialect,
    *,
    origin: str,
    folder: Path,
    hints: Hints | None = None,
    database: SqlTable | None = None,
) -> Proposal:
    """The table that a trial's files would be.

    Args:
        origin: the source's name for the texts.
        folder: a position for the scratch lake of the invented records.
        database: the table of a database that the files are of, which the declaration then asks itself.
    """
    hints = hints or Hints()
    comma = dialect.csv is not None and dialect.csv.delimiter == ";"
    columns, refused = measured(session, trial, comma=comma, known=hints.types, exact=hints.exact)
    key = key_of(session, trial, columns, known=hints.key, rows=bool(hints.exact))
    declaration = render.Declaration(
        name=trial.name,
        origin=origin,
        source=trial.source if database is None else database_source(trial.name, database, key),
        columns=columns,
        key=key,
        rules=tuple(_rules(columns, key, trial.rows, filled=hints.filled)),
        rows=trial.rows,
        about=(*dialect.evidence, *hints.about),
    )
    test = _test(session, trial, declaration, folder, like_csv=dialect.kind == "csv")
    return Proposal(trial, declaration, refused, _first(session, trial, columns), render.module(declaration), test)


def _rules(
    columns: Sequence[Measured], key: Key, rows: int, *, filled: Collection[str] = ()
) -> Iterator[RowRule | TableRule | str]:
    """Rules as warnings, which hold for all that was delivered; those that a database has too; what may be one as a comment."""
    always = [one for one in columns if one.filled == rows and one.name not in key.columns and len(one.name) <= _NAMED]
    declared = [one for one in always if one.name in filled]
    if declared:
        yield "the database declares these NOT NULL"
    yield from (not_null(one.name) for one in declared)
    always = [one for one in always if one not in declared]
    if always and rows > 1:
        yield f"{len(always)} of {len(columns)} columns have a value in each of {rows:,} records"
    yield from (not_null(one.name, action="warn") for one in always if rows > 1)
    for one in (one for one in columns if len(one.name) <= _NAMED):
        if one.column.type == "string":
            yield from _of_text(one)
        elif not one.column.personal and _is_amount(one, key):
            yield f"`{one.name}`: none of {one.filled:,} values is below zero, the largest is {one.maximum}"
            yield in_range(one.name, minimum=0, action="warn")
        elif one.column.type in ("date", "timestamp") and one.minimum is not None:
            yield f"`{one.name}`: from {one.minimum:%Y-%m-%d} to {one.maximum:%Y-%m-%d}"
    for one in columns:
        if re.search(r"(^|_)(deleted|excluido|removido|apagado|cancelado)(_|$)", one.name):
            yield f'`{one.name}` may mark rows that are gone: deleted="{one.name} IS NOT NULL"'
    yield min_rows(1)


def _of_text(one: Measured) -> Iterator[RowRule | str]:
    if one.values and not one.guess.shape.startswith(("[", "{")):
        yield f"`{one.name}`: {len(one.values)} different values in {one.filled:,} records"
        yield accepted_values(one.name, *one.values, action="warn")
    pattern, _ = _SHAPES.get(one.guess.about.kind, ("", ""))
    if pattern:
        yield matches(one.name, pattern, action="warn")


def _is_amount(one: Measured, key: Key) -> bool:
    number = one.column.type in ("bigint", "int", "double") or one.column.type.startswith("decimal")
    return number and one.name not in key.columns and not is_named(one.name) and one.minimum is not None and one.minimum >= 0


def _first(session: DuckDBSession, trial: Trial, columns: Sequence[Measured]) -> list[dict[str, str]]:
    names = [one.name for one in columns]
    relation = typed(session, trial, [one.column for one in columns]).to_native().select(", ".join(map(quoted, names)))
    out = []
    for row in relation.limit(_ROWS).fetchall():
        values = zip(columns, row, strict=True)
        out.append({one.name: "" if value is None else _shown(one, value) for one, value in values})
    return out


def _shown(one: Measured, value: Any) -> str:
    if one.column.personal:
        return shown(masked(str(value)), hidden=False, limit=24)
    if one.column.type == "timestamp":
        return f"{value:%Y-%m-%d %H:%M:%SZ}"
    return shown(str(value), hidden=False, limit=24)


def _test(session: DuckDBSession, trial: Trial, declaration: render.Declaration, folder: Path, *, like_csv: bool) -> str:
    """The test, with what its records really become in a scratch lake."""
    source = declaration.source
    if isinstance(source, DeltaSource):
        return _delta_test(session, declaration, folder)
    rows = invent.records([one for one in declaration.columns if one.name not in trial.hive], declaration.key)
    hive = {one.name: one.values[0] if one.values else "1" for one in declaration.columns if one.name in trial.hive}
    below = "".join(f"{name}={value}/" for name, value in hive.items())
    position = declaration.folder
    dialect = getattr(source, "csv", None) or Csv()
    if isinstance(source, AirbyteStream):
        rows = [{"_airbyte_raw_id": f"r{n}", **_ENVELOPE, "_airbyte_data": row} for n, row in enumerate(rows, start=1)]
    if like_csv and not isinstance(source, AirbyteStream):
        name, landed, encoding = "tres.csv", invent.csv_text(rows, dialect), dialect.encoding
    else:
        name, landed, encoding = "2024_03_14_1710408600000_0.jsonl", _lines(rows), ""
    storage = storage_of(folder)
    target = folder / "landing" / "raw" / position / below / name
    target.parent.mkdir(parents=True)
    target.write_bytes(landed.encode(encoding or "utf-8"))
    spec = render.spec_of(declaration)
    if spec.sync == "overwrite":
        storage.complete(position, 1)
    expected = _texts(silver_rows(session, storage, spec))
    content = f"LANDED.encode({render.quoted(encoding)})" if encoding not in ("", "utf-8") else "LANDED"
    put = [render.quoted(position), render.quoted(below + name), content]
    return render.test_module(declaration, landed=landed, put=put, expected=expected)


def _delta_test(session: DuckDBSession, declaration: render.Declaration, folder: Path) -> str:
    """The same of a table of another writer: its invented records are a Delta table."""
    landed = _lines(invent.records(declaration.columns, declaration.key))
    spec = invent.as_delta(render.spec_of(declaration), landed, folder / "delta")
    expected = silver_rows(session, storage_of(folder), spec)
    return render.test_module(declaration, landed=landed, put=(), expected=_texts(expected))


def _texts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{column: _plain(value) for column, value in row.items()} for row in rows]


_ENVELOPE = {"_airbyte_extracted_at": 1710408600000, "_airbyte_meta": {"changes": []}, "_airbyte_generation_id": 1}


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _plain(value: Any) -> str:
    """A value as the test compares it: instants in UTC, decimals in full."""
    from datetime import UTC, datetime
    from decimal import Decimal

    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
