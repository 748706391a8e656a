"""Kafka: sending with acknowledgement, and what topics and consumer groups look like. Connections are in `core/kafka.py`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lakehouse.core.kafka import SILENT, KafkaError, admin, client, consumer, explained, offsets
from lakehouse.core.text import one_line


def produce(bootstrap: str, topic: str, messages: Sequence[tuple[str, str, bytes]], *, timeout: float) -> dict[int, int]:
    """Send messages, each `(id, key, value)`, and wait until the brokers have all of them. The id is also a header.

    Returns the offset after the last one, by partition. The producer is idempotent: the client's own retries double nothing.

    Raises:
        KafkaError: at least one was not acknowledged within `timeout` seconds. Some of them may have arrived.
    """
    unacknowledged = len(messages)
    errors: list[str] = []
    ends: dict[int, int] = {}

    def report(error: Any, message: Any) -> None:
        nonlocal unacknowledged
        if error is not None:
            errors.append(error.str())
            return
        unacknowledged -= 1
        ends[message.partition()] = max(ends.get(message.partition(), 0), message.offset() + 1)

    producer = client("Producer")(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "message.timeout.ms": int(timeout * 1000),
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "socket.connection.setup.timeout.ms": 5000,
            **SILENT,
        }
    )
    for identity, key, value in messages:
        producer.produce(topic, value=value, key=key.encode(), headers={"id": identity.encode()}, on_delivery=report)
        producer.poll(0)
    producer.flush(timeout + 1)
    if unacknowledged:
        producer.purge()
        producer.flush(1)
        raise KafkaError(
            f"Kafka at {bootstrap} did not acknowledge {unacknowledged:,} of {len(messages):,} messages to {topic}: "
            f"{one_line(errors[0] if errors else 'no answer in time', limit=120)}.",
            remedy="Check that the brokers run and LAKEHOUSE_KAFKA_BOOTSTRAP; it is tried again.",
        )
    return ends


def arrived(bootstrap: str, topic: str, since: Mapping[int, int], *, timeout: float) -> set[str]:
    """The ids (headers) of the messages from these offsets on, by partition; a partition not named is read from its begin.

    Raises:
        KafkaError: the brokers do not answer within `timeout` seconds, each call.
    """
    with explained(bootstrap):
        asked = admin(bootstrap)
        found = asked.list_topics(timeout=timeout).topics.get(topic)
        if found is None or found.error is not None:
            return set()
        numbers = [number for number, part in found.partitions.items() if part.leader >= 0]
        begins, ends = (offsets(asked, topic, numbers, which, timeout) for which in ("earliest", "latest"))
        starts = {number: max(since.get(number, 0), begins[number]) for number in numbers}
        left = {number for number in numbers if ends[number] > starts[number]}
        if not left:
            return set()
        ids: set[str] = set()
        with _consumer(bootstrap) as reader:
            reader.assign([client("TopicPartition")(topic, number, starts[number]) for number in left])
            while left:
                messages = reader.consume(10_000, timeout=timeout)
                if not messages:
                    raise KafkaError(f"Kafka at {bootstrap} does not give back {topic}.", remedy="Look at the brokers' log.")
                for message in messages:
                    if message.error() is not None:
                        raise client("KafkaException")(message.error())
                    ids |= {value.decode() for name, value in message.headers() or () if name == "id"}
                    if message.offset() + 1 >= ends[message.partition()]:
                        left.discard(message.partition())
        return ids


@dataclass(frozen=True)
class PartitionLag:
    """How far a group is in one partition, whose kept messages have the offsets from `begin` to before `end`.

    `committed` is None where the group never committed.
    """

    partition: int
    begin: int
    end: int
    committed: int | None

    @property
    def lag(self) -> int:
        """Messages that the group has not read. A position outside what is kept (the topic was made anew, or messages expired)
        is none: a consumer begins again there, so all that is kept is unread."""
        at = self.committed
        return self.end - (at if at is not None and self.begin <= at <= self.end else self.begin)


@dataclass(frozen=True)
class TopicHealth:
    """One topic, and one group that reads it (`group` is empty for none).

    Args:
        end_offset: sum of the partitions' ends; `messages` what is still kept.
        committed: sum of the group's positions; `lag` of what it has not read, `parts` by partition.
        newest_ms: the newest message's instant, milliseconds since 1970; None where there is no message.
        leaderless: partitions without a leader.
    """

    topic: str
    group: str
    partitions: int
    leaderless: int
    end_offset: int
    messages: int
    committed: int | None
    lag: int | None
    newest_ms: int | None
    parts: tuple[PartitionLag, ...] = ()


def topics(
    bootstrap: str, watched: Sequence[tuple[str, str]], *, timeout: float, options: Mapping[str, str] | None = None
) -> list[TopicHealth]:
    """The health of topics, each with a group or without. One that does not exist has no partitions.

    Raises:
        KafkaError: the brokers do not answer within `timeout` seconds, each call.
    """
    with explained(bootstrap):
        asked = admin(bootstrap, options)
        known = asked.list_topics(timeout=timeout).topics
        with _consumer(bootstrap, options) as reader:
            return [_topic(asked, reader, known.get(name), watched=(name, group), timeout=timeout) for name, group in watched]


@contextmanager
def _consumer(bootstrap: str, options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A consumer that is closed after the block."""
    made = consumer(bootstrap, "lakehouse-monitoring", options)
    try:
        yield made
    finally:
        made.close()


