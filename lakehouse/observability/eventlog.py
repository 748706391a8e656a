"""Dagster's event log, read across runs by one cursor: the entry's storage id.

What Dagster keeps across runs (run statuses, materialisations, check results) is in one table, in PostgreSQL as in the index
of the SQLite instance, and is read here in the order in which it was stored. Steps are in the run's own log. Dagster's
public calls page through one type of event at a time, and on SQLite through all runs' files; neither keeps up with 100,000
runs.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.runtime.dagster_private import event_log_table, event_of, has_file_per_run

Types = Iterable[dg.DagsterEventType]
ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
#: PostgreSQL gives ids before it commits, so one may appear after a higher one. So many below the cursor are looked at again.
MARGIN = 64


@dataclass(frozen=True)
class Entry:
    """One entry: its storage id, and what Dagster stored."""

    id: int
    entry: dg.EventLogEntry

    @property
    def event(self) -> dg.DagsterEvent:
        event = self.entry.dagster_event
        assert event is not None
        return event


def identity(instance: dg.DagsterInstance) -> str:
    """What tells this instance's ids from those of another: they begin at 1 again when an instance is made anew."""
    storage: Any = instance.run_storage
    storage.get_run_storage_id()  # makes one where there is none; of two that did so at once, all read the first
    return str(storage.get_run_storage_id())


def entries(instance: dg.DagsterInstance, *, after: int, types: Types, limit: int) -> list[Entry]:
    """The entries of these types after a storage id, in their order.

    Args:
        types: those that Dagster keeps across runs: run statuses, materialisations, check results.
    """
    from sqlalchemy import select

    log = event_log_table()
    query = select(log.c.id, log.c.event).where(log.c.id > after, log.c.dagster_event_type.in_([t.value for t in types]))
    with index(instance) as connection:
        rows = connection.execute(query.order_by(log.c.id).limit(limit)).fetchall()
    return [Entry(int(number), event_of(text)) for number, text in rows]


def newest(instance: dg.DagsterInstance) -> int:
    """The last storage id, 0 when there is none."""
    from sqlalchemy import func, select

    log = event_log_table()
    with index(instance) as connection:
        return int(connection.execute(select(func.max(log.c.id))).scalar() or 0)


@dataclass(frozen=True)
class StepEntry:
    """One entry of a run's own log, as far as it was read: `text` is all of it."""

    run_id: str
    kind: str
    step: str
    at: float
    asset: str
    text: str


def steps(instance: dg.DagsterInstance, run_ids: Sequence[str], types: Types) -> Iterator[StepEntry]:
    """The entries of these types in these runs."""
    from sqlalchemy import select

    log = event_log_table()
    columns = (log.c.run_id, log.c.dagster_event_type, log.c.step_key, log.c.timestamp, log.c.asset_key, log.c.event)
    query = select(*columns).where(log.c.dagster_event_type.in_([t.value for t in types])).order_by(log.c.id)
    for connection, chosen in _logs(instance, run_ids):
        for run, kind, step, at, asset, text in connection.execute(query.where(log.c.run_id.in_(chosen))):
            name = "/".join(json.loads(asset)) if asset else ""
            yield StepEntry(run, kind, step or "", at.replace(tzinfo=UTC).timestamp(), name, text)


@contextmanager
def index(instance: dg.DagsterInstance) -> Iterator[Any]:
    """A connection to what Dagster stores across runs."""
    with _storage(instance).index_connection() as connection:
        yield connection


def run_files(instance: dg.DagsterInstance) -> list[Path]:
    """The files that are the logs of one run each, as there are on SQLite."""
    storage = _storage(instance)
    if not has_file_per_run(storage):
        return []
    across = Path(storage.path_for_shard("index"))
    return sorted(path for path in across.parent.glob("*.db") if path != across)


def _storage(instance: dg.DagsterInstance) -> Any:
    storage: Any = instance.event_log_storage
    return getattr(storage, "event_log_storage", storage)  # of a storage that combines runs, events and schedules


def _logs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[tuple[Any, Sequence[str]]]:
    """Connections to the logs of runs, each with the runs that it serves."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    storage = _storage(instance)
    if not has_file_per_run(storage):
        with index(instance) as connection:
            for start in range(0, len(run_ids), 200):
                yield connection, run_ids[start : start + 200]
        return
    # A file per run. Dagster's own connection looks at the schema's revision first, which takes longer than the reading.
    for run in run_ids:
        if not Path(storage.path_for_shard(run)).exists():  # deleted since, or by retention
            continue
        engine = create_engine(storage.conn_string_for_shard(run), poolclass=NullPool)
        with engine.connect() as connection:
            yield connection, [run]
        engine.dispose()
