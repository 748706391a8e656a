"""Incidents: which messages the alerts make, for whom and when. Pure: alerts and earlier messages go in, messages come out.

An incident is one key from its first alert to its recovery. A target (`channels.py`) is not sent a queue of alerts but the
incident as it is now, whenever what it was told last is no longer enough:

    not told yet                          ─▶ what happened, with the count so far
    more alerts, a window after the last  ─▶ the same with the new count
    recovered (or raised again)           ─▶ that, with the count
    told `limit` times within a window    ─▶ later

So a target that was down for an hour gets one message per incident, the count in it is right, and nothing is lost. One that
reports that the recipient does not exist is left alone for a day.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from lakehouse.core.text import span
from lakehouse.observability.routing import Routing

#: An incident that is over and told is kept so long; its alerts and deliveries are in tables of their own.
RETENTION = timedelta(days=7)
_FIRST_PAUSE, _LAST_PAUSE = timedelta(seconds=15), timedelta(minutes=5)
#: A recipient that does not exist is asked for again after so long: somebody may have made the mailbox.
_NOBODY = timedelta(days=1)


@dataclass(frozen=True)
class Told:
    """What a target was told: the state and count of the last message, when it and those before it went out; how often the
    message after it has failed, and whether because there is no such recipient."""

    state: str = ""
    count: int = 0
    at: tuple[datetime, ...] = ()
    attempts: int = 0
    not_before: datetime | None = None
    error: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Incident:
    """One key, from its first alert (`number` in ops/alerts) on; `last` is the newest alert, `count` how many there were.
    `changed_at` is when the alert was kept that began its present state."""

    number: int
    key: str
    state: str
    count: int
    first_at: datetime
    last: Mapping[str, Any]
    changed_at: datetime
    resolved_at: datetime | None = None
    told: Mapping[str, Told] = field(default_factory=dict)

    def told_to(self, target: str) -> Told:
        """What a target was told. Earlier releases told all recipients of a channel together."""
        return self.told.get(target) or self.told.get(channel_of(target)) or Told()


@dataclass(frozen=True)
class Message:
    """The message of one incident for one target. `due_since` is None for a repeat, which waits on purpose."""

    id: str
    target: str
    incident: int
    kind: str
    severity: str
    state: str
    key: str
    subject: str
    body: str
    count: int
    due_since: datetime | None
    fields: Mapping[str, Any]


def channel_of(target: str) -> str:
    """The channel that a target belongs to; routing goes by it."""
    return target.partition(":")[0]


def take_in(incidents: Sequence[Incident], alerts: Iterable[Mapping[str, Any]], *, routing: Routing) -> list[Incident]:
    """The incidents after these rows of ops/alerts."""
    listed = list(incidents)
    position = {incident.key: n for n, incident in enumerate(listed)}  # the newest of a key is the last
    for alert in alerts:
        n = position.get(alert["key"])
        known = listed[n] if n is not None else None
        if alert["state"] == "resolved":
            if n is not None and known is not None and known.state == "open":
                listed[n] = replace(known, state="resolved", resolved_at=alert["occurred_at"], changed_at=alert["raised_at"])
            continue
        again = known is not None and known.state == "resolved" and _within_window(known, alert, routing)
        if n is not None and known is not None and (known.state == "open" or again):
            changed = alert["raised_at"] if known.state == "resolved" else known.changed_at
            listed[n] = replace(known, state="open", count=known.count + 1, last=alert, changed_at=changed, resolved_at=None)
            continue
        position[alert["key"]] = len(listed)
        listed.append(Incident(alert["number"], alert["key"], "open", 1, alert["occurred_at"], alert, alert["raised_at"]))
    return listed


def _within_window(incident: Incident, alert: Mapping[str, Any], routing: Routing) -> bool:
    """What comes back within a window is the same trouble."""
    return incident.resolved_at is not None and alert["occurred_at"] - incident.resolved_at < routing.window


def due(incidents: Iterable[Incident], *, routing: Routing, targets: Iterable[str], now: datetime) -> list[Message]:
    """What is to be sent now to these targets, what failed least often first."""
    configured, out = [*targets], []
    for incident in incidents:
        if routing.silent(incident.key, now):
            continue
        for target in _wanted(incident, routing, configured):
            told = incident.told_to(target)
            if _wanting(incident, told, routing, now):
                out.append((told.attempts, message(incident, target)))
    return [sent for _, sent in sorted(out, key=lambda pair: (pair[0], pair[1].incident))]


def _wanted(incident: Incident, routing: Routing, targets: Iterable[str]) -> list[str]:
    """Those of these targets that are told of an incident."""
    last = incident.last
    channels = {*routing.channels(kind=last["kind"], severity=last["severity"], key=incident.key)}
    return [target for target in targets if channel_of(target) in channels]


def refusing(incidents: Iterable[Incident], *, now: datetime) -> set[str]:
    """The targets that are left alone, since they reported that the recipient does not exist."""
    marks = [(target, told) for incident in incidents for target, told in incident.told.items()]
    return {target for target, told in marks if told.refused and told.not_before is not None and told.not_before > now}


def _wanting(incident: Incident, told: Told, routing: Routing, now: datetime) -> bool:
    if told.not_before is not None and now < told.not_before:
        return False
    if sum(now - at < routing.window for at in told.at) >= routing.limit:
        return False
    if told.state != incident.state:
        return True
    return incident.count > told.count and (incident.state == "resolved" or now - told.at[-1] >= routing.window)


def message(incident: Incident, target: str) -> Message:
    """The incident as it is now, for a target. The same state and count give the same id."""
    last, over = incident.last, incident.state == "resolved"
    times = "once" if incident.count == 1 else f"{incident.count:,} times"
    since = f"{incident.first_at:%Y-%m-%d %H:%M} UTC"
    if over and incident.resolved_at is not None:
        head = f"[RESOLVED] {last['subject']}"
        length = span(incident.resolved_at - incident.first_at)
        over_since = f"Over since {incident.resolved_at:%Y-%m-%d %H:%M:%S} UTC, after {length} and having occurred {times}."
        lines = [over_since, f"It was: {last['body'] or last['subject']}"]
    else:
        head = f"[{last['severity'].upper()}] {last['subject']}" + (f" ({times} since {since})" if incident.count > 1 else "")
        lines = [last["body"] or last["subject"]]
        lines += [f"It has occurred {times} since {since}; this is the newest."] if incident.count > 1 else []
    lines += [f"{name}: {last[field]}" for name, field in (("job", "job"), ("step", "step"), ("log", "link")) if last[field]]
    parts = (str(incident.number), incident.key, target, incident.state, str(incident.count))
    return Message(
        id=hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32],
        target=target,
        incident=incident.number,
        kind=last["kind"],
        severity=last["severity"],
        state="resolved" if over else "raised",
        key=incident.key,
        subject=head,
        body="\n".join(lines),
        count=incident.count,
        due_since=None if incident.told_to(target).state == incident.state else incident.changed_at,
        fields={name: last[name] for name in ("run_id", "job", "step", "link", "occurred_at")},
    )


def delivered(incident: Incident, target: str, *, routing: Routing, at: datetime) -> Incident:
    """The incident after its message to a target went out."""
    recent = tuple(when for when in incident.told_to(target).at if at - when < routing.window)
    return replace(incident, told={**incident.told, target: Told(incident.state, incident.count, (*recent, at))})


def failed(
    incident: Incident, target: str, *, error: str, at: datetime, pause: timedelta | None = None, refused: bool = False
) -> Incident:
    """The incident after its message to a target failed: it is tried again, after pauses that double up to five minutes.

    Args:
        pause: how long the target wants to be left alone.
        refused: there is no such recipient: it is left alone for a day.
    """
    told = incident.told_to(target)
    wait = max(
        min(_FIRST_PAUSE * 2 ** min(told.attempts, 10), _LAST_PAUSE), pause or timedelta(), _NOBODY if refused else timedelta()
    )
    mark = replace(told, attempts=told.attempts + 1, not_before=at + wait, error=error, refused=refused)
    return replace(incident, told={**incident.told, target: mark})


def retained(incidents: Iterable[Incident], *, routing: Routing, targets: Iterable[str], now: datetime) -> list[Incident]:
    """Without those that are over, told and old, and without old notices."""
    configured = [*targets]

    def done(incident: Incident) -> bool:
        if incident.last["kind"] == "notice" and now - incident.last["occurred_at"] > RETENTION:  # it has no end
            return True
        if incident.state != "resolved" or incident.resolved_at is None or now - incident.resolved_at < RETENTION:
            return False
        return all(incident.told_to(target).state == "resolved" for target in _wanted(incident, routing, configured))

    return [incident for incident in incidents if not done(incident)]
