"""Health of services: each that is configured is really called, at the same time as the others, within a deadline.

What is not configured is not listed, so nothing is ever called healthy that was not asked.
"""

import socket
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef, is_remote
from lakehouse.core.sql import explained, open_engine
from lakehouse.core.store.storage import Storage
from lakehouse.core.text import one_line, redact, span
from lakehouse.observability.alerts import Alert
from lakehouse.observability.deadline import side_by_side
from lakehouse.runtime.dagster_private import ticks
from lakehouse.settings import Settings, listed

SERVICES_TABLE = TableRef("ops", "service_health")
COLUMNS = {
    "measured_at": "timestamp",
    "run_id": "string",
    "service": "string",
    "target": "string",
    "healthy": "boolean",
    "milliseconds": "double",
    "error": "string",
}
#: Seconds for all probes together, each with shorter time-outs of its own.
PATIENCE = 8.0
_TIMEOUT = 5.0


class ProbeError(LakehouseError):
    """A service answered, but not as a healthy one does."""


@dataclass(frozen=True)
class Service:
    """One service: what is called, and where it is (without secrets)."""

    name: str
    target: str
    probe: Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """How one service answered."""

    service: str
    target: str
    healthy: bool
    milliseconds: float
    error: str = ""

    def row(self, *, at: datetime, run_id: str) -> dict[str, Any]:
        return {**vars(self), "measured_at": at, "run_id": run_id}


def examine(services: Sequence[Service], *, patience: float = PATIENCE) -> list[Outcome]:
    """Call all services at once. One that hangs is reported as that when the time is over."""
    times: dict[str, float] = {}

    def timed(service: Service) -> Callable[[], None]:
        def call() -> None:
            began = time.monotonic()
            try:
                service.probe()
            finally:
                times[service.name] = (time.monotonic() - began) * 1000

        return call

    outcomes = side_by_side({service.name: timed(service) for service in services}, seconds=patience)
    out = []
    for service in services:
        try:
            outcomes[service.name]()
        except Exception as error:  # noqa: BLE001 - whatever a client library raises is what is to be reported
            reported = error.what if isinstance(error, LakehouseError) else f"{type(error).__name__}: {error}"
            spent = times.get(service.name, patience * 1000)
            out.append(Outcome(service.name, service.target, False, round(spent, 1), one_line(reported)))
        else:
            out.append(Outcome(service.name, service.target, True, round(times[service.name], 1)))
    return out


def alerts(outcomes: Sequence[Outcome], *, standing: set[str], run_id: str, link: str, at: datetime) -> list[Alert]:
    """An alert per service that is not healthy, and the end of those that are healthy again."""
    out = []
    for outcome in outcomes:
        key = f"service:{outcome.service}"
        automation = outcome.service.partition(":")[0] in ("schedule", "sensor")
        kind: Any = "automation" if automation else "service_unhealthy"
        common: dict[str, Any] = {"key": key, "run_id": run_id, "job": "monitoring", "link": link, "occurred_at": at}
        if not outcome.healthy:
            body = f"{outcome.service} ({outcome.target}) failed its probe at {at:%Y-%m-%d %H:%M:%S} UTC: {outcome.error}"
            subject = f"{outcome.service} is not healthy"
            out.append(Alert(kind, severity="error", subject=subject, body=body, **common))
        elif key in standing:
            subject = f"{outcome.service} is healthy again"
            out.append(Alert(kind, severity="info", subject=subject, state="resolved", **common))
    return out


# --- probes ------------------------------------------------------------------------------------------------------------


def configured(
    storage: Storage,
    *,
    databases: Mapping[str, str],
    mlflow: str = "",
    airbyte: str = "",
    kafka: str = "",
    ui: str = "",
    spark_master: str = "",
    urls: Sequence[str] = (),
) -> list[Service]:
    """The services that the settings name."""
    locations = sorted(
        {location for location in (storage.root, storage.landing, *storage.layers.values()) if is_remote(location)}
    )
    out = [Service(f"store:{location}", location, lambda location=location: store(location)) for location in locations]  # type: ignore[misc]
    for name, url in databases.items():
        if url.startswith("postgresql"):
            out.append(Service(name, redact(url), lambda name=name, url=url: database(name, url)))  # type: ignore[misc]
    if mlflow.startswith(("http://", "https://")):
        out.append(Service("mlflow", redact(mlflow), lambda: http(f"{mlflow.rstrip('/')}/health")))
    if airbyte:
        out.append(Service("airbyte", redact(airbyte), lambda: http(f"{airbyte}/health")))
    if kafka:
        out.append(Service("kafka", kafka, lambda: brokers(kafka)))
    if ui:
        out.append(Service("webserver", redact(ui), lambda: http(f"{ui.rstrip('/')}/server_info")))
    if spark_master.startswith("spark://"):
        out.append(Service("spark", spark_master, lambda: port(spark_master)))
    out += [Service(f"http:{redact(url)}", redact(url), lambda url=url: http(url)) for url in urls]  # type: ignore[misc]
    return out


def of_settings(settings: Settings) -> list[Service]:
    """The services that these settings name."""
    return configured(
        settings.storage,
        databases={name: url.get_secret_value() for name, url in settings.databases.items()},
        mlflow=settings.mlflow_uri,
        airbyte=settings.airbyte_apis[0] if settings.airbyte_url else "",
        kafka=settings.kafka_bootstrap,
        ui=settings.ui_url,
        spark_master=settings.spark_master,
        urls=listed(settings.probe_urls),
    )


