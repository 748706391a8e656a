"""Transforms of tables that need more than casts, renames and calculated columns.

One module per table, named by its spec's `transform`, with one function:

    def transform(frame: nw.LazyFrame) -> nw.LazyFrame

It gets the cast columns, returns them with its changes, and keeps every column that begins with an underscore. Written with
Narwhals, so that every engine runs it. A number `VERSION` of the module is raised when the same records become other values: the
table is then computed again, as after a changed declaration.
"""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

from lakehouse.core.errors import DeclarationError


def code(name: str) -> str:
    """A digest of a transform's text, without loading it; empty where there is none."""
    found = importlib.util.find_spec(f"{__name__}.{name}")
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:12] if found is not None and found.origin else ""


def load(name: str, table: object) -> ModuleType:
    """The module of a transform, by its name in the spec of a table.

    Raises:
        DeclarationError: there is no such module, or it has no such function.
    """
    path = f"{__name__}.{name}"
    module: ModuleType | None = None
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
    if module is None or not hasattr(module, "transform"):
        raise DeclarationError(
            f"The transform {name!r} of {table} does not exist.",
            remedy=f"Write transform(frame) in lakehouse/silver/transforms/{name}.py, or leave transform out.",
        )
    return module
