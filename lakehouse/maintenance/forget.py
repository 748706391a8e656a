"""Forget: all that the lake says of one subject is erased, in every file, version and backup; `make forget TABLE=... KEY=...`.

    landing (files rewritten) ─▶ quarantine ─▶ silver, tombstones, baseline ─▶ bronze ─▶ [gold computed again]
        ─▶ history (one version is left) ─▶ [a new backup, proven; the older ones go] ─▶ search

Bronze goes last: what is to be erased elsewhere is found by it, so the same command finishes what was killed. A key of silver
goes with all its records, unless its newest is about somebody else; then the subject's own go. Pinned versions and those of
registered models are refused: a version cannot be kept and rewritten. Pure: no dagster; the command does what is in brackets.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import narwhals as nw

from lakehouse.bronze.ingest import finalise_quarantine as finalise_files
from lakehouse.bronze.ingest import landing_of, new_files
from lakehouse.core import ledger
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.ledger import PlannedFile
from lakehouse.core.names import TableRef
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table, require_table
from lakehouse.core.table.torn import ASIDE
from lakehouse.landing.readers.files.reading import reading
from lakehouse.landing.readers.registry import owned
from lakehouse.maintenance import histories
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.landed_records import Naming, without
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.removal import log, remove_rows
from lakehouse.silver import baseline, inputs
from lakehouse.silver.history_baseline import tables_of as history_tables
from lakehouse.silver.inputs import ROW_ID, Feed
from lakehouse.silver.merge import baseline_ref, tombstones_ref
from lakehouse.silver.refresh import finalise_quarantine
from lakehouse.silver.validate import Validator
from lakehouse.tables.spec import TableSpec, history_ref


@dataclass(frozen=True)
class Subject:
    """One subject: the tables that know it, and its key."""

    kind: str
    key: str
    specs: tuple[TableSpec, ...]

    def naming(self, spec: TableSpec) -> Naming:
        """What names it in the records of one table."""
        own = [column for column in spec.delivered if column.name == _column(spec)]
        return Naming(frozenset(column.bronze_name for column in own), self.key, exact=own[0].field if own else "")

    @property
    def columns(self) -> frozenset[str]:
        """The columns by which other tables name it; `id` alone says nothing of whom."""
        return frozenset(_column(spec) for spec in self.specs) - {"id"}

    def names_in(self, ref: TableRef) -> frozenset[str]:
        """The columns of a table that may have the key."""
        own: set[str] = set()
        for spec in self.specs:
            if ref in (spec.silver, tombstones_ref(spec.silver), baseline_ref(spec.silver)):
                own |= {_column(spec)} if ref.table == spec.silver_name or _column(spec) in spec.record_key else set()
            if ref in history_tables(spec):
                own.add(_column(spec))
            if ref in [part_ref for part in spec.parts for part_ref in (part.bronze, part.quarantine)]:
                own |= self.naming(spec).fields
        return self.columns | own


def subject_of(specs: Sequence[TableSpec], table: str, key: str) -> Subject:
    """The subject that a table's declaration and a key name.

    Raises:
        DeclarationError: the table is not declared or names nobody, or there is no key.
    """
    found = next((spec for spec in specs if table in (spec.name, spec.silver_name)), None)
    if found is None or found.subject is None:
        known = ", ".join(spec.name for spec in specs if spec.subject is not None) or "none yet"
        raise DeclarationError(
            f"Nothing declares whom the records of {table[:80]!r} are about.",
            remedy=f"Use one of {known}, or add subject=Subject(kind, column) to its record in lakehouse/tables/.",
        )
    if not key.strip() or re.search(r"[\x00-\x1f]", key):
        raise DeclarationError("There is no key to forget.", remedy="Give KEY=<the subject's key>.")
    kind = found.subject.kind
    of_kind = tuple(spec for spec in specs if spec.subject is not None and spec.subject.kind == kind)
    return Subject(kind, key.strip(), of_kind)


def tables_of(storage: Storage, subject: Subject) -> tuple[list[TableRef], list[TableRef]]:
    """The tables that are rewritten, and those of gold and ml that name the subject and are computed again."""
    mine: list[TableRef] = []
    for spec in subject.specs:
        base = baseline_ref(spec.silver)
        mine += [ref for part in spec.parts for ref in (part.bronze, part.quarantine)]
        mine += [spec.silver, tombstones_ref(spec.silver), base, tombstones_ref(base), *history_tables(spec)]
    there = storage.tables()
    derived = [ref for ref in there if ref.layer in ("gold", "ml") and _names(storage, ref, subject)]
    return [ref for ref in mine if ref in there], derived


def refuse_protected(protected: Protection, refs: Sequence[TableRef]) -> None:
    """Refuse what somebody wants kept as it is.

    Raises:
        RefusedWriteError: a version is pinned, a registered model was made from one, or it is not known which.
    """
    for (ref, _), versions in protected.pins.items():
        if ref in refs:
            raise RefusedWriteError(
                f"Version {min(versions)} of {ref} is pinned, and would have to stay as it is.",
                remedy=f"Let go of it: make unpin TABLE={ref} VERSION={min(versions)}.",
            )
    for ref in refs:
        if ref in protected.models or protected.refuses(ref):
            raise RefusedWriteError(
                f"Registered models were, or may have been, made from {ref}. {protected.unknown}".strip(),
                remedy="Delete these model versions in MLflow, or let it answer, and run the command again.",
            )


def erase(session: DuckDBSession, storage: Storage, subject: Subject, *, wait: float = 60.0) -> dict[str, int]:
    """Erase the subject from landing, quarantine, silver and bronze as they are now; records by place.

    Raises:
        RefusedWriteError: something landed that is not in the tables yet.
        BusyError: a writer held a table for `wait` seconds.
        UnreadableFileError: a landed file cannot be read.
    """
    found: dict[str, int] = {}
    with ExitStack() as locks:
        own = [(*(part.bronze for part in spec.parts), spec.silver, *history_tables(spec)[:1]) for spec in subject.specs]
        refs = [ref for each in own for ref in each]
        for ref in sorted((ref for ref in refs if storage.has(ref)), key=str):
            locks.enter_context(lock(storage.uri(ref), wait=wait))
        works = [_Work(session, storage, spec, subject) for spec in subject.specs if storage.has(spec.silver)]
        for work in works:
            work.finalise()
        for work in works:
            for ref, count in work.erase():
                found[str(ref)] = found.get(str(ref), 0) + count
    return found


def drop_history(uri: str) -> tuple[int, int]:
    """Leave one version of a table, the current one; how many data files and log files went.

    The log's statistics have the least and greatest values of files, so they go as well.
    """
    with lock(uri):
        snapshot = open_existing(uri)
        if snapshot is None:
            return 0, 0
        snapshot.check()
        snapshot.checkpoint()
        live = {file.path for file in snapshot.files}
        there = stored.listing(uri, below=True)
        data = [path for path in there if path.endswith(".parquet") and not path.startswith("_delta_log/") and path not in live]
        log = [path for path in there if re.match(r"_delta_log/\d{20}\.", path) and int(path[11:31]) < snapshot.version]
        torn = [path for path in there if path.startswith(f"{ASIDE}/")]
        stored.remove([f"{uri}/{path}" for path in (*sorted(log), *torn, *data)])
        after = open_existing(uri)
        if after is None or (after.version, after.rows) != (snapshot.version, snapshot.rows):
            raise BrokenTableError(f"{uri} is not what it was.", remedy="Restore it from a backup, and report it.")
        after.check()
    return len(data), len(log)


def fingerprint(subject: Subject) -> str:
    """What `ops/audit` keeps instead of the key: salt and scrypt hash. Who has the key can see that it is this one."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{_hash(subject.key, salt)}"


