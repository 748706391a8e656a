"""Sources at work: what a declaration means over a lake's storage, registered by the declaration's type.

    TableSpec.source ─▶ landing(source, storage) ─▶ Landing: which files count, where they are, whether they are whole

Here: one function a kind of source. Not here: what the files hold (`files/`), other writers' logs (`versions.py`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import TYPE_CHECKING

from lakehouse.core.errors import DeclarationError
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.readers import versions
from lakehouse.landing.readers.here import Here
from lakehouse.tables.spec import AirbyteStream, DeltaSource, PlainFiles, Source, Sync

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession


@dataclass(frozen=True, kw_only=True)
class Landing:
    """A source's files over one lake.

    Args:
        name: what the source is called where it is looked for.
        storage: the lake's; paths of files that landed are relative to its `landing`.
        location: what a person looks at: a folder, a prefix of a bucket, a table.
        description: of the landing asset; `kinds` are the technologies that the UI shows.
        landed: the files that count now, in path order, given those that were planned before: `{path: checksum}`.
        generations: all generations of which all files have landed; none where the source does not say.
        fixed: a file is never written again, so it needs no second look after it was read.
        version: what changes whenever something lands, empty when nothing is there; for a source that can tell it without a
            listing of its files.
        anew: the same as `landed` where somebody allowed that what is there now is not what was read before.
        copied: makes these files in a folder of this machine; for a source that has none.
        generation: of files that are taken in, for a source whose files have one by their name.
    """

    name: str
    storage: Storage
    location: str
    description: str
    kinds: frozenset[str]
    landed: Callable[[Mapping[str, str]], list[LandedFile]]
    generations: Callable[[], Sequence[int]] = tuple
    fixed: bool = False
    version: Callable[[], str] | None = None
    anew: Callable[[Mapping[str, str]], list[LandedFile]] | None = None
    copied: Callable[..., Here] | None = None
    generation: Callable[[Sequence[LandedFile]], int] = lambda files: 0

    def completed(self) -> int:
        """The newest generation of which all files have landed, 0 when none is known to be whole."""
        return max(self.generations(), default=0)

    def here(self, session: "DuckDBSession", files: Sequence[LandedFile], *, sync: Sync, known: Collection[str]) -> Here:
        """These files on this machine.

        Args:
            known: paths that were read before.
        """
        folder = f"{session.folder}/landing"
        if self.copied is None:
            return Here(self.storage.landed_here(files, folder))
        return self.copied(session, files=files, folder=folder, sync=sync, known=known)

    def listing(self) -> tuple[list[str], int]:
        """Lines of which one differs whenever something has landed, and the number of files."""
        if self.version is not None:
            version = self.version()
            return ([f"{self.name}\x00{version}"], 1) if version else ([], 0)
        completed, files = self.completed(), self.landed({})
        return [f"{self.name}\x00{completed}", *(f"{file.path}\x00{file.version}" for file in files)], len(files)


@singledispatch
def landing(source: Source, storage: Storage) -> Landing:
    """The files of a declared source over a lake.

    Raises:
        DeclarationError: nothing is registered for sources of this type.
    """
    raise DeclarationError(
        f"Sources of the type {type(source).__name__} are declared, and nothing reads them.",
        remedy="Register a function for it in lakehouse/landing/readers/registry.py.",
    )


@landing.register
def _airbyte(source: AirbyteStream, storage: Storage) -> Landing:
    return Landing(
        name=source.folder,
        storage=storage,
        location=f"{storage.landing}/raw/{source.folder}",
        description=f"Files of the stream {source.asset}, as delivered.",
        kinds=frozenset({"airbyte"}),
        landed=lambda known: storage.landed(source.folder),
        generations=lambda: storage.generations(source.folder),
    )


@landing.register
def _plain(source: PlainFiles, storage: Storage) -> Landing:
    return Landing(
        name=source.folder,
        storage=storage,
        location=f"{storage.landing}/raw/{source.folder}",
        description=f"Files of {source.asset}, as delivered.",
        kinds=frozenset({"files"}),
        landed=lambda known: storage.landed(source.folder),
    )


@landing.register
def _delta(source: DeltaSource, storage: Storage) -> Landing:
    return Landing(
        name=source.uri,
        storage=storage,
        location=source.uri,
        description=f"The Delta table {source.asset} of another writer.",
        kinds=frozenset({"deltalake"}),
        landed=lambda known: versions.landed(source, known=known),
        anew=lambda known: versions.landed(source, known=known, anew=True),
        fixed=True,
        version=lambda: versions.state(source),
        copied=partial(versions.copied, source=source),
        generation=versions.generation,
    )


def owned(source: Source, storage: Storage) -> list[LandedFile]:
    """The landed files that are this lake's, so that they may be rewritten and removed; none of a table of another writer."""
    return landing(source, storage).landed({}) if source.owned else []
