"""Retention: what is older than its table declares goes, from landing, bronze, silver and quarantine; with a count and a reason.

    finalise ─▶ landing (proven in bronze) ─▶ quarantine ─▶ silver ─▶ bronze (folded into the baseline first) ─▶ ledger, ops/audit

A dry run counts the same rows with the same conditions, and a commit that would remove another number is refused. What was
removed is `deleted` in the ledger under the operation `expire`; measurements (`ops/table_health`, ...) have no ledger, and one
age for all, a setting. A kill after any arrow leaves a state from which the next run goes on. Ages are counted from the event
date, in quarantine from when a record was put there. Pure: no dagster.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import narwhals as nw

from lakehouse.core import ledger, quarantine
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.ledger import PlannedFile
from lakehouse.core.names import TableRef
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import LandedFile, Storage, lock
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, require_table
from lakehouse.core.table.transaction import commit_staged, discard
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.landing.readers.files.reading import reading
from lakehouse.landing.readers.files.stage import stage
from lakehouse.landing.readers.registry import owned
from lakehouse.maintenance import histories
from lakehouse.maintenance.expired import ASIDE, GONE, Expired, counted, remove, removed
from lakehouse.maintenance.removal import log, remove_rows
from lakehouse.observability.services import SERVICES_TABLE
from lakehouse.observability.table_health import HEALTH_TABLE
from lakehouse.observability.topics import KAFKA_TABLE, LAG_TABLE
from lakehouse.silver import baseline, elements, inputs
from lakehouse.silver.inputs import ROW_ID, Feed
from lakehouse.silver.merge import Merge, baseline_ref
from lakehouse.silver.repeats import repeats
from lakehouse.silver.validate import ACCEPTED, EXPIRED, Validator, older
from lakehouse.tables.spec import EXTRACTED_AT, Retention, TableSpec, reads_same

#: In a bronze table, under this application id: the version of silver when records last left it.
LEFT_AT = "left_at"
#: In a bronze table, under this application id: the instant (seconds since 1970) before which its records have expired.
FLOOR = baseline.FLOOR
#: Tables of measurements, which grow with every run of the monitoring.
MEASURED = (HEALTH_TABLE, SERVICES_TABLE, KAFKA_TABLE, LAG_TABLE)


def declared(specs: Sequence[TableSpec]) -> list[TableSpec]:
    """The tables of which something expires."""
    return [spec for spec in specs if spec.retention is not None]


def expire(
    session: DuckDBSession,
    storage: Storage,
    spec: TableSpec,
    *,
    now: datetime,
    beside: Sequence[TableSpec] = (),
    dry: bool = False,
    wait: float = 60.0,
) -> list[Expired]:
    """Remove what of a table has expired, or (`dry`) only count it.

    Args:
        beside: all tables of the lake: a landed file stays until each that reads it has done so.

    Raises:
        BusyError: a writer held the table for `wait` seconds.
        BrokenTableError: tables that belong together do not, or a commit would remove another number of rows.
        ConflictError: another writer came first; run it again.
    """
    retention = spec.retention
    silver = open_existing(storage.uri(spec.silver))
    if retention is None or silver is None:
        return []
    work = _Work(session, storage, spec, retention, beside=beside, now=now, dry=dry)
    if dry:
        return list(work.run())
    with ExitStack() as locks:
        refs = [*sorted((part.bronze for part in spec.parts), key=str), spec.silver, *histories.there(storage, spec)[:1]]
        for ref in refs:
            locks.enter_context(lock(storage.uri(ref), wait=wait))
        work.finalise()
        return list(work.run())


def expire_measured(
    session: DuckDBSession, storage: Storage, ref: TableRef, *, before: datetime, dry: bool = False, wait: float = 60.0
) -> Expired:
    """Remove rows of a table of measurements that were measured before an instant, or (`dry`) only count them.

    Raises:
        BusyError: a writer held the table for `wait` seconds.
        ConflictError: another writer came first; run it again.
    """
    expired = Expired(ref=ref, before=before, column="measured_at")
    with ExitStack() as locks:
        if not dry and storage.has(ref):
            locks.enter_context(lock(storage.uri(ref), wait=wait))
        table = open_existing(storage.uri(ref))
        if table is None:
            return expired
        return remove(session, expired, table, nw.col("measured_at") < nw.lit(before), dry=dry, made=ASIDE)


class _Work:
    """The retention of one table; its bronze tables and silver are held, unless it only counts."""

    def __init__(
        self,
        session: DuckDBSession,
        storage: Storage,
        spec: TableSpec,
        retention: Retention,
        *,
        beside: Sequence[TableSpec],
        now: datetime,
        dry: bool,
    ) -> None:
        self.session, self.storage, self.spec, self.retention, self.now, self.dry = session, storage, spec, retention, now, dry
        self.beside = beside

    def finalise(self) -> None:
        """Finish what killed runs have begun."""
        from lakehouse.bronze.ingest import finalise_quarantine as finalise_files
        from lakehouse.silver.refresh import finalise_quarantine

        for part in self.spec.parts:
            log(self.session, self.storage, part.bronze)
            finalise_files(self.session, self.storage, part)
        for ref in (self.spec.silver, *histories.there(self.storage, self.spec)[:1]):
            log(self.session, self.storage, ref)
        finalise_quarantine(self.session, self.storage, self.spec, self._open(self.spec.silver))
        baseline.open_baseline(self.storage, self.spec, [self._open(part.bronze) for part in self.spec.parts])

    def run(self) -> Iterator[Expired]:
        parts = [part for part in self.spec.parts if open_existing(self.storage.uri(part.bronze)) is not None]
        for part in parts:
            if self.retention.landing is not None:
                yield self.landing(part, self._before(self.retention.landing))
        for part in parts:
            if self.retention.quarantine is not None:
                yield self.quarantine(part, self.now - self.retention.quarantine)
        if self.retention.silver is not None:
            before, silver = self._before(self.retention.silver), self._open(self.spec.silver)
            yield from histories.expire(self.session, self.storage, self.spec, silver, before=before, dry=self.dry)
            yield self.silver(before)
        for part in parts:
            if self.retention.bronze is not None:
                yield self.bronze(part, self._before(self.retention.bronze))

    # --- landing ---------------------------------------------------------------------------------------------------------

    def landing(self, part: TableSpec, before: datetime) -> Expired:
        """Files whose records are all in bronze and older. The newest file of a stream stays, and so does what is in
        quarantine: it can be read again from there alone."""
        storage, bronze = self.storage, self._open(part.bronze)
        gone: list[LandedFile] = []
        planned, known = ledger.planned_files(self.session, storage.uri(ledger.FILES_TABLE), part.bronze)
        if planned == bronze.watermark(ledger.ingest_app(part.bronze)):
            batches = {(file.path, file.size, file.version): batch for batch, file in known}
            contents = {(file.path, file.checksum): batch for batch, file in known}
            landed = owned(part.origin, storage)
            newest = max((file.modified for file in landed), default=0.0)
            newest_date, waiting = self._newest_by_file(part, bronze), self._waiting_files(part) | self._unread(part, landed)
            for file in landed:
                if file.modified == newest:
                    continue
                batch = batches.get((file.path, file.size, file.version))
                if batch is None:
                    batch = contents.get((file.path, stored.digest(storage.landed_path(file.path))))
                taken = self._batches_of(part, known, file.path, batch or 0)
                last = max((newest_date[file.path, one] for one in taken if (file.path, one) in newest_date), default=None)
                past = last < before if last is not None else file.modified < before.timestamp()
                if batch is not None and past and file.path not in waiting and self._is_proven(part, bronze, file, taken):
                    gone.append(file)
        if not self.dry and gone:
            after = {file.path: file for file in owned(part.origin, storage)}
            gone = [file for file in gone if after.get(file.path) == file]  # not what was delivered again meanwhile
            stored.remove([storage.landed_path(file.path) for file in gone])
        return Expired(
            ref=part.landing,
            what="files",
            rows=len(gone),
            bytes=sum(file.size for file in gone),
            before=before,
            column=self.retention.event,
        )

    @staticmethod
    def _batches_of(part: TableSpec, known: Sequence[tuple[int, PlannedFile]], path: str, batch: int) -> list[int]:
        """The batches that hold a file's records: of a table that is appended to one may have read each of its tails."""
        return [batch] if part.sync != "append" else sorted({n for n, file in known if file.path == path and n <= batch})

    def _newest_by_file(self, part: TableSpec, bronze: Snapshot) -> dict[tuple[str, int], datetime]:
        """The newest date of the records that bronze has of a file, by its path and batch."""
        frame = self._dated(part, self._records(part, bronze))
        found = frame.group_by("_source_file", "_batch_id").agg(nw.col("_date").max().alias("last"))
        rows = self.session.rows(found.select("_source_file", "_batch_id", "last"))
        return {(path, batch): last for path, batch, last in rows}

    def _waiting_files(self, part: TableSpec) -> set[str]:
        table = open_existing(self.storage.uri(part.quarantine))
        if table is None:
            return set()
        frame = quarantine.waiting(self.session, table, layer="bronze").select("source_file").unique()
        return {path for (path,) in self.session.rows(frame)}

    def _unread(self, part: TableSpec, landed: Sequence[LandedFile]) -> set[str]:
        """Files that another table reads, and has not read or has in quarantine whole."""
        found: set[str] = set()
        for other in (other for spec in self.beside for other in spec.parts):
            if other.bronze == part.bronze or not reads_same(other.origin, part.origin):
                continue
            bronze = open_existing(self.storage.uri(other.bronze))
            done = bronze.watermark(ledger.ingest_app(other.bronze)) if bronze is not None else 0
            _, known = ledger.planned_files(self.session, self.storage.uri(ledger.FILES_TABLE), other.bronze)
            taken = [file for n, file in known if n <= done]
            read = {(file.path, file.size, file.version) for file in taken}
            contents = {(file.path, file.checksum) for file in taken}  # of one that was touched, or rewritten by `make forget`
            new = [file for file in landed if (file.path, file.size, file.version) not in read]
            landing = self.storage.landed_path
            found |= {file.path for file in new if (file.path, stored.digest(landing(file.path))) not in contents}
            found |= self._waiting_files(other)
        return found

    def _is_proven(self, part: TableSpec, bronze: Snapshot, file: LandedFile, batches: Sequence[int]) -> bool:
        """Whether a file, read again, has no record that is neither in bronze nor expired there."""
        session = self.session
        folder = f"{session.folder}/proof"
        staged = stage(
            session,
            [file],
            landing=self.storage.landed_here([file], f"{session.folder}/landing"),
            folder=folder,
            batch=0,
            ingested_at=self.now,
            known=bronze.fields,
            reading=reading(part),
        )
        try:
            paths = [f"{folder}/{one.path}" for one in staged.files]
            records = session.read(paths, {**ENVELOPE, **inputs.bronze_columns(part, bronze)}, row_id=ROW_ID)
            again = session.persist(self._dated(part, inputs.delivered(session, part, bronze, records, *ENVELOPE, *ROW_ID)))
            floor = datetime.fromtimestamp(bronze.watermark(FLOOR), tz=UTC)
            young = again.filter(nw.col("_date") >= nw.lit(floor)).select("_airbyte_raw_id")
            have = session.read(bronze.paths(), {**ENVELOPE})
            have = session.persist(have.filter((nw.col("_source_file") == file.path) & nw.col("_batch_id").is_in(batches)))
            missing = young.join(have.select("_airbyte_raw_id"), on="_airbyte_raw_id", how="anti")
            return session.count(missing) == 0 and session.count(young) <= session.count(have)
        finally:
            discard(folder, staged.files)

    # --- quarantine ------------------------------------------------------------------------------------------------------

    def quarantine(self, part: TableSpec, before: datetime) -> Expired:
        """Records that have waited for too long. What is on its way in or out stays."""
        table = open_existing(self.storage.uri(part.quarantine))
        expired = Expired(ref=part.quarantine, before=before, column="quarantined_at")
        if table is None or not table.files:
            return expired
        old = (nw.col("quarantined_at") < nw.lit(before)) & nw.col("entering").is_null() & nw.col("leaving").is_null()
        return remove(self.session, expired, table, old, dry=self.dry, made=Provenance(operation="expire"))

    # --- silver ------------------------------------------------------------------------------------------------------------

    def silver(self, before: datetime) -> Expired:
        """Rows, of the table and of its baseline. The floor is never lowered."""
        table = self._open(self.spec.silver)
        before = max(before, datetime.fromtimestamp(table.watermark(FLOOR), tz=UTC))
        old, event = older(self.spec, before), self.retention.event
        expired = Expired(ref=self.spec.silver, before=before, column=event)
        base = open_existing(self.storage.uri(baseline_ref(self.spec.silver)))
        if base is not None:
            remove(self.session, expired, base, old, dry=self.dry, made=ASIDE)
        read = sum(table.watermark(ledger.read_app(part.bronze)) for part in self.spec.parts)
        floor = {FLOOR: int(before.timestamp())}
        found = remove(
            self.session,
            expired,
            table,
            old,
            dry=self.dry,
            made=GONE,
            batch=read,
            watermarks=floor,
            sort_by=self.spec.key,
        )
        if not self.dry:
            log(self.session, self.storage, self.spec.silver)
        return found

    # --- bronze ------------------------------------------------------------------------------------------------------------

    def bronze(self, part: TableSpec, before: datetime) -> Expired:
        """Records that silver has read, and that nobody waits for in quarantine."""
        session, silver, table = self.session, self._open(self.spec.silver), self._open(part.bronze)
        before = max(before, datetime.fromtimestamp(table.watermark(FLOOR), tz=UTC))
        expired = Expired(ref=part.bronze, before=before, column=self.retention.event)
        seen = histories.read_by_both(self.storage, self.spec, part, silver)
        validator = Validator(session, part, release=None, floor=baseline.floor(self.spec, silver))
        records = self._records(part, table, until=seen)
        validated, _ = validator.validated(records)
        goes = nw.col(ACCEPTED) if validator.floor is None else nw.col(ACCEPTED) | nw.col(EXPIRED)
        if self.retention.quarantine is not None:  # a record that was refused has waited for its time
            goes = goes | (nw.col("_ingested_at") < nw.lit(self.now - self.retention.quarantine))
        past = older(self.spec, before)
        undated = nw.col(self.retention.event).is_null() & (nw.col(EXTRACTED_AT) < nw.lit(before))
        expired_rows = validated.filter((past.fill_null(False) | undated) & goes)
        waiting = open_existing(self.storage.uri(part.quarantine))
        if waiting is not None and waiting.files:
            names = {"_batch_id": "batch_id", "_source_file": "source_file", "_airbyte_raw_id": "raw_id"}
            refused = quarantine.waiting(session, waiting, layer="silver").select(**{n: nw.col(c) for n, c in names.items()})
            expired_rows = expired_rows.join(session.persist(refused), on=list(names), how="anti")
        expired_rows = elements.records(self.spec, expired_rows)
        row_ids = session.persist(expired_rows.select(*[nw.col(name).cast(nw.Int64) for name in ROW_ID]))
        count = session.count(row_ids)
        if self.dry or not count:
            return counted(expired, count)
        number = table.watermark(baseline.FOLDED) + 1
        folded = validated.join(row_ids, on=list(ROW_ID), how="semi")
        again, _ = repeats(session, [Feed(part, 0, True, table)], records) if self.spec.sync == "append" else (None, 0)
        if again is not None:  # they made no row
            folded = folded.join(again, on=list(ROW_ID), how="anti")
        histories.fold(
            session,
            self.storage,
            self.spec,
            feed=Feed(part, 0, True, table),
            silver=silver,
            records=records,
            row_ids=row_ids,
            number=number,
        )
        self._fold(part, validator, folded, number=number)
        leaves = {
            baseline.FOLDED: number,
            LEFT_AT: silver.version,
            FLOOR: int(before.timestamp()),
            ledger.EXPIRED: table.watermark(ledger.EXPIRED) + count,
        }
        batch = table.watermark(ledger.ingest_app(part.bronze))
        made = replace(GONE, figures=removed(count, table, batch))
        size = remove_rows(session, table, row_ids, made=made, watermarks=leaves)
        log(self.session, self.storage, part.bronze)
        return counted(expired, count, size)

    def _fold(self, part: TableSpec, validator: Validator, validated: "nw.LazyFrame[Any]", *, number: int) -> None:
        """Let the baseline have what these records have made of silver."""
        base = baseline.make_baseline(self.session, self.storage, self.spec)
        merge = Merge(self.session, self.spec, validator, silver=base.rows, deletes=base.deletes)
        change = merge.increment(validated) if self.spec.key else merge.append(validated, anew=False)
        try:
            merge.store_tombstones(change.deletes, anew=False)
        except BaseException:
            change.transaction.abandon()
            raise
        made = Provenance(operation="fold", facts={"bronze": str(part.bronze), baseline.FOLDED: str(number)})
        watermarks = {baseline.folded_app(part.bronze): number}
        commit_staged(replace(change.transaction, watermarks=watermarks, provenance=made))

    # --- what they share -----------------------------------------------------------------------------------------------------

    def _open(self, ref: TableRef) -> Snapshot:
        return require_table(self.storage.uri(ref), ref)

    def _before(self, age: timedelta) -> datetime:
        """The instant before which events are older than an age, in whole seconds; of events that are days, in whole days."""
        before = (self.now - age).replace(microsecond=0)
        kind = next(column.type for column in self.spec.columns if column.name == self.retention.event)
        return before.replace(hour=0, minute=0, second=0) if kind == "date" else before

    def _records(self, part: TableSpec, bronze: Snapshot, *, until: int | None = None) -> "nw.LazyFrame[Any]":
        newest = bronze.watermark(ledger.ingest_app(part.bronze)) if until is None else until
        return inputs.records(self.session, [Feed(part, 0, True, bronze, seen=0, newest=newest)])

    def _dated(self, part: TableSpec, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Records with `_date`: their event date, or the instant of the extraction where they have none."""
        validated = elements.records(part, Validator(self.session, part, release=None).validated(records)[0])
        instant = nw.col(self.retention.event).cast(nw.Datetime("us", "UTC"))
        return validated.with_columns(nw.coalesce(instant, nw.col(EXTRACTED_AT)).alias("_date"))
