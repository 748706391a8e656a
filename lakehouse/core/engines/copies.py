"""Copies on this machine of a bucket's data files: engines read and write local files, whatever the lake's place is.

A data file's name is never used again, so a copy stays true for as long as it is kept.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from lakehouse.core.errors import StoreError
from lakehouse.core.names import is_remote
from lakehouse.core.store.durability import make_folder, sync
from lakehouse.core.store.files import fetch, put, remove
from lakehouse.core.store.storage import staging


class Copies:
    """The copies of a session, below its own folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def local(self, paths: Sequence[str], *, folder: str = "") -> list[str]:
        """Paths on this machine of data files: those of a bucket are copied, once, to the session's folder or to `folder`.

        Raises:
            FileNotFoundError: one is not in the store.
            StoreError: the store does not answer, or refuses.
        """
        copies = {path: copy(folder or self.folder, path) for path in paths if is_remote(path)}
        fetch(copies)
        return [copies.get(path, path) for path in paths]

    def staging(self, folder: str) -> AbstractContextManager[Path]:
        """A new folder of this machine in which files for a table's folder are made; gone with the block."""
        return staging(self.folder if is_remote(folder) else folder)

    def adopt(self, staged: Mapping[str, str]) -> None:
        """Give staged files their place, `{path: URI}`, durably: all of them, or none.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        try:
            for path, uri in staged.items():
                if is_remote(uri):
                    put(uri, Path(path))
                    cached = Path(copy(self.folder, uri))  # what was written is mostly read again to be checked
                    cached.parent.mkdir(parents=True, exist_ok=True)
                    Path(path).rename(cached)
                else:
                    make_folder(Path(uri).parent)
                    Path(path).rename(uri)
            sync(staged.values())
        except BaseException:
            with suppress(StoreError, OSError):  # the first error is the one to tell
                remove([*staged.values()])
            raise


def copy(folder: str, uri: str) -> str:
    """Where the copy of a bucket's file is."""
    return f"{folder}/copies/{uri.replace('://', '/', 1)}"
