"""The tables and queries of a declared database, one after the other: each is read, and lands.

Table(cursor=...)          ─▶ rows from the cursor and its overlap on ─▶ what is new (`extract.py`)
Table(cursor=None), Query  ─▶ all rows ─▶ a generation, where they have changed (`generation.py`)
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.sources.catalogue import CursorKind
from lakehouse.landing.sources.cursors import cursor
from lakehouse.landing.sources.database import SqlTable, reading
from lakehouse.landing.sources.extract import Landed, land
from lakehouse.landing.sources.generation import land_generation
from lakehouse.landing.sources.window import Point, Window
from lakehouse.tables.spec import Database, Query, Table
from lakehouse.tables.spec.setting import plain

if TYPE_CHECKING:
    from lakehouse.landing.sources.registry import Work


def take(system: Database, work: "Work") -> Mapping[str, Landed]:
    """Read all of a database's tables and queries, and land them. A table that is refused stops no other.

    Raises:
        SourceDownError: the database does not answer; what was read before has landed.
        SourceRefusedError: some were refused; the others have landed.
    """
    found: dict[str, Landed] = {}
    refused: list[SourceRefusedError] = []
    for one in system.tables:
        try:
            found[one.name] = _query(system, one, work) if isinstance(one, Query) else _table(system, one, work)
        except SourceRefusedError as error:
            refused.append(error)
    if len(refused) > 1:
        raise SourceRefusedError(" ".join(error.what for error in refused), remedy=refused[0].remedy)
    if refused:
        raise refused[0]
    return found


def _table(system: Database, table: Table, work: "Work") -> Landed:
    folder = system.folder(table)
    landed = work.storage.landed(folder)
    source = SqlTable(
        url=plain(system.url),
        table=table.name,
        schema=table.schema,
        cursor=table.cursor,
        timezone=table.timezone,
        setting=work.setting,
    )
    started = datetime.now(UTC)
    kind: CursorKind = "instant"
    with reading(source.url, f"The table {table.name}", setting=work.setting, deadline=work.deadline) as reader:
        known = reader.catalogue(source)
        if table.cursor is not None:
            kind = known.cursor_kind(table.cursor, table.name)
        since = _since(system, table, landed, kind, window=work.window) if table.cursor is not None else None
        staged = reader.table(source, known, work.scratch(folder), since=since)
    zones = dict.fromkeys(known.local, table.timezone) if table.timezone else {}
    if table.cursor is None:
        return land_generation(work.session, work.storage, folder, staged, started=started, landed=landed, zones=zones)
    return land(
        work.session,
        work.storage,
        folder,
        staged,
        cursor_field=table.cursor,
        started=started,
        landed=landed,
        kind=kind,
        zones=zones,
        window=work.window,
    )


def _query(system: Database, query: Query, work: "Work") -> Landed:
    folder = system.folder(query)
    landed = work.storage.landed(folder)
    started = datetime.now(UTC)
    with reading(plain(system.url), f"The query {query.name}", setting=work.setting, deadline=work.deadline) as reader:
        staged = reader.query(query.statement, work.scratch(folder))
    return land_generation(work.session, work.storage, folder, staged, started=started, landed=landed, key=query.key)


def _since(system: Database, table: Table, landed: list[LandedFile], kind: CursorKind, *, window: Window) -> Point | None:
    """From where on to ask: how far complete extractions came, and the overlap before it; None for everything.

    Raises:
        SourceRefusedError: a window of time is asked of a table that counts by numbers.
    """
    reached = cursor(landed, kind)
    if kind == "instant":
        return window.begin(reached if isinstance(reached, datetime) else None, overlap=system.overlap)
    if window.since is not None or window.until is not None:
        raise SourceRefusedError(
            f"The table {table.name} counts by {table.cursor}, a number: it has no {window}.",
            remedy="Ask for what is new, or for everything with FULL=1.",
        )
    return None if window.all or not isinstance(reached, int) else reached - table.overlap
