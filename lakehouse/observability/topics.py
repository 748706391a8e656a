"""Topics: rows of `ops/kafka_health`, with what has come since the last look. The brokers are asked in `kafka.py`."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.text import one_line
from lakehouse.observability import kafka, outbox
from lakehouse.observability.deadline import within

KAFKA_TABLE = TableRef("ops", "kafka_health")
COLUMNS = {
    "measured_at": "timestamp",
    "run_id": "string",
    "topic": "string",
    "group": "string",
    "partitions": "bigint",
    "leaderless": "bigint",
    "end_offset": "bigint",
    "messages": "bigint",
    "since_last": "bigint",
    "committed": "bigint",
    "lag": "bigint",
    "newest_at": "timestamp",
    "newest_age_seconds": "double",
    "error": "string",
}
_RECENT = timedelta(days=1)


def look(
    storage: Storage,
    bootstrap: str,
    watched: Sequence[tuple[str, str]],
    *,
    at: datetime,
    run_id: str,
    patience: float,
) -> list[dict[str, Any]]:
    """A row per topic and group. Brokers that do not answer within `patience` seconds give rows that say so."""
    if not watched:
        return []
    base = {"measured_at": at, "run_id": run_id}
    try:
        found = within(patience, lambda: kafka.topics(bootstrap, watched, timeout=patience / 2), what="topics")
    except LakehouseError as error:
        reported = one_line(error.what)
        return [{**base, "topic": topic, "group": group, "leaderless": None, "error": reported} for topic, group in watched]
    before = _ends(storage, at)
    out = []
    for health in found:
        newest = datetime.fromtimestamp(health.newest_ms / 1000, tz=UTC) if health.newest_ms is not None else None
        last = before.get((health.topic, health.group))
        fields = {name: value for name, value in vars(health).items() if name in COLUMNS}
        out.append(
            {
                **base,
                **fields,
                "since_last": health.end_offset - last if last is not None and health.end_offset >= last else None,
                "newest_at": newest,
                "newest_age_seconds": round((at - newest).total_seconds(), 3) if newest else None,
                "error": "",
            }
        )
    return out


def _ends(storage: Storage, at: datetime) -> dict[tuple[str, str], int]:
    """The end offsets of the last look at each topic and group, of those within a day."""
    import narwhals as nw

    table = open_existing(storage.uri(KAFKA_TABLE))
    if table is None:
        return {}
    since = at - _RECENT
    chosen = [file for file in table.files if file.upper.get("measured_at") is None or file.upper["measured_at"] >= since]
    with outbox.small_session(storage) as session:
        frame = session.read(table.paths(chosen), COLUMNS).filter(~nw.col("end_offset").is_null()).sort("measured_at")
        rows = session.rows(frame.select("topic", "group", "end_offset"))
    return {(topic, group): end for topic, group, end in rows}
