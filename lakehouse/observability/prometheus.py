"""Metrics as Prometheus text: `make metrics` prints them, and `python -m lakehouse metrics --port 9464` serves them.

    gold/slo_jobs, gold/slo_assets, gold/slo_feeds, ops/table_health, ops/kafka_health, ops/kafka_lag,
    ops/service_health, ops/incidents ─▶ text

Read from the lake's own tables as they are now; nothing is measured here. A table that does not exist yet has no lines. The
formats and their negotiation are the library's (prometheus_client), which is imported when it is used: it reads /proc then.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.observability import notifier, outbox, services, table_health, topics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

Rows = list[dict[str, Any]]

_SLO = {
    "runs": "Runs that ended in the window.",
    "failures": "Of these, failed ones.",
    "success_rate": "Share of successes.",
    "p50_seconds": "Median duration.",
    "p95_seconds": "95th percentile of the duration.",
    "p99_seconds": "99th percentile of the duration.",
    "sla_misses": "Runs that missed their SLA.",
    "error_budget_left": "What is left of the runs that may fail: 1 untouched, 0 used up.",
    "alert_lag_p95_seconds": "95th percentile from detection to delivery.",
}
_FEED = {
    "minutes_due": "Minutes of the window that are over, from the first capture on.",
    "minutes_captured": "Of these, those with a capture.",
    "delivery_rate": "Share of the minutes that were captured.",
}
_TABLE = {
    "rows": "Rows.",
    "bytes": "Bytes of its data files.",
    "files": "Data files.",
    "version": "Delta version.",
    "commit_age_seconds": "Seconds since its last commit, when it was measured.",
    "event_age_seconds": "Seconds since its newest event, when it was measured.",
    "log_length": "Commits since its last checkpoint.",
    "quarantine_share": "Share of its records in quarantine.",
}
_KAFKA = {
    "end_offset": "Sum of the partitions' end offsets.",
    "lag": "Messages that the group has not read.",
    "leaderless": "Partitions without a leader.",
    "newest_age_seconds": "Seconds since its newest message, when it was measured.",
}
_PARTITION = {"lag": "Messages of the partition that the group has not read."}
_SERVICE = {"healthy": "1 when it answered.", "milliseconds": "How long it took."}
_INCIDENT = {"open": "How often what is still wrong has occurred."}
#: A scrape asks as often as it likes; the tables change every five minutes.
_FRESH_SECONDS = 10.0


@dataclass(frozen=True)
class _Group:
    """Gauges of one table: `<prefix>_<column>`, with their help texts, a sample a row."""

    prefix: str
    labels: tuple[str, ...]
    gauges: Mapping[str, str]
    rows: Callable[[Session, Storage], Rows]


def _all(ref: TableRef) -> Callable[[Session, Storage], Rows]:
    return lambda session, storage: _rows(session, storage, ref)


def _newest(ref: TableRef) -> Callable[[Session, Storage], Rows]:
    return lambda session, storage: outbox.newest(session, storage, ref)


def _open_incidents(session: Session, storage: Storage) -> Rows:
    rows = _rows(session, storage, notifier.INCIDENTS_TABLE)
    return [{**row, "open": row["count"]} for row in rows if row["state"] == "open"]


def _rows(session: Session, storage: Storage, ref: TableRef) -> Rows:
    """All rows of a small table; none of one that does not exist."""
    table = open_existing(storage.uri(ref))
    if table is None or not table.files:
        return []
    return session.dicts(session.read(table.paths(), table.columns), *table.columns)


_GROUPS = (
    _Group("lakehouse_job", ("job", "time_window"), _SLO, _all(TableRef("gold", "slo_jobs"))),
    _Group("lakehouse_asset", ("asset", "time_window"), _SLO, _all(TableRef("gold", "slo_assets"))),
    _Group("lakehouse_feed", ("feed", "time_window"), _FEED, _all(TableRef("gold", "slo_feeds"))),
    _Group("lakehouse_table", ("layer", "table"), _TABLE, _newest(table_health.HEALTH_TABLE)),
    _Group("lakehouse_kafka", ("topic", "group"), _KAFKA, _newest(topics.KAFKA_TABLE)),
    _Group("lakehouse_kafka_partition", ("topic", "group", "partition"), _PARTITION, _newest(topics.LAG_TABLE)),
    _Group("lakehouse_service", ("service",), _SERVICE, _newest(services.SERVICES_TABLE)),
    _Group("lakehouse_incident", ("key", "severity"), _INCIDENT, _open_incidents),
)


class LakeMetrics:
    """What a registry of prometheus_client collects of a lake. An answer is given again for `fresh` seconds."""

    def __init__(self, storage: Storage, *, fresh: float = 0.0) -> None:
        self._storage, self._fresh = storage, fresh
        self._lock = Lock()  # one scrape reads, the others wait for what it found
        self._at = float("-inf")
        self._found: list[Metric] = []

    def describe(self) -> "Iterator[Metric]":
        """Every metric that there can be, without samples: nothing is read when the collector is registered."""
        for group in _GROUPS:
            for name in group.gauges:
                yield _gauge(group, name, ())

    def collect(self) -> "list[Metric]":
        """Every metric that has a sample.

        Raises:
            BrokenTableError: a table cannot be read.
            StoreError: the store does not answer.
        """
        with self._lock:
            if time.monotonic() - self._at >= self._fresh:
                self._found = self._read()
                self._at = time.monotonic()
            return self._found

    def _read(self) -> "list[Metric]":
        with outbox.small_session(self._storage) as session:
            gauges = [
                _gauge(group, name, rows)
                for group in _GROUPS
                for rows in [group.rows(session, self._storage)]
                for name in group.gauges
            ]
        return [gauge for gauge in gauges if gauge.samples]


def _gauge(group: _Group, name: str, rows: Iterable[Mapping[str, Any]]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(f"{group.prefix}_{name}", group.gauges[name], labels=group.labels)
    for row in rows:
        if row.get(name) is not None:
            gauge.add_metric([str(row[label] or "") for label in group.labels], float(row[name]))
    return gauge


def _registry(storage: Storage, *, fresh: float = 0.0) -> "CollectorRegistry":
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(LakeMetrics(storage, fresh=fresh))
    return registry


def text(storage: Storage) -> str:
    """All metrics.

    Raises:
        BrokenTableError: a table cannot be read.
        StoreError: the store does not answer.
    """
    from prometheus_client import generate_latest

    return generate_latest(_registry(storage)).decode()


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not news."""


def serve(storage: Storage, *, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
    """Serve `GET /metrics` until the process ends; `/health` answers without reading anything.

    Args:
        ready: is told the port when it listens.
    """
    from prometheus_client import make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    metrics = make_wsgi_app(_registry(storage, fresh=_FRESH_SECONDS))

    def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, body = "200 OK", "ok\n"
        if request["PATH_INFO"] == "/metrics":
            try:
                return metrics(request, start)
            except LakehouseError as error:
                status, body = "503 Service Unavailable", f"{error.what}\n"
        elif request["PATH_INFO"] != "/health":
            status, body = "404 Not Found", "GET /metrics\n"
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body.encode())))])
        return [body.encode()]

    with make_server(host, port, answer, ThreadingWSGIServer, handler_class=_Quiet) as server:
        ready(server.server_port)
        server.serve_forever()


def run(storage: Storage, *, host: str, port: int) -> int:
    """Print the metrics, or serve them where a port is given."""
    if port:
        serve(storage, host=host, port=port, ready=lambda port: print(f"http://{host}:{port}/metrics", flush=True))
    else:
        print(text(storage), end="")
    return 0
