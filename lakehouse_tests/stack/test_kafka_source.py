"""A Kafka topic to silver against a real broker: each message once, whatever ends, expires or is made again."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core import kafka as brokers
from lakehouse.core.errors import LakehouseError, SourceDownError, SourceRefusedError
from lakehouse.core.store.storage import lock
from lakehouse.landing.sources import kafka
from lakehouse.landing.sources.kafka_spans import Spans
from lakehouse.landing.sources.registry import Extraction, Work, extract
from lakehouse.tables.spec import Column, KafkaTopic, TableSpec
from lakehouse_tests.conftest import Lake
from lakehouse_tests.stack.conftest import running

COLUMNS = (
    Column("symbol", "string"),
    Column("price", "decimal(12,4)"),
    Column("kafka_partition", "bigint"),
    Column("kafka_offset", "bigint"),
    Column("kafka_epoch", "bigint"),
    Column("kafka_timestamp", "timestamp"),
    Column("kafka_key", "string"),
    Column("kafka_headers", "string"),
    Column("kafka_deleted", "boolean"),
)


@dataclass
class Quotes:
    """A topic of its own, its declaration, and the lake that it lands in."""

    bootstrap: str
    lake: Lake
    partitions: int = 2
    config: dict[str, str] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    topic: str = field(default_factory=lambda: f"quotes-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.admin = brokers.admin(self.bootstrap)
        self.create()

    def create(self) -> None:
        made = brokers.client("NewTopic")(self.topic, num_partitions=self.partitions, config=self.config)
        self.admin.create_topics([made])[self.topic].result(20)

    def remake(self) -> None:
        self.admin.delete_topics([self.topic])[self.topic].result(20)
        for _ in range(100):
            try:
                return self.create()
            except brokers.client("KafkaException"):
                time.sleep(0.1)
        raise AssertionError("The topic is still being deleted.")

    @property
    def source(self) -> KafkaTopic:
        named = {"key": "symbol", "group": f"{self.topic}-lakehouse", **self.declared}
        return KafkaTopic("cotacoes", url=self.bootstrap, topic=self.topic, **named)

    @property
    def spec(self) -> TableSpec:
        return TableSpec(
            name="cotacoes",
            source=self.source.messages(),
            columns=COLUMNS,
            key=("symbol",),
            order=("kafka_epoch", "kafka_offset"),
            deleted="kafka_deleted",
            max_loss=1.0,
        )

    @property
    def every(self) -> TableSpec:
        """The same messages, all of them."""
        return TableSpec(name="todas", source=self.source.messages(), columns=COLUMNS, sync="append")

    def send(self, messages: list[tuple[str | None, bytes | None]], **given: Any) -> None:
        """Send `(key, value)`, by turns to each partition unless `partition` names one."""
        producer = brokers.client("Producer")({"bootstrap.servers": self.bootstrap, "linger.ms": 5, **brokers.SILENT})
        self.produce(producer, messages, **given)
        assert producer.flush(30) == 0

    def produce(self, producer: Any, messages: list[tuple[str | None, bytes | None]], **given: Any) -> None:
        for number, (key, value) in enumerate(messages):
            partition = given.get("partition", number % self.partitions)
            producer.produce(self.topic, value=value, key=key, partition=partition, headers=given.get("headers"))
            producer.poll(0)

    def extract(self, *, seconds: float = 120.0) -> Extraction:
        """What the asset does."""
        system, storage = self.source, self.lake.storage
        with lock(f"{storage.landing}/raw/cotacoes"), self.lake.session() as session:
            deadline = time.monotonic() + seconds
            work = Work(storage=storage, session=session, declared=system, sample=False, cache="", deadline=deadline)
            return extract(system, work)

    def refresh(self) -> dict[str, str]:
        """Silver: price by symbol."""
        self.lake.run(self.spec)
        return {row["symbol"]: str(row["price"]) for row in self.lake.rows(self.spec.silver, "symbol", "price")}

    def spans(self) -> Spans:
        return Spans(self.lake.storage.landed("cotacoes"))

    def committed(self) -> dict[int, int]:
        group, part = self.source.group, brokers.client("TopicPartition")
        asked = [part(self.topic, number) for number in range(self.partitions)]
        consumer = brokers.consumer(self.bootstrap, group)
        for attempt in range(40):  # a broker that has just begun does not know yet who coordinates
            try:
                found = consumer.committed(asked, timeout=20)
                break
            except brokers.client("KafkaException"):
                assert attempt < 39
                time.sleep(0.25)
        consumer.close()
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def check_group_is_not_ahead(self) -> None:
        log, spans = kafka.look(kafka.topic_of(self.source, setting="X")), self.spans()
        for number, at in self.committed().items():
            assert at <= (spans.position(log.id, number) or 0)


def quote(symbol: str, price: str, **more: Any) -> tuple[str, bytes]:
    rest = "".join(f',"{name}":{json.dumps(value)}' for name, value in more.items())
    return symbol, f'{{"symbol":"{symbol}","price":{price}{rest}}}'.encode()


@pytest.fixture
def quotes(kafka: str, lake: Lake) -> Quotes:
    return Quotes(kafka, lake)


def test_messages_land_once_with_their_digits_keys_headers_and_offsets(quotes):
    quotes.send([quote("PETR4", "10.10"), quote("VALE3", "1234567.1234")], headers=[("trace", b"a1"), ("n", b"1"), ("n", b"2")])
    done = quotes.extract()
    landed = done.streams["cotacoes"]
    assert (landed.delivered, landed.new, len(landed.files)) == (2, 2, 2)
    assert (done.metadata["behind"], done.metadata["lost"], done.metadata["committed"]) == (0, 0, "all")
    assert quotes.refresh() == {"PETR4": "10.1000", "VALE3": "1234567.1234"}
    first, second = quotes.lake.rows(quotes.spec.silver, "kafka_partition", "kafka_offset", "kafka_key", "kafka_headers", "kafka_epoch")
    assert (first["kafka_partition"], second["kafka_partition"], first["kafka_offset"]) == (0, 1, 0)
    assert (first["kafka_key"], first["kafka_epoch"]) == ("PETR4", 0)
    assert json.loads(first["kafka_headers"]) == {"trace": "a1", "n": ["1", "2"]}
    assert quotes.committed() == {0: 1, 1: 1}
    again = quotes.extract()
    assert (again.streams["cotacoes"].new, again.streams["cotacoes"].files) == (0, ())
    quotes.send([quote("PETR4", "10.20")], partition=0)
    assert quotes.extract().streams["cotacoes"].new == 1
    assert quotes.refresh()["PETR4"] == "10.2000"


def test_100_000_messages_with_an_outage_poison_tombstones_and_an_aborted_transaction_are_counted_exactly(lake, capsys):
    with running("kafka") as own:
        quotes = Quotes(own.env["LAKEHOUSE_KAFKA_BOOTSTRAP"], lake, declared={"max_silence": _seconds(3), "file_mb": 4})
        symbols = [f"S{number % 1_000:04}" for number in range(100_000)]
        last = {symbol: f"{number % 9_973}.25" for number, symbol in enumerate(symbols)}
        quotes.send([quote(symbol, f"{number % 9_973}.25") for number, symbol in enumerate(symbols)])
        _aborted(quotes, 500)
        poison = [b"", b"null", b"[1]", b"17", b"{", b'{"symbol":"X"', b"\xff\xfe", b'{"a":"\\\xff"}', b'"text"', b"<html>", b"\0\0\0\0\1", b"{} {}"]
        quotes.send([(f"P{number}", value) for number, value in enumerate(poison)])
        gone = sorted(last)[::20]
        assert len(poison) == 12 and len(gone) == 50
        for symbol in gone:
            quotes.send([(symbol, None)], partition=symbols.index(symbol) % 2)

        outage = threading.Thread(target=_stop_when_it_lands, args=(own, quotes))
        outage.start()
        with pytest.raises(SourceDownError, match="cannot be read|gave nothing of partition"):
            while quotes.extract().streams["cotacoes"].new:
                pass
        outage.join()
        part_way = len(lake.storage.landed("cotacoes"))
        own.up()
        quotes.check_group_is_not_ahead()
        assert quotes.extract().metadata["behind"] == 0
        quotes.check_group_is_not_ahead()
        assert quotes.extract().streams["cotacoes"].new == 0
    expected = {symbol: price for symbol, price in last.items() if symbol not in gone}
    assert {symbol: float(price) for symbol, price in quotes.refresh().items()} == {s: float(p) for s, p in expected.items()}
    refused = quotes.lake.quarantined(quotes.spec)
    assert len(refused) == 12, refused
    assert all(row["rules"] == "readable_record" for row in refused)
    assert all("artition" in row["reason"] and "offset 5" in row["reason"] for row in refused), refused
    lake.run(quotes.every)
    assert len(lake.rows(quotes.every.silver, "kafka_offset")) == 100_050
    assert not quotes.spans().losses()
    with capsys.disabled():
        print(f"\n{part_way} files before the outage, {len(lake.storage.landed('cotacoes'))} in all, {len(expected)} rows, 12 refused")


def _seconds(count: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=count)


def _aborted(quotes: Quotes, count: int) -> None:
    producer = brokers.client("Producer")({"bootstrap.servers": quotes.bootstrap, "transactional.id": uuid.uuid4().hex, **brokers.SILENT})
    producer.init_transactions(30)
    producer.begin_transaction()
    quotes.produce(producer, [quote(f"S{number:04}", "0.00") for number in range(count)])
    producer.flush(30)
    producer.abort_transaction(30)


def _stop_when_it_lands(own: Any, quotes: Quotes) -> None:
    while not quotes.lake.storage.landed("cotacoes"):
        time.sleep(0.005)
    own.down()
