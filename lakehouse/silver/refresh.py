"""Bronze to silver for one table: validate the new records, find the newest version of every key, stage what changes.

    bronze batches above the watermark ─▶ validated (validate.py) ─┬▶ quarantine
                                                                  └▶ newest per key (merge.py) ─▶ staged files ─▶ transaction

Of a table that is appended to, what was delivered before is left out first (repeats.py), and every other record is a row.
The table follows from the set of records alone, never from the order in which they came. So any sequence of increments gives
the table of a full rebuild. An increment rewrites only the files that hold a changed key; a rebuild (and the first load)
streams all of bronze through one sort.

Pure: no dagster, engine-neutral. The watermarks are the application transactions `from:bronze/<table>` of the silver commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import narwhals as nw

from lakehouse.core import ledger, quarantine, rules
from lakehouse.core.engines.casts import GRAMMAR, VERSION
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError, ExpressionError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding, Release
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table
from lakehouse.core.table.transaction import Transaction
from lakehouse.silver import baseline, elements, forms, inputs, withdrawn
from lakehouse.silver.accounts import accounts
from lakehouse.silver.checks import CONFLICTS, TIES, TYPES
from lakehouse.silver.inputs import ROW_ID
from lakehouse.silver.merge import IDENTITY, Change, Merge, delete_columns, silver_columns, tombstones_ref, with_keys
from lakehouse.silver.release import nothing_to_release, reported
from lakehouse.silver.repeats import repeats
from lakehouse.silver.validate import DELETED, EXPIRED, Validator, Violations
from lakehouse.tables.spec import TableSpec

LEDGER = ledger.LEDGER_TABLE
#: Two are chosen by the refresh itself: `evolve` reads all of bronze, because the declaration has grown or because what is
#: validated again replaces no row; `overwrite` reads the newest complete generation.
Mode = Literal["increment", "rebuild", "redrive", "evolve", "overwrite"]


@dataclass
class Refresh:
    """A silver table that is ready to be committed, or (`transaction` is None) why nothing is.

    `stopped` says that a rule with action `fail` was violated: nothing was staged, nothing may be committed. `notes` are what
    the log says of how it was computed.
    """

    version: int
    transaction: Transaction | None = None
    entry: Entry | None = None
    findings: list[Finding] = field(default_factory=list)
    stopped: bool = False
    notes: tuple[str, ...] = ()


def stage_refresh(
    session: Session,
    storage: Storage,
    spec: TableSpec,
    *,
    run_id: str,
    target: TableRef | None = None,
    mode: Mode = "increment",
    release: Release | None = None,
) -> Refresh:
    """Stage what the new bronze batches change in silver. The caller holds the table and commits the transaction.

    Args:
        target: the silver table, when it is not the spec's own.
        mode: `increment` reads new batches, `rebuild` starts from nothing and reads all of bronze, `redrive` validates again
            what the rules have put in quarantine.
        release: lets the new batches pass the rules that stop them.

    Raises:
        BrokenTableError: silver is ahead of bronze, or was computed under another declaration, and must not become the present
            one in place.
        RefusedWriteError: a release, and no rule stops the batch.
        DeclarationError: the transform does not exist, or an expression does not fit the columns' types.
    """
    work = _Work(session, storage, spec, target or spec.silver, run_id=run_id, mode=mode, release=release)
    try:
        return replace(work.stage(), notes=tuple(work.notes))
    except ExpressionError as error:
        raise ExpressionError(f"{work.target}: {error.what}", remedy=error.remedy) from error


def finalise_quarantine(session: Session, storage: Storage, spec: TableSpec, silver: Snapshot) -> None:
    """Make final what a commit of silver changed in quarantine, and take back what a run that died had begun to change."""
    for part in spec.parts:
        quarantine.finalise(session, storage.uri(part.quarantine), layer="silver", done=silver.watermark(quarantine.REDRIVE))


class _Work:
    """One refresh: the opened tables, and how far silver has read of each bronze table."""

    def __init__(
        self,
        session: Session,
        storage: Storage,
        spec: TableSpec,
        target: TableRef,
        *,
        run_id: str,
        mode: Mode,
        release: Release | None,
    ) -> None:
        self.session, self.storage, self.spec, self.target = session, storage, spec, target
        self.run_id, self.mode, self.release = run_id, mode, release
        self.notes: list[str] = []
        self.columns, self.repeated, self.contents, self.withdrawn = silver_columns(spec), 0, 0, 0
        self.again: withdrawn.Again | None = None
        inputs.open_feeds(storage, spec)  # one that is not there is named before anything is made
        partition_by = [spec.partition] if spec.partition else []
        self.silver = open_table(storage.uri(target), self.columns, partition_by=partition_by)
        self.deletes = open_table(storage.uri(tombstones_ref(target)), delete_columns(spec))
        # Opened last: what another run has remembered of bronze before now is then in this bronze too.
        self.feeds = inputs.open_feeds(storage, spec)
        self.others = {ref.table: open_input(storage, ref) for ref in spec.referred}
        self.validator = Validator(session, spec, release=release, floor=baseline.floor(spec, self.silver))
        self.merge = Merge(session, spec, self.validator, silver=self.silver, deletes=self.deletes)

    @property
    def seen(self) -> int:
        """Batches that silver has read, of all feeds; 0 when it reads them from their beginning."""
        return sum(feed.seen for feed in self.feeds)

    @property
    def _reads_all(self) -> bool:
        """Whether a record that was refused can be taken in with all of bronze only: it replaces no row, or was taken back."""
        return self.spec.sync != "dedup" or self.spec.withdraws

    # --- what is new ---------------------------------------------------------------------------------------------

    def stage(self) -> Refresh:
        ledger.finalise(self.session, self.storage.uri(LEDGER), table=self.target, snapshot=self.silver)
        if self.target == self.spec.silver:
            finalise_quarantine(self.session, self.storage, self.spec, self.silver)
        if inputs.is_ahead(self.storage, self.silver, self.feeds) or not self._begin():
            return Refresh(self.silver.version)
        if self.mode == "redrive":
            for feed in self.feeds:
                feed.newest = feed.seen
            records = inputs.waiting(self.session, self.storage, self.feeds)
            if records is None:
                return Refresh(self.silver.version)
        else:
            records = inputs.records(self.session, self.feeds)
            if self.spec.withdraws:
                records = self._followed(records)
            elif self.spec.sync == "append":
                records = self._without_repeats(records)
        validated, violations = self.validator.validated(records)
        change = self._change(records, validated)
        try:
            return self._validate(change, records, validated, violations)
        except BaseException:
            change.transaction.abandon()
            raise

    def _without_repeats(self, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The records that were not delivered before."""
        found, self.contents = repeats(self.session, self.feeds, records)
        if found is None:
            return records
        self.repeated = self.session.count(found)
        return records.join(found, on=list(ROW_ID), how="anti")

    def _followed(self, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The records that were not taken back by one that is marked as withdrawn."""
        session, every = self.session, self.spec.deleted is not None  # a delete may be taken back, and be a tombstone already
        if self.seen and not every and not withdrawn.has_any(session, records):
            return records
        if self.seen and not self.spec.key:
            self._start_over("evolve")
        everything = inputs.records(session, self.feeds, anew=True)
        if not self.seen:
            found = withdrawn.followed(session, self.feeds, everything)
        else:
            keyed, columns = with_keys(session, self.spec, everything, self.validator.validated(everything)[0])
            keys = dict(zip(columns, self.spec.record_key, strict=True))
            found = withdrawn.followed_by_key(
                session, self.feeds, everything, keyed=keyed, keys=keys, accepted=self.validator.accepted, every=every
            )
        self.repeated, self.withdrawn, self.again = found.repeated, found.withdrawn, found.again
        return found.records

    def _change(self, records: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]") -> Change:
        base = None if self.seen else baseline.open_baseline(self.storage, self.spec, [feed.bronze for feed in self.feeds])
        rows, ended = baseline.frames(self.session, self.spec, base) if base is not None else (None, None)
        if not self.spec.key:
            return self.merge.append(validated, anew=not self.seen, rows=rows)
        if self.seen:
            return self.merge.increment(validated, again=self.again)
        return (
            self.merge.rebuild(records, validated)
            if rows is None or ended is None
            else self.merge.from_baseline(validated, rows, ended)
        )

    def _begin(self) -> bool:
        """Decide what is read, and how; whether there is anything to do."""
        if self.mode != "rebuild":
            made = self.silver.provenance
            self._continue(made)
            changed = [*forms.changed(self.spec, made), *self._gone(made)] if self.seen else []
            as_declared = self._declared() and not changed
            if self.mode == "increment" and as_declared and not any(self._is_new(feed) for feed in self.feeds):
                return False
            if self.seen and not as_declared:
                self._evolve(changed)
            elif (self.mode == "redrive" and self._reads_all) or any(0 < feed.seen < feed.begin for feed in self.feeds):
                self._start_over("evolve")
        if self.spec.sync == "overwrite":
            self._start_over("rebuild" if self.mode == "rebuild" else "overwrite")
            return any(feed.generation for feed in self.feeds)
        return True

    def _continue(self, made: Provenance) -> None:
        """Go on after the batches that silver's own commit says it has read."""
        known = made.input_ids
        for feed in self.feeds:
            name = str(feed.part.bronze)
            # A feed that was gone meanwhile begins anew: its rows went with the rebuild.
            feed.seen = self.silver.watermark(feed.app) if not known or name in known else 0
            remedy = f"Bronze was replaced: run make rebuild TABLE={self.spec.name}."
            if feed.seen and known.get(name, feed.bronze.id) != feed.bronze.id:
                what = f"{self.target} was read from another table than the present {feed.part.bronze}."
                raise BrokenTableError(what, remedy=remedy)
            if feed.seen > feed.newest:
                what = f"{self.target} has read batch {feed.seen} of {feed.part.bronze}, which ends at {feed.newest}."
                raise BrokenTableError(what, remedy=remedy)

    def _gone(self, made: Provenance) -> list[str]:
        """Bronze tables whose records are in silver, and that are no longer declared."""
        return [f"{name} (no longer declared)" for name in made.input_ids if name not in {str(f.part.bronze) for f in self.feeds}]

    def _is_new(self, feed: inputs.Feed) -> bool:
        return inputs.delivers(feed) or (feed.generation or 0) > self.silver.watermark(feed.shown)

    def _evolve(self, changed: Sequence[str]) -> None:
        """Go on under another declaration: at once where it has only grown, else where the table says that it may.

        Args:
            changed: what is declared otherwise than when the table was computed.
        """
        other = ""
        if not self._widens():
            other = f"The columns, key or order of {self.target} cannot become those that its spec declares without a loss."
        elif changed:
            other = f"{self.target} was computed under another declaration; changed since: {', '.join(changed)}."
        if other and self.spec.on_change == "stop" and self.target == self.spec.silver:
            raise BrokenTableError(
                other, remedy=f"Run make rebuild TABLE={self.spec.name} to compute it again under the new declaration."
            )
        if other:
            self.notes.append(f"{other} All of it is computed again from bronze.")
        self._start_over("evolve")

    def _start_over(self, mode: Mode) -> None:
        """Read bronze from its beginning."""
        self.mode = mode
        for feed in self.feeds:
            feed.seen = 0

    def _declared(self) -> bool:
        """Whether the table is as its spec declares it."""
        identity = [*self.deletes.columns.items()] == [*delete_columns(self.spec).items()]
        # Tombstones of a key or an order are committed before the rows: a killed run leaves these under the one before.
        identity = identity and self.deletes.watermark(IDENTITY) <= self.silver.watermark(IDENTITY)
        generations = self.spec.sync == "overwrite" or not any(self.silver.watermark(feed.shown) for feed in self.feeds)
        return self.silver.columns == self.columns and identity and generations

    def _widens(self) -> bool:
        """Whether the declared columns hold all that the table's do, under the same key and order."""
        have = self.silver.columns
        compatible = all(name in self.columns and forms.is_wider(kind, self.columns[name]) for name, kind in have.items())
        return compatible and [*self.deletes.columns] == [*delete_columns(self.spec)]

    # --- what it comes to ------------------------------------------------------------------------------------------

    def _validate(
        self, change: Change, records: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]", violations: Violations
    ) -> Refresh:
        """Count, compare with what came in, evaluate the rules, put the refused records in quarantine."""
        session, validator = self.session, self.validator
        arrived = session.count(records)
        expired = (
            0 if self.validator.floor is None else session.count(elements.records(self.spec, validated.filter(nw.col(EXPIRED))))
        )
        refused = arrived - change.accepted - expired
        # Of a table that is overwritten, records of other generations are read by nobody.
        others = sum(feed.bronze.rows for feed in self.feeds) - arrived if self.spec.sync == "overwrite" else 0
        passed_over = others + self.repeated + (0 if self.seen else inputs.not_read(session, self.feeds))
        counts = dict.fromkeys(violations, 0)
        bad = None
        if refused:  # only then is it worth reading the batch for them
            bad = session.persist(validator.refused(validated, violations, run_id=self.run_id))
            flags = [nw.col(f"_is_{name}").cast(nw.Int64).sum().alias(name) for name in violations]
            counts = dict(zip(violations, (n or 0 for n in session.rows(bad.select(*flags))[0]), strict=True))
        if validator.relaxed:
            counts |= rules.count_violations(session, validated.filter(~nw.col(DELETED)), validator.relaxed)[1]
        findings = self._findings(change, counts, validated=arrived, altered=validator.altered(validated))
        findings = reported(session, self.spec, findings, bad, counts, mode=self.mode, validated=arrived)
        released = [f.rule for f in findings if not f.passed and f.action != validator.declared.get(f.rule, f.action)]
        if self.release is not None and not released and not any(finding.stops for finding in findings):
            change.transaction.abandon()
            raise nothing_to_release(self.target)
        if self.mode == "redrive" and refused == arrived:  # nothing passes: not a new version
            change.transaction.abandon()
            return Refresh(self.silver.version, findings=findings)
        # Not an increment: then records leave the quarantine that are in no other table before the commit.
        again = self.mode != "increment"
        number = self.silver.watermark(quarantine.REDRIVE) + 1 if again and self.target == self.spec.silver else None
        # The quarantine is of the declared table: what another target takes in has not left it.
        aside = self.target != self.spec.silver or any(f.stops for f in findings)
        stored = refused if aside else self._quarantine(bad, again=again, number=number)
        entry = Entry(
            batch_from=self.seen,
            batch_to=sum(feed.newest for feed in self.feeds),
            records_in=arrived + passed_over + self.withdrawn,
            written=change.written,
            deduplicated=change.accepted - change.written - change.deleted + passed_over,
            deleted=change.deleted + expired + self.withdrawn,
            quarantined=stored,
            rows_after=change.transaction.rows,
        )
        findings += self._accounts(entry)
        if any(finding.stops for finding in findings):
            change.transaction.abandon()
            return Refresh(self.silver.version, None, entry, findings, stopped=True)
        numbers = {IDENTITY: self.merge.store_tombstones(change.deletes, anew=not self.seen)}
        numbers |= {quarantine.REDRIVE: number} if number is not None else {}
        return self._ready(change, entry, findings, released=released, numbers=numbers)

    def _ready(
        self, change: Change, entry: Entry, findings: list[Finding], *, released: list[str], numbers: Mapping[str, int]
    ) -> Refresh:
        """The transaction with all that its commit reports."""
        # None where the table shows no generation; 0 where it no longer does.
        shown = {feed.shown: feed.generation or 0 for feed in self.feeds}
        shown = {app: n for app, n in {**shown, **numbers}.items() if n != self.silver.watermark(app)}
        watermarks = {**{feed.app: feed.newest for feed in self.feeds}, **shown}
        expired = sum(feed.bronze.watermark(ledger.EXPIRED) for feed in self.feeds)
        if not self.seen and expired != self.silver.watermark(ledger.EXPIRED):
            watermarks[ledger.EXPIRED] = expired
        if not self.seen and self.silver.watermark(GRAMMAR) < VERSION:  # what stays was cast under the one before
            watermarks[GRAMMAR] = VERSION
        operation = "release" if released else "merge" if self.mode == "increment" else self.mode
        made = Provenance(
            operation=operation,
            inputs={str(feed.part.bronze): feed.bronze.version for feed in self.feeds}
            | {f"silver/{name}": other.version for name, other in self.others.items() if other is not None},
            input_ids={str(feed.part.bronze): feed.bronze.id for feed in self.feeds},
            figures=entry,
            released=tuple(released) if self.release is not None else (),
            reason=self.release.reason if self.release is not None else "",
            facts=forms.fact(self.spec),
        )
        accepted = self.release is not None and self.release.accept
        transaction = replace(
            change.transaction,
            watermarks=watermarks,
            provenance=made,
            max_loss=1.0 if self.mode == "rebuild" or accepted else self.spec.max_loss,
            columns=self.columns if not self.seen and self.silver.columns != self.columns else None,
        )
        return Refresh(self.silver.version, transaction, entry, findings)

    def _quarantine(self, bad: "nw.LazyFrame[Any] | None", *, again: bool, number: int | None) -> int:
        """Let the refused records be what silver has in quarantine of these batches. Returns how many were written."""
        return sum(
            quarantine.replace_after(
                self.session,
                self.storage.uri(feed.part.quarantine),
                layer="silver",
                batch=0 if again else feed.seen,
                until=feed.newest,
                records=bad if bad is None or feed.alone else bad.filter(inputs.of_feed(feed)),
                number=number,
            )
            for feed in self.feeds
        )

    def _findings(
        self, change: Change, counts: Mapping[str, int], *, validated: int, altered: Mapping[str, int]
    ) -> list[Finding]:
        spec, actions, candidate = self.spec, self.validator.actions, change.transaction
        # An empty increment changes nothing that a rule could check.
        if not (validated or self.withdrawn) and self.mode == "increment":
            names = [*(rule.name for rule in spec.row_rules), *(rule.name for rule in spec.table_rules)]
            own = [*([CONFLICTS] if spec.observed else []), *([TIES] if spec.key else [])]
            return [Finding(name, True, "warn") for name in (TYPES, *names, *own)]
        types = {name.removeprefix(f"{TYPES}_"): n for name, n in counts.items() if name.startswith(f"{TYPES}_")}
        failed = sum(types.values())
        found = [
            Finding(TYPES, not failed, "quarantine", failed, validated, {**{n: c for n, c in types.items() if c}, **altered})
        ]
        warned, of_written = self._warnings(change)
        for rule in spec.row_rules:
            if rule.name in self.validator.warnings and rule.name not in counts:
                found.append(Finding(rule.name, not warned[rule.name], "warn", warned[rule.name], of_written))
            else:
                found.append(Finding(rule.name, not counts[rule.name], actions[rule.name], counts[rule.name], validated))
        personal = {column.name for column in spec.columns if column.personal}
        table = rules.TableInput(self.session, candidate, self.columns, spec.key, others=self.others, personal=personal)
        found += [rules.evaluator(rule.kind)(rule, actions[rule.name], table) for rule in spec.table_rules]
        if spec.observed:
            found.append(Finding(CONFLICTS, not change.conflicts, "warn", change.conflicts, change.written))
        if spec.key:
            found.append(Finding(TIES, not change.ties, "warn", change.ties, change.accepted))
        return found

    def _warnings(self, change: Change) -> tuple[dict[str, int], int]:
        warnings = self.validator.warnings
        if not warnings:
            return {}, 0
        if change.upserts is not None:
            rows, counts = rules.count_violations(self.session, change.upserts, warnings)
            return counts, rows
        counts, files = {}, change.transaction.add
        for rule in (rule for rule in self.spec.row_rules if rule.name in warnings):
            condition = warnings[rule.name]
            paths = self.silver.paths([file for file in files if not rules.proven(rule, file)])
            frame = self.session.read(paths, {name: self.columns[name] for name in sorted(condition.columns)})
            found = rules.count_violations(self.session, frame, {rule.name: condition})[1] if paths else {rule.name: 0}
            counts.update(found)
        return counts, sum(file.rows for file in files)

    def _accounts(self, entry: Entry) -> list[Finding]:
        return accounts(
            self.session,
            self.storage,
            self.silver,
            entry,
            target=self.target,
            bronze=[feed.bronze for feed in self.feeds],
            anew=not self.seen,
            redriven=self.mode == "redrive",
            contents=self.contents,
        )
