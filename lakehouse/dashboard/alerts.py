"""*Alertas*: what stands, what was, who was told; and changes of the declared routing, each validated and written whole.

    Alerts (what is) ─▶ a form ─▶ with_...(document) ─▶ change() ─▶ ops/routing/routing.json, an act in ops/audit

A form changes one part of the document that it was made from; when somebody else was first, nothing is written.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.dashboard.reading import Lake, Reader, Row
from lakehouse.observability import channels, outbox, routing
from lakehouse.observability.incidents import channel_of
from lakehouse.observability.notifier import DELIVERIES, DELIVERIES_TABLE, INCIDENTS_TABLE, load
from lakehouse.observability.routing import Routing
from lakehouse.observability.table_health import targets

_SHOWN = 50
Document = dict[str, Any]


@dataclass(frozen=True)
class Alerts:
    """Attributes:
    standing: open incidents, newest first: key, kind, severity, subject, job, count, first_at, last_at, link, silent.
    past: those that are over, newest first, with resolved_at.
    deliveries: the last attempts to deliver a message, newest first.
    configured: the channels that the settings name.
    routing: what is in force; `wrong` says why it is not what the file says.
    document: the routing in its JSON form, to be changed; `seen` is the file that it was made from.
    bounds: the declared bounds by table: max_event_age, max_commit_age (hours or None), max_quarantine, event_time.
    slas: the declared SLA of jobs, in minutes.
    """

    standing: list[Row]
    past: list[Row]
    deliveries: list[Row]
    configured: tuple[str, ...]
    routing: Routing
    wrong: str
    document: Document
    seen: bytes | None
    bounds: dict[str, Row]
    slas: dict[str, float]


def read(lake: Lake) -> Alerts:
    seen, wrong = routing.stored(lake.storage), ""
    try:
        rules = routing.load(lake.storage)
    except DeclarationError as error:
        rules, wrong = Routing(), str(error)
    now = datetime.now(UTC)
    table = lake.opened(INCIDENTS_TABLE)
    incidents = [_row(one, silent=rules.silent(one.key, now)) for one in load(lake.session, table)] if table else []
    incidents.sort(key=lambda row: row["last_at"], reverse=True)
    sent = lake.opened(DELIVERIES_TABLE)
    after = sent.watermark(outbox.NUMBER) - _SHOWN if sent else 0
    deliveries = outbox.read(lake.session, lake.storage, DELIVERIES_TABLE, columns=DELIVERIES, after=after)
    return Alerts(
        standing=[row for row in incidents if row["state"] == "open"],
        past=[row for row in incidents if row["state"] != "open"],
        deliveries=deliveries[::-1],
        configured=tuple(dict.fromkeys(channel_of(target) for target in channels.of_settings(lake.settings))),
        routing=rules,
        wrong=wrong,
        document=routing.document(rules),
        seen=seen,
        bounds=_bounds(lake),
        slas=_slas(),
    )


def _row(incident: Any, *, silent: bool) -> Row:
    last = incident.last
    own = {name: getattr(incident, name) for name in ("key", "state", "count", "first_at", "resolved_at")}
    message = {name: last[name] for name in ("kind", "severity", "subject", "job", "link")}
    return {**own, **message, "last_at": last["occurred_at"], "silent": silent}


def _bounds(lake: Lake) -> dict[str, Row]:
    def hours(age: timedelta | None) -> float | None:
        return None if age is None else age / timedelta(hours=1)

    return {
        str(target.ref): {
            "event_time": target.health.event_time,
            "max_event_age_hours": hours(target.health.max_event_age),
            "max_commit_age_hours": hours(target.health.max_commit_age),
            "max_quarantine": target.health.max_quarantine,
        }
        for target in targets(lake.storage, lake.settings.tables, [])
    }


def _slas() -> dict[str, float]:
    from lakehouse.automation import JOBS

    return {job.name: job.sla / timedelta(minutes=1) for job in JOBS if job.sla is not None}


# --- changes -----------------------------------------------------------------------------------------------------------


def with_silence(document: Document, *, keys: str, until: datetime, reason: str, now: datetime | None = None) -> Document:
    """The document with one more silence.

    Raises:
        DeclarationError: it ends before now, or what it says is not enough.
    """
    silence = routing.Silence(keys=keys.strip(), until=until.astimezone(UTC), reason=reason.strip())
    if silence.until <= (now or datetime.now(UTC)):
        raise DeclarationError("The silence would be over before it begins.", remedy="Choose an instant to come.")
    entry = {"keys": silence.keys, "until": silence.until.isoformat(), "reason": silence.reason}
    return {**document, "silences": [*document["silences"], entry]}


def without(document: Document, part: str, number: int) -> Document:
    """The document without one of its silences or routes."""
    return {**document, part: [entry for n, entry in enumerate(document[part]) if n != number]}


def with_route(document: Document, number: int | None, route: Mapping[str, Any]) -> Document:
    """The document with a route in the place of another, or (None) with one more."""
    changed = copy.deepcopy(document)
    if number is None:
        changed["routes"].append(dict(route))
    else:
        changed["routes"][number] = dict(route)
    return changed


def with_messages(document: Document, *, window_minutes: float, limit: int) -> Document:
    """The document with another window and limit of messages."""
    return {**document, "window_minutes": window_minutes, "limit": limit}


def with_bounds(document: Document, table: str, bounds: Mapping[str, float | None], *, declared: Mapping[str, Any]) -> Document:
    """The document with other bounds of a table; what is as declared, or None, is left to the declaration."""
    given = {name: value for name, value in bounds.items() if value is not None and value != declared.get(name)}
    others = {name: entry for name, entry in document["tables"].items() if name != table}
    return {**document, "tables": {**others, **({table: given} if given else {})}}


def with_sla(document: Document, job: str, minutes: float, *, declared: float) -> Document:
    """The document with another SLA of a job; the declared one is left to the declaration."""
    others = {name: entry for name, entry in document["jobs"].items() if name != job}
    return {**document, "jobs": {**others, **({job: {"sla_minutes": minutes}} if minutes != declared else {})}}


def change(reader: Reader, document: Document, *, seen: bytes | None, message: str) -> None:
    """Write the changed document, and keep in `ops/audit` what was done.

    Raises:
        DeclarationError: it is wrong; nothing was changed.
        ConflictError: somebody else was first; nothing was changed.
    """
    from lakehouse.maintenance.audit import record_act

    routing.save(reader.storage, document, seen=seen)
    reader.forget()
    record_act(reader.storage, TableRef("ops", "routing"), "routing", message)


def matching(standing: Sequence[Row], keys: str) -> list[str]:
    """The open incidents that a silence of these keys would hold back."""
    from fnmatch import fnmatchcase

    return [row["key"] for row in standing if fnmatchcase(row["key"], keys.strip())]
