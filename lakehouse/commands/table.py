"""`make table FROM=vendas.csv`: from anyone's file to a checked silver table, with one command (docs/quick-start.md).

    FROM ─▶ a trial in a scratch lake ─▶ what was found, five rows, what would be refused ─▶ yes? ─▶ land, declare, materialise

Nothing is written before the answer. What fails after it takes back what was written, so `make run` works as before.
"""

import keyword
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef, check_name, is_remote
from lakehouse.settings import Settings, load_settings, project_folder, settings_file

if TYPE_CHECKING:
    from lakehouse.core.store.storage import Storage
    from lakehouse.profile.dialect import Dialect
    from lakehouse.profile.origin import Origin
    from lakehouse.profile.propose import Proposal

app = typer.Typer()
_PACKAGE, _TESTS = Path("lakehouse/tables"), Path("lakehouse_tests/tables")
_PROGRAM = "import sys; from lakehouse.commands.table import take_in; sys.exit(take_in(sys.argv[1]))"


@app.command()
def table(
    origin: Annotated[str, typer.Argument(help="a file, a folder, raw/<stream>, or a database URL with #schema.table")],
    name: Annotated[str, typer.Option(help="what the table is called; after its file by default")] = "",
    sheet: Annotated[str, typer.Option(help="of an Excel file; the first with rows by default")] = "",
    yes: Annotated[int, typer.Option(min=0, max=1, help="1 asks nothing")] = 0,
) -> int:
    """Declare a table of anyone's file, folder, landed stream or database table, and fill bronze and silver with it."""
    from lakehouse.profile.origin import origin_of

    settings = load_settings()
    found = origin_of(origin, settings.storage)
    own = check_name(name or found.name, "table name")
    refuse_taken(own, found, settings)
    with tempfile.TemporaryDirectory(dir=spill(settings)) as folder:
        proposal, _, scratch = profiled(found, own, settings, Path(folder), sheet=sheet)
        show(proposal, found)
        if not yes and not agreed(own):
            print("Nothing was written.")
            return 1
        make(proposal, found, settings, scratch)
    report(proposal, settings, found)
    return 0


def profiled(
    found: "Origin", name: str, settings: Settings, folder: Path, *, sheet: str = ""
) -> "tuple[Proposal, Dialect, Storage]":
    """What the source would be declared as; how its files are written; and the scratch where they were read."""
    from lakehouse.core.engines.session import duckdb_session
    from lakehouse.landing.readers.files.packing import packing
    from lakehouse.landing.readers.files.prepare import ENDINGS
    from lakehouse.profile import origin, propose, trial
    from lakehouse.profile.dialect import Dialect, dialect_of

    scratch, stream, hints = origin.landed_here(found, name, settings.storage, folder)
    folders = [str(folder), *settings.storage.folders(links=bool(found.stream))]
    spill = str(folder / "spill")
    with duckdb_session(memory_limit=settings.memory_bound, spill=spill, folders=folders) as session:
        landed = scratch.landed(stream)
        written = [ending for endings in (*ENDINGS,) for ending in endings if ending in (".csv", ".xlsx", ".xlsm")]
        looked = [file for file in landed if packing(file.path)[0].endswith(tuple(written)) or file.path.endswith(".zip")]
        own = found.database is None and bool(looked)  # PostgreSQL writes CSV as Airbyte does
        dialect = dialect_of(session, Path(scratch.landing, looked[0].path), sheet=sheet) if own else Dialect()
        tried = trial.read(session, scratch, name, dialect, folder=stream, delta=found.delta)
        if found.database is not None:  # whose types are in the hints; in its files all is text
            tried = replace(tried, types={})
        made = propose.propose(
            session, tried, dialect, origin=found.label, folder=folder / "invented", hints=hints, database=found.database
        )
    return made, dialect, scratch


