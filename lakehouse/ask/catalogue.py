"""The catalogue: what a question needs of the settings and declarations: where the lake is, how much memory it may take, which
columns are personal.

Settings and declarations take half a second to load, most of a small question's time. What follows from them is written to a
file, beside a stamp of all that it follows from, and is read from there until one of these has another stamp.
"""

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.core.names import TableRef, is_remote
from lakehouse.core.store.storage import Storage
from lakehouse.settings.light import allow_http, derived_folder, read_env_file, stamp

if TYPE_CHECKING:
    from lakehouse.settings import Settings
    from lakehouse.tables.spec import TableSpec

#: In quarantine the record as it was delivered; in bronze what was delivered beside the columns.
_RECORD, _EXTRA = "record", "_extra"


@dataclass(frozen=True)
class Catalogue:
    """What is known before any table is opened.

    Args:
        personal: by table (`silver/clientes`) the columns that say something about a person.
        anywhere: the names of all of them: in a table that is declared nowhere, as a mart, a column of such a name is one.
    """

    root: str
    landing: str
    layers: Mapping[str, str]
    memory_limit: str
    spill: str
    personal: Mapping[str, list[str]] = field(default_factory=dict)
    anywhere: tuple[str, ...] = ()

    @property
    def storage(self) -> Storage:
        return Storage(root=self.root, landing=self.landing, layers=self.layers)

    @property
    def remote(self) -> bool:
        """Whether some of the lake is in a bucket, whose credentials may be in `.env`."""
        return any(map(is_remote, (self.root, *self.layers.values())))

    @property
    def lake_file(self) -> Path:
        """Where `make lake-file` writes: on this machine, beside the warehouse's own database."""
        return Path(self.spill).parent / "lake.duckdb"

    def personal_columns(self, table: TableRef) -> frozenset[str]:
        """The columns of a table that are masked."""
        return frozenset(self.personal.get(str(table), self.anywhere))


def catalogue_of(settings: "Settings") -> Catalogue:
    """The catalogue of these settings, from the declarations."""
    storage, personal, anywhere = settings.storage, dict[str, list[str]](), set[str]()
    for spec in settings.tables:
        named = _personal(spec)
        personal |= {table: sorted(columns) for table, columns in named.items()}
        anywhere |= {column.name for column in spec.columns if column.personal}
    return Catalogue(
        root=storage.root,
        landing=storage.landing,
        layers=dict(storage.layers),
        memory_limit=settings.memory_bound,
        spill=settings.spill,
        personal=personal,
        anywhere=tuple(sorted(anywhere)),
    )


def load_catalogue() -> Catalogue:
    """The catalogue of the environment: from the file where its stamp is the right one, else from the settings.

    Raises:
        DeclarationError: a setting has a value that it cannot have.
    """
    file, now = derived_folder() / "ask.json", stamp()
    with suppress(OSError, ValueError, TypeError, KeyError):  # no such file, or of another release: it is only made again
        found = json.loads(file.read_text())
        if found.pop("stamp") == now:
            known = Catalogue(**{**found, "anywhere": tuple(found["anywhere"])})
            if known.remote:
                read_env_file()
                allow_http()
            return known
    read_env_file()
    from lakehouse.settings import load_settings

    made = catalogue_of(load_settings())
    with suppress(OSError):  # a folder that is not to be written: the next question takes as long again
        _write(file, {"stamp": now, **asdict(made)})
    return made


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    part.write_text(json.dumps(content))
    os.replace(part, file)  # noqa: PTH105 - Path.replace is the same call


def _personal(spec: "TableSpec") -> dict[str, set[str]]:
    """By table the personal columns of a declaration. Of a table that has none, no column is masked, whatever its name is."""
    from lakehouse.tables.spec import history_ref

    own = {column.name for column in spec.columns if column.personal}
    found = {str(spec.silver): own, str(history_ref(spec)): own}
    for part in spec.parts:
        read = {name for column in part.of_record if column.personal for name in (part.text_of(column), column.bronze_name)}
        # A field that shares a column's name is beside it, as is a nested one: what holds several is masked as a whole.
        found[str(part.bronze)] = {*read, _EXTRA} if read else set()
        found[str(part.quarantine)] = {_RECORD} if read or own else set()
    return found
