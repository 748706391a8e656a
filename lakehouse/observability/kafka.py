"""Kafka: sending with acknowledgement, and what topics and consumer groups look like. The only place with a Kafka client."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lakehouse.core.errors import DeclarationError, LakehouseError, install
from lakehouse.core.text import one_line

_QUIET = logging.getLogger("lakehouse.kafka")
_QUIET.setLevel(logging.CRITICAL)
#: librdkafka repeats "connection refused" by the second; what counts is raised.
_SILENT = {"logger": _QUIET, "log_level": 0}


class KafkaError(LakehouseError):
    """The brokers do not answer, or refuse."""


def client(name: str) -> Any:
    """A class of the client library.

    Raises:
        DeclarationError: it is not installed.
    """
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ModuleNotFoundError:
        raise DeclarationError(
            "LAKEHOUSE_KAFKA_BOOTSTRAP is set, but confluent-kafka is not installed.",
            remedy=f"{install('alerts')}, or unset it.",
        ) from None
    return getattr(confluent_kafka.admin, name, None) or getattr(confluent_kafka, name)


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
            **_SILENT,
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
    with _explained(bootstrap):
        admin = _admin(bootstrap)
        found = admin.list_topics(timeout=timeout).topics.get(topic)
        if found is None or found.error is not None:
            return set()
        numbers = [number for number, part in found.partitions.items() if part.leader >= 0]
        begins, ends = (_offsets(admin, topic, numbers, which, timeout) for which in ("earliest", "latest"))
        starts = {number: max(since.get(number, 0), begins[number]) for number in numbers}
        left = {number for number in numbers if ends[number] > starts[number]}
        if not left:
            return set()
        ids: set[str] = set()
        with _consumer(bootstrap) as consumer:
            consumer.assign([client("TopicPartition")(topic, number, starts[number]) for number in left])
            while left:
                messages = consumer.consume(10_000, timeout=timeout)
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


def topics(bootstrap: str, watched: Sequence[tuple[str, str]], *, timeout: float) -> list[TopicHealth]:
    """The health of topics, each with a group or without. One that does not exist has no partitions.

    Raises:
        KafkaError: the brokers do not answer within `timeout` seconds, each call.
    """
    with _explained(bootstrap):
        admin = _admin(bootstrap)
        known = admin.list_topics(timeout=timeout).topics
        return [_topic(admin, bootstrap, known.get(name), watched=(name, group), timeout=timeout) for name, group in watched]


def _admin(bootstrap: str) -> Any:
    return client("AdminClient")({"bootstrap.servers": bootstrap, "socket.connection.setup.timeout.ms": 5000, **_SILENT})


@contextmanager
def _consumer(bootstrap: str) -> Iterator[Any]:
    """A consumer of partitions that it is told: it joins no group and commits nothing."""
    name = "lakehouse-monitoring"
    settings = {"group.id": name, "enable.auto.commit": False, "enable.partition.eof": False, **_SILENT}
    consumer = client("Consumer")({"bootstrap.servers": bootstrap, **settings})
    try:
        yield consumer
    finally:
        consumer.close()


def _topic(admin: Any, bootstrap: str, found: Any, *, watched: tuple[str, str], timeout: float) -> TopicHealth:
    topic, group = watched
    if found is None or found.error is not None:
        return TopicHealth(topic, group, 0, 0, 0, 0, None, None, None)
    partition = client("TopicPartition")
    led = [number for number, part in found.partitions.items() if part.leader >= 0]
    leaderless = len(found.partitions) - len(led)
    ends = _offsets(admin, topic, led, "latest", timeout)
    begins = _offsets(admin, topic, led, "earliest", timeout)
    newest = _newest(bootstrap, topic, begins, ends, timeout)
    committed: Mapping[int, int] = {}
    if group:
        asked = client("ConsumerGroupTopicPartitions")(group, [partition(topic, number) for number in led])
        reply = admin.list_consumer_group_offsets([asked], request_timeout=timeout)[group].result(timeout)
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


def _offsets(admin: Any, topic: str, partitions: Sequence[int], which: str, timeout: float) -> dict[int, int]:
    partition, spec = client("TopicPartition"), client("OffsetSpec")
    wanted = {partition(topic, number): getattr(spec, which)() for number in partitions}
    asked = admin.list_offsets(wanted, request_timeout=timeout) if wanted else {}
    return {part.partition: reply.result(timeout).offset for part, reply in asked.items()}


def _newest(bootstrap: str, topic: str, begins: Mapping[int, int], ends: Mapping[int, int], timeout: float) -> int | None:
    """The instant of the newest message: the last of each partition is read. The broker's own index knows the greatest
    timestamp, but a transaction's marker or a compacted tail hides it."""
    last = [client("TopicPartition")(topic, number, end - 1) for number, end in ends.items() if end > begins[number]]
    if not last:
        return None
    with _consumer(bootstrap) as consumer:
        consumer.assign(last)
        found: list[int] = []
        for _ in last:
            message = consumer.poll(min(timeout, 2.0))
            if message is None:
                break
            if message.error() is None:
                found.append(message.timestamp()[1])
        return max(found, default=None)


@contextmanager
def _explained(bootstrap: str) -> Iterator[None]:
    from concurrent.futures import TimeoutError as Expired

    failure = client("KafkaException")
    try:
        yield
    except (failure, Expired) as error:
        reported = error.args[0].str() if isinstance(error, failure) else "no answer in time"
        raise KafkaError(
            f"Kafka at {bootstrap} does not answer: {one_line(reported, limit=120)}.",
            remedy="Check that the brokers run and LAKEHOUSE_KAFKA_BOOTSTRAP.",
        ) from None


def reach(bootstrap: str, *, timeout: float) -> None:
    """See that a broker answers.

    Raises:
        KafkaError: none does within `timeout` seconds.
    """
    with _explained(bootstrap):
        _admin(bootstrap).list_topics(timeout=timeout)
