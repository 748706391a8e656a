"""Backups: every table as it is at one moment, in a folder or an object store of its own; and their proof by restoring them.

    <root>/objects/ab/<sha256>     what was copied, each content once: data files, log files, databases
    <root>/manifests/<time>.json   one per backup, written last: which object is which file of which table, at which version
    <root>/proofs/<time>.json      what restoring that backup to a scratch folder has shown

A file whose size and modification time (or e-tag) are as in the backup before is not read again. What a killed backup has
copied is in no manifest: the next one uses or removes it. Pure: no dagster. `docs/decisions/0062` has the reasons.
"""

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lakehouse.core import files as stored
from lakehouse.core.delta import Snapshot, open_existing
from lakehouse.core.engines import Session
from lakehouse.core.errors import BrokenTableError, DeclarationError, LakehouseError, RefusedWriteError, StoreError
from lakehouse.core.files import Found, is_remote
from lakehouse.core.names import TableRef
from lakehouse.core.storage import Storage, hold
from lakehouse.maintenance.protect import Versions
from lakehouse.observability.text import one_line

_STAMP = "%Y%m%dT%H%M%S%fZ"
_SAFE = re.compile(r"(?!.*(^|/)\.\.?(/|$))[^/\x00-\x1f][^\x00-\x1f]*")
_SHA = re.compile(r"[0-9a-f]{64}")


class BrokenBackupError(LakehouseError):
    """A backup does not hold what its manifest says. Nothing was put in a table's place."""


class AlteredError(BrokenBackupError):
    """An object of a backup is not what was copied."""

    def __init__(self, place: str, path: str) -> None:
        remedy = (
            "Its storage altered it. Use another backup: AT=<time>; make prove puts it aside, and make backup copies it anew."
        )
        super().__init__(f"{place}, which is {path}, is not what was backed up.", remedy=remedy)
        self.place = place


@dataclass(frozen=True)
class Copied:
    """One file of a backup; `tag` says whether the original has been written since."""

    size: int
    sha: str
    tag: str


