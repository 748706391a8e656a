"""Health of tables: what the log of a Delta table says, measured and compared with the table's bounds. No data file is read.

python -m lakehouse.observability.table_health    measures the targets given on stdin as JSON (`deadline.py` says why)
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef, is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import Storage
from lakehouse.core.table import torn
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.text import one_line, span
from lakehouse.observability.deadline import TooLateError, in_process, within
from lakehouse.tables.spec import Health, TableSpec, history_ref

HEALTH_TABLE = TableRef("ops", "table_health")
COLUMNS = {
    "measured_at": "timestamp",
    "run_id": "string",
    "layer": "string",
    "table": "string",
    "outcome": "string",
    "problems": "string",
    "stale": "boolean",
    "version": "bigint",
    "committed_at": "timestamp",
    "commit_age_seconds": "double",
    "rows": "bigint",
    "files": "bigint",
    "bytes": "bigint",
    "small_files": "bigint",
    "small_share": "double",
    "log_length": "bigint",
    "newest_event_at": "timestamp",
    "event_age_seconds": "double",
    "quarantined": "bigint",
    "quarantine_share": "double",
    "milliseconds": "double",
}
#: Seconds for all tables together; what is not measured by then is reported as that.
PATIENCE = 30.0
#: A clock that is ahead by more makes an age of less than nothing: it is reported, and counts as fresh.
_SKEW = timedelta(minutes=5)
_MANY = 50
OVERDUE = "no run made it within its freshness policy"
#: For how long a table is reported that goes on without what a power cut had torn.
_TOLD = timedelta(days=7)


@dataclass(frozen=True)
class Target:
    """One table to look at, with its bounds. `quarantine` are the tables of its offenders."""

    ref: TableRef
    uri: str
    health: Health = field(default_factory=Health)
    file_mb: int = 64
    quarantine: tuple[str, ...] = ()

    @property
    def check(self) -> str:
        """The name of its asset check."""
        return f"{self.ref.layer}_{self.ref.table}"


@dataclass(frozen=True)
class Measured:
    """What was found of one table. `outcome`: `ok`, `unhealthy` (a bound is broken), `broken` (it cannot be read), `absent`
    (not materialised yet), `unknown` (no answer in time). `stale` is None where nothing decides on its freshness."""

    layer: str
    table: str
    outcome: str
    problems: str = ""
    stale: bool | None = None
    torn: str = ""
    version: int | None = None
    committed_at: datetime | None = None
    commit_age_seconds: float | None = None
    rows: int | None = None
    files: int | None = None
    bytes: int | None = None
    small_files: int | None = None
    small_share: float | None = None
    log_length: int | None = None
    newest_event_at: datetime | None = None
    event_age_seconds: float | None = None
    quarantined: int | None = None
    quarantine_share: float | None = None
    milliseconds: float = 0.0

    def row(self, *, at: datetime, run_id: str) -> dict[str, Any]:
        return {**{name: value for name, value in vars(self).items() if name in COLUMNS}, "measured_at": at, "run_id": run_id}


def targets(storage: Storage, specs: Sequence[TableSpec], others: Sequence[TableRef]) -> list[Target]:
    """Every table to look at: of each spec bronze and silver, and others (gold, ops) with the default bounds."""
    out = []
    for spec in specs:
        plain = Health(max_log=spec.health.max_log, max_small=spec.health.max_small, max_files=spec.health.max_files)
        out += [Target(part.bronze, storage.uri(part.bronze), plain) for part in spec.parts]
        quarantine = tuple(storage.uri(part.quarantine) for part in spec.parts)
        out.append(Target(spec.silver, storage.uri(spec.silver), spec.health, spec.file_mb, quarantine))
        out += [Target(ref, storage.uri(ref), plain, spec.file_mb) for ref in ([history_ref(spec)] if spec.history else [])]
    known = {target.ref for target in out}
    return out + [Target(ref, storage.uri(ref)) for ref in others if ref not in known]


def measure_all(wanted: Sequence[Target], *, now: datetime | None = None, patience: float = PATIENCE) -> list[Measured]:
    """Measure every table, within `patience` seconds. A table that cannot be read is a finding, not an error."""
    at = now or datetime.now(UTC)
    remote = any(is_remote(target.uri) for target in wanted)
    try:
        if remote:
            document = json.dumps({"now": at.isoformat(), "targets": [_document(target) for target in wanted]})
            reply = in_process("lakehouse.observability.table_health", document, seconds=patience)
            return [_read(entry) for entry in json.loads(reply)]
        return within(patience, lambda: [measure(target, now=at) for target in wanted], what="tables")
    except (TooLateError, LakehouseError) as error:
        reported = one_line(error.what)
        return [Measured(target.ref.layer, target.ref.table, "unknown", reported) for target in wanted]


def measure(target: Target, *, now: datetime) -> Measured:
    """Measure one table."""
    began = time.monotonic()
    layer, table = target.ref.layer, target.ref.table
    try:
        snapshot = open_existing(target.uri)
        if snapshot is None:
            found = Measured(layer, table, "absent")
        else:
            found = _assess(_figures(target, snapshot, now=now), target.health)
    except LakehouseError as error:
        found = Measured(layer, table, "broken", one_line(str(error)))
    return replace(found, milliseconds=round((time.monotonic() - began) * 1000, 1))


def _figures(target: Target, snapshot: Snapshot, *, now: datetime) -> Measured:
    files = snapshot.files
    snapshot.check()
    small = sum(1 for file in files if is_small(file.size, target.file_mb))
    committed = _committed_at(snapshot)
    newest = max((file.upper[name] for file in files if (name := target.health.event_time) and name in file.upper), default=None)
    if newest is not None and newest.tzinfo is None:
        newest = newest.replace(tzinfo=UTC)
    waiting = sum(found.rows for uri in target.quarantine if (found := open_existing(uri)) is not None)
    return Measured(
        target.ref.layer,
        target.ref.table,
        "ok",
        version=snapshot.version,
        committed_at=committed,
        commit_age_seconds=round((now - committed).total_seconds(), 3) if committed else None,
        rows=snapshot.rows,
        files=len(files),
        bytes=snapshot.bytes,
        small_files=small,
        small_share=round(small / len(files), 4) if files else 0.0,
        log_length=log_length(snapshot),
        newest_event_at=newest,
        event_age_seconds=round((now - newest).total_seconds(), 3) if newest else None,
        quarantined=waiting if target.quarantine else None,
        torn=_torn(snapshot.uri, now=now),
        quarantine_share=round(waiting / (waiting + snapshot.rows), 6) if target.quarantine and waiting + snapshot.rows else None,
    )


def _assess(found: Measured, bounds: Health) -> Measured:
    problems: list[str] = []
    stale: bool | None = None
    if bounds.max_event_age is not None and found.rows:
        age = timedelta(seconds=found.event_age_seconds) if found.event_age_seconds is not None else None
        stale = None if age is None else age > bounds.max_event_age
        if age is None:
            problems.append(f"no file says how new {bounds.event_time} is")
        elif age > bounds.max_event_age:
            problems.append(f"the newest {bounds.event_time} is {span(age)} old, allowed are {span(bounds.max_event_age)}")
        elif age < -_SKEW:
            problems.append(f"the newest {bounds.event_time} is {span(-age)} ahead of this clock")
    if bounds.max_commit_age is not None and found.commit_age_seconds is not None:
        since = timedelta(seconds=found.commit_age_seconds)
        if since > bounds.max_commit_age:
            problems.append(f"the last commit was {span(since)} ago, allowed are {span(bounds.max_commit_age)}")
        elif since < -_SKEW:
            problems.append(f"the last commit is {span(-since)} ahead of this clock")
    if scattered := fragmented(files=found.files or 0, small=found.small_files or 0, bounds=bounds):
        problems.append(scattered)
    if (found.log_length or 0) > bounds.max_log:
        problems.append(f"{found.log_length:,} commits since the last checkpoint, allowed are {bounds.max_log:,}")
    if (found.quarantine_share or 0) > bounds.max_quarantine:
        problems.append(f"{found.quarantine_share:.1%} of the records are in quarantine, allowed are {bounds.max_quarantine:.1%}")
    if found.torn:
        problems.append(found.torn)
    return replace(found, outcome="unhealthy" if problems else "ok", problems="; ".join(problems), stale=stale)


def with_policy(found: Measured, overdue: bool | None) -> Measured:
    """What was found of a table, with what Dagster reports of its freshness policy. Where an age of events is declared there is
    no policy; where only the routing's file gives one, both count.

    Args:
        overdue: whether the newest materialisation is older than the policy allows; None where no policy decides.
    """
    if overdue is None:
        return found
    found = replace(found, stale=bool(found.stale) or overdue)
    if not overdue:
        return found
    problems = "; ".join([*filter(None, [found.problems]), OVERDUE])
    return replace(found, problems=problems, outcome="unhealthy" if found.outcome in ("ok", "absent") else found.outcome)


def is_small(size: int, file_mb: int) -> bool:
    """Whether a data file is below a quarter of the size that files should have."""
    return size < file_mb * 1_000_000 / 4


def fragmented(*, files: int, small: int, bounds: Health) -> str:
    """What is wrong with the number of files, empty when nothing is: too many, or too many small ones."""
    if files > _MANY and small > bounds.max_small * files:
        return f"{small / files:.0%} of {files:,} files are small, allowed are {bounds.max_small:.0%}"
    if files > bounds.max_files and small > 1:
        return f"{files:,} files, {small:,} of them small; allowed are {bounds.max_files:,}"
    return ""


def _torn(uri: str, *, now: datetime) -> str:
    """What a power cut had torn of the table within a week, empty when nothing."""
    found = [file for file in torn.set_aside(uri) if now - file.at < _TOLD]
    if not found:
        return ""
    names = ", ".join(file.name for file in found)
    ago = span(now - found[-1].at)
    return f"{names} of its log was torn, as by a power cut, and set aside {ago} ago; what was reported is there"


def _committed_at(snapshot: Snapshot) -> datetime | None:
    return next((commit.at for commit in reversed(snapshot.commits(since=snapshot.version - 1)) if commit.at), None)


def log_length(snapshot: Snapshot) -> int:
    """Commits that a reader replays: those after the last checkpoint."""
    names = stored.names_in(f"{snapshot.uri}/_delta_log")
    checkpoints = [int(name[:20]) for name in names if ".checkpoint" in name and name[:20].isdigit()]
    return snapshot.version - max(checkpoints, default=-1)


# --- through a process -------------------------------------------------------------------------------------------------


def _document(target: Target) -> dict[str, Any]:
    bounds = {n: v.total_seconds() if isinstance(v, timedelta) else v for n, v in asdict(target.health).items()}
    return {**vars(target), "ref": target.ref.key, "health": bounds}


def _target(entry: Mapping[str, Any]) -> Target:
    ages = ("max_event_age", "max_commit_age")
    bounds: dict[str, Any] = {n: timedelta(seconds=v) if n in ages and v is not None else v for n, v in entry["health"].items()}
    own = {"ref": TableRef(*entry["ref"]), "health": Health(**bounds), "quarantine": tuple(entry["quarantine"])}
    return Target(**{**entry, **own})


def _read(entry: Mapping[str, Any]) -> Measured:
    instants = ("committed_at", "newest_event_at")
    fields: dict[str, Any] = {n: datetime.fromisoformat(v) if n in instants and v else v for n, v in entry.items()}
    return Measured(**fields)


def main() -> int:
    asked = json.load(sys.stdin)
    now = datetime.fromisoformat(asked["now"])
    found = [asdict(measure(_target(entry), now=now)) for entry in asked["targets"]]
    json.dump(found, sys.stdout, default=datetime.isoformat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
