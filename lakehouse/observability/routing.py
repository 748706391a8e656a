"""Routing: who is told of which alert, how often, and what is silent for now. One declared record.

The record below holds until `<ops>/routing/routing.json` exists: the same fields as JSON, validated when it is read; the
dashboard and people with an editor write it. A file that is wrong changes nothing: the last word is this record, and an alert
says what is wrong with the file.

    {"window_minutes": 60,
     "routes": [{"channels": ["email"], "minimum": "error", "kinds": ["run_failure"], "keys": "run_failure:pedidos*"}],
     "silences": [{"keys": "check:silver/vendas:*", "until": "2026-12-01T08:00:00+00:00", "reason": "backfill"}]}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from lakehouse.core import files
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.storage import Storage
from lakehouse.observability.alerts import KINDS, SEVERITIES, Severity

Channel = Literal["kafka", "email", "slack"]
CHANNELS: tuple[str, ...] = get_args(Channel)
_REF, _FILE = TableRef("ops", "routing"), "routing.json"


def _among(values: tuple[str, ...], allowed: tuple[str, ...], what: str) -> None:
    wrong = [value for value in values if value not in allowed]
    if wrong:
        raise DeclarationError(f"{wrong[0]!r:.80} is no {what}.", remedy=f"Use {', '.join(allowed)}.")


@dataclass(frozen=True, kw_only=True)
class Route:
    """Alerts of these kinds (default: all), at least so severe, whose key matches the pattern, go to these channels."""

    channels: tuple[str, ...]
    minimum: Severity = "warning"
    kinds: tuple[str, ...] = ()
    keys: str = "*"

    def __post_init__(self) -> None:
        _among(self.channels, CHANNELS, "channel")
        _among((self.minimum,), SEVERITIES, "severity")
        _among(self.kinds, KINDS, "kind of alert")
        if not self.channels or not self.keys:
            raise DeclarationError("A route has no channel, or an empty pattern.", remedy="Name both; * matches every key.")

    def takes(self, *, kind: str, severity: str, key: str) -> bool:
        ranked = SEVERITIES.index(severity) >= SEVERITIES.index(self.minimum)
        return ranked and (not self.kinds or kind in self.kinds) and fnmatchcase(key, self.keys)


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Keys that match the pattern are counted and not sent until that instant."""

    keys: str
    until: datetime
    reason: str

    def __post_init__(self) -> None:
        if self.until.tzinfo is None or not self.keys or not self.reason.strip():
            raise DeclarationError(
                "A silence needs keys, a reason, and an instant with its time zone.", remedy='Write {"keys", "until", "reason"}.'
            )


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The whole of it.

    Args:
        routes: every route that takes an alert adds its channels.
        window: repeats of a key within it are counted; at its end one message says how many.
        limit: messages for one key and channel within a window. What comes and goes all the time is told no more often.
        silences: what is silent for now.
    """

    routes: tuple[Route, ...] = (
        Route(channels=("kafka",), minimum="info"),
        Route(channels=("slack",), minimum="warning"),
        Route(channels=("email",), minimum="error"),
        Route(channels=("email",), minimum="warning", kinds=("stale_table",)),
    )
    window: timedelta = timedelta(hours=1)
    limit: int = 3
    silences: tuple[Silence, ...] = field(default=())

    def __post_init__(self) -> None:
        if not timedelta(minutes=1) <= self.window <= timedelta(days=7) or not 2 <= self.limit <= 100:
            raise DeclarationError(
                f"The window of {self.window} or the limit of {self.limit} is out of range.",
                remedy="Give a window of a minute to seven days, and a limit of 2 to 100.",
            )

    def channels(self, *, kind: str, severity: str, key: str) -> tuple[str, ...]:
        """The channels that an alert goes to, in the order of CHANNELS."""
        chosen = {c for route in self.routes if route.takes(kind=kind, severity=severity, key=key) for c in route.channels}
        return tuple(channel for channel in CHANNELS if channel in chosen)

    def silent(self, key: str, now: datetime) -> bool:
        return any(fnmatchcase(key, silence.keys) and now < silence.until for silence in self.silences)


def load(storage: Storage) -> Routing:
    """The routing of this lake: its file, or the record above.

    Raises:
        DeclarationError: the file is not one.
    """
    uri = f"{storage.uri(_REF)}/{_FILE}"
    try:
        text = files.read(uri)
    except FileNotFoundError:
        return Routing()
    remedy = "Mend or remove it; docs/monitoring.md shows one."
    try:
        return parse(json.loads(text))
    except DeclarationError as error:
        raise DeclarationError(f"{uri} is no routing: {error.what}", remedy=f"{error.remedy} {remedy}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DeclarationError(f"{uri} is no routing: {error}.", remedy=remedy) from error


def save(storage: Storage, document: Mapping[str, Any]) -> str:
    """Check a document and put it in place of the lake's routing; its URI.

    Raises:
        DeclarationError: it is wrong; nothing was changed.
    """
    parse(document)
    return storage.put(_REF, _FILE, json.dumps(document, indent=2, ensure_ascii=False).encode())


def parse(document: Mapping[str, Any]) -> Routing:
    """A routing from its JSON form.

    Raises:
        DeclarationError: a field has a value that it cannot have, or is not known.
    """
    _known(document, ("window_minutes", "limit", "routes", "silences"))
    given: dict[str, Any] = {}
    if "window_minutes" in document:
        given["window"] = timedelta(minutes=float(document["window_minutes"]))
    if "limit" in document:
        given["limit"] = int(document["limit"])
    if "routes" in document:
        given["routes"] = tuple(_route(entry) for entry in document["routes"])
    if "silences" in document:
        given["silences"] = tuple(_silence(entry) for entry in document["silences"])
    return Routing(**given)


def _route(entry: Mapping[str, Any]) -> Route:
    _known(entry, ("channels", "minimum", "kinds", "keys"))
    lists = {name: tuple(entry[name]) for name in ("channels", "kinds") if name in entry}
    if any(isinstance(entry.get(name), str) for name in ("channels", "kinds")):
        raise DeclarationError("Channels and kinds of a route are lists.", remedy='Write "channels": ["email"].')
    return Route(**{**entry, **lists})


def _silence(entry: Mapping[str, Any]) -> Silence:
    _known(entry, ("keys", "until", "reason"))
    return Silence(keys=entry["keys"], until=datetime.fromisoformat(entry["until"]), reason=entry["reason"])


def _known(entry: Mapping[str, Any], names: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise DeclarationError(f"{entry!r:.80} is no object.", remedy=f"Write an object with {', '.join(names)}.")
    _among(tuple(entry), names, "field")
