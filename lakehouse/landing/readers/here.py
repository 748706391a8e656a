"""Landed files on this machine, and what is known of them beside their content."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import narwhals as nw

#: Opens the rows of a file that are elsewhere than in it, as a frame that can be computed once.
Opened = Callable[[], "AbstractContextManager[nw.LazyFrame[Any]]"]


@dataclass(frozen=True)
class Here:
    """The folder that holds landed files under their paths.

    Args:
        whole: those that hold all rows of a table of another writer, so that nothing that came before is in it any more.
        withdrawn: how many rows have left that table with a file, by path.
        streams: by path, what opens the rows of a file; it has no more than their names and types itself.
    """

    folder: str
    whole: frozenset[str] = frozenset()
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[str, Opened] = field(default_factory=dict)
