"""Notifier: from `ops/alerts` to the channels. Called every few seconds by the sensor `deliver`.

    ops/alerts after the cursor ─▶ incidents ─▶ messages that are due ─▶ channels, side by side
                                                     └─▶ ops/deliveries (every attempt), ops/incidents (with the cursor)

`ops/incidents` is small and written whole, in a commit that also carries the last alert's number; a crash before it repeats
messages, under the same ids. A target that hangs or refuses costs the others nothing: each has its thread and its deadline. A
recipient that does not exist is an incident of its own, which the others are told once.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BusyError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.core.text import one_line
from lakehouse.observability import alerts, outbox
from lakehouse.observability.alerts import Alert, raise_alerts
from lakehouse.observability.channels import Sender
from lakehouse.observability.incidents import (
    Incident,
    Message,
    Told,
    delivered,
    due,
    failed,
    refusing,
    retained,
    take_in,
)
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
#: Keys of incidents that a target refuses what it is sent.
RECIPIENT = "recipient:"
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
    refused: bool = False


def notify(
    storage: Storage,
    targets: Mapping[str, Sender],
    *,
    routing: Routing,
    now: datetime | None = None,
    patience: float = PATIENCE,
) -> Step:
    """Take in new alerts and send what is due. Everything not sent is still there for the next call.

    Args:
        targets: what messages go to, by name (`channels.senders`).
    """
    try:
        with lock(storage.uri(INCIDENTS_TABLE), wait=0.0), outbox.small_session(storage) as session:
            return _step(session, storage, targets, routing=routing, now=now or datetime.now(UTC), patience=patience)
    except BusyError:
        return Step(busy=True)


def _step(
    session: Session, storage: Storage, targets: Mapping[str, Sender], *, routing: Routing, now: datetime, patience: float
) -> Step:
    table = open_table(storage.uri(INCIDENTS_TABLE), INCIDENTS)
    read = table.watermark(_READ)
    rows = outbox.read(session, storage, alerts.ALERTS_TABLE, columns=alerts.COLUMNS, after=read)
    known = load(session, table)
    incidents = take_in(known, rows, routing=routing)
    silent = refusing(incidents, now=now)
    messages = due(incidents, routing=routing, targets=[name for name in targets if name not in silent], now=now)
    attempts = _send(targets, messages, patience=patience)
    raise_alerts(storage, _of_recipients(incidents, attempts, targets, silent))
    if not rows and not attempts:
        return Step(waiting=len(messages))
    by_number = {incident.number: incident for incident in incidents}
    for attempt in attempts:
        one, target = by_number[attempt.message.incident], attempt.message.target
        if attempt.error:
            refused = target in _nobody(attempts, targets, silent)
            one = failed(one, target, error=attempt.error, at=attempt.at, pause=attempt.pause, refused=refused)
        else:
            one = delivered(one, target, routing=routing, at=attempt.at)
        by_number[one.number] = one
    silent = refusing(by_number.values(), now=now)
    after = retained(by_number.values(), routing=routing, targets=[name for name in targets if name not in silent], now=now)
    _store_attempts(storage, attempts)
    last = max([read, *(row["number"] for row in rows)])
    add = session.write(session.table([_row(incident) for incident in after], INCIDENTS), table.uri, columns=INCIDENTS)
    commit_staged(
        Transaction(table=table, add=add, remove=table.files, watermarks={_READ: last}, provenance=Provenance(operation="notify"))
    )
    lost = sum(1 for attempt in attempts if attempt.error)
    return Step(sent=len(attempts) - lost, failed=lost, waiting=len(messages) - len(attempts))


def _nobody(attempts: Sequence[Attempt], targets: Collection[str], silent: Collection[str]) -> dict[str, str]:
    """The targets that do not exist, with what was answered. Where nobody else is told, all are asked again and again."""
    refused = {attempt.message.target: attempt.error for attempt in attempts if attempt.refused}
    return refused if any(target not in refused and target not in silent for target in targets) else {}


def _of_recipients(
    incidents: Sequence[Incident], attempts: Sequence[Attempt], targets: Collection[str], silent: Collection[str]
) -> list[Alert]:
    """That a recipient does not exist, once; and its end, when the recipient took a message or is no longer configured."""
    standing = {one.key.removeprefix(RECIPIENT) for one in incidents if one.state == "open" and one.key.startswith(RECIPIENT)}
    taken = {attempt.message.target for attempt in attempts if not attempt.error}
    ended = {target for target in standing if target in taken or target not in targets}
    raised = [
        Alert(
            "automation",
            "error",
            f"{target} gets no alerts",
            f"{error}. Others are told; it is tried again once a day. Correct the address or the mailbox.",
            key=f"{RECIPIENT}{target}",
        )
        for target, error in _nobody(attempts, targets, silent).items()
        if target not in standing
    ]
    over = [
        Alert("automation", "info", f"{target} is no longer refused", key=f"{RECIPIENT}{target}", state="resolved")
        for target in sorted(ended)
    ]
    return [*raised, *over]


def load(session: Session, table: Snapshot) -> list[Incident]:
    """The incidents as they are kept, oldest first."""
    frame = session.read(table.paths(), INCIDENTS).sort("incident")
    return [_incident(row) for row in session.dicts(frame, *INCIDENTS)]


def refused(storage: Storage) -> dict[str, str]:
    """The targets that get no alerts since they do not exist, with what was answered."""
    table = open_existing(storage.uri(INCIDENTS_TABLE))
    if table is None:
        return {}
    with outbox.small_session(storage) as session:
        standing = [one for one in load(session, table) if one.state == "open" and one.key.startswith(RECIPIENT)]
    return {one.key.removeprefix(RECIPIENT): one.last["body"] for one in standing}


def _send(targets: Mapping[str, Sender], messages: Sequence[Message], *, patience: float) -> list[Attempt]:
    """Send to all targets at once, to each in its order, until the time is over."""
    by_target: dict[str, list[Message]] = {}
    for message in messages:
        by_target.setdefault(message.target, []).append(message)
    if not by_target:
        return []
    attempts: dict[str, list[Attempt]] = {name: [] for name in by_target}
    deadline = time.monotonic() + patience
    # Not a context manager: its end would wait for a target that hangs.
    pool = ThreadPoolExecutor(len(by_target), thread_name_prefix="alert")
    done = {pool.submit(_send_to, targets[name], listed, attempts[name], deadline): name for name, listed in by_target.items()}
    _, hanging = wait(done, timeout=patience)
    pool.shutdown(wait=False, cancel_futures=True)
    out = []
    for future, name in done.items():
        own = list(attempts[name])
        out += own
        if future in hanging:
            stuck = by_target[name][len(own)]
            out.append(Attempt(stuck, datetime.now(UTC), f"no answer within {patience:.0f} s"))
    return out


def _send_to(sender: Sender, messages: Sequence[Message], attempts: list[Attempt], deadline: float) -> None:
    for message in messages:
        if time.monotonic() > deadline:
            return
        try:
            sender.send(message)
        except LakehouseError as error:
            pause, refused = getattr(error, "pause", None), getattr(error, "refused", False)
            attempts.append(Attempt(message, datetime.now(UTC), one_line(error.what), pause, refused))
            _LOG.warning("%s: %s was not delivered: %s", message.target, message.subject, error)
            return  # the next to this target would fail as well; what failed goes last next time
        except Exception as error:  # noqa: BLE001 - what a client library raises is an outcome of this message, and is kept
            reason = one_line(f"{type(error).__name__}: {error}")
            attempts.append(Attempt(message, datetime.now(UTC), reason))
            _LOG.exception("%s: %s was not delivered.", message.target, message.subject)
            return
        attempts.append(Attempt(message, datetime.now(UTC)))


def _store_attempts(storage: Storage, attempts: Sequence[Attempt]) -> None:
    rows = []
    for attempt in attempts:
        message, since = attempt.message, attempt.message.due_since
        own = {n: getattr(message, n) for n in ("incident", "key", "kind", "severity", "state", "count", "subject")}
        rows.append(
            {
                **own,
                "channel": message.target,
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
        "told": json.dumps({target: asdict(told) for target, told in incident.told.items()}, default=datetime.isoformat),
    }


def _incident(row: Mapping[str, Any]) -> Incident:
    last = json.loads(row["last"])
    for name in ("occurred_at", "raised_at"):
        last[name] = datetime.fromisoformat(last[name])
    told = {target: _told(entry) for target, entry in json.loads(row["told"]).items()}
    instants = {name: row[name].astimezone(UTC) for name in ("first_at", "changed_at")}
    resolved = row["resolved_at"].astimezone(UTC) if row["resolved_at"] else None
    own = (row["incident"], row["key"], row["state"], row["count"])
    return Incident(*own, instants["first_at"], last, instants["changed_at"], resolved, told)


def _told(entry: Mapping[str, Any]) -> Told:
    at = tuple(datetime.fromisoformat(when) for when in entry["at"])
    not_before = datetime.fromisoformat(entry["not_before"]) if entry["not_before"] else None
    return Told(**{**entry, "at": at, "not_before": not_before})
