"""A Kafka topic to silver against a real broker: each message once, whatever ends, expires or is made again."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.core import kafka as brokers
from lakehouse.core.errors import LakehouseError, SourceDownError, SourceError, SourceRefusedError
from lakehouse.core.store.storage import lock
from lakehouse.landing.sources import kafka
from lakehouse.landing.sources.kafka_spans import Spans
from lakehouse.landing.sources.registry import Extraction, Work, extract
from lakehouse.tables.spec import Column, Job, KafkaTopic, TableSpec
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults import KILLS
from lakehouse_tests.stack.conftest import running

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        *("confluent_kafka.admin", "deltalake", "pandas", "pyarrow.compute", "pyarrow.parquet"),
        *("lakehouse.bronze.ingest", "lakehouse.silver.refresh", "lakehouse_tests.stack.test_kafka_source"),
    ]
)
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
    made: bool = False

    def __post_init__(self) -> None:
        self.admin = brokers.admin(self.bootstrap)
        if not self.made:
            self.create()

    def create(self) -> None:
        made = brokers.client("NewTopic")(self.topic, num_partitions=self.partitions, config=self.config)
        self.admin.create_topics([made])[self.topic].result(20)
        for _ in range(100):  # until the broker knows it, and its partitions have leaders
            try:
                self.log()
            except SourceError:
                time.sleep(0.1)
                continue
            return

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

    def patiently(self) -> Extraction:
        """The same with the tries that the asset's policy gives it."""
        for _ in range(20):
            try:
                return self.extract()
            except SourceDownError:
                time.sleep(1)
        raise AssertionError("The brokers do not come back.")

    def log(self) -> kafka.Log:
        return kafka.look(kafka.topic_of(self.source, setting="X"))

    def check_group_is_not_ahead(self, topic_id: str) -> None:
        spans = self.spans()
        for number, at in self.committed().items():
            assert at <= (spans.position(topic_id, number) or 0)


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
    first, second = quotes.lake.rows(
        quotes.spec.silver, "kafka_partition", "kafka_offset", "kafka_key", "kafka_headers", "kafka_epoch"
    )
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
        quotes = Quotes(own.env["LAKEHOUSE_KAFKA_BOOTSTRAP"], lake, declared={"max_silence": timedelta(seconds=3), "file_mb": 4})
        topic_id = quotes.log().id
        symbols = [f"S{number % 1_000:04}" for number in range(100_000)]
        last = {symbol: f"{number % 9_973}.25" for number, symbol in enumerate(symbols)}
        quotes.send([quote(symbol, f"{number % 9_973}.25") for number, symbol in enumerate(symbols)])
        _aborted(quotes, 500)
        poison = [
            b"",
            b"null",
            b"[1]",
            b"17",
            b"{",
            b'{"symbol":"X"',
            b"\xff\xfe",
            b'{"a":"\\\xff"}',
            b'"text"',
            b"<html>",
            b"\0\0\0\0\1",
            b"{} {}",
        ]
        quotes.send([(f"P{number}", value) for number, value in enumerate(poison)])
        gone = sorted(last)[::20]
        assert len(poison) == 12 and len(gone) == 50
        for symbol in gone:
            quotes.send([(symbol, None)], partition=symbols.index(symbol) % 2)

        outage = threading.Thread(target=_stop_when_it_lands, args=(own, quotes))
        outage.start()
        with pytest.raises(SourceDownError, match=r"cannot be read|gave nothing of partition"):
            while quotes.extract().streams["cotacoes"].new:
                pass
        outage.join()
        part_way = len(lake.storage.landed("cotacoes"))
        own.up()
        quotes.check_group_is_not_ahead(topic_id)
        assert quotes.patiently().metadata["behind"] == 0
        quotes.check_group_is_not_ahead(topic_id)
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
        files = len(lake.storage.landed("cotacoes"))
        print(f"\n{part_way} files before the outage, {files} in all; {len(expected)} rows, {len(refused)} refused")