def search(storage: Storage, subject: Subject, vault: Vault) -> list[str]:
    """Every file of the lake, of landing and of the backups that still names the subject, decoded.

    In columns and fields that name a subject each value is compared. A key that is not a number is also looked for in every
    text, and in every other file byte by byte; a number occurs by chance.
    """
    scratch, hits = vault.scratch, []
    for ref in storage.tables():
        uri, names = storage.uri(ref), subject.names_in(ref)
        hits += [f"{uri}/{path}" for path in stored.listing(uri, below=True) if _finds(f"{uri}/{path}", names, subject, scratch)]
    for spec in subject.specs:
        for part in spec.parts:
            for file in owned(part.origin, storage):
                location = storage.landed_path(file.path)
                with stored.at_hand(location, by=scratch) as here:
                    if without(here, Path(scratch, "searched"), subject.naming(part), name=file.path, reading=reading(part)):
                        hits.append(location)
    of_object: dict[str, set[str]] = {}
    for name in vault.names():
        for ref, table in vault.read(name).tables.items():
            for copied in table.files.values():
                of_object.setdefault(copied.sha, set()).update(subject.names_in(ref))
    for path in stored.listing(vault.root, below=True):
        names = frozenset(of_object.get(path.rpartition("/")[2], subject.columns))
        hits += [f"{vault.root}/{path}"] if _finds(f"{vault.root}/{path}", names, subject, scratch) else []
    return hits