def _topic(asked: Any, reader: Any, found: Any, *, watched: tuple[str, str], timeout: float) -> TopicHealth:
    topic, group = watched
    if found is None or found.error is not None:
        return TopicHealth(topic, group, 0, 0, 0, 0, None, None, None)
    partition = client("TopicPartition")
    led = [number for number, part in found.partitions.items() if part.leader >= 0]
    leaderless = len(found.partitions) - len(led)
    ends = offsets(asked, topic, led, "latest", timeout)
    begins = offsets(asked, topic, led, "earliest", timeout)
    newest = _newest(reader, topic, begins, ends, timeout)
    committed: Mapping[int, int] = {}
    if group:
        wanted = client("ConsumerGroupTopicPartitions")(group, [partition(topic, number) for number in led])
        reply = asked.list_consumer_group_offsets([wanted], request_timeout=timeout)[group].result(timeout)
        committed = {part.partition: part.offset for part in reply.topic_partitions if part.offset >= 0}
    parts = [PartitionLag(number, begins[number], ends[number], committed.get(number)) for number in sorted(ends) if group]
    return TopicHealth(
        topic,
        group,
        len(found.partitions),
        leaderless,
        sum(ends.values()),
        sum(ends[number] - begins[number] for number in ends),
        sum(committed.values()) if group else None,
        sum(part.lag for part in parts) if group else None,
        newest,
        tuple(parts),
    )


def _newest(reader: Any, topic: str, begins: Mapping[int, int], ends: Mapping[int, int], timeout: float) -> int | None:
    """The instant of the newest message: the last of each partition is read. The broker's own index knows the greatest
    timestamp, but a transaction's marker or a compacted tail hides it."""
    last = [client("TopicPartition")(topic, number, end - 1) for number, end in ends.items() if end > begins[number]]
    if not last:
        return None
    reader.assign(last)
    found: list[int] = []
    for _ in last:
        message = reader.poll(min(timeout, 2.0))
        if message is None:
            break
        if message.error() is None:
            found.append(message.timestamp()[1])
    return max(found, default=None)


def reach(bootstrap: str, *, timeout: float) -> None:
    """See that a broker answers.

    Raises:
        KafkaError: none does within `timeout` seconds.
    """
    with explained(bootstrap):
        admin(bootstrap).list_topics(timeout=timeout)