def _aborted(quotes: Quotes, count: int) -> None:
    producer = brokers.client("Producer")(
        {"bootstrap.servers": quotes.bootstrap, "transactional.id": uuid.uuid4().hex, **brokers.SILENT}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    quotes.produce(producer, [quote(f"S{number:04}", "0.00") for number in range(count)])
    producer.flush(30)
    producer.abort_transaction(30)


def _stop_when_it_lands(own: Any, quotes: Quotes) -> None:
    while not quotes.lake.storage.landed("cotacoes"):
        time.sleep(0.005)
    own.down()


def test_offsets_that_expired_are_counted_named_and_passed_and_the_rest_lands(quotes):
    from lakehouse.landing.assets.topics import result

    quotes.send([quote(f"S{number}", "1.00") for number in range(20)])
    quotes.extract()
    quotes.send([quote(f"S{number}", "2.00") for number in range(20)])
    part = brokers.client("TopicPartition")
    quotes.admin.delete_records([part(quotes.topic, 0, 13), part(quotes.topic, 1, 10)])
    time.sleep(1)
    done = quotes.extract()
    assert (done.streams["cotacoes"].new, done.metadata["lost"]) == (17, 3)
    (loss,) = quotes.spans().losses()
    assert (loss.partition, loss.first, loss.last) == (0, 10, 12)
    told = result(quotes.spans().losses(), remade=False)
    assert not told.passed and told.metadata["lost_offsets"].value == 3
    assert "Partition 0: offsets 10 to 12, 3 in all" in told.description
    assert quotes.extract().metadata["lost"] == 0
    assert len(quotes.refresh()) == 20


def test_a_topic_without_messages_that_expired_before_the_first_look_has_lost_nothing_until_more_do(quotes):
    quotes.send([quote("A", "1.00")] * 10, partition=0)
    part = brokers.client("TopicPartition")
    quotes.admin.delete_records([part(quotes.topic, 0, 10)])
    time.sleep(1)
    assert quotes.extract().metadata["lost"] == 0
    quotes.send([quote("A", "2.00")] * 5, partition=0)
    quotes.admin.delete_records([part(quotes.topic, 0, 12)])
    time.sleep(1)
    assert quotes.extract().metadata["lost"] == 2


def test_a_topic_that_is_made_again_is_another_epoch_and_its_partitions_may_grow(quotes):
    quotes.send([quote("PETR4", "1.00"), quote("VALE3", "1.00")] * 5)
    quotes.extract()
    quotes.remake()
    quotes.send([quote("PETR4", "2.00")], partition=0)
    done = quotes.extract()
    assert (done.metadata["epoch"], done.streams["cotacoes"].new) == (1, 1)
    assert quotes.spans().remade()
    assert {symbol: price[:4] for symbol, price in quotes.refresh().items()} == {"PETR4": "2.00", "VALE3": "1.00"}
    quotes.admin.create_partitions([brokers.client("NewPartitions")(quotes.topic, 3)])[quotes.topic].result(20)
    time.sleep(1)
    quotes.send([quote("ITUB4", "3.00")], partition=2)
    done = quotes.patiently()
    assert done.metadata["cursor"] == {"0": 1, "1": 0, "2": 1}
    assert len(quotes.refresh()) == 3


def test_an_open_transaction_ends_the_run_before_it_and_what_it_commits_lands_later(quotes):
    producer = brokers.client("Producer")({"bootstrap.servers": quotes.bootstrap, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    quotes.produce(producer, [quote("OPEN", "1.00")], partition=0)
    producer.flush(30)
    quotes.send([quote("LATER", "1.00")], partition=0)
    begun = time.monotonic()
    assert quotes.extract().streams["cotacoes"].new == 0
    assert time.monotonic() - begun < 20
    producer.commit_transaction(30)
    assert quotes.extract().streams["cotacoes"].new == 2
    _aborted(quotes, 10)
    done = quotes.extract()
    assert (done.streams["cotacoes"].new, done.metadata["behind"]) == (0, 0)  # markers alone, and they are passed
    assert quotes.extract().streams["cotacoes"].files == ()
    assert len(quotes.refresh()) == 2


def test_runs_are_bounded_by_messages_and_files_by_size(quotes):
    quotes.declared |= {"max_messages": 1_000, "file_mb": 1}
    quotes.send([quote(f"S{number}", "1.00", note="x" * 900) for number in range(6_000)])
    new = [(done := quotes.extract()).streams["cotacoes"].new]
    assert done.metadata["behind"] == 5_000
    quotes.declared |= {"max_messages": None}
    done = quotes.extract()
    assert new == [1_000] and done.streams["cotacoes"].new == 5_000
    assert len(done.streams["cotacoes"].files) >= 4
    assert len(quotes.refresh()) == 6_000


def test_a_consumer_that_joins_the_group_takes_nothing_away(quotes):
    quotes.send([quote(f"S{number}", "1.00") for number in range(500)])
    settings = {"bootstrap.servers": quotes.bootstrap, "group.id": quotes.source.group, "auto.offset.reset": "earliest"}
    other = brokers.client("Consumer")({**settings, **brokers.SILENT})
    other.subscribe([quotes.topic])
    for _ in range(100):
        if other.consume(1, timeout=0.2):
            break
    done = quotes.extract()
    assert done.streams["cotacoes"].new == 500
    assert done.metadata["committed"].startswith("not taken by group")
    other.close()
    quotes.extract()
    assert quotes.committed() == {0: 250, 1: 250}


def test_what_cannot_be_read_is_refused_by_name(quotes):
    quotes.admin.delete_topics([quotes.topic])[quotes.topic].result(20)
    time.sleep(0.5)
    with pytest.raises(SourceRefusedError, match=rf"Topic {quotes.topic} of Kafka at .* does not exist"):
        quotes.extract()
    quotes.bootstrap = "127.0.0.1:1"
    with pytest.raises(LakehouseError, match=r"does not answer.*the url of source cotacoes"):
        quotes.extract()


def test_avro_is_read_by_the_schemas_of_a_registry_and_text_as_it_is(quotes):
    import io
    import struct

    import fastavro

    from lakehouse_tests.landing import registry_stub

    price = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4}
    fields = [{"name": "symbol", "type": "string"}, {"name": "price", "type": price}]
    schema = {"type": "record", "name": "Quote", "namespace": "br.b3", "fields": fields}

    def wire(number: int, symbol: str, value: str) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"symbol": symbol, "price": Decimal(value)})
        return struct.pack(">bI", 0, number) + out.getvalue()

    good = wire(7, "PETR4", "10.1000")
    with registry_stub.serve() as registry:
        registry.schema(7, schema)
        quotes.declared |= {"value": "avro", "registry": registry.url}
        messages = [
            ("a", good),
            ("b", good[:-3]),
            ("c", b"{}"),
            ("d", wire(8, "X", "1.0000")),
            ("e", good + b"x"),
            ("PETR3", None),
        ]
        quotes.send(messages, partition=0)
        quotes.extract()
        assert registry.asked == ["/schemas/ids/7", "/schemas/ids/8"]
        registry.status = 500
        quotes.send([("a", good)], partition=0)
        with pytest.raises(SourceDownError, match="answered 500") as error:
            quotes.extract()
        assert "secret" not in str(error.value)
        registry.status = 200
        assert quotes.extract().streams["cotacoes"].new == 1
    assert quotes.refresh() == {"PETR4": "10.1000"}
    causes = sorted(row["reason"] for row in quotes.lake.quarantined(quotes.spec))
    assert [cause.split(": ")[0] for cause in causes] == [f"Partition 0, offset {n} of {quotes.topic}" for n in (1, 2, 3, 4)]
    assert "does not fit schema 7" in causes[0] and "does not begin with 0" in causes[1]
    assert "has no schema 8" in causes[2] and "goes on behind" in causes[3]


