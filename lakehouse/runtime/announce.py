"""What a layer has to tell others, without knowing who hears it: the protocol of the resource `announce`.

The observability layer keeps what is announced and sends it on; `resources.py` binds the two.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from lakehouse.core.store.storage import Storage


class Announce(Protocol):
    """Durable when a call returns; the same id is kept once."""

    def notice(
        self, storage: Storage, subject: str, *, severity: Literal["info", "warning", "error"], key: str, **where: str
    ) -> None:
        """Tell people something.

        Args:
            subject: one line; it heads the message.
            key: what comes again under one key is counted, not sent.
            where: `body`, `run_id`, `job`, `step`.
        """

    def event(
        self, storage: Storage, kind: str, subject: str, *, payload: Mapping[str, Any], id: str, run_id: str, at: datetime
    ) -> None:
        """Tell other systems that something happened.

        Args:
            kind: one of `observability.events.KINDS`.
            payload: JSON-ready details.
            at: the instant of it.
        """
