"""Topics: rows of `ops/kafka_health`, with what has come since the last look, and of `ops/kafka_lag`, a row per partition that a
group reads. The brokers are asked in `kafka.py`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.text import one_line
from lakehouse.observability import kafka, outbox
from lakehouse.observability.deadline import within
from lakehouse.settings import Settings, listed
from lakehouse.tables.spec import KafkaTopic
from lakehouse.tables.spec.setting import plain

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
LAG_TABLE = TableRef("ops", "kafka_lag")
LAG_COLUMNS = {
    "measured_at": "timestamp",
    "run_id": "string",
    "topic": "string",
    "group": "string",
    "partition": "bigint",
    "begin_offset": "bigint",
    "end_offset": "bigint",
    "committed": "bigint",
    "lag": "bigint",
    "max_lag": "bigint",
}
_RECENT = timedelta(days=1)


@dataclass(frozen=True)
class Watched:
    """A topic that is looked at, with a group that reads it, or `""`; more than `max_lag` messages unread is an alert."""

    topic: str
    group: str = ""
    max_lag: int | None = None


@dataclass(frozen=True)
class Look:
    """Rows of `ops/kafka_health` and of `ops/kafka_lag`."""

    topics: list[dict[str, Any]]
    lags: list[dict[str, Any]]

    @property
    def behind(self) -> list[str]:
        """What is behind by more than its bound, in words."""
        bounds = {(row["topic"], row["group"]): row["max_lag"] for row in self.lags}
        return [
            f"{row['group']} has not read {row['lag']:,} messages of {row['topic']} (at most {bound:,})"
            for row in self.topics
            if (bound := bounds.get((row["topic"], row["group"]))) is not None and row["lag"] > bound
        ]


def watched(text: str, *, max_lag: int) -> list[Watched]:
    """What a setting `topic:group:bound,...` names; without a bound of its own a group has `max_lag`."""
    out = []
    for each in listed(text):
        topic, group, bound, *_ = [*each.split(":"), "", ""]
        out.append(Watched(topic, group, (int(bound) if bound else max_lag) if group else None))
    return out


@dataclass(frozen=True)
class Brokers:
    """Brokers by their address and the client's options for them."""

    bootstrap: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def by_brokers(settings: Settings, own: Iterable[str]) -> dict[Brokers, list[Watched]]:
    """What is looked at, by the brokers that have it: our own topics, those of LAKEHOUSE_KAFKA_TOPICS, and every declared
    source with its group, unless that setting names both with a bound.
    """
    found: dict[Brokers, list[Watched]] = {}
    if settings.kafka_bootstrap:
        named = watched(settings.kafka_topics, max_lag=settings.kafka_max_lag)
        found[Brokers(settings.kafka_bootstrap)] = [*map(Watched, own), *named]
    for system in settings.sources:
        if isinstance(system, KafkaTopic) and plain(system.url):
            options = tuple(sorted((name, plain(value)) for name, value in system.options.items()))
            beside = found.setdefault(Brokers(plain(system.url), options), [])
            pair = plain(system.topic), system.group
            if pair not in [(one.topic, one.group) for one in beside]:
                beside.append(Watched(*pair, settings.kafka_max_lag))
    return found


def look_at_all(
    storage: Storage, wanted: Mapping[Brokers, Sequence[Watched]], *, at: datetime, run_id: str, patience: float
) -> Look:
    """The looks at all brokers as one."""
    looks = [
        look(storage, brokers.bootstrap, each, at=at, run_id=run_id, patience=patience, options=dict(brokers.options))
        for brokers, each in wanted.items()
    ]
    return Look([row for one in looks for row in one.topics], [row for one in looks for row in one.lags])


def look(
    storage: Storage,
    bootstrap: str,
    wanted: Sequence[Watched],
    *,
    at: datetime,
    run_id: str,
    patience: float,
    options: Mapping[str, str] | None = None,
) -> Look:
    """A row per topic and group. Brokers that do not answer within `patience` seconds give rows that say so."""
    if not wanted:
        return Look([], [])
    base = {"measured_at": at, "run_id": run_id}
    pairs = [(each.topic, each.group) for each in wanted]
    try:
        found = within(patience, lambda: kafka.topics(bootstrap, pairs, timeout=patience / 2, options=options), what="topics")
    except LakehouseError as error:
        reported = one_line(error.what)
        return Look(
            [{**base, "topic": topic, "group": group, "leaderless": None, "error": reported} for topic, group in pairs], []
        )
    before = _ends(storage, at)
    bounds = {(each.topic, each.group): each.max_lag for each in wanted}
    lags = [
        {
            **base,
            "topic": health.topic,
            "group": health.group,
            "partition": part.partition,
            "begin_offset": part.begin,
            "end_offset": part.end,
            "committed": part.committed,
            "lag": part.lag,
            "max_lag": bounds[health.topic, health.group],
        }
        for health in found
        for part in health.parts
    ]
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
    return Look(out, lags)


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
