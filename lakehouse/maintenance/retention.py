"""Retention: what is older than its table declares goes, from landing, bronze, silver and quarantine; with a count and a reason.

    settle ─▶ landing (proven in bronze) ─▶ quarantine ─▶ silver ─▶ bronze (folded into the baseline first) ─▶ ledger, ops/audit

A dry run counts the same rows with the same conditions, and a commit that would remove another number is refused. What was
removed is `deleted` in the ledger under the operation `expire`; measurements (`ops/table_health`, ...) have no ledger, and one
age for all, a setting. A kill after any arrow leaves a state from which the next run goes on. Ages are counted from the event
date, in quarantine from when a record was put there. Pure: no dagster.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import narwhals as nw

from lakehouse.core import files as stored
from lakehouse.core import ledger, quarantine
from lakehouse.core.delta import MAINTENANCE, Candidate, DataFile, Snapshot, discard, open_existing
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.landing import airbyte
from lakehouse.core.landing.airbyte import ENVELOPE
from lakehouse.core.ledger import Entry
from lakehouse.core.names import TableRef
from lakehouse.core.storage import LandedFile, Storage, hold
from lakehouse.observability.health import HEALTH_TABLE
from lakehouse.observability.services import SERVICES_TABLE
from lakehouse.observability.topics import KAFKA_TABLE
from lakehouse.silver import baseline, feeds
from lakehouse.silver.feeds import PLACE, Feed, rows_of
from lakehouse.silver.judging import ACCEPTED, EXPIRED, Judge, older
from lakehouse.silver.newest import Merge, baseline_ref
from lakehouse.tables.spec import EXTRACTED_AT, DeltaSource, Retention, TableSpec

if TYPE_CHECKING:
    from lakehouse.core.engines import Session

#: In a bronze table, under this application id: the version of silver when records last left it.
LEFT_AT = "left_at"
#: In a bronze table, under this application id: the instant (seconds since 1970) before which its records have expired.
FLOOR = baseline.FLOOR
#: Tables of measurements, which grow with every run of the monitoring.
MEASURED = (HEALTH_TABLE, SERVICES_TABLE, KAFKA_TABLE)
#: What a commit says that removes rows of which no ledger tells.
_ASIDE = {MAINTENANCE: "retention", "operation": "expire"}


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What of one place is (dry run) or was older than declared. `rows` are records, or files where the place is landing."""

    ref: TableRef
    what: Literal["rows", "files"] = "rows"
    rows: int = 0
    bytes: int = 0
    before: datetime
    column: str

    def __str__(self) -> str:
        return f"{self.rows:,} {self.what} with {self.column} before {self.before:%Y-%m-%d %H:%M} UTC"


def declared(specs: Sequence[TableSpec]) -> list[TableSpec]:
    """The tables of which something expires."""
    return [spec for spec in specs if spec.retention is not None]


def expire(
    session: DuckDBSession, storage: Storage, spec: TableSpec, *, now: datetime, dry: bool = False, wait: float = 60.0
) -> list[Expired]:
    """Remove what of a table has expired, or (`dry`) only count it.

    Raises:
        BusyError: a writer held the table for `wait` seconds.
        BrokenTableError: tables that belong together do not, or a commit would remove another number of rows.
        ConflictError: another writer came first; run it again.
    """
    kept = spec.retention
    silver = open_existing(storage.uri(spec.silver))
    if kept is None or silver is None:
        return []
    work = _Work(session, storage, spec, kept, now=now, dry=dry)
    if dry:
        return list(work.run())
    with ExitStack() as held:
        for ref in (*sorted((part.bronze for part in spec.parts), key=str), spec.silver):
            held.enter_context(hold(storage.uri(ref), wait=wait))
        work.settle()
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
    with ExitStack() as held:
        if not dry and storage.has(ref):
            held.enter_context(hold(storage.uri(ref), wait=wait))
        table = open_existing(storage.uri(ref))
        if table is None:
            return expired
        return _remove(session, expired, table, nw.col("measured_at") < nw.lit(before), dry=dry, info=_ASIDE)


