"""`make diff TABLE=vendas_diarias FROM=2026-11-20 [TO=p12]`: what has changed in a table between two moments.

Exit code 0: nothing; 1: rows were added, removed or changed.
"""

from typing import Annotated

import typer

from lakehouse.commands.moments import version_of
from lakehouse.commands.options import AnyTable
from lakehouse.core.store.scratch import scratch
from lakehouse.core.table.snapshot import Snapshot, require_table
from lakehouse.settings import load_settings

app = typer.Typer()
_MOMENT = "a version (7), a day, an instant, a publication (p12) or the beginning of a run's id"


@app.command()
def diff(
    table: AnyTable,
    since: Annotated[str, typer.Option("--from", help=_MOMENT)],
    until: Annotated[str, typer.Option("--to", help=f"{_MOMENT}; as it is now without it")] = "",
) -> int:
    """What rows a table has had added, removed and changed between two moments, with examples."""
    from lakehouse.commands.parity.report import lines
    from lakehouse.commands.parity.rows import between
    from lakehouse.commands.replay import key_of
    from lakehouse.core.engines.session import duckdb_session
    from lakehouse.core.publications import published
    from lakehouse.maintenance.protect import table_of

    settings = load_settings()
    storage = settings.storage
    ref = table_of(table, storage.tables())
    newest = require_table(storage.uri(ref), ref)

    def at(moment: str) -> Snapshot:
        return require_table(newest.uri, ref, version=version_of(storage, ref, newest, moment), remedy="Give a later moment.")

    then, now = at(since), at(until) if until else published(storage, ref) or newest
    key, personal = key_of(settings, ref, now)
    with (
        scratch(settings.spill) as spill,
        duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=storage.folders()) as session,
    ):
        found = between(session, now, then, key=key, personal=personal)
    print(f"{ref}: here is version {now.version}, {now.rows:,} rows; there is version {then.version}, {then.rows:,} rows")
    print("\n".join(list(lines(found))[2:]))
    return 1 if found.differences or found.only_here or found.only_there else 0
