"""Kafka's client library: connections to brokers, what a topic has, and what the library's errors mean.

Here: what every room asks of brokers. Not here: what is sent to them (`observability/kafka.py`), what lands from them
(`landing/sources/kafka.py`).
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lakehouse.core.errors import DeclarationError, LakehouseError, install
from lakehouse.core.text import one_line

BOOTSTRAP = "LAKEHOUSE_KAFKA_BOOTSTRAP"
_QUIET = logging.getLogger("lakehouse.kafka")
_QUIET.setLevel(logging.CRITICAL)
#: librdkafka repeats "connection refused" by the second; what counts is raised.
SILENT = {"logger": _QUIET, "log_level": 0}
_CONNECT = {"socket.connection.setup.timeout.ms": 5000, **SILENT}


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
            "confluent-kafka, the client of Kafka, is not installed.", remedy=f"{install('alerts')}, or unset {BOOTSTRAP}."
        ) from None
    return getattr(confluent_kafka.admin, name, None) or getattr(confluent_kafka, name)


def is_address(bootstrap: str) -> bool:
    """Whether a text is `host:port`, or several with commas between them."""
    parts = [part.strip() for part in bootstrap.split(",") if part.strip()]
    return bool(parts) and all(re.fullmatch(r"[^:/\s]+:\d+", part) for part in parts)


def admin(bootstrap: str, options: Mapping[str, str] | None = None) -> Any:
    """A client that asks about topics and groups."""
    return client("AdminClient")({**(options or {}), "bootstrap.servers": bootstrap, **_CONNECT})


def consumer(bootstrap: str, group: str, options: Mapping[str, Any] | None = None) -> Any:
    """A consumer of partitions that it is assigned: it joins no group, and commits nothing by itself."""
    fixed = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    return client("Consumer")({**(options or {}), **fixed, **_CONNECT})


def offsets(
    asked: Any, topic: str, partitions: Sequence[int], which: str, timeout: float, *, committed: bool = False
) -> dict[int, int]:
    """The first (`earliest`) or the next (`latest`) offset of partitions.

    Args:
        asked: of `admin`.
        committed: the next offset is that of the first transaction which is still open.
    """
    partition, spec = client("TopicPartition"), client("OffsetSpec")
    wanted = {partition(topic, number): getattr(spec, which)() for number in partitions}
    level = getattr(client("IsolationLevel"), "READ_COMMITTED" if committed else "READ_UNCOMMITTED")
    found = asked.list_offsets(wanted, request_timeout=timeout, isolation_level=level) if wanted else {}
    return {part.partition: reply.result(timeout).offset for part, reply in found.items()}


@contextmanager
def explained(bootstrap: str, *, setting: str = BOOTSTRAP) -> Iterator[None]:
    """What the library raises in the block, as a KafkaError that names the brokers and their setting."""
    from concurrent.futures import TimeoutError as Expired

    failure = client("KafkaException")
    try:
        yield
    except (failure, Expired) as error:
        reported = error.args[0].str() if isinstance(error, failure) else "no answer in time"
        raise KafkaError(
            f"Kafka at {bootstrap} does not answer: {one_line(reported, limit=120)}.",
            remedy=f"Check that the brokers run and {setting}.",
        ) from None