class _Work:
    """What one table knows of the subject. Its bronze tables and silver are held."""

    def __init__(self, session: DuckDBSession, storage: Storage, spec: TableSpec, subject: Subject) -> None:
        self.session, self.storage, self.spec, self.subject = session, storage, spec, subject
        self.naming, self.column = subject.naming(spec), _column(spec)

    def finalise(self) -> None:
        """Finish what killed runs have begun; refuse what landed and is in no table yet."""
        silver = self._open(self.spec.silver)
        for part in self.spec.parts:
            bronze = self._open(part.bronze)
            log(self.session, self.storage, part.bronze)
            finalise_files(self.session, self.storage, part)
            uri, source = self.storage.uri(ledger.FILES_TABLE), landing_of(self.storage, part)
            planned, known = ledger.planned_files(self.session, uri, part.bronze)
            done = bronze.watermark(ledger.ingest_app(part.bronze))
            new = new_files(source, owned(part.origin, self.storage), [file for _, file in known])
            if planned != done or new or silver.watermark(ledger.read_app(part.bronze)) != done:
                raise RefusedWriteError(
                    f"{part.landing} or {part.bronze} has records that {self.spec.silver} has not read yet.",
                    remedy="Run the job of these tables first, then this command again.",
                )
        log(self.session, self.storage, self.spec.silver)
        finalise_quarantine(self.session, self.storage, self.spec, silver)
        baseline.open_baseline(self.storage, self.spec, [self._open(part.bronze) for part in self.spec.parts])

    def erase(self) -> Iterator[tuple[TableRef, int]]:
        session, spec = self.session, self.spec
        validated = {part.bronze: self._validated(part) for part in spec.parts}
        mine = (
            [frame.filter(self._is_mine(raw=True)).select(*spec.record_key) for frame in validated.values()]
            if spec.record_key
            else []
        )
        keys = session.persist(nw.concat(mine, how="vertical").unique()) if mine else None
        silver = self._open(spec.silver)
        if keys is not None:
            existing = (
                session.read(silver.paths(), silver.columns).filter(~self._is_mine().fill_null(False)).select(*spec.record_key)
            )
            keys = session.persist(keys.join(existing, on=list(spec.record_key), how="anti"))
        erased = {ref: self._erased(frame, keys) for ref, frame in validated.items()}
        for part in spec.parts:
            yield part.landing, self._landing(part)
            yield part.quarantine, self._quarantine(part, erased[part.bronze])
        read = sum(silver.watermark(ledger.read_app(part.bronze)) for part in spec.parts)
        yield spec.silver, self._rows(spec.silver, keys, by_column=True, batch=read)
        base = baseline_ref(spec.silver)
        yield base, self._rows(base, keys, by_column=True)
        for ref in (tombstones_ref(spec.silver), tombstones_ref(base)):
            yield ref, self._rows(ref, keys, by_column=self.column in spec.record_key)
        for ref in histories.there(self.storage, spec):  # what is left of a key's intervals the next run computes again
            read = sum(self._open(ref).watermark(ledger.read_app(part.bronze)) for part in spec.parts)
            yield ref, self._rows(ref, keys, by_column=True, batch=read if ref == history_ref(spec) else None)
        for part in spec.parts:
            bronze, row_ids = self._open(part.bronze), erased[part.bronze].select(*ROW_ID)
            count, batch = session.count(row_ids), bronze.watermark(ledger.ingest_app(part.bronze))
            if count:
                gone = {ledger.EXPIRED: bronze.watermark(ledger.EXPIRED) + count}
                remove_rows(session, bronze, row_ids, made=_made(bronze, count, batch), watermarks=gone)
                log(self.session, self.storage, part.bronze)
            yield part.bronze, count

    def _validated(self, part: TableSpec) -> "nw.LazyFrame[Any]":
        bronze = self._open(part.bronze)
        newest = bronze.watermark(ledger.ingest_app(part.bronze))
        records = inputs.records(self.session, [Feed(part, 0, True, bronze, seen=0, newest=newest)])
        return Validator(self.session, part, release=None).validated(records)[0]

    def _is_mine(self, *, raw: bool = False) -> "nw.Expr":
        """Whether a row names the subject; with `raw` also by the text that was delivered."""
        mine = (nw.col(self.column).cast(nw.String) == self.subject.key).fill_null(False)
        for name in self.naming.fields if raw else ():
            mine = mine | (nw.col(f"_raw_{name}") == self.subject.key).fill_null(False)
        return mine

    def _erased(self, validated: "nw.LazyFrame[Any]", keys: "nw.LazyFrame[Any] | None") -> "nw.LazyFrame[Any]":
        """Row id and identity of the bronze records that are erased."""
        names = ["_batch_id", "_source_file", "_airbyte_raw_id"]
        fields = [nw.col(name) for name in names] + [nw.col(name).cast(nw.Int64) for name in ROW_ID]
        parts = [validated.filter(self._is_mine(raw=True)).select(*fields)]
        if keys is not None:
            parts.append(validated.join(keys, on=list(self.spec.record_key), how="semi").select(*fields))
        return self.session.persist(nw.concat(parts, how="vertical").unique())

    def _landing(self, part: TableSpec) -> int:
        """Rewrite landed files. Their new content is spoken for in the ledger before it is there."""
        uri, count = self.storage.uri(ledger.FILES_TABLE), 0
        readers = {other.bronze: self._batches(other) for spec in self.subject.specs for other in spec.parts}
        for file in owned(part.origin, self.storage):
            location, rewritten = self.storage.landed_path(file.path), Path(self.session.folder, "rewritten")
            with stored.at_hand(location, by=self.session.folder) as here:
                removed = without(here, rewritten, self.subject.naming(part), name=file.path, reading=reading(part))
            if not removed:
                continue
            count += removed
            if not rewritten.stat().st_size:
                stored.remove([location])
                continue
            new = PlannedFile(file.path, rewritten.stat().st_size, "", stored.digest(str(rewritten)))
            for bronze, batches in readers.items():  # whoever has read it knows its new content
                if file.path in batches:
                    row = {"table": str(bronze), "batch_id": batches[file.path], "run_id": "forget", **vars(new)}
                    app, files = f"forget:{bronze}", open_table(uri, ledger.FILES)
                    ledger.append(self.session, uri, ledger.FILES, [row], app=app, number=files.watermark(app) + 1)
            stored.put(location, rewritten)
        return count

    def _batches(self, part: TableSpec) -> dict[str, int]:
        """The batch of each landed file that a bronze table has read, by path."""
        _, known = ledger.planned_files(self.session, self.storage.uri(ledger.FILES_TABLE), part.bronze)
        return {file.path: batch for batch, file in known}

    def _quarantine(self, part: TableSpec, erased: "nw.LazyFrame[Any]") -> int:
        table = open_existing(self.storage.uri(part.quarantine))
        if table is None or not table.files:
            return 0
        frame = self._with_row_ids(table)
        names = {"_batch_id": "batch_id", "_source_file": "source_file", "_airbyte_raw_id": "raw_id"}
        ids = erased.select(**{column: nw.col(name) for name, column in names.items()})
        listed = "|".join(re.escape(name) for name in sorted(self._delivered(part)))
        pattern = rf'"({listed})"\s*:\s*"?{re.escape(self.subject.key)}"?\s*[,}}]'
        unread = (nw.col("layer") == "bronze") & nw.col("record").str.contains(self.naming.word)
        by_text = (nw.col("record").str.contains(pattern) | unread).fill_null(False)
        parts = [frame.filter(nw.col("layer") == "silver").join(ids, on=list(names.values()), how="semi"), frame.filter(by_text)]
        row_ids = self.session.persist(nw.concat([part.select(*ROW_ID) for part in parts], how="vertical").unique())
        count = self.session.count(row_ids)
        if count:
            remove_rows(self.session, table, row_ids, made=Provenance(operation="forget"))
        return count

    def _delivered(self, part: TableSpec) -> set[str]:
        own = [column for column in part.delivered if column.name == self.column]
        return {name for column in own for name in (column.bronze_name, column.field, part.text_of(column))}

    def _rows(self, ref: TableRef, keys: "nw.LazyFrame[Any] | None", *, by_column: bool, batch: int | None = None) -> int:
        """Remove rows by the subject's column, and by the keys of silver; `batch` where the ledger is to know."""
        table = open_existing(self.storage.uri(ref))
        if table is None or not table.files:
            return 0
        frame = self._with_row_ids(table)
        parts = [frame.filter(self._is_mine()).select(*ROW_ID)] if by_column else []
        if keys is not None:
            parts.append(frame.join(keys, on=list(self.spec.record_key), how="semi").select(*ROW_ID))
        if not parts:
            return 0
        row_ids = self.session.persist(nw.concat(parts, how="vertical").unique())
        count = self.session.count(row_ids)
        if count:
            made = Provenance(operation="forget") if batch is None else _made(table, count, batch)
            remove_rows(self.session, table, row_ids, made=made)
            if batch is not None:
                log(self.session, self.storage, ref)
        return count

    def _with_row_ids(self, table: Snapshot) -> "nw.LazyFrame[Any]":
        frame = self.session.read(table.paths(), table.columns, row_id=ROW_ID)
        return frame.with_columns(*[nw.col(name).cast(nw.Int64) for name in ROW_ID])

    def _open(self, ref: TableRef) -> Snapshot:
        return require_table(self.storage.uri(ref), ref)