def test_texts_are_a_field_and_a_text_that_is_none_is_poison(quotes):
    quotes.declared |= {"value": "text", "key": ""}
    quotes.send([("a", b'{"not": "read"}'), ("b", "a\nlinha ç".encode()), ("c", b"\xff"), ("d", None)], partition=0)
    quotes.extract()
    columns = (Column("value", "string"), Column("kafka_offset", "bigint"), Column("kafka_deleted", "boolean"))
    spec = TableSpec(name="textos", source=quotes.source.messages(), columns=columns, sync="append")
    quotes.lake.run(spec)
    rows = [tuple(row.values()) for row in quotes.lake.rows(spec.silver, "kafka_offset", "value", "kafka_deleted")]
    assert rows == [(0, '{"not": "read"}', False), (1, "a\nlinha ç", False), (3, None, True)]
    (refused,) = quotes.lake.quarantined(spec)
    assert "Partition 0, offset 2" in refused["reason"] and "not UTF-8" in refused["reason"]


def test_the_asset_its_check_and_its_sensor_do_so_in_dagster_and_its_group_is_watched(quotes, monkeypatch):
    from lakehouse.landing import lag
    from lakehouse.landing.assets import systems, topics
    from lakehouse.observability import kafka as observed
    from lakehouse.observability.topics import by_brokers
    from lakehouse.resources import build_resources
    from lakehouse.settings import Settings
    from lakehouse.settings import settings as module

    declared = KafkaTopic("cotacoes", topic=quotes.topic, key="symbol", group=quotes.source.group, tags=("cotacoes",))
    for owner in (module, systems, topics, lag):
        monkeypatch.setattr(owner, "SOURCES", (declared,))
    monkeypatch.setattr(lag, "JOBS", (Job("cotacoes"),))
    monkeypatch.setattr(module, "SETTINGS", (declared.url,))
    storage = quotes.lake.storage
    settings = Settings(root=storage.root, landing_dir=storage.landing, kafka_bootstrap=quotes.bootstrap)
    (sensor,) = lag.lag_sensors(settings)
    ((brokers_, watched),) = by_brokers(settings, ()).items()
    quotes.send([quote(f"S{number}", "1.00") for number in range(10)])
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        assert len(sensor.evaluate_tick(context).run_requests) == 1
        assets = [*systems.system_assets(settings), *topics.topic_checks()]
        done = dg.materialize(assets, resources=build_resources(settings), instance=instance)
        assert done.success
        checks = {event.check_name: event.passed for event in done.get_asset_check_evaluations()}
        assert checks == {"extracted": True, "offsets": True}
        (made,) = done.get_asset_materialization_events()
        found = {name: value.value for name, value in made.materialization.metadata.items()}
        assert (found["new_records"], found["cursor"], found["behind"]) == (10, {"0": 5, "1": 5}, 0)
        assert "has landed" in sensor.evaluate_tick(context).skip_message
    (health,) = observed.topics(brokers_.bootstrap, [(one.topic, one.group) for one in watched], timeout=20)
    assert (health.group, health.messages, health.lag) == (quotes.source.group, 10, 0)