def refuse_taken(name: str, found: "Origin", settings: Settings) -> None:
    """Refuse a name that something else has.

    Raises:
        DeclarationError: a table, a module or a table of the lake has it, or another table reads the stream.
    """
    import lakehouse.tables as package
    from lakehouse.profile.database import source_name

    for spec in package.ALL:
        if name in (spec.name, spec.silver_name, *(part.name for part in spec.parts)):
            raise DeclarationError(
                f"The table {name!r} is declared already.",
                remedy="Give another NAME=."
                if found.delta is not None
                else "Give another NAME=; or land the file in that table's stream, and run make trigger JOB=medallion_etl.",
            )
        streams = [getattr(part.origin, "folder", "") for part in spec.parts]
        if found.stream and found.stream in streams:
            raise DeclarationError(
                f"raw/{found.stream} is read by the table {spec.name!r} already.", remedy="Change that table's declaration."
            )
    module, test = project_folder() / _PACKAGE / f"{name}.py", project_folder() / _TESTS / f"test_{name}.py"
    if keyword.iskeyword(name) or hasattr(package, name) or module.exists() or test.exists():
        raise DeclarationError(
            f"{name!r} cannot be the name of a new module of lakehouse/tables/.", remedy="Give NAME= another name."
        )
    there = [ref for ref in (TableRef("bronze", name), TableRef("silver", name)) if settings.storage.has(ref)]
    if there:
        raise DeclarationError(
            f"The lake has a table {there[0]} that nothing declares.", remedy="Give NAME= another name, or remove that table."
        )
    if found.delta is not None:
        readers = [spec.name for spec in package.ALL for part in spec.parts if getattr(part.origin, "uri", "") == found.delta.uri]
        if readers:
            raise DeclarationError(
                f"{found.delta.uri} is read by the table {readers[0]!r} already.", remedy="Change that table's declaration."
            )
    elif found.database is not None:
        if source_name(name) in {system.name for system in package.SOURCES} or name in {job.name for job in package.JOBS}:
            raise DeclarationError(f"A source {source_name(name)} or a job {name} is declared.", remedy="Give another NAME=.")
    elif not found.stream and settings.storage.landed(name):
        raise DeclarationError(
            f"There are files in landing's raw/{name} already.", remedy=f"Give FROM=raw/{name} to take them, or another NAME=."
        )


# --- what is shown -----------------------------------------------------------------------------------------------------


def show(proposal: "Proposal", found: "Origin") -> None:
    """Print what was found: the columns, five rows, and what would be refused. Nothing personal is shown but for its shape."""
    trial, declared = proposal.trial, proposal.declaration
    columns = declared.columns
    print(f"{found.label}: {trial.rows:,} records, {len(columns)} columns")
    for line in declared.about:
        print(f"  {line}")
    if found.ignored:
        print(f"  not read, no reader knows their names: {', '.join(found.ignored[:5])}")
    print()
    width = max(len(one.name) for one in columns)
    kinds = max(len(one.column.type) for one in columns)
    for one in columns:
        why = "; ".join(one.guess.evidence) or (f"{one.distinct:,} different texts" if one.distinct else "")
        print(f"  {one.name:{width}}  {one.column.type:{kinds}}  {why}")
    key = declared.key
    what = f"key {', '.join(key.columns)}, order {', '.join(key.order)}" if key.columns else "no key: records are added (append)"
    print(f"\n{what} ({'; '.join(key.evidence)})\n")
    for number, row in enumerate(proposal.first, start=1):
        print(f"  {number}. " + " | ".join(row.values()))
    _show_refused(proposal)


def _show_refused(proposal: "Proposal") -> None:
    trial = proposal.trial
    print()
    if trial.refused:
        print(f"{trial.refused:,} cannot be read, and go to quarantine:")
        for reason in trial.reasons:
            print(f"  {reason}")
    if not proposal.refused:
        print("Nothing that can be read would be refused.")
        return
    print(f"{proposal.refused:,} of {trial.rows:,} records would be refused:")
    for one in proposal.declaration.columns:
        if one.refused:
            print(f"  {one.name}: {one.refused:,} are no {one.column.type} ({', '.join(map(repr, one.samples))})")
        elif one.name in proposal.declaration.key.columns and one.filled < trial.rows:
            print(f"  {one.name}: {trial.rows - one.filled:,} have no key")


def agreed(name: str) -> bool:
    """Whether a person wants the table that was shown; no where nobody answers."""
    try:
        answer = input(f"\nDeclare the table {name}, and fill it? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes", "s", "sim")


# --- what is written ---------------------------------------------------------------------------------------------------


class Writes:
    """What was written, so that it can be taken back."""

    def __init__(self) -> None:
        self.before: dict[Path, bytes | None] = {}
        self.landed: list[str] = []

    def note(self, path: Path) -> None:
        self.before.setdefault(path, path.read_bytes() if path.is_file() else None)

    def write(self, path: Path, text: str, *, private: bool = False) -> None:
        """Write a file whole or not at all; a private one for its owner alone."""
        self.note(path)
        made = path.with_name(f".{path.name}.new")
        made.touch(mode=0o600 if private else 0o666)
        made.write_text(text, encoding="utf-8")
        made.replace(path)

    def undo(self) -> None:
        """Everything as it was; the declaration's files last written go first."""
        from lakehouse.core.store import files

        for path, content in reversed(self.before.items()):
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        files.remove(self.landed)


@contextmanager
def undone(name: str) -> Iterator[Writes]:
    """What the block writes stays only if it ends well."""
    writes = Writes()
    try:
        yield writes
    except BaseException:
        writes.undo()
        print(
            f"{name}: the declaration, its test and the landed files were taken back; make run works as before.", file=sys.stderr
        )
        raise


