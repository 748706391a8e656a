"""Backups: every table as it is at one moment, in a folder or an object store of its own; and their proof by restoring them.

    <root>/objects/ab/<sha256>     what was copied, each content once: data files, log files, databases
    <root>/manifests/<time>.json   one per backup, written last: which object is which file of which table, at which version
    <root>/proofs/<time>.json      what restoring that backup to a scratch folder has shown

A file whose size and modification time (or e-tag) are as in the backup before is not read again. What a killed backup has
copied is in no manifest: the next one uses or removes it. Pure: no dagster. `docs/decisions/0062` has the reasons.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError, DeclarationError, LakehouseError, RefusedWriteError, StoreError
from lakehouse.core.names import TableRef, is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.store.durability import sync
from lakehouse.core.store.files import Found
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.text import one_line
from lakehouse.maintenance.manifest import (
    AlteredError,
    Backup,
    BrokenBackupError,
    Copied,
    Proof,
    Table,
    Taken,
    content_hash,
    copied,
    table_ref,
)
from lakehouse.maintenance.protect import Versions

_STAMP = "%Y%m%dT%H%M%S%fZ"
_SAFE = re.compile(r"(?!.*(^|/)\.\.?(/|$))[^/\x00-\x1f][^\x00-\x1f]*")
_SHA = re.compile(r"[0-9a-f]{64}")


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
        location = f"{self.root}/manifests/{name}.json"
        try:
            content = json.loads(stored.read(location))
            return Backup(
                name=name,
                tables={table_ref(key): Table(**{**t, "files": copied(t["files"])}) for key, t in content["tables"].items()},
                databases=copied(content["databases"]),
                skipped=content["skipped"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenBackupError(
                f"The manifest {location} is cut off or garbled.", remedy="Use another backup: make restore ... AT=<time>."
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

    def location(self, sha: str) -> str:
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
        with lock(self.root):
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
            database_files = {
                name: run.database(path, before.databases.get(name) if before else None)
                for name, path in (databases or {}).items()
            }
            made = Backup(
                name=(now or datetime.now(UTC)).strftime(_STAMP), tables=tables, databases=database_files, skipped=skipped
            )
            content = {
                "tables": {str(ref): asdict(table) for ref, table in tables.items()},
                "databases": {name: asdict(file) for name, file in database_files.items()},
                "skipped": skipped,
            }
            stored.put(f"{self.root}/manifests/{made.name}.json", json.dumps(content).encode(), new=True)
        return Taken(backup=made, read=run.read, written=run.written, written_bytes=run.written_bytes)

    def expire(self, *, retain: int) -> list[str]:
        """Remove all but the newest backups, and objects that no backup has. The newest that is proven stays. Their names."""
        with lock(self.root):
            names = self.names()
            proven = [name for name in names if (proof := self.proof(name)) is not None and not proof.damaged]
            retained = {*names[-retain:], *proven[-1:]}
            gone = [name for name in names if name not in retained]
            stored.remove([f"{self.root}/{kind}/{name}.json" for name in gone for kind in ("manifests", "proofs")])
            used: set[str] = set().union(*(self.read(name).objects for name in retained)) if retained else set()
            stored.remove([self.location(sha) for sha in self._objects() if sha not in used and _SHA.fullmatch(sha)])
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
                with stored.at_hand(self.location(file.sha), by=self.scratch) as source:
                    shutil.copyfile(source, target)
            except FileNotFoundError:
                raise BrokenBackupError(
                    f"{self.location(file.sha)}, which is {path}, is not there.", remedy="Use another backup: AT=<time>."
                ) from None
            if stored.digest(str(target)) != file.sha:
                target.unlink()
                raise AlteredError(self.location(file.sha), path)
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
                    with stored.at_hand(error.location, by=self.scratch) as altered:
                        stored.put(f"{self.root}/altered/{error.location.rpartition('/')[2]}", altered)
                    stored.remove([error.location])
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

    def _restore_folder(self, table: Table, location: Path) -> None:
        """Beside it first, then in its place by a rename: what was killed in between is done again by the same command."""
        new, old = (location.with_name(f"{location.name}.{word}") for word in ("restoring", "replaced"))
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        self.fetch(table.files, str(new))
        with ExitStack() as stack:
            if location.exists():
                stack.enter_context(lock(str(location)))
                location.rename(old)
            sync(str(new / path) for path in table.files)
            new.rename(location)
            sync([str(location)])
        shutil.rmtree(old, ignore_errors=True)

    def _restore_object_store(self, table: Table, uri: str) -> None:
        """The log last, its newest commit first: until the oldest is there it is no table, never an older version of one."""
        folder = Path(self.scratch, "restoring")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self.fetch(table.files, str(folder))
            with lock(uri):
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
            stored.put(self.vault.location(sha), here)
            self.objects.add(sha)
            self.written += 1
            self.written_bytes += size
        return Copied(size, sha, tag)


def snapshots_at_once(storage: Storage) -> tuple[dict[TableRef, Snapshot], dict[str, str]]:
    """Every table as of one moment, and those that cannot be opened with the reason.

    Bronze and silver are locked while tables are opened: plan, quarantine and tombstones are written under these locks,
    and only together do they say what was taken in.
    """
    found: dict[TableRef, Snapshot] = {}
    broken: dict[str, str] = {}
    with ExitStack() as stack:
        refs = storage.tables()
        for ref in refs:
            if ref.layer in ("bronze", "silver"):
                stack.enter_context(lock(storage.uri(ref)))
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


def refuse_over(locations: Iterable[str], *, force: bool) -> None:
    """Refuse to restore over what is there.

    Raises:
        RefusedWriteError: there is something in one of the places, and not `force`.
    """
    for location in locations:
        if not force and (stored.listing(location, below=True) or (not is_remote(location) and Path(location).is_file())):
            raise RefusedWriteError(f"There is data in {location}.", remedy="To replace it by the backup's, add FORCE=1.")


def _check_table(folder: str, *, table: Table, session: Callable[[], AbstractContextManager[Session]]) -> None:
    found = open_existing(folder)
    if found is None or (found.version, found.id, found.rows) != (table.version, table.id, table.rows):
        raise BrokenBackupError("It does not open at the version that was backed up.", remedy="Use another backup.")
    hashes = {path: stored.digest(f"{folder}/{path}") for path in table.files}
    if content_hash(hashes) != table.content:
        raise BrokenBackupError("Its content is not what was backed up.", remedy="Use another backup.")
    if not found.files:
        return
    with session() as opened:
        counted = opened.count(opened.read(found.paths(), found.columns))
    if counted != table.rows:
        raise BrokenBackupError(f"It has {counted:,} rows instead of {table.rows:,}.", remedy="Use another backup.")


def _same(one: Table | None, other: Table) -> bool:
    return one is not None and (one.version, one.content) == (other.version, other.content)


def _check_database(folder: str) -> None:
    with closing(sqlite3.connect(f"{folder}/copy.db")) as database:
        reported = database.execute("PRAGMA integrity_check").fetchone()[0]
    if reported != "ok":
        raise BrokenBackupError(f"SQLite says: {reported}.", remedy="Use another backup.")


def _number(path: str) -> float:
    """The version of a file of the log; none for the pointer to the last checkpoint, which is only a hint."""
    name = path.removeprefix("_delta_log/")
    return int(name[:20]) if name[:20].isdigit() else float("inf")
