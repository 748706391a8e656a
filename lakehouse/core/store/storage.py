"""Storage: where tables, landed files and reports are, and how a file is put there so that it is whole or absent.

One record for the whole lake. A table's URI is made here and nowhere else.
"""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from lakehouse.core.errors import BusyError, DeclarationError, UnreadableFileError
from lakehouse.core.names import DELTA_LAYERS, NAME, TableRef, is_remote
from lakehouse.core.store import files
from lakehouse.core.store.lease import lease

#: Folders inside a table's folder in which an engine writes before files get their names begin with this.
STAGING = ".staged_"
#: The folder of a stream that says which of its generations have landed whole.
COMPLETE = "_complete"
#: A bucket by its legal name, and a prefix without anything that a library could take for a way out of it.
_BUCKET = re.compile(r"(s3|gs|az)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")


@dataclass(frozen=True)
class LandedFile:
    """One file of a landing stream: `path` is relative to the landing root, `version` changes when the content may have.

    `version` is the store's e-tag, or size and modification time where the store is a folder. `checksum` is that of the content
    where the source knows it; else it is computed.
    """

    path: str
    size: int
    version: str
    modified: float
    checksum: str = ""


@dataclass(frozen=True)
class View:
    """The versions of tables that one run reads: what others write as it was at the run's start, what it writes as it made it.

    Args:
        versions: by table, the version at the run's start, -1 where there was none. A table that is not there is read as it is.
        runs: the run, and those that it repeats: a commit of one of them is the run's own.
    """

    versions: Mapping[TableRef, int]
    runs: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The lake's places.

    Args:
        root: absolute folder of the lake, or its place in a bucket; `layers` gives single layers one of their own.
        landing: the place that holds `raw/<stream>/`.
        view: what a run reads of tables (`core/table/inputs.py`); None outside a run: tables as they are.
        base: another lake: what this one lacks is read from there. It is never written.
    """

    root: str
    landing: str
    layers: Mapping[str, str] = field(default_factory=dict)
    view: View | None = None
    base: "Storage | None" = None

    def __post_init__(self) -> None:
        for location in (self.root, *self.layers.values()):
            if re.search(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}", location):  # deltalake takes it for a URL, and loses the history
                raise DeclarationError(
                    f"{location!r} cannot be the folder of a Delta table.",
                    remedy="Choose a name without #, ?, backslash, control characters and % before two digits.",
                )
        for location in (self.root, self.landing, *self.layers.values()):
            if not (_BUCKET.fullmatch(location) if is_remote(location) else Path(location).is_absolute()):
                raise DeclarationError(
                    f"{location!r} is neither an absolute folder nor a place in a bucket.",
                    remedy="Set LAKEHOUSE_ROOT (LAKEHOUSE_<LAYER>_ROOT, LAKEHOUSE_LANDING) to a folder, or to s3://bucket/prefix.",
                )

    def uri(self, ref: TableRef) -> str:
        """The table's URI: `<root>/<layer>/<table>`, or `<layer root>/<table>` for a layer with a root of its own."""
        own = self.layers.get(ref.layer)
        return f"{own.rstrip('/')}/{ref.table}" if own else f"{self.root.rstrip('/')}/{ref.layer}/{ref.table}"

    def tables(self) -> list[TableRef]:
        """Every Delta table that is there, whoever made it, in the order of layers. Other folders are not looked into."""
        out = []
        for layer in DELTA_LAYERS:
            location = self.layers.get(layer) or f"{self.root.rstrip('/')}/{layer}"
            names = [name for name in files.folders_in(location.rstrip("/")) if NAME.fullmatch(name)]
            refs = [TableRef(layer, name) for name in names]
            out += [ref for ref in refs if self.has(ref)]
        return out

    def has(self, ref: TableRef) -> bool:
        """Whether a table has a log, without reading it."""
        return "_delta_log" in files.folders_in(self.uri(ref))

    def folders(self, *, links: bool = False) -> list[str]:
        """The folders of the lake and of landing that are on this machine: what work on it may read and write.

        Args:
            links: also what links below landing lead to, for whoever reads landed files.
        """
        out = [location for location in (self.root, self.landing, *self.layers.values()) if not is_remote(location)]
        if self.base is not None:
            out += self.base.folders()
        seen: set[Path] = set()
        links = links and not is_remote(self.landing)
        for location, folders, names in os.walk(Path(self.landing) / "raw", followlinks=True) if links else ():
            real = Path(location).resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            if Path(location).is_symlink():
                out.append(str(real))
            out += [str(path.resolve()) for name in names if (path := Path(location, name)).is_symlink()]
        return out

    def reach(self) -> None:
        """See that every bucket of the lake answers.

        Raises:
            StoreError: one does not, or refuses.
        """
        for location in (self.root, self.landing, *self.layers.values()):
            if is_remote(location):
                files.reach(files.bucket(location))
        if self.base is not None and is_remote(self.base.root):
            files.reach(files.bucket(self.base.root))

    def completed(self, stream: str) -> int:
        """The newest generation of a stream of which all files have landed, 0 when none is known to be whole."""
        return max(self.generations(stream), default=0)

    def generations(self, stream: str) -> list[int]:
        """The generations of a stream of which all files have landed, ascending.

        Whoever runs the sync says so, after its last file, with a file `raw/<stream>/_complete/<generation>`: from the data
        files alone nobody can tell a refresh that was cut off.
        """
        names = files.names_in(f"{self.landing.rstrip('/')}/raw/{stream}/{COMPLETE}")
        return sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d{0,17}", name))

    def complete(self, stream: str, generation: int) -> None:
        """Say that all files of a stream's generation have landed."""
        files.put(f"{self.landing.rstrip('/')}/raw/{stream}/{COMPLETE}/{generation:d}", b"")

    def landed(self, stream: str) -> list[LandedFile]:
        """Every file of a stream that holds something, sub-folders included, in path order.

        Names that begin with `.` or `_` are not data.

        Raises:
            UnreadableFileError: a name is not UTF-8, so no table can hold it.
        """
        if is_remote(self.landing):
            return self._landed_objects(stream)
        folder = Path(self.landing) / "raw" / stream
        found = []
        seen: set[Path] = set()
        # obstore's LocalStore leaves out names that end in `#<digits>`, and fails for all when one name holds a line break.
        for location, folders, names in os.walk(folder, followlinks=True):
            real = Path(location).resolve()
            folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith((".", "_")))
            for name in names if real not in seen else ():
                if not name.startswith((".", "_")):
                    found += self._landed_file(f"raw/{stream}/", folder, Path(location, name))
            seen.add(real)
        return sorted(found, key=lambda item: item.path)

    @staticmethod
    def _landed_file(prefix: str, folder: Path, file: Path) -> list[LandedFile]:
        try:
            stat = file.stat()
        except FileNotFoundError:  # gone since it was listed, or a link to nothing
            return []
        if not S_ISREG(stat.st_mode) or not stat.st_size:
            return []
        path = prefix + file.relative_to(folder).as_posix()
        try:
            path.encode()
        except UnicodeEncodeError as error:
            what = f"The name of the landed file {path!r} is not UTF-8."
            raise UnreadableFileError(what, remedy="Rename the file.") from error
        return [LandedFile(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns // 1000}", stat.st_mtime)]

    def _landed_objects(self, stream: str) -> list[LandedFile]:
        prefix = f"raw/{stream}/"
        found = files.listing(f"{self.landing.rstrip('/')}/raw/{stream}", below=True)
        data = {path: file for path, file in found.items() if not any(part.startswith((".", "_")) for part in path.split("/"))}
        return [LandedFile(prefix + path, f.size, f.version, f.modified) for path, f in sorted(data.items()) if f.size]

    def landed_path(self, path: str) -> str:
        """The URI of a landed file."""
        return f"{self.landing.rstrip('/')}/{path}"

    def landed_here(self, landed: Sequence[LandedFile], folder: str) -> str:
        """The folder of this machine that holds these landed files under their paths: landing itself, or `folder`, to which
        they are copied from an object store."""
        if not is_remote(self.landing):
            return self.landing
        files.fetch({self.landed_path(file.path): f"{folder}/{file.path}" for file in landed})
        return folder

    def put(self, ref: TableRef, name: str, content: bytes) -> str:
        """Write a whole file below a table's place, atomically; unchanged content is left untouched. Returns its URI."""
        target = f"{self.uri(ref)}/{name}"
        try:
            if files.read(target) == content:
                return target
        except FileNotFoundError:
            pass
        files.put(target, content)
        return target


@contextmanager
def lock(folder: str, *, wait: float = 600.0) -> Iterator[None]:
    """Hold a table while working on it, so that two processes do not do the same work.

    This is politeness, not safety: what keeps a table right is the fence in the commit (`core/table/transaction.py`). The lock
    is the kernel's, on the folder itself: it leaves no file behind and ends with the process, however that ends. In an object
    store it is a lease (`core/store/lease.py`).

    Raises:
        BusyError: another process still held it after `wait` seconds.
    """
    if is_remote(folder):
        with lease(folder, wait=wait):
            yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"{folder} is being written by another run{_owner(handle)}; waited {wait:.0f} s.",
                        remedy="Wait for that run to end, or end it, and start this one again.",
                    ) from None
                time.sleep(0.1)
        _sweep(folder)
        yield
    finally:
        os.close(handle)


@contextmanager
def staging(folder: str) -> Iterator[Path]:
    """A new folder inside a table's folder, gone with the block. What killed writers left there goes first.

    Tables that no asset holds (ledger, plan, quarantine, deletes) are swept by this alone.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    while True:  # another writer may take it for abandoned between its making and its lock
        own = Path(folder, f"{STAGING}{uuid.uuid4().hex}")
        own.mkdir()
        if (handle := _taken(own)) is not None:
            break
    try:
        yield own
    finally:
        shutil.rmtree(own)
        os.close(handle)


def _sweep(folder: str) -> None:
    """Remove what killed writers left in a table's folder: nobody holds it."""
    for left in Path(folder).glob(f"{STAGING}*"):
        if (handle := _taken(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)


def _taken(folder: Path) -> int | None:
    """A handle that holds a folder; None when another process holds it, or it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(handle).st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _owner(handle: int) -> str:
    inode = os.fstat(handle).st_ino
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    return "".join(f" (process {line.split()[4]})" for line in locks if f":{inode} " in line)[:60]
