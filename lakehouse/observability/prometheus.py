"""Metrics as Prometheus text: `make metrics` prints them, and `python -m lakehouse metrics --port 9464` serves them.

    gold/slo_jobs, gold/slo_assets, ops/table_health, ops/kafka_health, ops/service_health, ops/incidents ─▶ text

Read from the lake's own tables as they are now; nothing is measured here. A table that is not there yet has no lines.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lakehouse.core.delta import open_existing
from lakehouse.core.engines import Session
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.storage import Storage
from lakehouse.observability import health, notifier, outbox, services, topics

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
#: A scrape asks as often as it likes; the tables change every five minutes.
_FRESH_SECONDS = 10.0


def text(storage: Storage) -> str:
    """All metrics.

    Raises:
        BrokenTableError: a table cannot be read.
        StoreError: the store does not answer.
    """
    lines: list[str] = []
    with outbox.small_session(storage) as session:
        for name in ("job", "asset"):
            rows = table_rows(session, storage, TableRef("gold", f"slo_{name}s"))
            _write(lines, f"lakehouse_{name}", _SLO, rows, labels=(name, "time_window"))
        _write(lines, "lakehouse_table", _TABLE, newest(session, storage, health.HEALTH_TABLE), labels=("layer", "table"))
        _write(lines, "lakehouse_kafka", _KAFKA, newest(session, storage, topics.KAFKA_TABLE), labels=("topic", "group"))
        up = newest(session, storage, services.SERVICES_TABLE)
        service = {"healthy": "1 when it answered.", "milliseconds": "How long it took."}
        _write(lines, "lakehouse_service", service, up, labels=("service",))
        incidents = table_rows(session, storage, notifier.INCIDENTS_TABLE)
        standing = [{**row, "open": row["count"]} for row in incidents if row["state"] == "open"]
        what = {"open": "How often what is still wrong has occurred."}
        _write(lines, "lakehouse_incident", what, standing, labels=("key", "severity"))
    return "\n".join([*lines, ""])


def table_rows(session: Session, storage: Storage, ref: TableRef) -> list[dict[str, Any]]:
    """All rows of a small table; none of one that is not there."""
    table = open_existing(storage.uri(ref))
    if table is None or not table.files:
        return []
    frame = session.read(table.paths(), table.columns).select(*table.columns)
    return [dict(zip(table.columns, row, strict=True)) for row in session.rows(frame)]


def newest(session: Session, storage: Storage, ref: TableRef) -> list[dict[str, Any]]:
    """The rows of the last measurement. Files of earlier ones are not opened."""
    import narwhals as nw

    table = open_existing(storage.uri(ref))
    bounds = [file.upper["measured_at"] for file in table.files if "measured_at" in file.upper] if table else []
    if table is None or not bounds:
        return []
    near = [file for file in table.files if file.upper.get("measured_at", max(bounds)) >= max(bounds)]
    frame = session.read(table.paths(near), table.columns).select(*table.columns)
    last = session.rows(frame.select(nw.col("measured_at").max()))[0][0]
    rows = session.rows(frame.filter(nw.col("measured_at") == last))
    return [dict(zip(table.columns, row, strict=True)) for row in rows]


def _write(
    lines: list[str],
    prefix: str,
    metrics: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    *,
    labels: tuple[str, ...],
) -> None:
    kept = list(rows)
    for name, description in metrics.items():
        values = [(row, row[name]) for row in kept if row.get(name) is not None]
        if not values:
            continue
        lines += [f"# HELP {prefix}_{name} {description}", f"# TYPE {prefix}_{name} gauge"]
        for row, value in values:
            listed = ",".join(f'{label}="{_escaped(str(row[label] or ""))}"' for label in labels)
            lines.append(f"{prefix}_{name}{{{listed}}} {float(value):.10g}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def serve(storage: Storage, *, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
    """Serve `GET /metrics` until the process ends; `/health` answers without reading anything.

    Args:
        ready: is told the port when it listens.
    """
    kept: dict[str, Any] = {"at": 0.0, "text": ""}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            status, body = 200, "ok\n"
            if self.path.partition("?")[0] == "/metrics":
                try:
                    if time.monotonic() - kept["at"] > _FRESH_SECONDS:
                        kept.update(at=time.monotonic(), text=text(storage))
                    body = kept["text"]
                except LakehouseError as error:
                    status, body = 503, f"{error.what}\n"
            elif self.path != "/health":
                status, body = 404, "GET /metrics\n"
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Scrapes are not news."""

    with ThreadingHTTPServer((host, port), Handler) as server:
        server.daemon_threads = True
        ready(server.server_address[1])
        server.serve_forever()


def run(storage: Storage, *, host: str, port: int) -> int:
    """Print the metrics, or serve them where a port is given."""
    if port:
        serve(storage, host=host, port=port, ready=lambda port: print(f"http://{host}:{port}/metrics", flush=True))
    else:
        print(text(storage), end="")
    return 0
