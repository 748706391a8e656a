"""Notifier: from `ops/alerts` to the channels. Called every few seconds by the sensor `deliver`.

    ops/alerts after the cursor ─▶ incidents ─▶ messages that are due ─▶ channels, side by side
                                                     └─▶ ops/deliveries (every attempt), ops/incidents (with the cursor)

`ops/incidents` is small and written whole, in a commit that also carries the last alert's number; a crash before it repeats
messages, under the same ids. A channel that hangs or refuses costs the others nothing: each has its thread and its deadline.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BusyError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.core.text import one_line
from lakehouse.observability import alerts, outbox
from lakehouse.observability.channels import Sender
from lakehouse.observability.incidents import Incident, Message, Told, delivered, due, failed, retained, take_in
from lakehouse.observability.routing import Routing

INCIDENTS_TABLE = TableRef("ops", "incidents")
DELIVERIES_TABLE = TableRef("ops", "deliveries")
INCIDENTS = {
    "incident": "bigint",
    "key": "string",
    "kind": "string",
    "severity": "string",
    "subject": "string",
    "job": "string",
    "state": "string",
    "count": "bigint",
    "first_at": "timestamp",
    "last_at": "timestamp",
    "changed_at": "timestamp",
    "resolved_at": "timestamp",
    "last": "string",
    "told": "string",
}
DELIVERIES = {
    **outbox.COLUMNS,
    "message_id": "string",
    "channel": "string",
    "incident": "bigint",
    "key": "string",
    "kind": "string",
    "severity": "string",
    "state": "string",
    "job": "string",
    "count": "bigint",
    "subject": "string",
    "outcome": "string",
    "error": "string",
    "raised_at": "timestamp",
    "sent_at": "timestamp",
    "lag_seconds": "double",
}
_READ = "alerts"
#: Seconds that one step may spend on sending; the sensor's tick must end within Dagster's 60.
PATIENCE = 20.0
_LOG = logging.getLogger("lakehouse.alerts")


@dataclass(frozen=True)
class Step:
    """What one step did. `busy` is true when another one is at work."""

    sent: int = 0
    failed: int = 0
    waiting: int = 0
    busy: bool = False


@dataclass(frozen=True)
class Attempt:
    """One message and what became of it."""

    message: Message
    at: datetime
    error: str = ""
    pause: timedelta | None = None


def notify(
    storage: Storage,
    channels: Mapping[str, Sender],
    *,
    routing: Routing,
    now: datetime | None = None,
    patience: float = PATIENCE,
) -> Step:
    """Take in new alerts and send what is due. Everything not sent is still there for the next call."""
    try:
        with lock(storage.uri(INCIDENTS_TABLE), wait=0.0), outbox.small_session(storage) as session:
            return _step(session, storage, channels, routing=routing, now=now or datetime.now(UTC), patience=patience)
    except BusyError:
        return Step(busy=True)


def _step(
    session: Session, storage: Storage, channels: Mapping[str, Sender], *, routing: Routing, now: datetime, patience: float
) -> Step:
    table = open_table(storage.uri(INCIDENTS_TABLE), INCIDENTS)
    read = table.watermark(_READ)
    rows = outbox.read(session, storage, alerts.ALERTS_TABLE, columns=alerts.COLUMNS, after=read)
    known = load(session, table)
    incidents = take_in(known, rows, routing=routing)
    messages = due(incidents, routing=routing, channels=channels, now=now)
    attempts = _send(channels, messages, patience=patience)
    if not rows and not attempts:
        return Step(waiting=len(messages))
    by_number = {incident.number: incident for incident in incidents}
    for attempt in attempts:
        one, channel = by_number[attempt.message.incident], attempt.message.channel
        if attempt.error:
            one = failed(one, channel, error=attempt.error, at=attempt.at, pause=attempt.pause)
        else:
            one = delivered(one, channel, routing=routing, at=attempt.at)
        by_number[one.number] = one
    after = retained(by_number.values(), routing=routing, channels=channels, now=now)
    _store_attempts(storage, attempts)
    last = max([read, *(row["number"] for row in rows)])
    add = session.write(session.table([_row(incident) for incident in after], INCIDENTS), table.uri, columns=INCIDENTS)
    commit_staged(
        Transaction(table=table, add=add, remove=table.files, watermarks={_READ: last}, provenance=Provenance(operation="notify"))
    )
    lost = sum(1 for attempt in attempts if attempt.error)
    return Step(sent=len(attempts) - lost, failed=lost, waiting=len(messages) - len(attempts))


def load(session: Session, table: Snapshot) -> list[Incident]:
    """The incidents as they are kept, oldest first."""
    frame = session.read(table.paths(), INCIDENTS).sort("incident")
    return [_incident(row) for row in session.dicts(frame, *INCIDENTS)]


def _send(channels: Mapping[str, Sender], messages: Sequence[Message], *, patience: float) -> list[Attempt]:
    """Send over all channels at once, each in its order, until the time is over."""
    by_channel: dict[str, list[Message]] = {}
    for message in messages:
        by_channel.setdefault(message.channel, []).append(message)
    if not by_channel:
        return []
    attempts: dict[str, list[Attempt]] = {name: [] for name in by_channel}
    deadline = time.monotonic() + patience
    # Not a context manager: its end would wait for a channel that hangs.
    pool = ThreadPoolExecutor(len(by_channel), thread_name_prefix="alert")
    done = {
        pool.submit(_send_over, channels[name], listed, attempts[name], deadline): name for name, listed in by_channel.items()
    }
    _, hanging = wait(done, timeout=patience)
    pool.shutdown(wait=False, cancel_futures=True)
    out = []
    for future, name in done.items():
        own = list(attempts[name])
        out += own
        if future in hanging:
            stuck = by_channel[name][len(own)]
            out.append(Attempt(stuck, datetime.now(UTC), f"no answer within {patience:.0f} s"))
    return out


def _send_over(sender: Sender, messages: Sequence[Message], attempts: list[Attempt], deadline: float) -> None:
    for message in messages:
        if time.monotonic() > deadline:
            return
        try:
            sender.send(message)
        except LakehouseError as error:
            attempts.append(Attempt(message, datetime.now(UTC), one_line(error.what), getattr(error, "pause", None)))
            _LOG.warning("%s: %s was not delivered: %s", message.channel, message.subject, error)
            return  # the next of this channel would fail as well; what failed goes last next time
        except Exception as error:  # noqa: BLE001 - what a client library raises is an outcome of this message, and is kept
            reason = one_line(f"{type(error).__name__}: {error}")
            attempts.append(Attempt(message, datetime.now(UTC), reason))
            _LOG.exception("%s: %s was not delivered.", message.channel, message.subject)
            return
        attempts.append(Attempt(message, datetime.now(UTC)))


def _store_attempts(storage: Storage, attempts: Sequence[Attempt]) -> None:
    rows = []
    for attempt in attempts:
        message, since = attempt.message, attempt.message.due_since
        own = {n: getattr(message, n) for n in ("channel", "incident", "key", "kind", "severity", "state", "count", "subject")}
        rows.append(
            {
                **own,
                "id": f"{message.id}:{attempt.at:%Y%m%d%H%M%S%f}",
                "message_id": message.id,
                "job": message.fields["job"],
                "outcome": "failed" if attempt.error else "sent",
                "error": attempt.error,
                "raised_at": since,
                "sent_at": attempt.at,
                "lag_seconds": (attempt.at - since).total_seconds() if since is not None else None,
            }
        )
    outbox.append(storage, DELIVERIES_TABLE, columns=DELIVERIES, rows=rows)


def _row(incident: Incident) -> dict[str, Any]:
    last = incident.last
    return {
        "incident": incident.number,
        "key": incident.key,
        "state": incident.state,
        "count": incident.count,
        "first_at": incident.first_at,
        "last_at": last["occurred_at"],
        "changed_at": incident.changed_at,
        "resolved_at": incident.resolved_at,
        **{name: last[name] for name in ("kind", "severity", "subject", "job")},
        "last": json.dumps(dict(last), default=datetime.isoformat, ensure_ascii=False),
        "told": json.dumps({c: asdict(told) for c, told in incident.told.items()}, default=datetime.isoformat),
    }


def _incident(row: Mapping[str, Any]) -> Incident:
    last = json.loads(row["last"])
    for name in ("occurred_at", "raised_at"):
        last[name] = datetime.fromisoformat(last[name])
    told = {channel: _told(entry) for channel, entry in json.loads(row["told"]).items()}
    instants = {name: row[name].astimezone(UTC) for name in ("first_at", "changed_at")}
    resolved = row["resolved_at"].astimezone(UTC) if row["resolved_at"] else None
    own = (row["incident"], row["key"], row["state"], row["count"])
    return Incident(*own, instants["first_at"], last, instants["changed_at"], resolved, told)


def _told(entry: Mapping[str, Any]) -> Told:
    at = tuple(datetime.fromisoformat(when) for when in entry["at"])
    not_before = datetime.fromisoformat(entry["not_before"]) if entry["not_before"] else None
    return Told(**{**entry, "at": at, "not_before": not_before})
