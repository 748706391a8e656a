"""Bronze to silver for one table: judge the new records, find the newest version of every key, stage what changes.

    bronze batches above the watermark ─▶ judged (judging.py) ─┬▶ quarantine
                                                             └▶ newest per key (newest.py) ─▶ staged files ─▶ candidate

The table follows from the set of records alone, never from the order in which they came. So any sequence of increments gives
the table of a full rebuild. An increment rewrites only the files that hold a changed key; a rebuild (and the first load)
streams all of bronze through one sort.

Pure: no dagster, engine-neutral. The watermarks are the application transactions `from:bronze/<table>` of the silver commit.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import narwhals as nw

from lakehouse.core import ledger, quarantine, rules
from lakehouse.core.delta import Candidate, DataFile, Snapshot, open_table
from lakehouse.core.engines import Session
from lakehouse.core.errors import BrokenTableError, RefusedWriteError
from lakehouse.core.ledger import Entry
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding, Release
from lakehouse.core.storage import Storage
from lakehouse.silver import baseline, feeds
from lakehouse.silver.checks import BALANCE, COMPLETE, CONFLICTS, TYPES
from lakehouse.silver.feeds import rows_of
from lakehouse.silver.judging import DELETED, EXPIRED, Judge, Verdicts
from lakehouse.silver.newest import Change, Merge, delete_columns, silver_columns, tombstones_ref
from lakehouse.tables.spec import RowRule, TableSpec

LEDGER = ledger.LEDGER_TABLE
#: Two are chosen by the refresh itself: `evolve` reads all of bronze, because the declaration has grown or because what is
#: judged again replaces no row; `overwrite` reads the newest complete generation.
Mode = Literal["increment", "rebuild", "redrive", "evolve", "overwrite"]


@dataclass
class Refresh:
    """A silver table that is ready to be committed, or (`candidate` is None) why nothing is.

    `stopped` says that a rule with action `fail` was violated: nothing was staged, nothing may be committed.
    """

    version: int
    candidate: Candidate | None = None
    entry: Entry | None = None
    findings: list[Finding] = field(default_factory=list)
    stopped: bool = False
    inputs: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)


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
    """Stage what the new bronze batches change in silver. The caller holds the table and commits the candidate.

    Args:
        target: the silver table, when it is not the spec's own.
        mode: `increment` reads new batches, `rebuild` starts from nothing and reads all of bronze, `redrive` judges again what
            the rules have put in quarantine.
        release: lets the new batches pass the rules that stop them.

    Raises:
        BrokenTableError: silver is ahead of bronze, or its columns cannot become the declared ones in place.
        RefusedWriteError: a release, and no rule stops the batch.
    """
    work = _Work(session, storage, spec, target or spec.silver, run_id=run_id, mode=mode, release=release)
    return work.stage()


def settle_quarantine(session: Session, storage: Storage, spec: TableSpec, silver: Snapshot) -> None:
    """Make final what a commit of silver changed in quarantine, and take back what a run that died had begun to change."""
    for part in spec.parts:
        quarantine.settle(session, storage.uri(part.quarantine), layer="silver", done=silver.transaction(quarantine.REDRIVE))


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
        self.columns = silver_columns(spec)
        feeds.open_feeds(storage, spec)  # one that is not there is named before anything is made
        partition_by = [spec.partition] if spec.partition else []
        self.silver = open_table(storage.uri(target), self.columns, partition_by=partition_by)
        self.deletes = open_table(storage.uri(tombstones_ref(target)), delete_columns(spec))
        # Opened last: what another run has remembered of bronze before now is then in this bronze too.
        self.feeds = feeds.open_feeds(storage, spec)
        self.judge = Judge(session, spec, release=release, floor=baseline.floor(spec, self.silver))
        self.merge = Merge(session, spec, self.judge, silver=self.silver, deletes=self.deletes)

    @property
    def seen(self) -> int:
        """Batches that silver has read, of all feeds; 0 when it reads them from their beginning."""
        return sum(feed.seen for feed in self.feeds)

    # --- what is new ---------------------------------------------------------------------------------------------

    def stage(self) -> Refresh:
        ledger.settle(self.session, self.storage.uri(LEDGER), table=self.target, snapshot=self.silver)
        if self.target == self.spec.silver:
            settle_quarantine(self.session, self.storage, self.spec, self.silver)
        if not self._begin():
            return Refresh(self.silver.version)
        if self.mode == "redrive":
            for feed in self.feeds:
                feed.newest = feed.seen
            records = feeds.waiting(self.session, self.storage, self.feeds)
            if records is None:
                return Refresh(self.silver.version)
        else:
            records = feeds.records(self.session, self.feeds)
        judged, verdicts = self.judge.judged(records)
        change = self._change(records, judged)
        try:
            return self._judge(change, records, judged, verdicts)
        except BaseException:
            change.candidate.discard()
            raise

    def _change(self, records: "nw.LazyFrame[Any]", judged: "nw.LazyFrame[Any]") -> Change:
        base = None if self.seen else baseline.open_baseline(self.storage, self.spec, [feed.bronze for feed in self.feeds])
        rows, ended = baseline.frames(self.session, self.spec, base) if base is not None else (None, None)
        if not self.spec.key:
            return self.merge.append(judged, anew=not self.seen, rows=rows)
        if self.seen:
            return self.merge.increment(judged)
        return self.merge.whole(records, judged) if rows is None or ended is None else self.merge.over(judged, rows, ended)

    def _begin(self) -> bool:
        """Settle what is read, and how; whether there is anything to do."""
        if self.mode != "rebuild":
            self._continue()
            if self.mode == "increment" and self._declared() and not any(self._is_new(feed) for feed in self.feeds):
                return False
            if self.seen and not self._declared():
                self._evolve()
            elif self.mode == "redrive" and self.spec.sync != "dedup":
                self._start_over("evolve")
        if self.spec.sync == "overwrite":
            self._start_over("rebuild" if self.mode == "rebuild" else "overwrite")
            return any(feed.generation for feed in self.feeds)
        return True

    def _continue(self) -> None:
        """Go on after the batches that silver's own commit says it has read."""
        known = json.loads(self.silver.last_info().get("input_ids", "{}"))
        for feed in self.feeds:
            feed.seen = self.silver.transaction(feed.app)
            remedy = f"Bronze was replaced: run make rebuild TABLE={self.spec.name}."
            if feed.seen and known.get(str(feed.part.bronze), feed.bronze.id) != feed.bronze.id:
                what = f"{self.target} was read from another table than the present {feed.part.bronze}."
                raise BrokenTableError(what, remedy=remedy)
            if feed.seen > feed.newest:
                what = f"{self.target} has read batch {feed.seen} of {feed.part.bronze}, which ends at {feed.newest}."
                raise BrokenTableError(what, remedy=remedy)

    def _is_new(self, feed: feeds.Feed) -> bool:
        return feeds.brings(feed) or (feed.generation or 0) > self.silver.transaction(feed.shown)

    def _evolve(self) -> None:
        """Go on under a declaration that has grown."""
        if not self._widens():
            raise BrokenTableError(
                f"The columns, key or order of {self.target} cannot become those that its spec declares without a loss.",
                remedy=f"Run make rebuild TABLE={self.spec.name} to compute it again under the new declaration.",
            )
        self._start_over("evolve")

    def _start_over(self, mode: Mode) -> None:
        """Read bronze from its beginning."""
        self.mode = mode
        for feed in self.feeds:
            feed.seen = 0

    def _declared(self) -> bool:
        """Whether the table is as its spec declares it."""
        identity = [*self.deletes.columns.items()] == [*delete_columns(self.spec).items()]
        return self.silver.columns == self.columns and identity

    def _widens(self) -> bool:
        """Whether the declared columns hold all that the table's do, under the same key and order."""
        have = self.silver.columns
        kept = all(name in self.columns and _is_wider(kind, self.columns[name]) for name, kind in have.items())
        return kept and [*self.deletes.columns] == [*delete_columns(self.spec)]

    # --- what it comes to ------------------------------------------------------------------------------------------

    def _judge(self, change: Change, records: "nw.LazyFrame[Any]", judged: "nw.LazyFrame[Any]", verdicts: Verdicts) -> Refresh:
        """Count, compare with what came in, evaluate the rules, put the refused records in quarantine."""
        session, judge = self.session, self.judge
        arrived = rows_of(session, records)
        expired = 0 if self.judge.floor is None else rows_of(session, judged.filter(nw.col(EXPIRED)))
        refused = arrived - change.accepted - expired
        # Of a table that is overwritten, records of other generations are read by nobody.
        passed_over = sum(feed.bronze.rows for feed in self.feeds) - arrived if self.spec.sync == "overwrite" else 0
        counts = dict.fromkeys(verdicts, 0)
        bad = None
        if refused:  # only then is it worth reading the batch for them
            bad = session.keep(judge.refused(judged, verdicts, run_id=self.run_id))
            flags = [nw.col(f"_is_{name}").cast(nw.Int64).sum().alias(name) for name in verdicts]
            counts = dict(zip(verdicts, (n or 0 for n in session.rows(bad.select(*flags))[0]), strict=True))
        if judge.relaxed:
            counts |= rules.count_violations(session, judged.filter(~nw.col(DELETED)), judge.relaxed)[1]
        findings = self._findings(change, counts, judged=arrived)
        findings = [self._explained(finding, bad) if finding.stops else finding for finding in findings]
        released = [f.rule for f in findings if not f.passed and f.action != judge.declared.get(f.rule, f.action)]
        if self.release is not None and not released and not any(finding.stops for finding in findings):
            change.candidate.discard()
            raise nothing_to_release(self.target)
        if self.mode == "redrive" and refused == arrived:  # nothing passes: not a new version
            change.candidate.discard()
            return Refresh(self.silver.version, findings=findings)
        # Not an increment: then records leave the quarantine that are in no other table before the commit.
        again = self.mode != "increment"
        number = self.silver.transaction(quarantine.REDRIVE) + 1 if again and self.target == self.spec.silver else None
        stored = refused if any(f.stops for f in findings) else self._quarantine(bad, again=again, number=number)
        entry = Entry(
            batch_from=self.seen,
            batch_to=sum(feed.newest for feed in self.feeds),
            records_in=arrived + passed_over,
            written=change.written,
            deduplicated=change.accepted - change.written - change.deleted + passed_over,
            deleted=change.deleted + expired,
            quarantined=stored,
            rows_after=change.candidate.rows,
        )
        findings += self._accounts(entry)
        if any(finding.stops for finding in findings):
            change.candidate.discard()
            return Refresh(self.silver.version, None, entry, findings, stopped=True)
        self.merge.remember(change.deletes, anew=not self.seen)
        return self._ready(change, entry, findings, released=released, number=number)

    def _ready(
        self, change: Change, entry: Entry, findings: list[Finding], *, released: list[str], number: int | None
    ) -> Refresh:
        """The candidate with all that its commit says."""
        candidate = change.candidate
        redriven = {quarantine.REDRIVE: number} if number is not None else {}
        shown = {feed.shown: feed.generation for feed in self.feeds if feed.generation is not None}
        candidate.transactions = {**{feed.app: feed.newest for feed in self.feeds}, **shown, **redriven}
        expired = sum(feed.bronze.transaction(ledger.EXPIRED) for feed in self.feeds)
        if not self.seen and expired != self.silver.transaction(ledger.EXPIRED):
            candidate.transactions |= {ledger.EXPIRED: expired}
        operation = "release" if released else "merge" if self.mode == "increment" else self.mode
        inputs = {str(feed.part.bronze): feed.bronze.version for feed in self.feeds}
        ids = {str(feed.part.bronze): feed.bronze.id for feed in self.feeds}
        candidate.info = {"operation": operation, "inputs": json.dumps(inputs), "input_ids": json.dumps(ids), **entry.info()}
        if self.release is not None:
            candidate.info |= {"released": ", ".join(released), "reason": self.release.reason}
        accepted = self.release is not None and self.release.accept
        candidate.max_loss, candidate.force = self.spec.max_loss, self.mode == "rebuild" or accepted
        if not self.seen and self.silver.columns != self.columns:
            candidate.columns = self.columns
        written = {"files_added": len(candidate.add), "files_removed": len(candidate.remove)}
        return Refresh(self.silver.version, candidate, entry, findings, inputs=inputs, written=written)

    def _quarantine(self, bad: "nw.LazyFrame[Any] | None", *, again: bool, number: int | None) -> int:
        """Let the refused records be what silver has in quarantine of these batches. Returns how many were written."""
        return sum(
            quarantine.replace_after(
                self.session,
                self.storage.uri(feed.part.quarantine),
                layer="silver",
                batch=0 if again else feed.seen,
                until=feed.newest,
                records=bad if bad is None or feed.alone else bad.filter(feeds.of_feed(feed)),
                number=number,
            )
            for feed in self.feeds
        )

    def _findings(self, change: Change, counts: Mapping[str, int], *, judged: int) -> list[Finding]:
        spec, actions, candidate = self.spec, self.judge.actions, change.candidate
        if not judged and self.mode == "increment":  # an empty increment changes nothing that a rule could judge
            names = [*(rule.name for rule in spec.row_rules), *(rule.name for rule in spec.table_rules)]
            return [Finding(name, True, "warn") for name in (TYPES, *names, *([CONFLICTS] if spec.observed else []))]
        types = {name.removeprefix(f"{TYPES}_"): n for name, n in counts.items() if name.startswith(f"{TYPES}_")}
        failed = sum(types.values())
        found = [Finding(TYPES, not failed, "quarantine", failed, judged, {n: c for n, c in types.items() if c})]
        warned, of_written = self._warnings(change)
        for rule in spec.row_rules:
            if rule.name in self.judge.warnings and rule.name not in counts:
                found.append(Finding(rule.name, not warned[rule.name], "warn", warned[rule.name], of_written))
            else:
                found.append(Finding(rule.name, not counts[rule.name], actions[rule.name], counts[rule.name], judged))
        for declared in spec.table_rules:
            name, action = declared.name, actions[declared.name]
            if declared.kind == "min_rows":
                found.append(rules.min_rows(candidate, name, int(declared.limit), action))
            elif declared.kind == "volume_drop":
                found.append(rules.volume_drop(candidate, name, declared.limit, action))
            else:
                found.append(
                    rules.unique(
                        self.session,
                        candidate,
                        name,
                        columns=declared.columns,
                        types=self.columns,
                        key=spec.key,
                        action=action,
                    )
                )
        if spec.observed:
            found.append(Finding(CONFLICTS, not change.conflicts, "warn", change.conflicts, change.written))
        return found

    def _warnings(self, change: Change) -> tuple[dict[str, int], int]:
        warnings = self.judge.warnings
        if not warnings:
            return {}, 0
        if change.upserts is not None:
            rows, counts = rules.count_violations(self.session, change.upserts, warnings)
            return counts, rows
        counts, files = {}, change.candidate.add
        for rule in (rule for rule in self.spec.row_rules if rule.name in warnings):
            condition = warnings[rule.name]
            paths = self.silver.paths([file for file in files if not _proven(file, rule)])
            frame = self.session.read(paths, {name: self.columns[name] for name in sorted(condition.columns)})
            found = rules.count_violations(self.session, frame, {rule.name: condition})[1] if paths else {rule.name: 0}
            counts.update(found)
        return counts, sum(file.rows for file in files)

    def _explained(self, finding: Finding, bad: "nw.LazyFrame[Any] | None") -> Finding:
        """A finding that stops the batch, with some of its records and what to type."""
        detail = dict(finding.detail)
        if bad is not None and f"_is_{finding.rule}" in bad.collect_schema().names():
            some = bad.filter(nw.col(f"_is_{finding.rule}")).select("source_file", "raw_id").head(5)
            detail["examples"] = [f"{file} {raw_id}" for file, raw_id in self.session.rows(some)]
        return replace(finding, detail={**detail, "what_to_do": how_to_release(self.spec, finding.rule, self.mode)})

    def _accounts(self, entry: Entry) -> list[Finding]:
        """The ledger's two promises: this batch adds up, and so does everything that was ever read."""
        gap = entry.records_in - entry.written - entry.deduplicated - entry.deleted - entry.quarantined
        balance = Finding(BALANCE, entry.balanced, "fail", abs(gap), entry.records_in, dict(vars(entry)))
        if self.mode == "redrive":  # nothing is read that was not read before
            return [balance, Finding(COMPLETE, True, "fail")]
        before = 0 if entry.batch_from == 0 else ledger.total_read(self.session, self.storage.uri(LEDGER), self.target)
        there = ledger.brought([feed.bronze for feed in self.feeds], self.silver, anew=not self.seen)
        missing = there - before - entry.records_in
        detail = {"bronze_rows": there, "read_before": before, "read_now": entry.records_in}
        return [balance, Finding(COMPLETE, not missing, "fail", abs(missing), there, detail)]


