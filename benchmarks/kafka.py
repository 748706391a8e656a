"""A million messages of a topic to landed files, beside a bare consumer that writes JSON Lines.

    python -m benchmarks.kafka fill <topic> <messages>     two partitions, values of 500 bytes, by the brokers of BENCH_KAFKA
    python -m benchmarks.kafka ours <topic> <folder>       what the landing asset does
    python -m benchmarks.kafka bare <topic> <folder>       values as they are, a line each: no key, no offset, once by luck

The clock starts when the modules are loaded.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import pandas  # noqa: F401 - pyarrow imports it with the first array; so does every run before its first step
import pyarrow.compute
import pyarrow.parquet  # noqa: F401

from benchmarks.measure import BenchmarkError
from lakehouse.core import kafka as brokers
from lakehouse.core.store.storage import Storage, lock
from lakehouse.landing.sources import kafka

SIZE, _BATCH, _PATIENCE = 500, 10_000, 30.0


def _bootstrap() -> str:
    return os.environ["BENCH_KAFKA"]


def fill(topic: str, messages: int) -> None:
    """Make the topic with messages of SIZE bytes."""
    admin = brokers.admin(_bootstrap())
    admin.create_topics([brokers.client("NewTopic")(topic, num_partitions=2)])[topic].result(30)
    settings = {"linger.ms": 50, "batch.size": 500_000, "queue.buffering.max.messages": 1_000_000, "compression.type": "lz4"}
    producer: Any = confluent_kafka.Producer({"bootstrap.servers": _bootstrap(), **settings})
    for number in range(messages):
        symbol = f"PAPEL{number % 997}"
        record = {"symbol": symbol, "price": f"{number % 9973}.25", "quantity": number, "at": "2026-01-01T00:00:00Z"}
        value = json.dumps(record)[:-1] + ',"note":"'
        producer.produce(topic, value=value + "x" * (SIZE - len(value) - 2) + '"}', key=symbol, partition=number % 2)
        if number % 1_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise BenchmarkError("The broker did not take all messages.")


def ours(topic: str, folder: Path) -> int:
    """Land them; how many there were."""
    storage = Storage(root=f"{folder}/lake", landing=f"{folder}/landing")
    declared = kafka.Topic(
        bootstrap=_bootstrap(), name=topic, folder="quotes", setting="BENCH_KAFKA", key="symbol", group=f"{topic}-ours"
    )
    with lock(f"{storage.landing}/raw/quotes"):
        return kafka.take(declared, storage, folder, stop=time.monotonic() + 600).messages


def bare(topic: str, folder: Path) -> int:
    """What has to be done at least."""
    settings = {"bootstrap.servers": _bootstrap(), "group.id": f"{topic}-bare", "enable.auto.commit": False}
    consumer: Any = confluent_kafka.Consumer(settings)
    partition: Any = confluent_kafka.TopicPartition
    ends = [consumer.get_watermark_offsets(partition(topic, number), timeout=_PATIENCE)[1] for number in (0, 1)]
    consumer.assign([partition(topic, number, 0) for number in (0, 1)])
    found, wanted = 0, sum(ends)
    with (folder / "quotes.jsonl").open("wb") as out:
        while found < wanted:
            messages = consumer.consume(min(_BATCH, wanted - found), timeout=_PATIENCE)
            if not messages:
                raise BenchmarkError("The broker gives nothing.")
            for message in messages:
                out.write(message.value())
                out.write(b"\n")
            found += len(messages)
    consumer.close()
    return found


def main() -> None:
    """Do what was asked for and print what it took."""
    what, topic, last = sys.argv[1:4]
    if what == "fill":
        fill(topic, int(last))
        return
    folder = Path(last).absolute()
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    messages = {"ours": ours, "bare": bare}[what](topic, folder)
    print(json.dumps({"seconds": time.perf_counter() - begun, "messages": messages}))


if __name__ == "__main__":
    main()
