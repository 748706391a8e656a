"""`make connect`: what an API or a database has, and a source file that asks for what is named of it.

    URL ─▶ its resources, or its tables ─▶ [TABLE=...] ─▶ lakehouse/tables/<name>.py, the URL in .env, what derives by make sync

Nothing of the records is read here: what is declared is what the OpenAPI description or the database's catalogue reports.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.commands.table import agreed, undone, write_setting
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.settings import project_folder, settings_file
from lakehouse.tables.spec import SourceSystem, TableSpec, settings_of

app = typer.Typer()
_PACKAGE = Path("lakehouse/tables")


@app.command()
def connect(
    url: Annotated[str, typer.Argument(help="of an OpenAPI description (also a file), or of a database")],
    table: Annotated[str, typer.Option(help="resources or tables to declare, separated by commas; none only lists them")] = "",
    name: Annotated[str, typer.Option(help="what the source is called; after the API or the database by default")] = "",
    yes: Annotated[int, typer.Option(min=0, max=1, help="1 asks nothing")] = 0,
) -> int:
    """List what an API or a database has, and write the source file for what is named of it."""
    from lakehouse.profile import connection

    found = connection.look(url, name=name)
    print(f"{found.title}: {len(found.lines)} of it can be declared")
    width = max(map(len, found.lines), default=0)
    for one, text in found.lines.items():
        print(f"  {one:{width}}  {text}")
    for one, reason in found.passed_over:
        print(f"  passed over: {one} ({reason})")
    wanted = [part.strip() for part in table.split(",") if part.strip()]
    if not wanted:
        print(f"\nDeclare some: make connect URL=... TABLE={','.join([*found.lines][:2]) or '...'}")
        return 0 if found.lines else 1
    system, tables, comments = found.declare(wanted)
    write(system, tables, comments, title=found.title, url=found.url, yes=bool(yes))
    return 0


def write(
    system: SourceSystem, tables: Sequence[TableSpec], comments: dict[str, str], *, title: str, url: str, yes: bool
) -> None:
    """Write the source's file, its URL to .env, and what derives from it.

    Raises:
        DeclarationError: its name is taken, or nobody agreed.
    """
    from lakehouse.commands.sync import derived_files
    from lakehouse.profile.source_file import module

    refuse_taken(system, tables)
    text = module(name=system.name, title=title, system=system, tables=tables, comments=comments)
    path = project_folder() / _PACKAGE / f"{system.name}.py"
    print(f"\n{text}")
    if not yes and not agreed(system.name):
        raise DeclarationError("Nothing was written.", remedy="Give YES=1, or answer y.")
    with undone(system.name) as writes:
        write_setting(writes, next(one.name for one in settings_of(system.url)), url)
        for derived in derived_files():
            writes.note(derived)
        writes.write(path, text)
        done = subprocess.run([sys.executable, "-m", "lakehouse", "sync"], cwd=project_folder(), check=False)
        if done.returncode:
            raise DeclarationError(f"{path.name} was not taken in.", remedy="See what make sync reports above.")
    print(f"\nWritten: {_PACKAGE}/{system.name}.py; derived files by make sync.")
    for setting in _missing(system):
        print(f"  {setting} is not set: add it to .env")
    print(f"Next: make trigger JOB={system.name}; the first run shows what the declaration has wrong.")


def refuse_taken(system: SourceSystem, tables: Sequence[TableSpec]) -> None:
    """Refuse names that something else has.

    Raises:
        DeclarationError: a source, a module or a table has it.
    """
    import lakehouse.tables as package

    check_name(system.name, "source name")
    path = project_folder() / _PACKAGE / f"{system.name}.py"
    if path.exists() or hasattr(package, system.name) or any(system.name == other.name for other in package.SOURCES):
        raise DeclarationError(f"There is a source {system.name!r} already.", remedy="Give another NAME=, or change its file.")
    taken = {name for spec in package.ALL for name in (spec.name, spec.silver_name, *(part.name for part in spec.parts))}
    if names := sorted(taken & {spec.name for spec in tables}):
        raise DeclarationError(f"The table {names[0]!r} is declared already.", remedy="Give another NAME=.")


def _missing(system: SourceSystem) -> list[str]:
    """The settings of a source that have no value yet."""
    from dotenv import dotenv_values

    path = settings_file()
    known = dotenv_values(path, interpolate=False) if path.is_file() else {}
    return [one.name for one in settings_of(system) if not one.default and not known.get(one.name)]
