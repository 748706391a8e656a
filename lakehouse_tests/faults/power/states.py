"""States of a disk after a power cut: what was synced is there, and of the rest any part.

    journal ─▶ Disk (synced, pending) at any moment ─▶ states: without what is pending, with all of it, with one change less,
                                                       with one alone, with seeded subsets, with half of a write

A file's sync makes its content durable and nothing else, a folder's sync its names: less than most filesystems promise. A
rename happens or it does not.
"""

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

#: A folder with a name that begins so is a report: the rest of the name is what is reported.
MARK = ".mark-"
#: What the journal holds: the operation and what it was given. Files are numbered, since names change.
Operation = tuple[Any, ...]
_SUBSETS = 3


def journal(path: Path) -> list[Operation]:
    """The operations in a journal; one that was cut off at its end ends before."""
    out: list[Operation] = []
    with path.open("rb") as content:
        while True:
            try:
                out.append(pickle.load(content))
            except (EOFError, pickle.UnpicklingError):
                return out


@dataclass(frozen=True)
class Write:
    """Bytes at a place of a file; what is beyond its end before is filled with zeros."""

    file: int
    offset: int
    data: bytes

    def half(self) -> "Write":
        return Write(self.file, self.offset, self.data[: len(self.data) // 2])


@dataclass(frozen=True)
class Cut:
    """A file's new length."""

    file: int
    length: int


@dataclass(frozen=True)
class Names:
    """Changes of entries that happen together: of folders and names, what they are then; None for nothing."""

    entries: tuple[tuple[int, str, int | None], ...]

    @property
    def folder(self) -> int:
        """Whose sync makes it durable."""
        return self.entries[-1][0]


Change = Write | Cut | Names


@dataclass
class Tree:
    """Entries of folders and contents of files, both by number. The root is 0."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    contents: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> "Tree":
        return Tree({number: dict(entries) for number, entries in self.folders.items()}, dict(self.contents))

    def find(self, path: str) -> int:
        number = 0
        for part in PurePosixPath(path).parts[1:]:
            number = self.folders[number][part]
        return number

    def apply(self, change: Change) -> None:
        if isinstance(change, Names):
            for folder, name, number in change.entries:
                entries = self.folders.setdefault(folder, {})
                if number is None:
                    entries.pop(name, None)
                else:
                    entries[name] = number
            return
        content = self.contents.get(change.file, b"")
        if isinstance(change, Cut):
            self.contents[change.file] = content[: change.length].ljust(change.length, b"\0")
        else:
            end = change.offset + len(change.data)
            self.contents[change.file] = content[: change.offset].ljust(change.offset, b"\0") + change.data + content[end:]

    def files(self, known: frozenset[int], number: int = 0, path: str = "") -> Iterator[tuple[str, bytes | None]]:
        """Every path with its content; None for a folder, which are those `known`."""
        for name, child in sorted(self.folders.get(number, {}).items()):
            if child in known:
                yield f"{path}/{name}", None
                yield from self.files(known, child, f"{path}/{name}")
            else:
                yield f"{path}/{name}", self.contents.get(child, b"")


@dataclass(frozen=True)
class State:
    """What may be on a disk: every path with its content, None for a folder."""

    files: tuple[tuple[str, bytes | None], ...]

    def write(self, folder: Path) -> None:
        """Make it below an empty folder."""
        for path, content in self.files:
            target = folder / path.lstrip("/")
            if content is None:
                target.mkdir()
            else:
                target.write_bytes(content)


class Disk:
    """What is synced, and the changes that are not, in order."""

    def __init__(self) -> None:
        self.synced, self.now = Tree(), Tree()
        self.pending: list[Change] = []
        self.known = {0}

    def do(self, operation: Operation) -> None:
        kind, *given = operation
        if kind == "sync":
            self._make_durable(lambda change: not isinstance(change, Names) and change.file == given[0])
        elif kind == "sync folder":
            self._make_durable(lambda change: isinstance(change, Names) and change.folder == given[0])
        else:
            change = self._change(kind, given)
            self.pending.append(change)
            self.now.apply(change)

    def _change(self, kind: str, given: Sequence[object]) -> Change:
        if kind == "write":
            return Write(*given)  # type: ignore[arg-type]
        if kind == "truncate":
            return Cut(*given)  # type: ignore[arg-type]
        folder, name = self._entry(str(given[0]))
        if kind == "unlink":
            return Names(((folder, name, None),))
        if kind in ("create", "mkdir"):
            number = int(str(given[1]))
            self.known |= {number} if kind == "mkdir" else set()
            return Names(((folder, name, number),))
        target = (*self._entry(str(given[1])), self.now.folders[folder][name])
        return Names(((folder, name, None), target) if kind == "rename" else (target,))

    def _entry(self, path: str) -> tuple[int, str]:
        whole = PurePosixPath(path)
        return self.now.find(str(whole.parent)), whole.name

    def _make_durable(self, synced: Callable[[Change], bool]) -> None:
        left = []
        for change in self.pending:
            if synced(change):
                self.synced.apply(change)
            else:
                left.append(change)
        self.pending = left

    def states(self, chance: random.Random) -> Iterator[State]:
        """What may be there if the power goes now."""
        every = range(len(self.pending))
        chosen: list[Sequence[int]] = [[], every]
        chosen += [[other for other in every if other != number] for number in every]
        chosen += [[number] for number in every]
        chosen += [
            [number for number in every if chance.random() < share] for share in (chance.random() for _ in range(_SUBSETS))
        ]
        for some in dict.fromkeys(map(tuple, chosen)):
            yield self._state([self.pending[number] for number in some])
        writes = [number for number in every if isinstance(self.pending[number], Write)]
        if writes:
            torn = chance.choice(writes)
            changes = list(self.pending)
            changes[torn] = changes[torn].half()  # type: ignore[union-attr]
            yield self._state(changes)

    def _state(self, changes: Sequence[Change]) -> State:
        tree = self.synced.copy()
        for change in changes:
            tree.apply(change)
        return State(tuple(tree.files(frozenset(self.known))))
