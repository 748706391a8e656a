"""Alerts: what somebody should know. An alert is first a row of `ops/alerts`, and is delivered from there (`notifier.py`).

    raise_alert(storage, Alert("run_failure", severity="error", subject="pedidos failed", body="...", run_id=run_id))

Here: the record, and how it is kept: durable when the call returns, once per id. Not here: who is told, how often and on which
channel (`routing.py`), or the conditions that raise one (`watch.py`, `table_health.py`).
"""

import hashlib
import logging
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

Kind = Literal[
    "run_failure",
    "check_failed",
    "sla_miss",
    "stale_table",
    "table_health",
    "service_unhealthy",
    "automation",
    "run_worker_gone",
    "notice",
]
Severity = Literal["info", "warning", "error", "critical"]
State = Literal["raised", "resolved"]
KINDS: tuple[str, ...] = get_args(Kind)
SEVERITIES: tuple[str, ...] = get_args(Severity)

ALERTS_TABLE = TableRef("ops", "alerts")
COLUMNS = {
    **outbox.COLUMNS,
    "kind": "string",
    "severity": "string",
    "state": "string",
    "key": "string",
    "subject": "string",
    "body": "string",
    "job": "string",
    "step": "string",
    "run_id": "string",
    "link": "string",
    "occurred_at": "timestamp",
    "raised_at": "timestamp",
}
_LOG = logging.getLogger("lakehouse.alerts")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
_BODY = 4000


@dataclass(frozen=True)
class Alert:
    """One occurrence of something that somebody should know, or (`state="resolved"`) its end.

    Args:
        kind: what sort of thing it is; routing goes by it. `notice` is for what a job itself has to say.
        severity: info, warning, error or critical.
        subject: one line; it heads the message.
        body: what happened, in one sentence first: asset or step, job, time, error.
        key: what occurs again and is the same: its repeats are counted, not sent, and its recovery ends it. Default: kind
            and subject.
        run_id, job, step: where it happened.
        link: where its log is.
        occurred_at: the instant of what happened (default: now).
        id: the same id is kept once. Default: from key, state, run and step; without a run, a new one each time.

    Secrets in subject and body are replaced by `***`.
    """

    kind: Kind
    severity: Severity
    subject: str
    body: str = ""
    key: str = ""
    run_id: str = ""
    job: str = ""
    step: str = ""
    link: str = ""
    state: State = "raised"
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("severity", SEVERITIES), ("state", get_args(State))):
            if getattr(self, name) not in allowed:
                raise DeclarationError(
                    f"An alert's {name} is {getattr(self, name)!r:.80}.", remedy=f"Use one of {', '.join(allowed)}."
                )
        if not self.subject.strip():
            raise DeclarationError("An alert has no subject.", remedy="Say in one line what happened.")
        if self.occurred_at.tzinfo is None:
            raise DeclarationError("An alert's occurred_at has no time zone.", remedy="Give an instant in UTC.")
        set_ = object.__setattr__
        set_(self, "subject", one_line(self.subject, limit=200))
        set_(self, "body", redact(self.body)[:_BODY])
        set_(self, "key", self.key or f"{self.kind}:{self.subject}")
        set_(self, "id", self.id or self._derived_id())

    def _derived_id(self) -> str:
        if not self.run_id:
            return uuid.uuid4().hex
        parts = (self.key, self.state, self.run_id, self.step)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]

    def row(self) -> dict[str, Any]:
        """The alert as a row of `ops/alerts`, without its number."""
        return {**vars(self), "raised_at": datetime.now(UTC)}


def raise_alert(storage: Storage, alert: Alert) -> bool:
    """Keep an alert and log it. Durable when this returns; False when its id was kept before."""
    return bool(raise_alerts(storage, [alert]))


def raise_alerts(storage: Storage, alerts: Sequence[Alert], *, watermarks: Mapping[str, int] | None = None) -> list[Alert]:
    """Keep several alerts in one commit, and log them. Returns those whose id is new.

    Args:
        watermarks: the cursor of the source that they come from (see `outbox.append`).
    """
    rows = [alert.row() for alert in alerts]
    stored = {row["id"] for row in outbox.append(storage, ALERTS_TABLE, columns=COLUMNS, rows=rows, watermarks=watermarks)}
    new = list({alert.id: alert for alert in alerts if alert.id in stored}.values())
    for alert in new:
        text = f"{alert.subject}: {one_line(alert.body)}" if alert.body else alert.subject
        level = logging.INFO if alert.state == "resolved" else _LEVELS[alert.severity]
        _LOG.log(level, "%s %s: %s", alert.kind, alert.state, text)
    return new