def take(folder: Path, bootstrap: str, topic: str) -> None:
    """What a run does; files tell how far it is."""
    declared = {"file_mb": 1, "group": f"{topic}-lakehouse"}
    quotes = Quotes(bootstrap, Lake(folder), topic=topic, made=True, declared=declared)
    (folder / "begun").touch()
    quotes.extract()
    (folder / "landed").touch()
    quotes.refresh()
    (folder / "done").touch()


def killed(quotes: Quotes, after: float | None) -> bool:
    """Whether a process of its own was killed so many seconds after it began, before it was done."""
    folder = quotes.lake.folder
    (folder / "begun").unlink(missing_ok=True)
    process = _PROCESSES.Process(target=take, args=(folder, quotes.bootstrap, quotes.topic))
    process.start()
    while after is not None and process.is_alive() and not (folder / "begun").exists():
        time.sleep(0.002)
    process.join(after)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        return True
    assert process.exitcode == 0
    return False


@pytest.mark.faults
def test_kills_at_random_moments_lose_and_double_nothing_and_the_group_is_never_ahead(quotes, capsys):
    chance, each, sent, kills, cut = random.Random(24), 10_000, 0, 0, 0
    topic_id, expected = quotes.log().id, {}
    reading, whole = 0.0, 0.0
    while kills < KILLS:
        messages = [quote(f"S{number % 7_000}", f"{number}.0") for number in range(sent, sent + each)]
        quotes.send(messages)
        expected |= {symbol: float(number) for (symbol, _), number in zip(messages, range(sent, sent + each), strict=True)}
        sent += each
        # Two thirds of them while it reads the topic, the others at any moment.
        if killed(quotes, chance.uniform(0.0, reading if kills % 3 else whole) if whole else None):
            kills += 1
            cut += sum(quotes.spans().position(topic_id, number) or 0 for number in (0, 1)) < sent
        elif not whole:
            times = [(quotes.lake.folder / name).stat().st_mtime for name in ("begun", "landed", "done")]
            reading, whole = times[1] - times[0], times[2] - times[0]
        quotes.check_group_is_not_ahead(topic_id)
    assert not killed(quotes, None)
    quotes.check_group_is_not_ahead(topic_id)
    assert {symbol: float(price) for symbol, price in quotes.refresh().items()} == expected
    quotes.lake.run(quotes.every)
    offsets = quotes.lake.rows(quotes.every.silver, "kafka_partition", "kafka_offset")
    assert len(offsets) == sent == len({tuple(row.values()) for row in offsets})
    with capsys.disabled():
        files = len(quotes.lake.storage.landed("cotacoes"))
        print(f"\n{kills} kills, {cut} before all had landed; {sent:,} messages, {files} files, {len(expected):,} rows")