def nothing_to_release(target: TableRef) -> RefusedWriteError:
    """What is raised when a release was given for a table that no rule stops."""
    return RefusedWriteError(
        f"No rule stops {target}: there is nothing to release.", remedy="Run make trigger JOB=medallion_etl."
    )


def how_to_release(spec: TableSpec, rule: str, mode: Mode) -> str:
    """What to type when a rule with action `fail` has stopped a batch."""
    if mode == "redrive":
        return "Mend the rule in lakehouse/tables/ and run it again; until then all stays in quarantine."
    command = f"make {'release' if mode in ('increment', 'overwrite') else 'rebuild'} TABLE={spec.name} REASON='...'"
    if rule in {declared.name for declared in spec.table_rules}:
        way = f"{command} ACTION=accept takes the batch in as it is."
    else:
        way = f"{command} puts the offending records in quarantine and takes in the rest; with ACTION=accept all of it."
    return f"Mend the source or the rule in lakehouse/tables/ and run again. Or {way}"


def _is_wider(old: str, new: str) -> bool:
    """Whether every value of a type is one of another, without a digit lost."""
    if new in (old, "string"):
        return True
    digits = {"int": (10, 0), "bigint": (19, 0)}
    sizes = [digits.get(kind) or tuple(map(int, re.findall(r"\d+", kind))) for kind in (old, new)]
    if old == "int" and new in ("bigint", "double"):
        return True
    if (old in digits or old.startswith("decimal")) and new.startswith("decimal"):
        return sizes[1][0] - sizes[1][1] >= sizes[0][0] - sizes[0][1] and sizes[1][1] >= sizes[0][1]
    return False


def _proven(file: DataFile, rule: RowRule) -> bool:
    """Whether a file's statistics say that none of its rows violates the rule."""
    if rule.kind == "not_null":
        return file.nulls.get(rule.column) == 0
    low, high = file.lower.get(rule.column), file.upper.get(rule.column)
    if rule.kind != "range" or not isinstance(low, int | float | Decimal) or not isinstance(high, int | float | Decimal):
        return False
    return bool((rule.minimum is None or low >= rule.minimum) and (rule.maximum is None or high <= rule.maximum))