def make(proposal: "Proposal", found: "Origin", settings: Settings, scratch: "Storage") -> None:
    """Land what the trial read, declare the table, and fill bronze and silver with it.

    Raises:
        BrokenTableError: they were not filled; the declaration was taken back.
    """
    from lakehouse.commands.sync import derived_files
    from lakehouse.profile.database import setting_of

    name, project = proposal.declaration.name, project_folder()
    with undone(name) as writes:
        if found.database is not None:
            write_setting(writes, setting_of(name), found.database.url)
        elif not found.stream and found.delta is None:
            _land(scratch, settings, name, writes)
        for derived in derived_files():
            writes.note(derived)
        if (project / _TESTS).is_dir():
            writes.write(project / _TESTS / f"test_{name}.py", proposal.test)
        writes.write(project / _PACKAGE / f"{name}.py", proposal.module)
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-c", _PROGRAM, name], cwd=project, check=False)
        if not settings.storage.has(TableRef("silver", name)):
            there = settings.storage.has(TableRef("bronze", name))
            left = f" Its table bronze/{name} stays in the lake: remove it, or give NAME= another name." if there else ""
            raise BrokenTableError(
                f"{name} was not filled: the run above ended with exit code {done.returncode}.",
                remedy=f"See what it reports, and run it again.{left}",
            )


def _land(scratch: "Storage", settings: Settings, name: str, writes: Writes) -> None:
    """Put the files of the trial below landing."""
    from lakehouse.core.store import files

    for file in scratch.landed(name):
        target = settings.storage.landed_path(file.path)
        if not is_remote(target):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        writes.landed.append(target)
        files.put(target, Path(scratch.landing, file.path))


def write_setting(writes: Writes, setting: str, url: str) -> None:
    """Put a source's URL in `.env`, which nobody else reads; one that is there stays.

    Raises:
        DeclarationError: another database is there under that name.
    """
    from dotenv import dotenv_values

    file = settings_file()
    there = dotenv_values(file, interpolate=False).get(setting) if file.is_file() else None
    if there == url:
        return
    if there:
        raise DeclarationError(f"{setting} in .env is another URL.", remedy="Remove that line, or give another NAME=.")
    escaped = url.replace("\\", "\\\\").replace("'", "\\'")
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    line = "" if not before or before.endswith("\n") else "\n"
    writes.write(file, f"{before}{line}{setting}='{escaped}'\n", private=True)


def take_in(name: str) -> int:
    """Derive what follows from the declarations, and fill the table, in a process that has the new one; an exit code."""
    from lakehouse.commands import foreground
    from lakehouse.commands.sync import sync
    from lakehouse.profile.database import system_of
    from lakehouse.settings import load_env_file
    from lakehouse.tables import ALL

    load_env_file()
    if sync():
        return 1
    spec = next(spec for spec in ALL if spec.name == name)
    names = [f"bronze/{name}", f"silver/{name}", *([str(spec.landing)] if system_of(spec.origin) is not None else [])]
    keys = " or ".join(f'key:"{each}"' for each in names)
    return foreground.materialize(keys)


def report(proposal: "Proposal", settings: Settings, found: "Origin") -> None:
    """Print what is there now, and what to type next."""
    from lakehouse.core.table.snapshot import open_existing
    from lakehouse.profile.database import setting_of

    name = proposal.declaration.name
    print()
    for ref in (TableRef("bronze", name), TableRef("silver", name), TableRef("quarantine", name)):
        snapshot = open_existing(settings.storage.uri(ref))
        if snapshot is not None and (snapshot.rows or ref.layer != "quarantine"):
            print(f"{ref}: {snapshot.rows:,} rows")
    tests = f", {_TESTS}/test_{name}.py" if (project_folder() / _TESTS).is_dir() else ""
    print(f"\nWritten: {_PACKAGE}/{name}.py{tests}; derived files by make sync.")
    if found.database is not None:
        print(f"The database is asked again by make trigger JOB={name}, and each night; its URL is {setting_of(name)} in .env.")
    print("Next:")
    print(f"  {'look at the guesses:':22}{_PACKAGE}/{name}.py, then make sync and make rebuild TABLE={name}")
    print(f"  {'see what is refused:':22}make quarantine TABLE={name}")
    if found.database is not None:
        print(f"  {'the next rows:':22}make trigger JOB={name}")
    elif found.delta is None:
        print(f"  {'the next files:':22}land them in raw/{proposal.declaration.folder}/, then make trigger JOB=medallion_etl")
    else:
        print(f"  {'the next versions:':22}make trigger JOB=medallion_etl")
        print(f"  {'the same rows?':22}make compare TABLE={name} WITH={shlex.quote(found.delta.uri)}")
    print(f"  {'the graph:':22}make dev; what the change does to it: make impact")


def spill(settings: Settings) -> str:
    """The folder for what does not fit in memory, made where it is not there."""
    Path(settings.spill).mkdir(parents=True, exist_ok=True)
    return settings.spill
