"""What the modules of `tables/` declare, put together; what is wrong between two declarations is refused here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

from lakehouse.core.errors import DeclarationError
from lakehouse.tables.spec import Job, Setting, SourceSystem, TableSpec, check_tables, settings_of

Named = TypeVar("Named", Job, SourceSystem, Setting)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """All declarations. `published` names tables as `layer/table`; `subjects` has the module of each table, by its name."""

    tables: tuple[TableSpec, ...]
    sources: tuple[SourceSystem, ...]
    jobs: tuple[Job, ...]
    published: tuple[str, ...]
    settings: tuple[Setting, ...]
    subjects: Mapping[str, str]


def collected(modules: Iterable[ModuleType]) -> Collected:
    """What modules declare.

    Raises:
        DeclarationError: two declarations do not fit together, or a table's source system is in no `SOURCES`.
    """
    tables: list[TableSpec] = []
    sources: list[SourceSystem] = []
    jobs: list[Job] = []
    published: list[str] = []
    subjects: dict[str, str] = {}
    for module in modules:
        own_jobs: Sequence[Job] = getattr(module, "JOBS", ())
        tag = own_jobs[0].tag if len(own_jobs) == 1 else ""
        tables += [_tagged(spec, tag) for spec in _declared(module, "TABLES")]
        subjects |= dict.fromkeys((spec.name for spec in module.TABLES), module.__name__.rpartition(".")[2])
        sources += [_tagged(system, tag) for system in getattr(module, "SOURCES", ())]
        jobs += own_jobs
        published += getattr(module, "PUBLISHED", ())
    found = check_tables(*tables)
    _check_sources(found, sources)
    return Collected(
        tables=found,
        sources=_unique(sources, "source systems"),
        jobs=_unique(jobs, "jobs"),
        published=tuple(published),
        settings=_settings((*sources, *jobs)),
        subjects=subjects,
    )


def _declared(module: ModuleType, name: str) -> Sequence[TableSpec]:
    found: Sequence[TableSpec] | None = getattr(module, name, None)
    if found is None:
        raise DeclarationError(f"{module.__name__} has no {name}.", remedy=f"Give it {name} = (...,).")
    return found


def _tagged(declared: Any, tag: str) -> Any:
    return replace(declared, tags=(*declared.tags, tag)) if tag and tag not in declared.tags else declared


def _unique(declared: Sequence[Named], what: str) -> tuple[Named, ...]:
    names = [each.name for each in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DeclarationError(f"Two {what} are called {twice[0]!r}.", remedy="Declare it once, in lakehouse/tables/.")
    return tuple(declared)


def _settings(declared: tuple[object, ...]) -> tuple[Setting, ...]:
    """Each setting once; two declarations may share one."""
    found: list[Setting] = []
    for one in settings_of(declared):
        if one not in found:
            found.append(one)
    return _unique(found, "settings")


def _check_sources(tables: Iterable[TableSpec], sources: Iterable[SourceSystem]) -> None:
    names: set[str] = set()
    folders: dict[str, str] = {}
    for system in sources:
        names.add(system.name)
        for stream in system.streams:
            other = folders.setdefault(system.folder(stream), system.name)
            if other != system.name:
                raise DeclarationError(
                    f"Sources {other!r} and {system.name!r} both land in raw/{system.folder(stream)}.",
                    remedy="Give one of them another folder.",
                )
    for part in (part for spec in tables for part in spec.parts):
        made_by = getattr(part.origin, "connector", None)
        if isinstance(made_by, SourceSystem) and made_by.name not in names:
            raise DeclarationError(
                f"Table {part.name!r} comes from {made_by.name!r}, which no SOURCES has.",
                remedy=f"Add it to the SOURCES of its file, so that landing/{made_by.name} is made.",
            )
        if part.sync == "overwrite" and isinstance(made_by, SourceSystem):
            _check_generations(part, made_by)


def _check_generations(part: TableSpec, made_by: SourceSystem) -> None:
    stream = next(each for each in made_by.streams if made_by.folder(each) == getattr(part.origin, "folder", ""))
    if not stream.full_refresh:
        raise DeclarationError(
            f"Table {part.name!r} is overwritten by whole generations, and {stream.name!r} lands what is new.",
            remedy=f"Declare {stream.name!r} without a cursor (cursor=None), or the table with a key and sync='dedup'.",
        )
