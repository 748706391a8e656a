"""Origin: what somebody names as the source of a new table, and its files below a folder in which a trial can read them.

A file, a folder, a stream that has landed (`raw/vendas`, or `vendas`), or a table of a database: the database's URL, `#`, and the
table, with its schema where it has one: `postgresql://user:password@host/db#public.clientes`, `sqlite:////folder/file.db#itens`.
"""

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import is_remote
from lakehouse.core.sql import parse_url
from lakehouse.core.store.storage import Storage
from lakehouse.landing.readers.files.packing import packing
from lakehouse.landing.readers.files.prepare import ENDINGS
from lakehouse.landing.sources.database import SqlTable, reading
from lakehouse.profile.delta import delta_hints
from lakehouse.profile.propose import Hints
from lakehouse.profile.trial import plain_name
from lakehouse.tables.spec import DeltaSource

_SETTING = "FROM"
_SECONDS = 600.0


@dataclass(frozen=True)
class Origin:
    """A source that is there.

    Args:
        label: what texts call it: a file's name, never a URL.
        name: what its table would be called.
        files: what would land, by path below the stream's folder; empty for what has landed, and for a database.
        stream: the folder below `raw/` of what has landed.
        database: the table of a database.
        delta: the Delta table of another writer.
        ignored: names of files that no reader knows.
    """

    label: str
    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    stream: str = ""
    database: SqlTable | None = None
    delta: DeltaSource | None = None
    ignored: tuple[str, ...] = ()


def origin_of(text: str, storage: Storage) -> Origin:
    """What a person has named.

    Raises:
        DeclarationError: there is no such file, folder, stream or URL.
    """
    if not text.strip():
        raise DeclarationError(
            "FROM is empty.", remedy="Give a file, a folder, raw/<stream> or a database table: FROM=vendas.csv."
        )
    if "://" in text:
        return _of_database(text)
    path = Path(text).expanduser()
    raw = Path(storage.landing, "raw").resolve()
    if path.exists() and not is_remote(storage.landing) and raw in path.resolve().parents:
        landed = path.resolve().relative_to(raw)
        folder = str(landed if path.is_dir() else landed.parent)
        if path.is_file() and folder == ".":
            raise DeclarationError(f"{path.name} is in no stream's folder.", remedy="Move it to a folder below landing's raw/.")
        return Origin(f"raw/{folder}", _named(Path(folder)), stream=folder)
    if path.is_file():
        if _kind(path.name) is None:
            endings = ", ".join(ending for listed in ENDINGS for ending in listed)
            raise DeclarationError(f"{path.name} is no file that is read here.", remedy=f"Its name should end in {endings}.")
        return Origin(path.name, _named(path), files={_landed_name(path.name): path})
    if path.is_dir():
        return _of_folder(path)
    stream = text.removeprefix("raw/").strip("/")
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)*", stream) and storage.landed(stream):
        return Origin(f"raw/{stream}", _named(Path(stream)), stream=stream)
    raise DeclarationError(
        f"There is no file, folder or landed stream {text[:200]!r}.",
        remedy="Give FROM= a file, a folder, raw/<stream>, or postgresql://user:password@host/db#schema.table.",
    )


def landed_here(origin: Origin, name: str, storage: Storage, folder: Path) -> tuple[Storage, str, Hints]:
    """The source's files where a trial reads them: its scratch, the folder below `raw/`, and what the source says of them.

    Args:
        storage: the real lake's scratch, whose landing is read where it has the files.
        folder: of the scratch lake.

    Raises:
        SourceError: the database does not answer, or refuses.
    """
    scratch = Storage(root=str(folder / "lake"), landing=str(folder / "landing"))
    target = folder / "landing" / "raw" / name
    if origin.delta is not None:
        return scratch, name, delta_hints(origin.delta)
    if origin.stream:
        files = storage.landed(origin.stream)
        here = storage.landed_here(files, str(folder / "landing"))
        return Storage(root=scratch.root, landing=here), origin.stream, Hints()
    target.mkdir(parents=True)
    if origin.database is not None:
        return scratch, name, _extracted(origin.database, name, target)
    for below, path in origin.files.items():
        (target / below).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target / below)
        except OSError:  # another disk
            shutil.copyfile(path, target / below)
    return scratch, name, Hints()


