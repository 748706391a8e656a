"""`make compare [TABLE=vendas] WITH=<uri>`: does another flow's table have the same rows as ours, or its lake the same tables?

For whoever moves here from another flow: the old flow's table beside the silver table, or, without TABLE, every table of the old
lake beside ours. The other lake is read as its protocol says (`core/table/foreign.py`), and never written.

Exit code 0: nothing differs; 1: something does, or a table is only in the other lake; 2: a table cannot be compared.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.commands.parity import report as reported
from lakehouse.commands.parity.lake import Pair, pairs
from lakehouse.commands.parity.report import Entry, Report
from lakehouse.commands.parity.rows import Comparison, compared
from lakehouse.commands.tables import declared
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError
from lakehouse.core.names import check_timezone, is_remote
from lakehouse.core.store import files
from lakehouse.core.table.foreign import require_foreign
from lakehouse.core.table.foreign_lake import location_of, tables_below
from lakehouse.core.table.snapshot import require_table
from lakehouse.settings import Settings, load_settings
from lakehouse.tables.spec import TableSpec, with_histories

app = typer.Typer()
_REMEDY = "Look at WITH, or materialise the table first."


@app.command()
def compare(
    table: Annotated[str, typer.Argument(help="a declared table, e.g. vendas; left out to compare a lake", metavar="[TABLE]")],
    location: Annotated[
        str | None, typer.Argument(help="another Delta table or lake: a folder, or s3://...", metavar="WITH")
    ] = None,
    timezone: Annotated[str, typer.Option(help="of instants in its partition values that have none")] = "",
    json_path: Annotated[str, typer.Option("--json", help="also write the report here, as JSON")] = "",
    html: Annotated[str, typer.Option(help="also write the report here, as a page")] = "",
) -> int:
    """Compare silver with another Delta table, or with a lake of them, by key and column; exit code 1 when something differs."""
    settings = load_settings()
    table, location = ("", table) if location is None else (table, location)
    there = location_of(location, setting="WITH")
    if timezone:
        check_timezone(timezone, "TIMEZONE")
    for target, setting in ((json_path, "JSON"), (html, "HTML")):
        _check_target(target, there, setting)
    found = (
        _of_table(declared(table, histories=True), there, settings, timezone) if table else _of_lake(there, settings, timezone)
    )
    if json_path or html:
        made = reported.document(found, at=datetime.now(UTC))
        if json_path:
            files.put(_target(json_path), (json.dumps(made, ensure_ascii=False, indent=1) + "\n").encode())
        if html:
            from lakehouse.reports.paridade_page import render

            files.put(_target(html), render(made).encode())
    return found.code


def _of_table(spec: TableSpec, location: str, settings: Settings, timezone: str) -> Report:
    """One table beside another one; what cannot be compared is raised."""
    comparison = _compared(spec, location, settings, timezone)
    print("\n".join(reported.lines(comparison)))
    return Report(settings.storage.uri(spec.silver), location, [Entry(str(spec.silver), location, "", comparison)])


def _of_lake(location: str, settings: Settings, timezone: str) -> Report:
    """Every table of the other lake beside ours, one after the other."""
    specs = with_histories(*settings.tables)
    found = [*pairs([*tables_below(location)], specs, location=location)]
    if not found:
        raise BrokenTableError(f"There is no Delta table in {location} or below it.", remedy="Look at WITH.")
    entries = [_entry(pair, pair.spec, settings, timezone) for pair in found if pair.spec is not None]
    here = {spec.silver for spec in specs} - {pair.spec.silver for pair in found if pair.spec is not None}
    report = Report(
        settings.storage.root,
        location,
        entries,
        sorted(str(ref) for ref in here if settings.storage.has(ref)),
        [pair for pair in found if pair.spec is None],
    )
    print("\n".join(reported.summary(report)))
    return report


def _entry(pair: Pair, spec: TableSpec, settings: Settings, timezone: str) -> Entry:
    """The comparison of one pair, printed; what cannot be compared is a line of the report."""
    print(f"{spec.silver} and {pair.path}" + (", which it is made of" if pair.by == "source" else ""))
    try:
        comparison = _compared(spec, pair.uri, settings, pair.timezone or timezone)
    except (BrokenTableError, DeclarationError, ForeignTableError) as error:
        print(f"    cannot be compared: {error}\n", flush=True)
        return Entry(str(spec.silver), pair.path, pair.by, refusal=str(error))
    print("\n".join(f"    {line}" for line in reported.lines(comparison)) + "\n", flush=True)
    return Entry(str(spec.silver), pair.path, pair.by, comparison)


def _compared(spec: TableSpec, location: str, settings: Settings, timezone: str) -> Comparison:
    from lakehouse.core.store.scratch import scratch

    uri = settings.storage.uri(spec.silver)
    mine = require_table(uri, uri, remedy=_REMEDY)
    theirs = require_foreign(location, timezone=timezone, remedy=_REMEDY)
    with (
        scratch(settings.spill) as spill,
        duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=settings.storage.folders()) as session,
    ):
        return compared(session, spec, mine, theirs)


def _check_target(path: str, location: str, setting: str) -> None:
    """Refuse a report in the lake that is only read, and what is meant as a switch."""
    if path == "1":
        raise DeclarationError(f"{setting}=1 names no file.", remedy=f"Give {setting}=parity.{setting.lower()}.")
    if path and f"{_target(path)}/".startswith(f"{location}/"):
        raise DeclarationError(
            f"{setting}={path} is in the lake that is compared.", remedy="Nothing is written there: give another."
        )


def _target(path: str) -> str:
    return path if is_remote(path) else str(Path(path).expanduser().resolve())
