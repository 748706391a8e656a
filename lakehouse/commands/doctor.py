"""`make doctor`: is everything that the settings name there, and does it keep what the lake relies on?"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer

from lakehouse.core.errors import BrokenTableError, LakehouseError
from lakehouse.core.names import LAYERS
from lakehouse.core.store import files
from lakehouse.core.store.conformance import probe
from lakehouse.core.table import torn
from lakehouse.core.table.foreign import open_foreign
from lakehouse.core.table.snapshot import require_table
from lakehouse.settings import Settings, dagster_home, load_settings
from lakehouse.settings.declared import resolved
from lakehouse.tables import SOURCES
from lakehouse.tables.spec import DeltaSource, settings_of
from lakehouse.tables.spec.setting import plain

app = typer.Typer()


@dataclass(frozen=True)
class Finding:
    """What was found of one part. `empty` and `note` are no fault; `WRONG` is one."""

    state: Literal["ok", "empty", "note", "WRONG"]
    message: str

    @property
    def line(self) -> str:
        return f"{self.state:6} {self.message}"


#: Bytes of Dagster's SQLite files from which PostgreSQL serves better: every page of the UI reads them.
_MUCH_HISTORY = 1_000_000_000


@app.command()
def doctor(deep: Annotated[int, typer.Option(min=0, max=1, help="1 also looks at every file of every table")] = 0) -> int:
    """Look whether what the settings name is there and keeps what the lake relies on; exit code 1 when it does not."""
    settings = load_settings()
    found = chain(locations(settings), source_systems(settings), history(dagster_home()), sources(), changed_casts(settings))
    return shown(chain(found, tables(settings)) if deep else found)


def shown(found: Iterator[Finding]) -> int:
    """Print findings as they come, faults to stderr; 1 when there was one."""
    wrong = 0
    for finding in found:
        fault = finding.state == "WRONG"
        print(finding.line, file=sys.stderr if fault else sys.stdout)
        wrong += fault
    return int(bool(wrong))


def tables(settings: Settings) -> Iterator[Finding]:
    """Every table of the lake: its log is read to its end, every data file is there with the size that the log has, and what a
    power cut left of it was set aside."""
    count, live = 0, 0
    for ref in settings.storage.tables():
        count += 1
        uri = settings.storage.uri(ref)
        try:
            table = require_table(uri, ref)
            table.check()
            live += len(table.files)
        except LakehouseError as error:
            yield Finding("WRONG", f"{ref}: {error}")
        if aside := torn.set_aside(uri):
            names = ", ".join(file.name for file in aside)
            yield Finding(
                "note", f"{ref}: a power cut left {names}; they are in {uri}/{torn.ASIDE}, and the table is whole without them"
            )
    yield Finding("ok" if count else "empty", f"{count} tables: {live:,} data files were looked at, one by one")


def history(home: Path) -> Iterator[Finding]:
    """The size of Dagster's SQLite files, where it has any."""
    size = sum(path.stat().st_size for path in home.glob("history/**/*.db"))
    if size > _MUCH_HISTORY:
        advice = "PostgreSQL serves that better (docs/deployment.md), or let old runs go sooner: LAKEHOUSE_HISTORY_DAYS."
        yield Finding("note", f"{home}/history has {size / 1e9:.1f} GB of Dagster's events. {advice}")


def sources() -> Iterator[Finding]:
    """The Delta tables of other writers that tables are made of: what a reader has to apply, and whether it can."""
    from lakehouse.tables import ALL

    declared = {part.origin for spec in ALL for part in spec.parts if isinstance(part.origin, DeltaSource)}
    for source in sorted(declared, key=lambda source: source.name):
        try:
            table = open_foreign(source.uri, timezone=source.timezone)
            if table is None:
                yield Finding("WRONG", f"{source.name}: there is no Delta table in {source.uri}. Look at its DeltaSource.")
                continue
            table.check()
        except LakehouseError as error:
            yield Finding("WRONG", f"{source.name}: {error}")
        else:
            features = f" with {', '.join(table.features)}" if table.features else ""
            yield Finding("ok", f"{source.name} {source.uri}: version {table.version}{features}, {len(table.files):,} files")


def changed_casts(settings: Settings) -> Iterator[Finding]:
    """What the grammar of casts changes in tables with values from before the lake had one of its own."""
    import duckdb

    from lakehouse.core.engines.session import duckdb_session
    from lakehouse.runtime.lake import scratch
    from lakehouse.silver.grammar import affected
    from lakehouse.tables import ALL

    try:
        Path(settings.spill).mkdir(parents=True, exist_ok=True)
        with (
            scratch(settings.spill) as spill,
            duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=settings.storage.folders()) as session,
        ):
            for spec in ALL:
                try:
                    yield from (Finding("note", column.message) for column in affected(session, settings.storage, spec))
                except BrokenTableError as error:  # the other tables are compared all the same
                    yield Finding("WRONG", f"{spec.silver}: {error}")
    except (LakehouseError, OSError, duckdb.Error) as error:  # the faults of store and disk are those of `locations`
        yield Finding("note", f"the casts of the silver tables could not be compared: {error}")


def source_systems(settings: Settings) -> Iterator[Finding]:
    """The settings of the declared source systems: whether each has what it needs to be asked. Nothing is asked here."""
    for declared, found in zip(SOURCES, settings.sources, strict=True):
        what, url = f"source {declared.name}", declared.address
        if plain(found.url):
            named = {one.name: resolved(one, settings.declared, settings.env) for one in settings_of(declared)}
            unset = [name for name, value in named.items() if name != url and plain(value) == ""]
            without = f"; {', '.join(unset)}: not set" if unset else ""
            yield Finding("ok", f"{what}: {url} is set{without}")
        elif settings.profile.samples and declared.sample:
            yield Finding("ok", f"{what}: its sample stands in for {url}")
        else:
            yield Finding("note", f"{what}: {url} is not set, so landing/{declared.name} fails. Set it in .env.")


def locations(settings: Settings) -> Iterator[Finding]:
    """The places of the lake, of landed files, of what does not fit in memory; and the engine."""
    named = {"LAKEHOUSE_ROOT": settings.storage.root}
    named |= {
        f"LAKEHOUSE_{name.upper()}_ROOT": settings.storage.layers[name] for name in LAYERS if name in settings.storage.layers
    }
    for setting, location in named.items():
        try:
            yield Finding("ok", f"{setting} {location}: {probe(location)}")
        except LakehouseError as error:
            yield Finding("WRONG", f"{setting} {error}")
    try:
        landed = len(files.listing(f"{settings.landing}/raw", below=True))
        yield Finding("ok" if landed else "empty", f"LAKEHOUSE_LANDING {settings.landing}/raw: {landed:,} files")
    except LakehouseError as error:
        yield Finding("WRONG", f"LAKEHOUSE_LANDING {error}")
    spill = Path(settings.spill)
    try:
        spill.mkdir(parents=True, exist_ok=True)
        yield Finding("ok", f"{spill}: {shutil.disk_usage(spill).free / 1e9:,.1f} GB free for what does not fit in memory")
    except OSError as error:
        yield Finding("WRONG", f"{spill} cannot be made: {error.strerror}. Fix its permissions, or set LAKEHOUSE_ROOT.")
    yield Finding("ok", f"engine {settings.engine}, memory limit {settings.memory_bound}")