def _made(table: Snapshot, count: int, batch: int) -> Provenance:
    """What the newest commit reported, which will be the only one, and the figures of this one."""
    last = table.provenance
    entry = Entry(batch_from=batch, batch_to=batch, records_in=count, written=0, deleted=count, rows_after=table.rows - count)
    facts = {name: value for name, value in last.facts.items() if name != "absent"}
    return replace(last, operation="forget", run_id="forget", figures=entry, facts=facts)


def _column(spec: TableSpec) -> str:
    return spec.subject.column if spec.subject is not None else ""


def _names(storage: Storage, ref: TableRef, subject: Subject) -> bool:
    found = open_existing(storage.uri(ref))
    return found is not None and bool(subject.columns & {*found.columns})


def _hash(key: str, salt: bytes) -> str:
    return hashlib.scrypt(key.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32).hex()


def _finds(uri: str, names: frozenset[str], subject: Subject, scratch: str) -> bool:
    """Whether a file names the subject: Parquet by its values, any other by its bytes."""
    with _at_hand(uri, scratch) as here:
        if here is None:
            return False
        with here.open("rb") as file:
            head = file.read(4)
        if head == b"PAR1":
            return _in_parquet(here, names, subject)
        content = here.read_bytes().decode("utf-8", "replace")
    listed = "|".join(re.escape(name) for name in sorted(names)) or "(?!)"
    pattern = rf'\\?"({listed})\\?"\s*:\s*\\?"?{re.escape(subject.key)}\\?"?\s*[,}}]'
    return re.search(pattern, content) is not None or (not subject.key.isdigit() and subject.key in content)


def _in_parquet(path: Path, names: frozenset[str], subject: Subject) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    naming = Naming(names, subject.key)
    texts = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    for batch in file.iter_batches():
        for name in set(batch.schema.names) & set(names):
            values = pc.unique(batch.column(name))
            if any(naming.is_key(value) for value in values.to_pylist()):
                return True
        for name in [] if subject.key.isdigit() else texts:
            if pc.any(pc.match_substring(batch.column(name), subject.key)).as_py():
                return True
    return False


@contextmanager
def _at_hand(uri: str, scratch: str) -> "Iterator[Path | None]":
    try:
        with stored.at_hand(uri, by=scratch) as here:
            yield here if here.exists() else None
    except FileNotFoundError:  # gone since it was listed
        yield None
