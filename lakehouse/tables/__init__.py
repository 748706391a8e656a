"""The one place where tables, sources and their jobs are declared.

`spec/` holds the records; each other module is a source: `TABLES`, and where it has them `SOURCES` (what this project asks
itself), `JOBS` and `PUBLISHED` (what the warehouse gets). They are collected here. Pure data: no dagster, no I/O.
To add a source or a table, add a module here and run `make sync`.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from lakehouse.tables.spec import TableSpec
from lakehouse.tables.spec.collect import collected


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(__path__):
        if not found.ispkg:
            yield importlib.import_module(f"{__name__}.{found.name}")


_COLLECTED = collected(_modules())
ALL: tuple[TableSpec, ...] = _COLLECTED.tables
SOURCES, JOBS, PUBLISHED, SETTINGS = _COLLECTED.sources, _COLLECTED.jobs, _COLLECTED.published, _COLLECTED.settings
#: By name of a table the module that declares it, which is the group of its assets.
SUBJECTS = _COLLECTED.subjects


def parts() -> tuple[TableSpec, ...]:
    """Every table once for each of its bronze tables."""
    return tuple(part for spec in ALL for part in spec.parts)
