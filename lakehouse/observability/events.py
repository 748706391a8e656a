"""Events: what happened, for other systems. An event is first a row of `ops/events`; from there it goes to Kafka when there is
one (`sender.py`), each under its id.

    publish(storage, Event("model_promoted", subject="ml/receita", payload={"version": 3}, id=f"promoted:{run_id}"))

On the wire an event is one JSON object, `SCHEMA`: {"schema": "lakehouse.event.v1", "id", "kind", "subject", "occurred_at"
(ISO, UTC), "run_id", "payload"}. A broker outage loses none; a crash of the sender may repeat one, under the same id.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.text import one_line, redact
from lakehouse.observability import outbox

Kind = Literal["run_started", "run_succeeded", "run_failed", "table_published", "file_landed", "model_promoted", "notice"]
KINDS: tuple[str, ...] = get_args(Kind)
SCHEMA = "lakehouse.event.v1"
EVENTS_TABLE = TableRef("ops", "events")
COLUMNS = {
    **outbox.COLUMNS,
    "kind": "string",
    "subject": "string",
    "run_id": "string",
    "payload": "string",
    "occurred_at": "timestamp",
    "published_at": "timestamp",
}


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Args:
        kind: what sort of thing.
        subject: what it is about: a job, a table, a file, a model.
        payload: JSON-ready details.
        id: the same id is kept once. Give one that a second try of the same work gives again (default: a new one).
        run_id: the run that did it.
        occurred_at: the instant (default: now).
    """

    kind: Kind
    subject: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    run_id: str = ""
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DeclarationError(f"An event's kind is {self.kind!r:.80}.", remedy=f"Use one of {', '.join(KINDS)}.")
        if not self.subject.strip() or self.occurred_at.tzinfo is None:
            raise DeclarationError("An event has no subject, or no time zone.", remedy="Give both.")
        object.__setattr__(self, "subject", one_line(self.subject))
        object.__setattr__(self, "id", self.id or uuid.uuid4().hex)
        self.json_payload()

    def json_payload(self) -> str:
        """The payload as JSON text, without secrets."""
        try:
            return redact(json.dumps(dict(self.payload), ensure_ascii=False, sort_keys=True))
        except (TypeError, ValueError) as error:
            raise DeclarationError(
                f"The payload of the event {self.kind} {self.subject!r} is not JSON: {error}.", remedy="Use plain values."
            ) from None

    def row(self) -> dict[str, Any]:
        """The event as a row of `ops/events`, without its number."""
        return {**vars(self), "payload": self.json_payload(), "published_at": datetime.now(UTC)}


def publish(storage: Storage, event: Event) -> bool:
    """Keep an event. Durable when this returns; False when its id was kept before."""
    return bool(publish_all(storage, [event]))


def publish_all(storage: Storage, events: Sequence[Event], *, watermarks: Mapping[str, int] | None = None) -> int:
    """Keep several events in one commit; how many were new.

    Args:
        watermarks: the cursor of the source that they come from (see `outbox.append`).
    """
    rows = [event.row() for event in events]
    return len(outbox.append(storage, EVENTS_TABLE, columns=COLUMNS, rows=rows, watermarks=watermarks))


def message(row: Mapping[str, Any]) -> bytes:
    """A row of `ops/events` as it goes over the wire."""
    fields = {name: row[name] for name in ("id", "kind", "subject", "run_id")}
    at = row["occurred_at"].astimezone(UTC).isoformat()
    document = {"schema": SCHEMA, **fields, "occurred_at": at, "payload": json.loads(row["payload"])}
    return json.dumps(document, ensure_ascii=False).encode()
