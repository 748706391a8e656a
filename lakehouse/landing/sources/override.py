"""Another source or another target for one run: a declared stream that asks something else, or lands elsewhere.

    Database("filial", tables=(Table("pedidos"), ...)), Override("filial/pedidos", "arquivo.pedidos_2025", "pedidos_teste")
        ─▶ Database("filial", tables=(Table("pedidos_2025", schema="arquivo", folder="pedidos_teste"),))

Cursors are in the names of a folder's landed files, so a folder has those of one source. A target is a folder of no declaration,
and of the first source that lands there (`claim`). Another source without a target lands what has not landed yet in the declared
folder, and leaves the cursor; a stream that lands whole, or that has children, refuses it.

Does not belong here: what a run is asked (`landing/request.py`), how a system is asked (`registry.py`).
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.tables.spec import AirbyteConnector, Database, KafkaTopic, Query, RestApi, Source, SourceSystem, Table
from lakehouse.tables.spec.system import Stream

#: In a target's folder: the file that tells which source its records are of. Files of such a name are no data.
_CLAIM = "_source"
_PATH = re.compile(r"/?[A-Za-z0-9_~][\w.~-]*(/[A-Za-z0-9_~][\w.~-]*)*/?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Override:
    """What one run asks instead of what is declared.

    Args:
        system: the declared system, and `stream` the one of its streams that is asked.
        source: another table, `table` or `schema.table`; another path of the API; another topic. Empty for the declared one.
        target: the folder below `raw/` in which it lands; empty for the declared one.
    """

    system: SourceSystem
    stream: Stream
    source: str = ""
    target: str = ""

    def __str__(self) -> str:
        return f"{self.name}{f' with the source {self.source}' if self.source else ''}"

    @property
    def name(self) -> str:
        return f"{self.system.name}/{self.stream.name}"

    @property
    def folder(self) -> str:
        return self.target or self.system.folder(self.stream)

    def of(self, system: SourceSystem) -> SourceSystem:
        """The system with that one stream, as it is asked: the declared one, or the same with the values of its settings."""
        found: SourceSystem = _overridden(system, self)
        return found


def override(
    systems: Sequence[SourceSystem], *, stream: str, source: str, target: str, taken: Collection[str]
) -> Override | None:
    """What a person asks for; None where that is nothing.

    Args:
        systems: the declared ones that can be asked.
        stream: `<system>/<stream>`; either alone where that is one stream.
        taken: folders below `raw/` in which declared streams land.

    Raises:
        DeclarationError: it cannot be asked.
    """
    if not (source or target):
        if stream:
            raise DeclarationError(
                f"Stream {stream[:80]!r} is named without another source or target.", remedy="Give one of them."
            )
        return None
    found = _stream(systems, stream)
    if target:
        check_name(target, "target")
        if target in {folder.partition("/")[0].lower() for folder in taken}:
            raise DeclarationError(
                f"raw/{target} is where a declared stream lands.", remedy=f"Use another name, such as {target[:57]}_teste."
            )
    asked = replace(found, source=source, target=target)
    asked.of(asked.system)
    return asked


def folders(systems: Iterable[SourceSystem], sources: Iterable[Source]) -> set[str]:
    """The folders below `raw/` of declared systems and of tables' sources, with all streams of their connectors."""
    found = {system.folder(stream) for system in systems for stream in system.streams}
    for source in sources:
        found.add(getattr(source, "folder", ""))
        connector = getattr(source, "connector", None)
        if isinstance(connector, AirbyteConnector):
            found |= {connector.stream(name).folder for name in connector.streams}
    return found - {""}


