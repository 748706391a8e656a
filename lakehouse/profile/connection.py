"""Connections: what a URL leads to, and what it would be declared as: the resources of an API, the tables of a database.

URL of an OpenAPI description, or its file ─▶ openapi.py ─▶ RestApi, a TableSpec for each resource
URL of a database ─▶ its catalogue                       ─▶ Database, a TableSpec for each table
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lakehouse.core.errors import DeclarationError
from lakehouse.core.sql import parse_url
from lakehouse.landing.sources.catalogue import Catalogue, catalogue, everything, tables
from lakehouse.landing.sources.database import reading
from lakehouse.profile.openapi import CHANGED, Listed, described, parsed
from lakehouse.profile.trial import plain_name
from lakehouse.tables.spec import Column, Database, RestApi, SourceSystem, Table, TableSpec, min_rows, not_null, setting

_CAP, _SECONDS = 32_000_000, 60.0

_ODD = "its name is none that is read here"

Declared = tuple[SourceSystem, list[TableSpec], dict[str, str]]


@dataclass(frozen=True)
class Found:
    """What a URL leads to.

    Args:
        title: what it is, for people; no credentials.
        name: of the source.
        url: what the source's setting is to be.
        lines: what can be declared, by name, each with what is known of it.
        passed_over: what cannot, and why.
        declare: makes the declaration of those named: the system, its tables, and comments by stream.
    """

    title: str
    name: str
    url: str
    lines: Mapping[str, str]
    passed_over: Sequence[tuple[str, str]]
    declare: Callable[[Sequence[str]], Declared]


def look(url: str, *, name: str = "") -> Found:
    """What a URL leads to.

    Args:
        name: of the source; after the API or the database by default.

    Raises:
        DeclarationError: it is no URL of either, or what is there describes no API.
        SourceError: it does not answer, or refuses.
    """
    if not url.strip():
        raise DeclarationError("URL is empty.", remedy="Give URL=https://host/openapi.json, or URL=postgresql://user@host/db.")
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return _api(_fetched(url), url, name)
    if "://" not in url:
        path = Path(url).expanduser()
        if not path.is_file():
            raise DeclarationError(f"There is no file {path.name}.", remedy="Give a URL, or the file of an OpenAPI description.")
        return _api(path.read_bytes(), "", name)
    return _database(url, name)


# --- APIs --------------------------------------------------------------------------------------------------------------


def _fetched(url: str) -> bytes:
    from lakehouse.landing.sources.fetch import Endpoint, ask, new_session, shown

    with new_session() as session:
        return ask(session, url, Endpoint(shown(url), "URL"), seconds=_SECONDS, cap=_CAP, follow=True).body


def _api(body: bytes, url: str, name: str) -> Found:
    document = parsed(body)
    own = name or plain_name(str(document.get("info", {}).get("title", "")) if isinstance(document, dict) else "", ()) or "api"
    prefix = own.upper()
    found = described(document, url, prefix=prefix)
    if not urlsplit(found.url).hostname:
        raise DeclarationError(
            "The description does not say where the API is.", remedy="Give its URL instead of the file, or write servers into it."
        )
    listed = {one.name: one for one in found.listed}

    def declare(wanted: Sequence[str]) -> Declared:
        _refuse_unknown(wanted, listed)
        parents = [listed[one].resource.parent for one in wanted if listed[one].resource.parent]
        chosen = [one for one in listed if one in {*wanted, *parents}]
        system = RestApi(
            own,
            description=f"What the API {found.title or own} lists.",
            url=setting(f"{prefix}_URL", description=f"the API {found.title or own}"),
            auth=found.auth,
            resources=tuple(listed[one].resource for one in chosen),
        )
        tables = [_table_of(listed[one], system, listed) for one in chosen if one in wanted]
        return system, tables, {one: "; ".join(listed[one].evidence) for one in chosen if listed[one].evidence}

    title = f"The API {found.title or own}"
    return Found(title, own, found.url, {n: _line(one) for n, one in listed.items()}, found.passed_over, declare)


def _line(one: Listed) -> str:
    what = [f"{one.resource.path}", f"{len(one.fields)} fields", f"key {one.key}" if one.key else "no key", *one.evidence]
    return "; ".join(what)


def _table_of(one: Listed, system: RestApi, listed: Mapping[str, Listed]) -> TableSpec:
    columns: list[Column] = []
    parent = one.resource.parent
    kinds = {field.name: field.type for field in listed[parent].fields} if parent else {}
    for name in one.resource.fields:
        columns.append(Column(plain_name(f"{parent}_{name}", ()), kinds.get(name, "string"), description=f"Of its {parent}."))
    for field in one.fields:
        own = plain_name(field.name, [column.name for column in columns])
        columns.append(Column(own, field.type, source=None if own == field.name else field.name, description=field.description))
    by_source = {column.field: column.name for column in columns}
    changed = next((by_source[name] for name in by_source if name.lower().replace("-", "_") in CHANGED), "")
    return _spec(
        system,
        one.name,
        columns,
        key=[by_source[one.key]] if one.key in by_source else [],
        changed=changed,
    )


# --- databases ---------------------------------------------------------------------------------------------------------


def _database(url: str, name: str) -> Found:
    address, _, schema = url.partition("#")
    database = parse_url(address, setting="URL").database or ""
    own = name or plain_name(Path(database or "banco").stem, ())
    with reading(address, "The tables", setting="URL", deadline=time.monotonic() + _SECONDS) as reader:
        known = {table: catalogue(reader.connection, table, schema) for table in tables(reader.connection, schema)}
        odd = sorted({*everything(reader.connection, schema)} - {*known})
    cursors = {table: _cursor(found) for table, found in known.items()}

    def declare(wanted: Sequence[str]) -> Declared:
        _refuse_unknown(wanted, known)
        system = Database(
            own,
            description=f"What the database {Path(database).stem or own} has.",
            url=setting(f"{own.upper()}_URL", secret=True, description=f"the database {own}: any SQLAlchemy URL"),
            tables=tuple(Table(one, cursor=cursors[one] or None, schema=schema) for one in wanted),
        )
        made = [_rows_of(system, one, known[one], cursors[one]) for one in wanted]
        return system, made, {one: _why(cursors[one]) for one in wanted}

    lines = {
        one: "; ".join([f"{len(found.columns)} columns", f"key {', '.join(found.key) or 'none'}", _why(cursors[one])])
        for one, found in known.items()
    }
    return Found(f"The database {Path(database).stem or own}", own, address, lines, [(one, _ODD) for one in odd], declare)


def _cursor(table: Catalogue) -> str:
    """The column that says when a row was last written; empty where none is called so."""
    dated = {name for name, column in table.columns.items() if column.family in ("day", "local", "instant", "text")}
    return next((name for name in CHANGED if name in dated), "")


def _why(cursor: str) -> str:
    return f"{cursor} says what is new" if cursor else "read whole by each run"


def _rows_of(system: Database, table: str, known: Catalogue, cursor: str) -> TableSpec:
    columns: list[Column] = []
    for given, column in known.columns.items():
        called = plain_name(given, [each.name for each in columns])
        columns.append(Column(called, column.type or "string", source=None if called == given else given))
    by_source = {column.field: column.name for column in columns}
    key = [by_source[column] for column in known.key]
    never = [by_source[name] for name, column in known.columns.items() if not column.nullable and by_source[name] not in key]
    return _spec(system, table, columns, key=key, changed=by_source.get(cursor, ""), never_null=never, whole=not cursor)


# --- both --------------------------------------------------------------------------------------------------------------


def _spec(
    system: SourceSystem,
    stream: str,
    columns: Sequence[Column],
    *,
    key: Sequence[str],
    changed: str,
    never_null: Sequence[str] = (),
    whole: bool = False,
) -> TableSpec:
    order = [changed] if changed else [*key]
    shared: dict[str, Any] = {
        "name": f"{system.name}_{stream}",
        "description": f"Records of {stream} of {system.name}.",
        "source": system.stream(stream),
        "columns": tuple(columns),
        "rules": (*map(not_null, never_null), min_rows(1, action="warn")),
    }
    if whole:
        return TableSpec(**shared, sync="overwrite", key=tuple(key), order=tuple(order))
    return TableSpec(**shared, key=tuple(key), order=tuple(order)) if key else TableSpec(**shared, sync="append")


def _refuse_unknown(wanted: Sequence[str], known: Any) -> None:
    if odd := [one for one in wanted if one not in known]:
        raise DeclarationError(f"There is no {odd[0][:80]!r} to declare.", remedy=f"Use some of {', '.join([*known][:20])}.")
