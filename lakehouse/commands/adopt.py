"""`make adopt FROM=s3://lake/silver [TABLE=a,b]`: which Delta tables are there, and a declaration for each chosen one.

    FROM ─▶ its tables: version, rows, size, features, read exactly or refused ─▶ TABLE: a trial, a declaration, bronze, silver

What is shown, asked and written of a table is what `make table` does. The other lake is only read. Exit code 0: what was asked
for was done; 1: there is no table, one was left out, or the answer was no; 2: an error, of which the last line is the remedy.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse.commands import table as made
from lakehouse.core.errors import DeclarationError, LakehouseError, UnreadableFileError
from lakehouse.core.names import TableRef, check_name, check_timezone
from lakehouse.core.table.foreign import ForeignTable, require_foreign
from lakehouse.core.table.foreign_lake import Found, location_of, look, path_of, tables_below
from lakehouse.settings import Settings, load_settings
from lakehouse.tables.spec import DeltaSource

if TYPE_CHECKING:
    from lakehouse.profile.origin import Origin

app = typer.Typer()
_ALL = ("*", "all")
_ROOT = "LAKEHOUSE_ROOT"


@app.command()
def adopt(
    location: Annotated[str, typer.Argument(help="a folder of Delta tables, or s3://bucket/prefix")],
    table: Annotated[str, typer.Option(help="which of them, with commas between; * for all that are read")] = "",
    name: Annotated[str, typer.Option(help="what the one table is called here; after its folder by default")] = "",
    timezone: Annotated[str, typer.Option(help="of instants in partition values that have none")] = "",
    yes: Annotated[int, typer.Option(min=0, max=1, help="1 asks nothing")] = 0,
) -> int:
    """List the Delta tables of another lake; declare chosen ones, and fill bronze and silver with them."""
    settings = load_settings()
    if timezone:
        check_timezone(timezone, "TIMEZONE")
    below = location_of(location, setting="FROM")
    _refuse_own(below, settings)
    every = table.strip() in ("", *_ALL)
    found = []
    for uri in tables_below(below) if every else _named(below, table):
        found.append(look(uri, location=below, timezone=timezone))
        print("\n".join(_lines(found[-1], settings)), flush=True)
    if not found:
        print(f"There is no Delta table in {below} or below it.")
        return 1
    if not table.strip():
        refused = sum(one.table is None for one in found)
        print(f"\n{len(found)} Delta tables: {len(found) - refused} are read exactly, {refused} are refused.")
        print("To adopt some of them: TABLE=a,b, or TABLE='*' for all that are read.")
        return 0
    chosen, left = chosen_of(found, every=every, name=name, settings=settings)
    for line in left:
        print(line, file=sys.stderr)
    sources = {own: source_of(one.uri, own, timezone=timezone) for own, one in chosen.items()}
    done = [
        _adopted(own, source, chosen[own], settings, yes=bool(yes), alone=len(chosen) == 1) for own, source in sources.items()
    ]
    return max([*done, int(bool(left))])


def chosen_of(found: Sequence[Found], *, every: bool, name: str, settings: Settings) -> tuple[dict[str, Found], list[str]]:
    """Tables by the names that they get, and a sentence for each that is left out where every one was asked for.

    Args:
        name: of the one table.

    Raises:
        DeclarationError: a table has a name that is taken.
        BrokenTableError: it cannot be read.
        ForeignTableError: it has something that is not read here.
    """
    if name and len(found) != 1:
        raise DeclarationError(f"NAME={name} names one table, and there are {len(found)}.", remedy="Adopt that table alone.")
    names = {one.uri: check_name(name or own_name(one.uri), "table name") for one in found}
    times = Counter(names[one.uri] for one in found if one.refusal is None)
    adopted = {uri for _, uri in _declared(settings)} if every else set()
    chosen, left = {}, []
    for one in (one for one in found if one.uri not in adopted):
        own = names[one.uri]
        try:
            if one.refusal is not None:
                raise one.refusal
            if one.rows == 0:
                raise _empty(one.uri)
            if times[own] > 1:
                paths = ", ".join(other.path for other in found if names[other.uri] == own)
                raise DeclarationError(
                    f"Two tables would be called {own!r}: {paths}.", remedy="Adopt each alone, one with NAME=."
                )
            made.refuse_taken(own, _origin(one, source_of(one.uri, own)), settings)
        except LakehouseError as error:
            if not every:
                raise
            left.append(f"{one.path} is left out: {error}")
        else:
            chosen[own] = one
    return chosen, left


def source_of(uri: str, name: str, *, timezone: str = "") -> DeltaSource:
    """How the source of an adopted table is declared; what is declared of each belongs here."""
    return DeltaSource(uri, name, timezone=timezone, withdrawals="delete")


def own_name(uri: str) -> str:
    """What a table is called here: as its folder, in letters that a name may have."""
    from lakehouse.profile.trial import plain_name

    return plain_name(uri.rpartition("/")[2], ())


def _named(location: str, asked: str) -> Iterator[str]:
    """The URIs of the tables that are asked for: paths, or names that only one has, with commas between.

    Raises:
        DeclarationError: there is no such table, or there are several.
    """
    paths = {uri: path_of(uri, location) for uri in tables_below(location)}
    for part in dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()):
        named = [uri for uri, path in paths.items() if path == part] or [uri for uri in paths if part in (own_name(uri), uri)]
        if not named and paths:
            known = ", ".join([*paths.values()][:10])
            raise DeclarationError(f"There is no Delta table {part!r:.100} there.", remedy=f"Give TABLE= one of {known}.")
        if len(named) > 1:
            found = ", ".join(paths[uri] for uri in named)
            raise DeclarationError(f"{len(named)} tables are called {part!r}: {found}.", remedy="Give TABLE= its path.")
        yield from named


def _refuse_own(location: str, settings: Settings) -> None:
    """Refuse the lake of this project: its tables are no source of their own."""
    storage = settings.storage
    for own in (storage.root, *storage.layers.values()):
        if f"{location}/".startswith(f"{own.rstrip('/')}/"):
            raise DeclarationError(f"{location} is this lake itself ({_ROOT}).", remedy="Give FROM= another lake.")


# --- what is there ---------------------------------------------------------------------------------------------------


def _lines(found: Found, settings: Settings) -> Iterator[str]:
    from lakehouse.profile.delta import odd_columns

    if found.table is None:
        yield f"{found.path}: refused{f' ({found.feature})' if found.feature else ''}. {found.refusal}"
        return
    rows = "rows not counted" if found.rows is None else f"{found.rows:,} rows"
    features = f", with {', '.join(found.table.features)}" if found.table.features else ""
    adopted = [name for name, uri in _declared(settings) if uri == found.uri]
    already = f"; adopted as {', '.join(adopted)}" if adopted else ""
    yield f"{found.path}: version {found.table.version}, {rows}, {_size(found.size)}{features}: read exactly{already}"
    yield from (f"    {line}" for line in odd_columns(found.table))


def _declared(settings: Settings) -> Iterator[tuple[str, str]]:
    """Tables that are made of Delta tables, each with the URI of one."""
    for spec in settings.tables:
        yield from ((spec.name, part.origin.uri) for part in spec.parts if isinstance(part.origin, DeltaSource))


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.1f} {unit}" if unit != "bytes" else f"{count:,} bytes"
        size /= 1000
    return f"{size:,.1f} TB"


# --- what is made of one ---------------------------------------------------------------------------------------------


def _empty(uri: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"The Delta table {uri} has no rows, and a declaration is made of rows.", remedy="Adopt it when it has some."
    )


def _origin(found: Found, source: DeltaSource) -> "Origin":
    from lakehouse.profile.origin import Origin

    return Origin(f"the Delta table {found.path}", source.name, delta=source)


def _adopted(name: str, source: DeltaSource, found: Found, settings: Settings, *, yes: bool, alone: bool) -> int:
    """Adopt one table; an exit code. An error of one of several is printed, and the others are adopted all the same."""
    print(f"\n--- {found.path} as {name}\n")
    origin = _origin(found, source)
    try:
        with tempfile.TemporaryDirectory(dir=made.spill(settings)) as folder:
            if found.rows is None and found.table is not None and not _count(found.table):
                raise _empty(source.uri)
            proposal, _, scratch = made.profiled(origin, name, settings, Path(folder))
            made.show(proposal, origin)
            if not yes and not made.agreed(name):
                print("Nothing was written.")
                return 1
            made.make(proposal, origin, settings, scratch)
        made.report(proposal, settings, origin)
        return _compared(name, source, settings)
    except LakehouseError as error:
        if alone:
            raise
        print(f"error: {found.path}: {error}", file=sys.stderr)
        return 2


def _compared(name: str, source: DeltaSource, settings: Settings) -> int:
    """Print the rows of the table beside those of its source; 1 when bronze lacks some of the version that it read."""
    from lakehouse.core.table.snapshot import open_existing

    table = require_foreign(source.uri, timezone=source.timezone, remedy="Look at FROM.")
    there = _count(table)
    refs = (TableRef("bronze", name), TableRef("silver", name))
    here = [0 if (found := open_existing(settings.storage.uri(ref))) is None else found.rows for ref in refs]
    print(f"\nthere: {there:,} rows at version {table.version}; bronze: {here[0]:,}; silver: {here[1]:,}")
    if here[0] == there:
        return 0
    print(
        f"bronze does not have the rows of version {table.version}: see make quarantine TABLE={name}, or a newer one came since."
    )
    return 1


def _count(table: ForeignTable) -> int:
    with table.reading([*table.kinds][:1]) as rows:
        return sum(batch.num_rows for batch in rows)
