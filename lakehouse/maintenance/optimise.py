"""Optimise by need: small data files become few, in the order in which the table's files are kept; checkpoints; log clean-up.

    bounds of the spec's Health broken ─▶ small files read ─▶ sorted ─▶ written ─▶ one fenced commit without data change

Rewritten by the lake's own engine rather than by delta-rs: its files keep the partition column (gold reads the files), the
order of keys and the statistics that increments prune by, and DuckDB spills where delta-rs holds. Pure: no dagster.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.store import files as stored
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.recovery import commit_actions
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.core.table.transaction import Transaction, discard
from lakehouse.observability.table_health import fragmented, is_small, log_length
from lakehouse.tables.spec import Health

#: Commits since the last checkpoint from which on a new one pays.
_CHECKPOINT = 10
#: Commits stay in the log for so long at least: a mart that was not computed since still asks them what happened.
LOG_RETENTION = timedelta(days=30)


def compact(
    session: Session, snapshot: Snapshot, *, bounds: Health, file_mb: int, sort_by: Sequence[str] = ()
) -> Transaction | None:
    """Stage the small files of a table as few large ones; None when its files are within the bounds.

    Args:
        sort_by: columns by which the rows are put in order; without any they keep that of batches and files.

    Raises:
        BrokenTableError: a data file is missing or damaged, or what was written is not what was read.
    """
    small = [file for file in snapshot.files if is_small(file.size, file_mb)]
    if not fragmented(files=len(snapshot.files), small=len(small), bounds=bounds):
        return None
    columns = snapshot.columns
    partition = next(iter(snapshot.partition_columns), "")
    groups: dict[str, list[DataFile]] = {}
    for file in small:
        groups.setdefault(str((file.partition or {}).get(partition, "")), []).append(file)
    add: list[DataFile] = []
    remove: list[DataFile] = []
    try:
        for group in groups.values():
            if len(group) < 2:
                continue
            group.sort(key=lambda file: (file.lower.get("_batch_id", 0), file.path))
            frame = session.read(snapshot.paths(group), columns)
            add += session.write(frame, snapshot.uri, columns=columns, sort_by=sort_by, file_mb=file_mb, partition=partition)
            remove += group
        _check_same(snapshot.uri, remove, add)
    except BaseException:
        discard(snapshot.uri, add)
        raise
    if not remove:
        return None
    made = Provenance(maintenance="compact")
    return Transaction(table=snapshot, add=add, remove=remove, max_loss=0.0, provenance=made, data_change=False)


def _check_same(uri: str, read: Sequence[DataFile], written: Sequence[DataFile]) -> None:
    before, after = (sum(file.rows for file in side) for side in (read, written))
    if before != after:
        raise BrokenTableError(
            f"{before:,} rows of {uri} were to be rewritten, and {after:,} were.",
            remedy="Nothing was committed. The record counts in its log are wrong: make rebuild, or restore it.",
        )


def checkpoint(snapshot: Snapshot) -> bool:
    """Write a checkpoint where readers would replay many commits; whether it was."""
    if log_length(snapshot) < _CHECKPOINT:
        return False
    snapshot.checkpoint()
    return True


def clean_log(snapshot: Snapshot, *, retained: Sequence[int], now: datetime, age: timedelta = LOG_RETENTION) -> int:
    """Remove the log's files that no kept version needs, of commits that are older than `age`; how many.

    A version is read from the newest checkpoint up to it. What the newest commit that brought content says stays too.
    """
    last = snapshot.last_commit()
    told = last.version if last is not None else snapshot.version
    log = f"{snapshot.uri}/_delta_log"
    names = [name for name in stored.names_in(log) if name[:20].isdigit()]
    checkpoints = [int(name[:20]) for name in names if ".checkpoint" in name]
    begin = max((number for number in checkpoints if number <= min([told, *retained])), default=0)
    gone = [name for name in names if int(name[:20]) < begin]
    limit = (now - age).timestamp()
    # From the oldest on and no further than the first that is young, so that the log never has a hole.
    ages = {name: stored.stat(f"{log}/{name}").modified for name in gone}
    young = min((int(name[:20]) for name, modified in ages.items() if modified > limit), default=begin)
    old = max((number for number in checkpoints if number <= young), default=0)
    remove = sorted(name for name in gone if int(name[:20]) < old)
    stored.remove([f"{log}/{name}" for name in remove])
    return len(remove)


def since(snapshot: Snapshot, instant: datetime) -> tuple[int, set[str]]:
    """The version that was current at an instant (or the oldest that the log has), and the data files that commits after it
    name: those that any version since has, or had until then."""
    paths: set[str] = set()
    version = snapshot.version
    while version >= 0:
        try:
            actions = commit_actions(f"{snapshot.uri}/_delta_log/{version:020}.json")
        except FileNotFoundError:
            return version + 1, paths
        if _committed(snapshot, version, actions) <= instant:
            return version, paths
        for action in actions:
            for kind in ("add", "remove"):
                entry = action.get(kind)
                if isinstance(entry, dict):
                    paths.add(str(entry["path"]))
        version -= 1
    return 0, paths


def _committed(snapshot: Snapshot, version: int, actions: Sequence[object]) -> datetime:
    for action in actions:
        information = action.get("commitInfo") if isinstance(action, dict) else None
        if isinstance(information, dict) and isinstance(information.get("timestamp"), int):
            return datetime.fromtimestamp(information["timestamp"] / 1000, tz=UTC)
    return datetime.fromtimestamp(stored.stat(f"{snapshot.uri}/_delta_log/{version:020}.json").modified, tz=UTC)