def http(url: str, *, shown: str = "") -> None:
    """GET answers with a status below 400. Messages say `shown`, or the URL without its secrets."""
    request = urllib.request.Request(url, headers={"User-Agent": "lakehouse-monitoring"})
    try:
        # settings allow http and https alone
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:  # nosec B310
            reply.read(1)
    except OSError as error:
        code = getattr(error, "code", None)
        reported = f"answered {code}" if code else f"did not answer: {getattr(error, 'reason', error)}"
        raise ProbeError(f"{shown or redact(url)} {reported}.", remedy="Look at its log.") from None


def store(location: str) -> None:
    """An object can be put, is given back as it was put, and can be removed."""
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from lakehouse.core.store.files import bucket, explain

    whole = bucket(location)
    patience = timedelta(seconds=_TIMEOUT)
    retry: Any = {"max_retries": 1, "retry_timeout": patience}
    options: Any = {"connect_timeout": timedelta(seconds=2), "timeout": patience, "allow_http": True}
    name = f"{location[len(whole) + 1 :]}/_lakehouse_probe_{uuid.uuid4().hex}".lstrip("/")
    try:
        client: Any = from_url(whole, retry_config=retry, client_options=options)
        client.put(name, b"probe")
        if bytes(client.get(name).bytes()) != b"probe":
            raise ProbeError(f"{location} does not give back what was put there.", remedy="Look at the store's log.")
        client.delete(name)
    except (BaseError, FileNotFoundError) as error:
        raise explain(whole, error) from None


def database(name: str, url: str) -> None:
    """A PostgreSQL connection can be opened and answers a query."""
    from sqlalchemy import text

    with explained(f"{redact(url)} does not answer", setting=name):
        engine = open_engine(url, setting=name, statement_seconds=_TIMEOUT, connect_seconds=int(_TIMEOUT))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1")).scalar_one()


def brokers(bootstrap: str) -> None:
    """At least one broker answers with the list of topics."""
    from lakehouse.observability.kafka import reach

    reach(bootstrap, timeout=_TIMEOUT)


def port(master: str) -> None:
    """One of the masters takes a connection: Spark's own protocol has no question that costs nothing."""
    locations = [urlsplit(f"//{location}") for location in master.removeprefix("spark://").split(",")]
    errors = []
    for location in locations:
        try:
            socket.create_connection((location.hostname or "", location.port or 7077), timeout=_TIMEOUT / len(locations)).close()
        except OSError as error:
            errors.append(f"{location.netloc}: {error.strerror or error}")
        else:
            return
    raise ProbeError(f"No Spark master takes a connection ({'; '.join(errors)}).", remedy="Start it.")


# --- Dagster's own parts ------------------------------------------------------------------------------------------------

#: A daemon writes a heartbeat every 30 s.
_HEARTBEAT = timedelta(minutes=2)
#: So much later than it should a tick may begin.
_LATE = timedelta(minutes=5)


def dagster_parts(instance: Any, *, cadence: Mapping[str, Any], now: datetime | None = None) -> list[Service]:
    """Daemons that have ever had a heartbeat here, and the schedules and sensors that are on.

    Args:
        cadence: by name, the seconds between the ticks of a sensor, or `(cron, timezone)` of a schedule.
    """
    at = now or datetime.now(UTC)
    out = []
    for name, beat in sorted(instance.get_daemon_heartbeats().items()):
        age = at - datetime.fromtimestamp(beat.timestamp, tz=UTC)
        text = f"The {name} daemon had its last heartbeat {span(age)} ago." if age > _HEARTBEAT else ""
        out.append(Service(f"daemon:{name.lower()}", "dagster-daemon", lambda text=text: _raise_problem(text)))  # type: ignore[misc]
    if instance.schedule_storage is None:  # an instance in memory
        return out
    states = [state for state in instance.all_instigator_state() if state.is_running]
    for state in sorted(states, key=lambda state: state.instigator_name):
        what = state.instigator_type.value.lower()
        if what not in ("schedule", "sensor"):
            continue
        newest = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        text = _tick_problem(newest[0] if newest else None, cadence.get(state.instigator_name), at)
        name = f"{what}:{state.instigator_name}"
        out.append(Service(name, "dagster-daemon", lambda text=text: _raise_problem(text)))  # type: ignore[misc]
    return out


def _tick_problem(tick: Any, cadence: Any, now: datetime) -> str:
    if tick is None:
        return ""  # switched on, and its time has not come
    if tick.status.value == "FAILURE":
        return f"Its last tick failed: {one_line(tick.error.message if tick.error else 'no error was recorded')}"
    last = datetime.fromtimestamp(tick.timestamp, tz=UTC)
    due = _next(last, cadence)
    if due is not None and now > due + _LATE:
        return f"Its last tick was {span(now - last)} ago; the next was due {span(now - due)} ago."
    return ""


def _next(last: datetime, cadence: Any) -> datetime | None:
    if cadence is None:
        return None
    if isinstance(cadence, int | float):
        return last + timedelta(seconds=cadence)
    cron, timezone = cadence
    return next(ticks(last + timedelta(seconds=1), cron, timezone)).astimezone(UTC)


def _raise_problem(problem: str) -> None:
    if problem:
        raise ProbeError(problem, remedy="Look at the daemon's log.")