def claim(storage: Storage, asked: Override) -> None:
    """Let a target's folder be that of one source. The caller has its lock.

    Raises:
        DeclarationError: it has records of another one, or files of nobody knows whom.
    """
    folder = storage.landed_path(f"raw/{asked.target}")
    known = files.read(f"{folder}/{_CLAIM}").decode() if _CLAIM in files.names_in(folder) else ""
    if known == str(asked):
        return
    if storage.landed(asked.target) or storage.completed(asked.target):
        what = f"what {known} delivered" if known else "files that no run with this target has landed"
        raise DeclarationError(
            f"raw/{asked.target} has {what}, and this run asks {asked}: their cursors would mix.",
            remedy="Use a target of another name, or remove that folder.",
        )
    files.put(f"{folder}/{_CLAIM}", str(asked).encode())


def _stream(systems: Sequence[SourceSystem], name: str) -> Override:
    """The one stream of that name."""
    every = [Override(system=system, stream=stream) for system in systems for stream in system.streams]
    found = [one for one in every if name in (one.name, one.stream.name, one.system.name)]
    if len(found) != 1:
        what = f"{name[:80]!r} is {'no stream' if not found else 'more than one stream'}" if name else "No stream is named"
        raise DeclarationError(
            f"{what} that another source or target could be for.",
            remedy=f"Name one of {', '.join(one.name for one in every)} in TABLE (stream in run config).",
        )
    return found[0]


# --- by the declaration's type -----------------------------------------------------------------------------------------


@singledispatch
def _overridden(system: SourceSystem, asked: Override) -> Any:
    raise DeclarationError(
        f"{asked.name} takes no other source or target: it is a {type(system).__name__}.", remedy="Declare another source for it."
    )


@_overridden.register
def _database(system: Database, asked: Override) -> Database:
    [table] = [one for one in system.tables if one.name == asked.stream.name]
    if isinstance(table, Query):
        if asked.source:
            raise DeclarationError(f"{asked.name} is a query, which has no other source.", remedy="Give a target alone.")
        return replace(system, tables=(replace(table, folder=asked.folder),))
    return replace(system, tables=(_table(table, asked),))


def _table(table: Table, asked: Override) -> Table:
    if not asked.source:
        return replace(table, folder=asked.folder)
    _refuse_whole(asked)
    schema, _, name = asked.source.rpartition(".")
    return replace(table, name=name, schema=schema or table.schema, folder=asked.folder)


@_overridden.register
def _rest(system: RestApi, asked: Override) -> RestApi:
    [resource] = [one for one in system.resources if one.name == asked.stream.name]
    if resource.parent:
        raise DeclarationError(
            f"{asked.name} is asked for the records of {resource.parent}, and takes no other source or target.",
            remedy=f"Name {system.name}/{resource.parent}.",
        )
    if not asked.source:
        return replace(system, resources=(replace(resource, folder=asked.folder),))
    if not _PATH.fullmatch(asked.source):
        raise DeclarationError(
            f"{asked.source[:80]!r} cannot be a path of {system.name}.",
            remedy="Write it as declarations do, below the API's URL and without parameters: /v2/pedidos.",
        )
    _refuse_whole(asked)
    children = [one.name for one in system.resources if one.parent == resource.name]
    if children and not asked.target:
        raise DeclarationError(
            f"{asked.name} has the child {children[0]}, which would miss the records of another source.", remedy="Give a target."
        )
    return replace(system, resources=(replace(resource, path=asked.source, folder=asked.folder),))


@_overridden.register
def _kafka(system: KafkaTopic, asked: Override) -> KafkaTopic:
    if asked.source and not asked.target:
        raise DeclarationError(
            f"{asked.name} knows what has landed by the offsets of one topic, so another one lands elsewhere.",
            remedy="Give a target.",
        )
    return replace(system, topic=asked.source or system.topic, folder_name=asked.folder)


def _refuse_whole(asked: Override) -> None:
    """Refuse another source in the folder of a stream that lands whole: it would be the newest generation of the declared one."""
    if asked.stream.full_refresh and not asked.target:
        raise DeclarationError(
            f"{asked.name} lands whole each time, so another source would take the place of its records.", remedy="Give a target."
        )
