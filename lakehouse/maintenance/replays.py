"""What runs have read and made stays readable for some days, so that they can be computed again (`make replay`).

    commits of silver, gold and ml within LAKEHOUSE_REPLAY_DAYS ─▶ their own versions, and those of their inputs ─▶ protected

Not of feeds that are captured by the minute, nor of what is made of them: a version a minute would hold every file that ever was.
Pure: no dagster.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Commit
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.maintenance.optimise import since
from lakehouse.maintenance.protect import Versions
from lakehouse.tables.spec import AirbyteStream, CapturedFeed, TableSpec, with_histories

_LAYERS = ("silver", "gold", "ml")


def replayable(storage: Storage, specs: Sequence[TableSpec], *, days: int, now: datetime) -> Versions:
    """The versions that runs of the last days have read or made, by table and its id, each with the day of the run. A damaged
    table has none: its maintenance names it."""
    found: dict[tuple[TableRef, str], dict[int, str]] = {}
    captured = {str(ref) for spec in specs if _is_captured(spec) for ref in _refs(spec)}
    for ref in storage.tables() if days else ():
        table = _table(storage, ref) if ref.layer in _LAYERS and str(ref) not in captured else None
        if table is None:
            continue
        begin, _ = since(table, now - timedelta(days=days))
        for commit in table.commits(since=begin):
            made = commit.provenance
            if not made.run_id or made.maintenance or captured & made.inputs.keys():
                continue
            reason = f"replay of a run of {_day(commit, now)}"
            found.setdefault((ref, table.id), {})[commit.version] = reason
            for name, version in made.inputs.items():
                layer, _, short = name.partition("/")
                own = (TableRef(layer, short), made.input_ids.get(name, ""))  # type: ignore[arg-type]
                found.setdefault(own, {})[version] = reason
    return found


def _table(storage: Storage, ref: TableRef) -> Snapshot | None:
    try:
        return open_existing(storage.uri(ref))
    except BrokenTableError:
        return None


def _day(commit: Commit, now: datetime) -> str:
    return (commit.at or now).date().isoformat()


def _is_captured(spec: TableSpec) -> bool:
    origins = [part.origin for part in spec.parts]
    return any(isinstance(one, AirbyteStream) and isinstance(one.connector, CapturedFeed) for one in origins)


def _refs(spec: TableSpec) -> list[TableRef]:
    return [*(part.bronze for part in spec.parts), *(own.silver for own in with_histories(spec))]