@dataclass(frozen=True)
class Table:
    """One table of a backup, at one version; `files` are those of its data and its log, by path below the table."""

    id: str
    version: int
    rows: int
    files: Mapping[str, Copied]

    @property
    def content(self) -> str:
        """A hash of all that makes up the table."""
        return content_hash({path: file.sha for path, file in self.files.items()})


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What one backup holds. `skipped` are tables that could not be copied, each with the reason."""

    name: str
    tables: Mapping[TableRef, Table]
    databases: Mapping[str, Copied] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> set[str]:
        return {file.sha for table in self.tables.values() for file in table.files.values()} | {
            file.sha for file in self.databases.values()
        }


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What restoring a backup has shown: the tables (and databases) that came back the same, and those that did not.

    `unchanged` are those of which an earlier backup had the same content and was proven; they were not restored again.
    """

    name: str
    proven: Sequence[str]
    unchanged: Sequence[str]
    damaged: Mapping[str, str]
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A backup that was made; `read` are the files of the lake that were read, `written` those that were new."""

    backup: Backup
    read: int
    written: int
    written_bytes: int


def content_hash(files: Mapping[str, str]) -> str:
    """One hash of files by path and SHA-256."""
    return hashlib.sha256("".join(f"{path}\0{sha}\n" for path, sha in sorted(files.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Vault:
    """The place of the backups. `scratch` is a folder of this machine for what passes through."""

    root: str
    scratch: str

    # --- what there is -----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every complete backup, oldest first."""
        found = stored.names_in(f"{self.root}/manifests")
        return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))

    def chosen(self, at: str = "") -> Backup:
        """The newest backup, or the newest whose name begins with `at`.

        Raises:
            DeclarationError: there is none.
        """
        names = self.names()
        wanted = re.sub(r"[-: ]", "", at).upper()
        found = [name for name in names if name.startswith(wanted)]
        if not found:
            known = f"There are {', '.join(names[-10:])}." if names else "Make one: make backup."
            what = f"There is no backup of {at[:40]!r} in {self.root}." if at else f"There is no backup in {self.root}."
            raise DeclarationError(what, remedy=f"{known} LAKEHOUSE_BACKUP_ROOT says where backups are.")
        return self.read(found[-1])

    def read(self, name: str) -> Backup:
        """A backup by its name.

        Raises:
            BrokenBackupError: its manifest is not one.
        """
        place = f"{self.root}/manifests/{name}.json"
        try:
            content = json.loads(stored.read(place))
            return Backup(
                name=name,
                tables={_ref(key): Table(**{**t, "files": _copied(t["files"])}) for key, t in content["tables"].items()},
                databases=_copied(content["databases"]),
                skipped=content["skipped"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenBackupError(
                f"The manifest {place} is cut off or garbled.", remedy="Use another backup: make restore ... AT=<time>."
            ) from error

    def versions(self) -> Versions:
        """The versions of tables that the backups hold."""
        out: dict[tuple[TableRef, str], dict[int, str]] = {}
        for name in self.names():
            for ref, table in self.read(name).tables.items():
                out.setdefault((ref, table.id), {})[table.version] = f"in backup {name}"
        return out

    def proof(self, name: str) -> Proof | None:
        """What the newest proof of a backup has shown; None when there was none."""
        try:
            return Proof(**json.loads(stored.read(f"{self.root}/proofs/{name}.json")))
        except FileNotFoundError:
            return None

    def place(self, sha: str) -> str:
        """Where an object is."""
        if not _SHA.fullmatch(sha):
            raise BrokenBackupError(f"{sha[:80]!r} is not the name of an object.", remedy="Use another backup.")
        return f"{self.root}/objects/{sha[:2]}/{sha}"

    def _objects(self) -> dict[str, Found]:
        return {path.rpartition("/")[2]: file for path, file in stored.listing(f"{self.root}/objects", below=True).items()}

    # --- to make one -------------------------------------------------------------------------------------------------

    def take(self, storage: Storage, *, databases: Mapping[str, Path] | None = None, now: datetime | None = None) -> Taken:
        """Back up every table of the lake as of one moment, and SQLite databases by name.

        Raises:
            StoreError: the target does not answer, or refuses.
            BusyError: a table stayed in a writer's hands.
        """
        Path(self.scratch).mkdir(parents=True, exist_ok=True)
        with hold(self.root):
            names = self.names()
            before = self.read(names[-1]) if names else None
            run = _Run(self, set(self._objects()))
            snapshots, skipped = snapshots_at_once(storage)
            tables: dict[TableRef, Table] = {}
            for ref, snapshot in snapshots.items():
                try:
                    tables[ref] = run.table(snapshot, before.tables.get(ref) if before else None)
                except (BrokenTableError, FileNotFoundError) as error:
                    skipped[str(ref)] = one_line(str(error))
            kept = {
                name: run.database(path, before.databases.get(name) if before else None)
                for name, path in (databases or {}).items()
            }
            made = Backup(name=(now or datetime.now(UTC)).strftime(_STAMP), tables=tables, databases=kept, skipped=skipped)
            content = {
                "tables": {str(ref): asdict(table) for ref, table in tables.items()},
                "databases": {name: asdict(file) for name, file in kept.items()},
                "skipped": skipped,
            }
            stored.put(f"{self.root}/manifests/{made.name}.json", json.dumps(content).encode(), new=True)
        return Taken(backup=made, read=run.read, written=run.written, written_bytes=run.written_bytes)

    def expire(self, *, keep: int) -> list[str]:
        """Remove all but the newest backups, and objects that no backup has. The newest that is proven stays. Their names."""
        with hold(self.root):
            names = self.names()
            proven = [name for name in names if (proof := self.proof(name)) is not None and not proof.damaged]
            kept = {*names[-keep:], *proven[-1:]}
            gone = [name for name in names if name not in kept]
            stored.remove([f"{self.root}/{kind}/{name}.json" for name in gone for kind in ("manifests", "proofs")])
            used: set[str] = set().union(*(self.read(name).objects for name in kept)) if kept else set()
            stored.remove([self.place(sha) for sha in self._objects() if sha not in used and _SHA.fullmatch(sha)])
        return gone

    # --- to get it back ----------------------------------------------------------------------------------------------

    def fetch(self, files: Mapping[str, Copied], folder: str) -> int:
        """Put files of a backup below a folder of this machine, each compared with its SHA-256. Returns their bytes.

        Raises:
            BrokenBackupError: one is missing or is not what was copied.
        """
        for path, file in files.items():
            if not _SAFE.fullmatch(path):
                raise BrokenBackupError(f"The backup names the file {path[:80]!r}.", remedy="Use another backup.")
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with stored.at_hand(self.place(file.sha), by=self.scratch) as source:
                    shutil.copyfile(source, target)
            except FileNotFoundError:
                raise BrokenBackupError(
                    f"{self.place(file.sha)}, which is {path}, is not there.", remedy="Use another backup: AT=<time>."
                ) from None
            if stored.digest(str(target)) != file.sha:
                target.unlink()
                raise AlteredError(self.place(file.sha), path)
        return sum(file.size for file in files.values())

    def prove(
        self,
        backup: Backup,
        *,
        session: Callable[[], AbstractContextManager[Session]],
        whole: bool = True,
    ) -> Proof:
        """Restore every table and database to a scratch folder, one by one; compare hash and count, and keep the outcome.

        Args:
            whole: False leaves out what an earlier backup has the same content of and was proven for.

        An object that was altered is moved to `altered/`, so that the next backup copies it anew.
        """
        unchanged = [] if whole else self._proven_before(backup)
        proven, damaged, files, size = [], {}, 0, 0
        parts: dict[str, tuple[Mapping[str, Copied], Callable[[str], None]]] = {
            str(ref): (table.files, partial(_check_table, table=table, session=session)) for ref, table in backup.tables.items()
        }
        for name, file in backup.databases.items():
            parts[name] = ({"copy.db": file}, _check_database)
        for name, (content, check) in parts.items():
            if name in unchanged:
                continue
            folder = Path(self.scratch, "proof")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                size += self.fetch(content, str(folder))
                check(str(folder))
            except (BrokenBackupError, BrokenTableError) as error:
                damaged[name] = one_line(error.what)
                if isinstance(error, AlteredError):
                    with stored.at_hand(error.place, by=self.scratch) as altered:
                        stored.put(f"{self.root}/altered/{error.place.rpartition('/')[2]}", altered)
                    stored.remove([error.place])
            else:
                proven.append(name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            files += len(content)
        found = Proof(name=backup.name, proven=proven, unchanged=unchanged, damaged=damaged, files=files, bytes=size)
        stored.put(f"{self.root}/proofs/{backup.name}.json", json.dumps(asdict(found)).encode())
        return found

    def _proven_before(self, backup: Backup) -> list[str]:
        """What the newest proof of an earlier backup vouches for, and is the same in this one."""
        for name in reversed([name for name in self.names() if name < backup.name]):
            proof = self.proof(name)
            if proof is not None:
                earlier = self.read(name)
                same = [str(ref) for ref, table in backup.tables.items() if _same(earlier.tables.get(ref), table)]
                same += [
                    n for n, file in backup.databases.items() if n in earlier.databases and earlier.databases[n].sha == file.sha
                ]
                return sorted({*proof.proven, *proof.unchanged} & set(same))
        return []

    def restore(self, backup: Backup, ref: TableRef, storage: Storage, *, force: bool = False) -> int:
        """Put a table back as it was in a backup; its rows.

        Raises:
            DeclarationError: the backup does not have it.
            RefusedWriteError: there is something in its place, and not `force`.
            BrokenBackupError: the backup is damaged; what is in its place stays.
        """
        table = backup.tables.get(ref)
        if table is None:
            listed = ", ".join(map(str, backup.tables))
            raise DeclarationError(f"Backup {backup.name} has no table {ref}.", remedy=f"It has {listed[:600]}.")
        refuse_over([storage.uri(ref)], force=force)
        Path(self.scratch).mkdir(parents=True, exist_ok=True)
        if is_remote(storage.uri(ref)):
            self._restore_object_store(table, storage.uri(ref))
        else:
            self._restore_folder(table, Path(storage.uri(ref)))
        found = open_existing(storage.uri(ref))
        if found is None or (found.version, found.id, found.rows) != (table.version, table.id, table.rows):
            raise BrokenBackupError(
                f"{ref} did not come back as it was in backup {backup.name}.", remedy="Use another: AT=<time>."
            )
        found.check()
        return found.rows

    def _restore_folder(self, table: Table, place: Path) -> None:
        """Beside it first, then in its place by a rename: what was killed in between is done again by the same command."""
        new, old = (place.with_name(f"{place.name}.{word}") for word in ("restoring", "replaced"))
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        self.fetch(table.files, str(new))
        with ExitStack() as stack:
            if place.exists():
                stack.enter_context(hold(str(place)))
                place.rename(old)
            new.rename(place)
        shutil.rmtree(old, ignore_errors=True)

    def _restore_object_store(self, table: Table, uri: str) -> None:
        """The log last, its newest commit first: until the oldest is there it is no table, never an older version of one."""
        folder = Path(self.scratch, "restoring")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self.fetch(table.files, str(folder))
            with hold(uri):
                there = stored.listing(uri, below=True)
                log = sorted(path for path in there if path.startswith("_delta_log/"))
                stored.remove([f"{uri}/{path}" for path in log])
                stored.remove([f"{uri}/{p}" for p in there if p not in log and p not in table.files and p.endswith(".parquet")])
                data = [path for path in table.files if not path.startswith("_delta_log/")]
                for path in (*data, *sorted(set(table.files) - set(data), reverse=True)):
                    stored.put(f"{uri}/{path}", folder / path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One backup under way: what is there already, and what was read and written."""

    def __init__(self, vault: Vault, objects: set[str]) -> None:
        self.vault, self.objects = vault, objects
        self.read = self.written = self.written_bytes = 0

    def table(self, snapshot: Snapshot, before: Table | None) -> Table:
        """Copy what is new of a table at its version: data files first, its log last."""
        snapshot.check()
        there = stored.listing(snapshot.uri, below=True)
        data = [file.path for file in snapshot.files]
        log = sorted(p for p in there if p.startswith("_delta_log/") and _number(p) <= snapshot.version)
        known = before.files if before is not None and before.id == snapshot.id else {}
        files = {path: self._file(f"{snapshot.uri}/{path}", there.get(path), known.get(path)) for path in (*data, *log)}
        return Table(snapshot.id, snapshot.version, snapshot.rows, files)

    def _file(self, uri: str, found: Found | None, known: Copied | None) -> Copied:
        if found is None:
            raise FileNotFoundError(uri)
        if known is not None and (known.size, known.tag) == (found.size, found.version) and known.sha in self.objects:
            return known
        with stored.at_hand(uri, by=self.vault.scratch) as here:
            return self._put(here, found.version)

    def database(self, path: Path, known: Copied | None) -> Copied:
        """Copy a SQLite database as of one transaction, whoever writes it meanwhile."""
        parts = [stored.stat(str(part)).version for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()]
        tag = " ".join(parts)
        if known is not None and known.tag == tag and known.sha in self.objects:
            return known
        copy = Path(self.vault.scratch, "database.db")
        copy.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            return self._put(copy, tag)
        finally:
            copy.unlink(missing_ok=True)

    def _put(self, here: Path, tag: str) -> Copied:
        sha, size = stored.digest(str(here)), here.stat().st_size
        self.read += 1
        if sha not in self.objects:
            stored.put(self.vault.place(sha), here)
            self.objects.add(sha)
            self.written += 1
            self.written_bytes += size
        return Copied(size, sha, tag)


def snapshots_at_once(storage: Storage) -> tuple[dict[TableRef, Snapshot], dict[str, str]]:
    """Every table as of one moment, and those that cannot be opened with the reason.

    Bronze and silver are held while tables are opened: plan, quarantine and remembered deletes are written by who holds these,
    and only together do they say what was taken in.
    """
    found: dict[TableRef, Snapshot] = {}
    broken: dict[str, str] = {}
    with ExitStack() as stack:
        refs = storage.tables()
        for ref in refs:
            if ref.layer in ("bronze", "silver"):
                stack.enter_context(hold(storage.uri(ref)))
        for ref in storage.tables():
            try:
                snapshot = open_existing(storage.uri(ref))
                if snapshot is not None:
                    _ = snapshot.files
                    found[ref] = snapshot
            except StoreError:
                raise
            except LakehouseError as error:
                broken[str(ref)] = one_line(str(error))
    return found, broken


def refuse_over(places: Iterable[str], *, force: bool) -> None:
    """Refuse to restore over what is there.

    Raises:
        RefusedWriteError: there is something in one of the places, and not `force`.
    """
    for place in places:
        if not force and (stored.listing(place, below=True) or (not is_remote(place) and Path(place).is_file())):
            raise RefusedWriteError(f"There is data in {place}.", remedy="To replace it by the backup's, add FORCE=1.")


def _check_table(folder: str, *, table: Table, session: Callable[[], AbstractContextManager[Session]]) -> None:
    import narwhals as nw

    found = open_existing(folder)
    if found is None or (found.version, found.id, found.rows) != (table.version, table.id, table.rows):
        raise BrokenBackupError("It does not open at the version that was backed up.", remedy="Use another backup.")
    hashes = {path: stored.digest(f"{folder}/{path}") for path in table.files}
    if content_hash(hashes) != table.content:
        raise BrokenBackupError("Its content is not what was backed up.", remedy="Use another backup.")
    if not found.files:
        return
    with session() as opened:
        counted = opened.rows(opened.read(found.paths(), found.columns).select(nw.len().alias("n")))[0][0]
    if counted != table.rows:
        raise BrokenBackupError(f"It has {counted:,} rows instead of {table.rows:,}.", remedy="Use another backup.")


def _same(one: Table | None, other: Table) -> bool:
    return one is not None and (one.version, one.content) == (other.version, other.content)


def _check_database(folder: str) -> None:
    with closing(sqlite3.connect(f"{folder}/copy.db")) as database:
        said = database.execute("PRAGMA integrity_check").fetchone()[0]
    if said != "ok":
        raise BrokenBackupError(f"SQLite says: {said}.", remedy="Use another backup.")


def _number(path: str) -> float:
    """The version of a file of the log; none for the pointer to the last checkpoint, which is only a hint."""
    name = path.removeprefix("_delta_log/")
    return int(name[:20]) if name[:20].isdigit() else float("inf")


def _ref(key: str) -> TableRef:
    layer, _, table = key.partition("/")
    return TableRef(layer, table)  # type: ignore[arg-type]  # refuses what is no layer


def _copied(files: Mapping[str, Any]) -> dict[str, Copied]:
    return {name: Copied(**file) for name, file in files.items()}
