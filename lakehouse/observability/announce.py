"""Announcements of the layers below: notices become alerts, events go to the outbox (`runtime/announce.py` is the protocol)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, cast

from lakehouse.core.store.storage import Storage
from lakehouse.observability import alerts, events


class Announcer:
    """Keeps what is announced in `ops/alerts` and `ops/events`."""

    def notice(
        self, storage: Storage, subject: str, *, severity: Literal["info", "warning", "error"], key: str, **where: str
    ) -> None:
        alerts.raise_alert(storage, alerts.Alert("notice", severity, subject, key=key, **where))  # type: ignore[arg-type]

    def event(
        self, storage: Storage, kind: str, subject: str, *, payload: Mapping[str, Any], id: str, run_id: str, at: datetime
    ) -> None:
        known = cast("events.Kind", kind)  # the record refuses one that it does not know
        events.publish(storage, events.Event(known, subject, payload, id=id, run_id=run_id, occurred_at=at))
