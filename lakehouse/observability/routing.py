"""Routing: who is told of which alert, how often, what is silent for now, and from when on it is one. One declared record.

The record below holds until `<ops>/routing/routing.json` exists: the same fields as JSON, validated when it is read; the
dashboard and people with an editor write it. A file that is wrong changes nothing: the last word is this record, and an alert
says what is wrong with the file.

    {"window_minutes": 60,
     "routes": [{"channels": ["email"], "minimum": "error", "kinds": ["run_failure"], "keys": "run_failure:pedidos*"}],
     "silences": [{"keys": "check:silver/vendas:*", "until": "2026-12-01T08:00:00+00:00", "reason": "backfill"}],
     "tables": {"silver/vendas": {"max_event_age_hours": 24, "max_quarantine": 0.01}},
     "jobs": {"pedidos": {"sla_minutes": 30}}}

`tables` and `jobs` replace bounds of a spec's `Health` and a job's SLA (`thresholds.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from lakehouse.core.errors import ConflictError, DeclarationError
from lakehouse.core.names import TableRef, check_name
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage, lock
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
class TableBounds:
    """Bounds of one table that replace those of its spec's `Health`; None leaves that."""

    max_event_age: timedelta | None = None
    max_commit_age: timedelta | None = None
    max_quarantine: float | None = None

    def __post_init__(self) -> None:
        ages = [age for age in (self.max_event_age, self.max_commit_age) if age is not None]
        share = 0.0 if self.max_quarantine is None else self.max_quarantine
        if not all(timedelta(minutes=1) <= age <= timedelta(days=3660) for age in ages) or not 0 <= share <= 1:
            raise DeclarationError(
                "A bound of a table is out of range.", remedy="Give ages from a minute to ten years, and a share from 0 to 1."
            )

    @property
    def given(self) -> dict[str, Any]:
        """Those that replace something, by the names of `Health`."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The whole of it.

    Args:
        routes: every route that takes an alert adds its channels.
        window: repeats of a key within it are counted; at its end one message says how many.
        limit: messages for one key and channel within a window. What comes and goes all the time is told no more often.
        silences: what is silent for now.
        tables: other bounds than the declared ones, by table (`silver/vendas`).
        jobs: other SLAs than the declared ones, by job.
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
    tables: Mapping[str, TableBounds] = field(default_factory=dict)
    jobs: Mapping[str, timedelta] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not timedelta(minutes=1) <= self.window <= timedelta(days=7) or not 2 <= self.limit <= 100:
            raise DeclarationError(
                f"The window of {self.window} or the limit of {self.limit} is out of range.",
                remedy="Give a window of a minute to seven days, and a limit of 2 to 100.",
            )

        for name in self.tables:
            layer, _, table = name.partition("/")
            TableRef(layer, table)  # type: ignore[arg-type] # refuses what is no name
        for name, sla in self.jobs.items():
            check_name(name, "job name")
            if not timedelta(seconds=1) <= sla <= timedelta(days=7):
                raise DeclarationError(f"The SLA of {name} is {sla}.", remedy="Give one of a second to seven days.")

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
    text = stored(storage)
    if text is None:
        return Routing()
    uri, remedy = f"{storage.uri(_REF)}/{_FILE}", "Fix or remove it; docs/monitoring.md shows one."
    try:
        return parse(json.loads(text))
    except ValueError as error:
        raise DeclarationError(f"{uri} is no routing: {error}.", remedy=remedy) from error
    except DeclarationError as error:
        raise DeclarationError(f"{uri} is no routing: {error.what}", remedy=f"{error.remedy} {remedy}") from error


def in_force(storage: Storage) -> Routing:
    """The routing of this lake; the record above while the file is wrong; the sensor that delivers reports that."""
    try:
        return load(storage)
    except DeclarationError:
        return Routing()


def stored(storage: Storage) -> bytes | None:
    """The routing's file as it is; None when there is none."""
    try:
        return files.read(f"{storage.uri(_REF)}/{_FILE}")
    except FileNotFoundError:
        return None


def save(storage: Storage, document: Mapping[str, Any], *, seen: bytes | None) -> str:
    """Check a document and put it in place of the lake's routing, whole; its URI.

    Args:
        seen: the file (`stored`) that the document was made from.

    Raises:
        DeclarationError: it is wrong; nothing was changed.
        ConflictError: the file is another one by now; nothing was changed.
    """
    parse(document)
    with lock(storage.uri(_REF), wait=10):
        if stored(storage) != seen:
            raise ConflictError(
                "The routing was changed by somebody else meanwhile.", remedy="Look at it as it is now, and change it again."
            )
        return storage.put(_REF, _FILE, json.dumps(document, indent=2, ensure_ascii=False).encode())


def document(routing: Routing) -> dict[str, Any]:
    """A routing in its JSON form, such that `parse` gives it back."""
    hours = {"max_event_age": "max_event_age_hours", "max_commit_age": "max_commit_age_hours"}
    return {
        "window_minutes": routing.window / timedelta(minutes=1),
        "limit": routing.limit,
        "routes": [
            {"channels": list(r.channels), "minimum": r.minimum, "kinds": list(r.kinds), "keys": r.keys} for r in routing.routes
        ],
        "silences": [{"keys": s.keys, "until": s.until.isoformat(), "reason": s.reason} for s in routing.silences],
        "tables": {
            name: {hours.get(n, n): v / timedelta(hours=1) if n in hours else v for n, v in bounds.given.items()}
            for name, bounds in routing.tables.items()
        },
        "jobs": {name: {"sla_minutes": sla / timedelta(minutes=1)} for name, sla in routing.jobs.items()},
    }


def parse(document: Mapping[str, Any]) -> Routing:
    """A routing from its JSON form.

    Raises:
        DeclarationError: a field has a value that it cannot have, or is not known.
    """
    try:
        return _parsed(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reported = f"{type(error).__name__}: {error}"
        raise DeclarationError(f"A field cannot be read ({reported:.200}).", remedy="Give each the type that it has.") from error


def _parsed(document: Mapping[str, Any]) -> Routing:
    _known(document, ("window_minutes", "limit", "routes", "silences", "tables", "jobs"))
    given: dict[str, Any] = {}
    if "window_minutes" in document:
        given["window"] = timedelta(minutes=float(document["window_minutes"]))
    if "limit" in document:
        given["limit"] = int(document["limit"])
    if "routes" in document:
        given["routes"] = tuple(_route(entry) for entry in document["routes"])
    if "silences" in document:
        given["silences"] = tuple(_silence(entry) for entry in document["silences"])
    if "tables" in document:
        given["tables"] = {name: _bounds(entry) for name, entry in document["tables"].items()}
    if "jobs" in document:
        given["jobs"] = {name: _sla(entry) for name, entry in document["jobs"].items()}
    return Routing(**given)


def _bounds(entry: Mapping[str, Any]) -> TableBounds:
    _known(entry, ("max_event_age_hours", "max_commit_age_hours", "max_quarantine"))
    given: dict[str, Any] = {
        name.removesuffix("_hours"): timedelta(hours=float(value)) if name.endswith("_hours") else float(value)
        for name, value in entry.items()
    }
    return TableBounds(**given)


def _sla(entry: Mapping[str, Any]) -> timedelta:
    _known(entry, ("sla_minutes",))
    return timedelta(minutes=float(entry["sla_minutes"]))


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
