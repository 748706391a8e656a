"""Landed files on this machine, and what is known of them beside their content."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Here:
    """The folder that holds landed files under their paths.

    Args:
        whole: those that hold all rows of a table of another writer, so that nothing that came before is in it any more.
        withdrawn: how many rows have left that table with a file, by path.
    """

    folder: str
    whole: frozenset[str] = frozenset()
    withdrawn: Mapping[str, int] = field(default_factory=dict)
