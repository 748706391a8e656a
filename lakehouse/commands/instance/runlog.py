"""`make logs`: what a run's event log says, and what its steps printed, wherever the instance keeps them.

Passwords and tokens are replaced by `***`, as in alerts.
"""

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.core.clock import zone
from lakehouse.core.errors import DeclarationError
from lakehouse.core.text import redact
from lakehouse.observability.watch import explain
from lakehouse.runtime.dagster_private import runs_table

#: The end of what a step printed; the UI has all of it.
_PRINTED_BYTES = 1_000_000


def find(instance: dg.DagsterInstance, start: str) -> dg.RunRecord:
    """The run whose id begins so, or the newest.

    Raises:
        DeclarationError: there is none, or there are several.
    """
    if not start:
        newest = instance.get_run_records(limit=1)
        if not newest:
            raise DeclarationError("There is no run yet.", remedy="Run make trigger JOB=medallion_etl.")
        return newest[0]
    if not re.fullmatch(r"[0-9a-f-]{1,36}", start):
        raise DeclarationError(f"{start[:40]!r} does not begin a run's id.", remedy="Take it from make status or the UI.")
    ids = _beginning(instance, start)
    if not ids:
        raise DeclarationError(f"There is no run {start!r}.", remedy="make status and the UI list them; old ones are removed.")
    if len(ids) > 1:
        raise DeclarationError(f"Several runs begin with {start!r}: {', '.join(ids)}.", remedy="Give more of the id.")
    return instance.get_run_records(dg.RunsFilter(run_ids=ids))[0]


def read(instance: dg.DagsterInstance, run_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A run's events, and what its steps printed."""
    entries = list(instance.all_logs(run_id))
    return [_event(entry) for entry in entries], list(_printed(instance, run_id, entries))


def _beginning(instance: dg.DagsterInstance, start: str) -> list[str]:
    """Up to five ids that begin so. Dagster's own filters know whole ids only."""
    from sqlalchemy import select

    runs = runs_table()
    storage: Any = instance.run_storage
    query = select(runs.c.run_id).where(runs.c.run_id.startswith(start, autoescape=True)).limit(5)
    with storage.connect() as connection:
        return [str(row[0]) for row in connection.execute(query)]


def _event(entry: dg.EventLogEntry) -> dict[str, Any]:
    event = entry.dagster_event
    error = entry.error_info or getattr(event.event_specific_data if event else None, "error", None)
    return {
        "at": datetime.fromtimestamp(entry.timestamp, tz=UTC),
        "level": logging.getLevelName(entry.level),
        "kind": event.event_type_value if event else "",
        "step": entry.step_key or "",
        "message": redact((event.message if event else "") or entry.user_message or ""),
        "error": explain(error) if error is not None else "",
    }


def line(event: dict[str, Any]) -> str:
    """An event for people."""
    at = event["at"].astimezone(zone()).strftime("%H:%M:%S")
    where = f" {event['step']}" if event["step"] else ""
    message = " ".join([*event["message"].split(), event["error"]]).strip() or event["kind"]
    return f"{at} {event['level']:7}{where}: {message}"


def _printed(instance: dg.DagsterInstance, run_id: str, entries: list[dg.EventLogEntry]) -> Iterator[dict[str, Any]]:
    manager = instance.compute_log_manager
    for entry in entries:
        event = entry.dagster_event
        if event is None or event.event_type != dg.DagsterEventType.LOGS_CAPTURED:
            continue
        captured: Any = event.event_specific_data
        found = manager.get_log_data(manager.build_log_key_for_run(run_id, captured.file_key))
        yield {"steps": list(captured.step_keys or []), "stdout": _tail(found.stdout), "stderr": _tail(found.stderr)}


def _tail(content: bytes | None) -> str:
    return redact((content or b"")[-_PRINTED_BYTES:].decode(errors="replace").rstrip())
