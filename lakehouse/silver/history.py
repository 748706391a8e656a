"""The history of one table: every version of every key, from the bronze batches that silver has read.

    silver's watermark ─▶ batches ─▶ validated as silver's ─▶ points of their keys ─▶ versions ─▶ staged files ─▶ transaction
                                              history's rows + ops/points_<table> ─┘      └▶ ops/points_<table>

It follows silver, batch by batch and never ahead: what silver refuses is in no version. A record that opened a version is its
row; the other points (`versions.py`) are in `ops/points_<table>_history`. So an increment needs neither silver nor the records of
older batches, which may have expired: it reads the points of the keys of its batch, and rewrites only files with a row that
changes. Points are committed before the rows: one that is there too early, or twice, changes nothing. All is computed again when
silver was, or the declaration is another one; then from bronze and the points of what has expired (`history_baseline.py`).
Pure: no dagster, engine-neutral.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import narwhals as nw

from lakehouse.core import ledger
from lakehouse.core.engines.session import Session
from lakehouse.core.rules import Finding
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import is_viewed_older, require_input
from lakehouse.core.table.provenance import Commit, Entry, Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_table
from lakehouse.core.table.staging import PATH, files_for_keys, replace_keys
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver import generations, history_baseline, inputs, standing
from lakehouse.silver.accounts import accounts
from lakehouse.silver.checks import INTERVALS
from lakehouse.silver.history_baseline import point_columns, points_ref
from lakehouse.silver.inputs import ROW_ID
from lakehouse.silver.merge import check_rows, silver_columns, with_keys
from lakehouse.silver.refresh import Refresh
from lakehouse.silver.validate import DELETED, EXPIRED
from lakehouse.silver.versions import INSTANT, ORIGIN, different, instant_of, only_version, overlapping, versions
from lakehouse.tables.spec import TableSpec, history_table, tracked
from lakehouse.tables.spec.history import IS_CURRENT, VALID_FROM

Mode = Literal["increment", "rebuild"]
#: The application id under which the points are numbered by how often they were computed anew, and the rows by the points they
#: are of. A run that was killed between the two commits leaves the rows behind.
POINTS = "points"
#: The fact of a commit that has the digest of what is declared of a history.
DECLARED = "history"
#: Operations of silver after which it has what it had, and what its new batches add.
_ADDING = frozenset(("merge", "release"))
#: Where a point comes from; of the same points the one that was there is taken.
_BATCH, _HIDDEN, _ROW = 0, 1, 2


@dataclass(frozen=True)
class Change:
    """Staged files, and what the accepted records came to. `rows` are versions of keys that were compared, `hidden` their other
    points that are new."""

    transaction: Transaction
    accepted: int
    written: int
    deleted: int
    rows: "nw.LazyFrame[Any]"
    hidden: "nw.LazyFrame[Any]"


def stage_history(session: Session, storage: Storage, spec: TableSpec, *, run_id: str, mode: Mode = "increment") -> Refresh:
    """Stage what the batches that silver has read since change in the history. The caller has the table locked, and commits.

    Raises:
        BrokenTableError: there is no silver or bronze table, or records that have expired are not in the history's baseline.
        LakehouseError: the staged rows are not as many as they should be.
    """
    return _Work(session, storage, spec, run_id=run_id, mode=mode).stage()


class _Work:
    """One refresh of a history: the opened tables, and how far it has read each bronze table."""

    def __init__(self, session: Session, storage: Storage, spec: TableSpec, *, run_id: str, mode: Mode) -> None:
        self.session, self.storage, self.spec, self.mode, self.run_id = session, storage, spec, mode, run_id
        self.table = history_table(spec)
        self.columns, self.own, self.key = silver_columns(self.table), silver_columns(spec), list(spec.key)
        self.silver = require_input(storage, spec.silver, remedy=spec.silver.how_to_make)
        self.feeds = inputs.open_feeds(storage, spec)
        partition_by = [spec.partition] if spec.partition else []
        self.history = open_table(storage.uri(self.table.silver), self.columns, partition_by=partition_by)
        self.points = open_table(storage.uri(points_ref(spec)), point_columns(spec))
        for feed in self.feeds:
            feed.newest, feed.generation = self.silver.watermark(feed.app), None
        self.validator = history_baseline.validator(session, spec, self.silver, self.history)
        self.past = generations.Past(session, storage, spec, feed=self.feeds[0], silver=self.silver, made=self.history.provenance)

    @property
    def seen(self) -> int:
        """Batches that the history has read, of all feeds; 0 when it reads them from their beginning."""
        return sum(feed.seen for feed in self.feeds)

    def stage(self) -> Refresh:
        uri = self.storage.uri(ledger.LEDGER_TABLE)
        ledger.finalise(self.session, uri, table=self.table.silver, snapshot=self.history)
        if self._is_ahead() or not self._begin():
            return Refresh(self.history.version)
        records = self.past.records() if self.past.counts else inputs.records(self.session, self.feeds)
        validated, _ = self.validator.validated(records)
        change = self._change(records, validated)
        try:
            return self._ready(change, records, validated)
        except BaseException:
            change.transaction.abandon()
            raise

    # --- what is new -----------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Decide what is read; whether there is anything to do."""
        if not any(feed.newest for feed in self.feeds):
            return False
        for feed in self.feeds:
            feed.seen = self.history.watermark(feed.app)
        if self.mode == "rebuild" or self._is_other():
            self.mode = "rebuild"
            for feed in self.feeds:
                feed.seen = 0
        self.past.open(anew=self.mode == "rebuild")
        if self.past.counts:
            return self.mode == "rebuild" or bool(self.past.new)
        return self.mode == "rebuild" or any(feed.seen < feed.newest for feed in self.feeds)

    def _is_ahead(self) -> bool:
        """Whether another run has made the history of a newer silver table than the view of this run has."""
        read = self.history.provenance.inputs.get(str(self.spec.silver), -1)
        return read > self.silver.version and is_viewed_older(self.storage, self.silver)

    def _is_other(self) -> bool:
        """Whether what is there was computed from something else than what silver and the declaration are now."""
        made = self.history.provenance
        since = self.silver.commits(since=made.inputs.get(str(self.spec.silver), -1))
        known = len(since) == self.silver.version - made.inputs.get(str(self.spec.silver), -1)
        return (
            made.facts.get(DECLARED) != declared(self.spec)
            or made.input_ids != self._ids
            or self.history.columns != self.columns
            or self.points.columns != point_columns(self.spec)
            or self.points.watermark(POINTS) != self.history.watermark(POINTS)
            or not known
            or not all(self._adds(commit) for commit in since)
            or any(feed.seen > feed.newest or 0 < feed.seen < feed.begin for feed in self.feeds)
        )

    def _adds(self, commit: Commit) -> bool:
        """Whether after a commit silver has what it had, and what its new batches add; what expired there did here as well."""
        made = commit.provenance
        if made.maintenance or not commit.id:
            return True
        if self.past.counts:
            return made.operation == "overwrite" and self.past.is_ahead
        return made.operation in _ADDING and made.figures is not None and made.figures.batch_from > 0

    @property
    def _ids(self) -> dict[str, str]:
        return {str(self.spec.silver): self.silver.id} | {str(feed.part.bronze): feed.bronze.id for feed in self.feeds}

    # --- what it comes to ------------------------------------------------------------------------------------------

    def _change(self, records: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]") -> Change:
        if self.past.counts:
            accepted = self.session.persist(self._with_instant(self._accepted(validated)))
            return self._generations(accepted)
        return self._increment(validated) if self.seen else self._rebuild(records, validated)

    def _accepted(self, validated: "nw.LazyFrame[Any]", *beside: str) -> "nw.LazyFrame[Any]":
        accepted = history_baseline.accepted(
            self.session, self.storage, self.feeds, self.validator, validated, shown=self.past.shown or None
        )
        return accepted.select(*self.own, DELETED, *([inputs.GENERATION] if self.past.counts else []), *beside)

    def _with_instant(self, records: "nw.LazyFrame[Any]", origin: int = _BATCH) -> "nw.LazyFrame[Any]":
        if self.past.counts:
            records = self.past.with_instant(records)
        else:
            records = records.with_columns(instant_of(self.spec).alias(INSTANT))
        return records.with_columns(nw.lit(origin).alias(ORIGIN)).select(*self._fields)

    @property
    def _fields(self) -> tuple[str, ...]:
        """What points have to be compared."""
        return (*self.own, DELETED, INSTANT, ORIGIN)

    def _increment(self, validated: "nw.LazyFrame[Any]") -> Change:
        """Only what changes: the points of the batch's keys, and the files in which a row of them is another one now."""
        session = self.session
        batch = session.persist(self._with_instant(self._accepted(validated)))
        keys = session.persist(batch.select(*self.key).unique())
        stored, hidden = self._stored(keys), self._hidden(keys)
        found = versions(session, self.spec, nw.concat([batch, self._as_points(stored), hidden], how="vertical"))
        return self._changed(found.rows, stored, found.hidden, hidden, batch)

    def _changed(
        self,
        rows: "nw.LazyFrame[Any]",
        stored: "nw.LazyFrame[Any]",
        hidden: "nw.LazyFrame[Any]",
        known: "nw.LazyFrame[Any]",
        batch: "nw.LazyFrame[Any]",
    ) -> Change:
        """The table with `rows` instead of `stored`, where they differ; `known` are the hidden points that are there."""
        session, columns = self.session, list(self.columns)
        mine = session.persist(rows.filter(nw.col(ORIGIN) == _BATCH).select(*self.key))
        gone, new = (session.persist(frame) for frame in different(stored.select(*columns), rows.select(*columns)))
        pair = [*self.key, VALID_FROM]
        changed = session.persist(nw.concat([gone.select(*pair), new.select(*pair)], how="vertical").unique())
        located = stored.select(*pair, PATH)
        add, remove = replace_keys(
            session,
            self.history,
            changed=changed,
            rows=new,
            located=located,
            key=pair,
            columns=self.columns,
            file_mb=self.spec.file_mb,
            partition=self.spec.partition,
        )
        transaction = Transaction(table=self.history, add=add, remove=remove)
        check_rows(transaction, self.history.rows - session.count(gone) + session.count(new), self.spec)
        own = [*self.own, DELETED]
        added = different(known.select(*own), hidden.select(*own))[1]
        return Change(
            transaction=transaction,
            accepted=session.count(batch),
            written=session.count(mine),
            deleted=session.count(batch.filter(nw.col(DELETED))),
            rows=rows,
            hidden=session.persist(added),
        )

    def _rebuild(self, records: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]") -> Change:
        """Everything at once, streaming: a key that occurs once goes straight to the sort."""
        session = self.session
        base = history_baseline.frame(session, self.storage, self.spec, [feed.bronze for feed in self.feeds])
        keyed, keys = with_keys(session, self.spec, records, validated)
        own = {name: nw.col(of) for name, of in zip(keys, self.key, strict=True)}
        several = keyed.group_by(*keys).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
        special = [several.select(*keys), validated.filter(nw.col(DELETED)).select(**own)]
        special += [base.select(**own)] if base is not None else []
        some = keyed.join(session.persist(nw.concat(special, how="vertical").unique()), on=keys, how="semi")
        if keys != self.key:  # else the records are validated already
            some = self.validator.validated(records.join(some.select(*ROW_ID), on=list(ROW_ID), how="semi"))[0]
        some = session.persist(self._accepted(some, *ROW_ID))
        batch = self._with_instant(some)
        parts = [batch] + ([self._with_instant(base, _HIDDEN)] if base is not None else [])
        found = versions(session, self.spec, nw.concat(parts, how="vertical"))
        rest = records.join(some.select(*ROW_ID), on=list(ROW_ID), how="anti")
        alone = only_version(self._with_instant(self._accepted(self.validator.validated(rest)[0])))
        return self._anew(alone, found.rows, found.hidden, batch)

    def _anew(
        self,
        alone: "nw.LazyFrame[Any] | None",
        rows: "nw.LazyFrame[Any]",
        hidden: "nw.LazyFrame[Any]",
        batch: "nw.LazyFrame[Any]",
    ) -> Change:
        """The table with versions that are alone in their key, and those of the other keys."""
        session, columns = self.session, list(self.columns)
        parts = [rows.select(*columns)] + ([alone.select(*columns)] if alone is not None else [])
        add = self._write(nw.concat(parts, how="vertical"), self.history, self.columns, [*self.key, VALID_FROM])
        single = sum(file.rows for file in add) - session.count(rows)
        return Change(
            transaction=Transaction(table=self.history, add=add, remove=self.history.files),
            accepted=single + session.count(batch),
            written=single + session.count(rows.filter(nw.col(ORIGIN) == _BATCH)),
            deleted=session.count(batch.filter(nw.col(DELETED))),
            rows=rows,
            hidden=hidden,
        )

    def _generations(self, accepted: "nw.LazyFrame[Any]") -> Change:
        """The differences between whole tables, one after the other."""
        session = self.session
        stored = self._all_stored() if self.mode == "increment" else None
        current = self._as_points(stored.filter(nw.col(IS_CURRENT))) if stored is not None else None
        keys, points = self.past.differences(current, accepted, tracked(self.spec))
        none = session.table([], {**self.own, DELETED: "boolean"})
        if stored is None:
            found = versions(session, self.spec, points)
            return self._anew(None, found.rows, none, accepted)
        stored = session.persist(stored.join(keys, on=self.key, how="semi"))
        known = nw.concat([self._as_points(stored), self.past.gaps(stored).select(*self._fields)], how="vertical")
        found = versions(session, self.spec, nw.concat([points.select(*self._fields), known], how="vertical"))
        return self._changed(found.rows, stored, none, none, accepted)

    # --- what is there ---------------------------------------------------------------------------------------------

    def _stored(self, keys: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The rows of some keys, each with the file that it is in."""
        chosen = files_for_keys(self.session, self.history, keys, self.key[0])
        frame = self.session.read(self.history.paths(chosen), self.columns, path_column=PATH)
        return self.session.persist(frame.join(keys, on=self.key, how="semi"))

    def _all_stored(self) -> "nw.LazyFrame[Any]":
        return self.session.read(self.history.paths(), self.columns, path_column=PATH)

    def _hidden(self, keys: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The other points of some keys."""
        chosen = files_for_keys(self.session, self.points, keys, self.key[0])
        frame = self.session.read(self.points.paths(chosen), point_columns(self.spec))
        return self.session.persist(self._with_instant(frame.join(keys, on=self.key, how="semi"), _HIDDEN))

    def _as_points(self, rows: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Rows as the points that opened them."""
        flags = {DELETED: nw.lit(False), INSTANT: nw.col(VALID_FROM), ORIGIN: nw.lit(_ROW)}
        return rows.with_columns(**flags).select(*self._fields)

    # --- what is committed -----------------------------------------------------------------------------------------

    def _ready(self, change: Change, records: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]") -> Refresh:
        """Count, compare with what came in, and make the transaction with all that its commit reports."""
        session, anew = self.session, self.mode == "rebuild"
        arrived = session.count(records)
        expired = 0 if self.validator.floor is None else session.count(validated.filter(nw.col(EXPIRED)))
        bronze = [feed.bronze for feed in self.feeds]
        later = sum(_after(session, feed) for feed in self.feeds)
        passed_over = self.past.passed_over(arrived, later) + (inputs.not_read(session, self.feeds) if not self.seen else 0)
        entry = Entry(
            batch_from=0 if self.past.counts else self.seen,
            batch_to=sum(feed.newest for feed in self.feeds),
            records_in=arrived + passed_over,
            written=change.written,
            deduplicated=change.accepted - change.written - change.deleted + passed_over,
            deleted=change.deleted + expired,
            quarantined=arrived - change.accepted - expired,
            rows_after=change.transaction.rows,
        )
        findings = self._findings(change)
        findings += accounts(
            session,
            self.storage,
            self.history,
            entry,
            target=self.table.silver,
            bronze=bronze,
            anew=entry.batch_from == 0,
            later=later,
        )
        if any(finding.stops for finding in findings):
            change.transaction.abandon()
            return Refresh(self.history.version, None, entry, findings, stopped=True)
        watermarks = {feed.app: feed.newest for feed in self.feeds} | {POINTS: self._store_points(change.hidden, anew=anew)}
        expiry = sum(table.watermark(ledger.EXPIRED) for table in bronze)
        if entry.batch_from == 0 and expiry != self.history.watermark(ledger.EXPIRED):
            watermarks[ledger.EXPIRED] = expiry
        made = Provenance(
            operation="rebuild" if anew else "merge",
            inputs={str(self.spec.silver): self.silver.version}
            | {str(feed.part.bronze): feed.bronze.version for feed in self.feeds},
            input_ids=self._ids,
            figures=entry,
            facts={DECLARED: declared(self.spec), **self.past.fact()},
        )
        columns = self.columns if anew and self.history.columns != self.columns else None
        transaction = replace(change.transaction, watermarks=watermarks, provenance=made, columns=columns)
        return Refresh(self.history.version, transaction, entry, findings)

    def _findings(self, change: Change) -> list[Finding]:
        session, files = self.session, change.transaction.files
        checked = session.count(change.rows)
        wrong = overlapping(session, self.key, change.rows)
        return [
            Finding(INTERVALS, not wrong, "fail", wrong, checked),
            standing.current(session, self.history, files, silver=self.silver),
        ]

    def _store_points(self, hidden: "nw.LazyFrame[Any]", *, anew: bool) -> int:
        """Commit the points before the rows. Returns their number."""
        table, columns = self.points, point_columns(self.spec)
        add = self._write(hidden.select(*columns), table, columns, self.key)
        number = max(table.watermark(POINTS), self.history.watermark(POINTS)) + anew
        if add or anew:
            commit_staged(
                Transaction(
                    table=table,
                    add=add,
                    remove=table.files if anew else (),
                    columns=columns if anew and table.columns != columns else None,
                    watermarks={POINTS: number} if anew else {},
                    provenance=Provenance(operation="points"),
                )
            )
        return number

    def _write(
        self, rows: "nw.LazyFrame[Any]", table: Snapshot, columns: Mapping[str, str], sort_by: Sequence[str]
    ) -> list[DataFile]:
        partition = self.spec.partition if table is self.history else ""
        return self.session.write(
            rows, table.uri, columns=columns, sort_by=sort_by, file_mb=self.spec.file_mb, partition=partition
        )


def declared(spec: TableSpec) -> str:
    """The digest of what is declared of a history beside what silver is computed under."""
    return hashlib.sha256(json.dumps([[*spec.key], [*spec.order], sorted(tracked(spec))]).encode()).hexdigest()[:12]


def _after(session: Session, feed: inputs.Feed) -> int:
    """How many records of bronze are of batches that silver has not read."""
    if feed.newest >= feed.bronze.watermark(ledger.ingest_app(feed.part.bronze)):
        return 0
    frame = session.read(feed.bronze.paths(), {"_batch_id": "bigint"})
    return session.count(frame.filter(nw.col("_batch_id") > feed.newest))
