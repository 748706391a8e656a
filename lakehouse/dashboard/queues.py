"""The queries of *Filas*: topics and groups as `ops/kafka_health` measured them last; their partitions, `ops/kafka_lag`."""

from dataclasses import dataclass

from lakehouse.dashboard.reading import Lake, Row
from lakehouse.observability import outbox
from lakehouse.observability.topics import KAFKA_TABLE, LAG_TABLE


@dataclass(frozen=True)
class Queues:
    """The last measurement.

    Attributes:
        topics: a row per topic and group, by name.
        partitions: a row per partition that a group reads, the longest queue first.
    """

    topics: list[Row]
    partitions: list[Row]

    def is_bad(self, row: Row) -> bool:
        """Whether a topic does not answer, has no leader, or its group is behind by more than its bound."""
        return bool(row["error"] or row["leaderless"] or (row["lag"] is not None and row["lag"] > self.bound(row)))

    def bound(self, row: Row) -> int | float:
        """How many messages the group of a topic may not have read."""
        mine = [part["max_lag"] for part in self.partitions if (part["topic"], part["group"]) == (row["topic"], row["group"])]
        return mine[0] if mine and mine[0] is not None else float("inf")


def read(lake: Lake) -> Queues:
    """What was measured last."""
    found = sorted(outbox.newest(lake.session, lake.storage, KAFKA_TABLE), key=lambda row: (row["topic"], row["group"]))
    at = found[0]["measured_at"] if found else None
    parts = [row for row in outbox.newest(lake.session, lake.storage, LAG_TABLE) if row["measured_at"] == at]
    return Queues(found, sorted(parts, key=lambda row: (-row["lag"], row["topic"], row["group"], row["partition"])))