# --- files -------------------------------------------------------------------------------------------------------------


def _of_folder(path: Path) -> Origin:
    found = [file for file in sorted(path.rglob("*")) if file.is_file()]
    hidden = [file for file in found if any(part.startswith((".", "_")) for part in file.relative_to(path).parts)]
    logs = [file.parent for file in hidden if file.parent.name == "_delta_log"]
    if logs:  # its files alone are not its rows
        raise DeclarationError(
            f"{logs[0].parent.name} is a Delta table: its files are not read as they are.",
            remedy=f"Adopt it: make adopt FROM={path}",
        )
    readable = [file for file in found if file not in hidden and _kind(file.name) is not None]
    if not readable:
        raise DeclarationError(
            f"The folder {path.name} has no file that is read here.", remedy="See docs/tables.md for the forms."
        )
    ignored = tuple(file.name for file in found if file not in readable)
    files = {str(file.relative_to(path)): file for file in readable}
    return Origin(f"the folder {path.resolve().name}", _named(path.resolve()), files=files, ignored=ignored)


def _kind(name: str) -> str | None:
    plain, packed = packing(name)
    return next((kind for endings, kind in ENDINGS.items() if plain.endswith(endings)), "zip" if packed == "zip" else None)


def _landed_name(name: str) -> str:
    """A name that is data: those that begin with `.` or `_` are not."""
    return name.lstrip("._") or name


def _named(path: Path) -> str:
    """A table's name after its file, or after the folder of one that is called like a day or a number."""
    for name in (path.name, path.resolve().parent.name):
        plain = packing(name)[0]
        for ending in (ending for listed in ENDINGS for ending in listed):
            plain = plain.removesuffix(ending)
        if plain := re.sub(r"^[\W\d_]+", "", plain):
            return plain_name(plain, ())
    return "tabela"


# --- databases ---------------------------------------------------------------------------------------------------------


def _of_database(text: str) -> Origin:
    address, _, table = text.partition("#")
    if address.startswith(("s3://", "gs://", "az://", "http://", "https://", "file://")):
        raise DeclarationError(
            f"{address.partition('://')[0]}:// is not read here.", remedy="Copy the file to this machine, and give its path."
        )
    url = parse_url(address, setting=_SETTING)
    if url.get_backend_name() == "sqlite" and url.database:  # which other processes ask again, from other folders
        address = url.set(database=str(Path(url.database).resolve())).render_as_string(hide_password=False)
    schema, _, name = table.rpartition(".")
    if not name:
        raise DeclarationError(
            "FROM names a database and none of its tables.", remedy="Write the table after #: postgresql://…/db#schema.table."
        )
    return Origin(
        f"the table {table}", plain_name(name, ()), database=SqlTable(url=address, table=name, schema=schema, setting=_SETTING)
    )


def _extracted(source: SqlTable, name: str, folder: Path) -> Hints:
    """Write the rows of a table to files; the types and the key that the database has for them."""
    deadline = time.monotonic() + _SECONDS
    with reading(source.url, f"The table {source.table}", setting=_SETTING, deadline=deadline) as reader:
        known = reader.catalogue(source)
        staged = reader.table(source, known, folder, since=None)
    for number, path in enumerate(staged):
        Path(path).rename(folder / f"{name}_{number}{Path(path).suffix}")
    return Hints(
        types={name: column.type for name, column in known.columns.items() if column.type},
        key=tuple(plain_name(column, ()) for column in known.key),
        filled=frozenset(plain_name(name, ()) for name, column in known.columns.items() if not column.nullable),
    )