class _Work:
    """The retention of one table; its bronze tables and silver are held, unless it only counts."""

    def __init__(
        self, session: DuckDBSession, storage: Storage, spec: TableSpec, kept: Retention, *, now: datetime, dry: bool
    ) -> None:
        self.session, self.storage, self.spec, self.kept, self.now, self.dry = session, storage, spec, kept, now, dry

    def settle(self) -> None:
        """Finish what killed runs have begun."""
        from lakehouse.bronze.ingest import settle_quarantine as settle_files
        from lakehouse.silver.refresh import settle_quarantine

        for part in self.spec.parts:
            self._log(part.bronze)
            settle_files(self.session, self.storage, part)
        self._log(self.spec.silver)
        settle_quarantine(self.session, self.storage, self.spec, self._open(self.spec.silver))
        baseline.open_baseline(self.storage, self.spec, [self._open(part.bronze) for part in self.spec.parts])

    def run(self) -> Iterator[Expired]:
        parts = [part for part in self.spec.parts if open_existing(self.storage.uri(part.bronze)) is not None]
        for part in parts:
            if self.kept.landing is not None:
                yield self.landing(part, self._before(self.kept.landing))
        for part in parts:
            if self.kept.quarantine is not None:
                yield self.quarantine(part, self.now - self.kept.quarantine)
        if self.kept.silver is not None:
            yield self.silver(self._before(self.kept.silver))
        for part in parts:
            if self.kept.bronze is not None:
                yield self.bronze(part, self._before(self.kept.bronze))

    # --- landing ---------------------------------------------------------------------------------------------------------

    def landing(self, part: TableSpec, before: datetime) -> Expired:
        """Files whose records are all in bronze and older. The newest file of a stream stays, and so does what is in
        quarantine: it can be read again from there alone."""
        storage, bronze, origin = self.storage, self._open(part.bronze), part.origin
        gone: list[LandedFile] = []
        planned, known = ledger.planned_files(self.session, storage.uri(ledger.FILES_TABLE), part.bronze)
        if isinstance(origin, DeltaSource):
            raise TypeError(f"{origin.uri} is not ours to remove from")  # refused by the spec
        if planned == bronze.transaction(ledger.ingest_app(part.bronze)):
            batches = {(file.path, file.size, file.version): batch for batch, file in known}
            contents = {(file.path, file.checksum): batch for batch, file in known}
            landed = storage.landed(origin.folder)
            newest = max((file.modified for file in landed), default=0.0)
            newest_date, waiting = self._newest_by_file(part, bronze), self._waiting_files(part)
            for file in landed:
                if file.modified == newest:
                    continue
                batch = batches.get((file.path, file.size, file.version))
                if batch is None:
                    batch = contents.get((file.path, stored.digest(storage.landed_path(file.path))))
                last = newest_date.get((file.path, batch or 0))
                past = last < before if last is not None else file.modified < before.timestamp()
                if batch is not None and past and file.path not in waiting and self._is_proven(part, bronze, file, batch):
                    gone.append(file)
        if not self.dry and gone:
            after = {file.path: file for file in storage.landed(origin.folder)}
            gone = [file for file in gone if after.get(file.path) == file]  # not what was delivered again meanwhile
            stored.remove([storage.landed_path(file.path) for file in gone])
        return Expired(
            ref=part.landing,
            what="files",
            rows=len(gone),
            bytes=sum(file.size for file in gone),
            before=before,
            column=self.kept.event,
        )

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

    def _is_proven(self, part: TableSpec, bronze: Snapshot, file: LandedFile, batch: int) -> bool:
        """Whether a file, read again, has no record that is neither in bronze nor expired there."""
        session = self.session
        folder = f"{session.folder}/proof"
        staged = airbyte.stage(
            session,
            [file],
            landing=self.storage.landed_here([file], f"{session.folder}/landing"),
            folder=folder,
            batch=batch,
            ingested_at=self.now,
        )
        try:
            paths = [f"{folder}/{one.path}" for one in staged.files]
            again = session.keep(self._dated(part, session.read(paths, self._columns_of(part), place=PLACE)))
            floor = datetime.fromtimestamp(bronze.transaction(FLOOR), tz=UTC)
            young = again.filter(nw.col("_date") >= nw.lit(floor)).select("_airbyte_raw_id")
            have = session.read(bronze.paths(), {**ENVELOPE})
            have = session.keep(have.filter((nw.col("_source_file") == file.path) & (nw.col("_batch_id") == batch)))
            missing = young.join(have.select("_airbyte_raw_id"), on="_airbyte_raw_id", how="anti")
            return rows_of(session, missing) == 0 and rows_of(session, young) <= rows_of(session, have)
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
        return _remove(self.session, expired, table, old, dry=self.dry, info={"operation": "expire"})

    # --- silver ------------------------------------------------------------------------------------------------------------

    def silver(self, before: datetime) -> Expired:
        """Rows, of the table and of its baseline. The floor is never lowered."""
        table = self._open(self.spec.silver)
        before = max(before, datetime.fromtimestamp(table.transaction(FLOOR), tz=UTC))
        old, event = older(self.spec, before), self.kept.event
        expired = Expired(ref=self.spec.silver, before=before, column=event)
        base = open_existing(self.storage.uri(baseline_ref(self.spec.silver)))
        if base is not None:
            _remove(self.session, expired, base, old, dry=self.dry, info=_ASIDE)
        read = sum(table.transaction(ledger.read_app(part.bronze)) for part in self.spec.parts)
        floor = {FLOOR: int(before.timestamp())}
        found = _remove(
            self.session,
            expired,
            table,
            old,
            dry=self.dry,
            info=_info(read),
            transactions=floor,
            counted=True,
            sort_by=self.spec.key,
        )
        if not self.dry:
            self._log(self.spec.silver)
        return found

    # --- bronze ------------------------------------------------------------------------------------------------------------

    def bronze(self, part: TableSpec, before: datetime) -> Expired:
        """Records that silver has read, and that nobody waits for in quarantine."""
        session, silver, table = self.session, self._open(self.spec.silver), self._open(part.bronze)
        before = max(before, datetime.fromtimestamp(table.transaction(FLOOR), tz=UTC))
        expired = Expired(ref=part.bronze, before=before, column=self.kept.event)
        seen = silver.transaction(ledger.read_app(part.bronze))
        judge = Judge(session, part, release=None, floor=baseline.floor(self.spec, silver))
        judged, _ = judge.judged(self._records(part, table, until=seen))
        goes = nw.col(ACCEPTED) if judge.floor is None else nw.col(ACCEPTED) | nw.col(EXPIRED)
        if self.kept.quarantine is not None:  # a record that was refused has waited for its time
            goes = goes | (nw.col("_ingested_at") < nw.lit(self.now - self.kept.quarantine))
        past = older(self.spec, before)
        undated = nw.col(self.kept.event).is_null() & (nw.col(EXTRACTED_AT) < nw.lit(before))
        doomed = judged.filter((past.fill_null(False) | undated) & goes)
        waiting = open_existing(self.storage.uri(part.quarantine))
        if waiting is not None and waiting.files:
            names = {"_batch_id": "batch_id", "_source_file": "source_file", "_airbyte_raw_id": "raw_id"}
            refused = quarantine.waiting(session, waiting, layer="silver").select(**{n: nw.col(c) for n, c in names.items()})
            doomed = doomed.join(session.keep(refused), on=list(names), how="anti")
        places = session.keep(doomed.select(*[nw.col(name).cast(nw.Int64) for name in PLACE]))
        count = rows_of(session, places)
        if self.dry or not count:
            return _with(expired, count)
        number = table.transaction(baseline.FOLDED) + 1
        self._fold(part, judge, judged.join(places, on=list(PLACE), how="semi"), number=number)
        leaves = {
            baseline.FOLDED: number,
            LEFT_AT: silver.version,
            FLOOR: int(before.timestamp()),
            ledger.EXPIRED: table.transaction(ledger.EXPIRED) + count,
        }
        batch = table.transaction(ledger.ingest_app(part.bronze))
        size = remove_places(session, table, places, info={**_info(batch), **_removed(count, table, batch)}, transactions=leaves)
        self._log(part.bronze)
        return _with(expired, count, size)

    def _fold(self, part: TableSpec, judge: Judge, judged: "nw.LazyFrame[Any]", *, number: int) -> None:
        """Let the baseline have what these records have made of silver."""
        base = baseline.make_baseline(self.session, self.storage, self.spec)
        merge = Merge(self.session, self.spec, judge, silver=base.rows, deletes=base.deletes)
        change = merge.increment(judged) if self.spec.key else merge.append(judged, anew=False)
        try:
            merge.remember(change.deletes, anew=False)
        except BaseException:
            change.candidate.discard()
            raise
        change.candidate.transactions = {baseline.folded_app(part.bronze): number}
        change.candidate.info = {"operation": "fold", "bronze": str(part.bronze), baseline.FOLDED: str(number)}
        change.candidate.commit()

    # --- what they share -----------------------------------------------------------------------------------------------------

    def _open(self, ref: TableRef) -> Snapshot:
        found = open_existing(self.storage.uri(ref))
        if found is None:
            raise BrokenTableError(f"There is no table {ref}.", remedy=f"Materialise {ref} first.")
        return found

    def _before(self, age: timedelta) -> datetime:
        """The instant before which events are older than an age, in whole seconds; of events that are days, in whole days."""
        before = (self.now - age).replace(microsecond=0)
        kind = next(column.type for column in self.spec.columns if column.name == self.kept.event)
        return before.replace(hour=0, minute=0, second=0) if kind == "date" else before

    def _log(self, ref: TableRef) -> None:
        ledger.settle(self.session, self.storage.uri(ledger.LEDGER_TABLE), table=ref, snapshot=self._open(ref))

    def _columns_of(self, part: TableSpec) -> dict[str, str]:
        return {**ENVELOPE, **{c.bronze_name: "string" for c in part.delivered if c.bronze_name not in part.values}}

    def _records(self, part: TableSpec, bronze: Snapshot, *, until: int | None = None) -> "nw.LazyFrame[Any]":
        newest = bronze.transaction(ledger.ingest_app(part.bronze)) if until is None else until
        return feeds.records(self.session, [Feed(part, 0, True, bronze, seen=0, newest=newest)])

    def _dated(self, part: TableSpec, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Records with `_date`: their event date, or the instant of the extraction where they have none."""
        values = {n: v for n, v in part.values.items() if n not in records.collect_schema().names()}
        if values:
            records = records.with_columns(**{name: nw.lit(value) for name, value in values.items()})
        judged, _ = Judge(self.session, part, release=None).judged(records)
        instant = nw.col(self.kept.event).cast(nw.Datetime("us", "UTC"))
        return judged.with_columns(nw.coalesce(instant, nw.col(EXTRACTED_AT)).alias("_date"))


def _remove(
    session: "Session",
    expired: Expired,
    table: Snapshot,
    old: "nw.Expr",
    *,
    dry: bool,
    info: Mapping[str, str],
    transactions: Mapping[str, int] | None = None,
    counted: bool = False,
    sort_by: Sequence[str] = (),
) -> Expired:
    """Remove the rows of a table that the condition selects; files that hold none are not touched."""
    limit: Any = expired.before
    column = expired.column
    if dict(table.columns).get(column) == "date":
        limit = limit.date()
    touched = [file for file in table.files if file.lower.get(column) is None or file.lower[column] < limit]
    frame = session.read(table.paths(touched), table.columns)
    count = rows_of(session, frame.filter(old.fill_null(False)))
    if dry or not count:
        return _with(expired, count)
    more = _removed(count, table, int(info["batch_to"])) if counted else {}
    size = _rewrite(
        session,
        table,
        touched,
        frame.filter(~old.fill_null(False)),
        count,
        info={**info, **more},
        transactions=transactions,
        sort_by=sort_by,
    )
    return _with(expired, count, size)


def remove_places(
    session: "Session",
    table: Snapshot,
    places: "nw.LazyFrame[Any]",
    *,
    info: Mapping[str, str],
    transactions: Mapping[str, int],
) -> int:
    """Remove rows of a table in one commit; the bytes by which its files are fewer.

    Args:
        places: `PLACE` of the rows, kept, as all files of the table give them when they are read in their order.
    """
    files, count = list(table.files), rows_of(session, places)
    hit = sorted(int(row[0]) for row in session.rows(places.select(PLACE[0]).unique()))
    touched = [files[number] for number in hit]
    again = session.table([{"_new": new, PLACE[0]: old} for new, old in enumerate(hit)], {"_new": "bigint", PLACE[0]: "bigint"})
    moved = session.keep(places.join(again, on=PLACE[0], how="inner").select("_new", PLACE[1]))
    frame = session.read(table.paths(touched), table.columns, place=PLACE)
    frame = frame.with_columns(*[nw.col(name).cast(nw.Int64) for name in PLACE])
    rest = frame.join(moved, left_on=list(PLACE), right_on=["_new", PLACE[1]], how="anti")
    return _rewrite(session, table, touched, rest.select(*table.columns), count, info=info, transactions=transactions)


def _rewrite(
    session: "Session",
    table: Snapshot,
    touched: Sequence[DataFile],
    rest: "nw.LazyFrame[Any]",
    count: int,
    *,
    info: Mapping[str, str],
    transactions: Mapping[str, int] | None,
    sort_by: Sequence[str] = (),
) -> int:
    """Commit the touched files without `count` of their rows."""
    partition = next(iter(table.partition_columns), "")
    order = [name for name in sort_by if name in table.columns]
    add = session.write(rest, table.uri, columns=table.columns, sort_by=order, partition=partition)
    went = sum(file.rows for file in touched) - sum(file.rows for file in add)
    if went != count:
        discard(table.uri, add)
        raise BrokenTableError(
            f"{count:,} rows of {table.uri} were to go, and {went:,} would have.",
            remedy="Nothing was committed. The record counts in its log are wrong: make rebuild, or restore it.",
        )
    Candidate(snapshot=table, add=add, remove=touched, transactions=transactions, info=info, force=True).commit()
    return sum(file.size for file in touched) - sum(file.size for file in add)


def _info(batch: int) -> dict[str, str]:
    """What the commit says of itself; it says nothing of what the rows that stay came from."""
    return {MAINTENANCE: "retention", "operation": "expire", "run_id": "retention", "batch_to": str(batch)}


def _removed(count: int, table: Snapshot, batch: int) -> dict[str, str]:
    entry = Entry(batch_from=batch, batch_to=batch, records_in=count, written=0, deleted=count, rows_after=table.rows - count)
    return entry.info()


def _with(expired: Expired, rows: int, size: int = 0) -> Expired:
    return replace(expired, rows=rows, bytes=size)
