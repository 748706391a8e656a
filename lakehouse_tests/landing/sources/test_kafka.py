"""Topics without a broker: what names tell, what a message becomes, what a declaration refuses. Brokers are real in
`stack/test_kafka_source.py`; here messages, and in two tests the consumer, are mocks and called so.
"""

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from lakehouse.core.errors import DeclarationError, SourceDownError
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.assets.topics import result
from lakehouse.landing.sources import kafka
from lakehouse.landing.sources.kafka_spans import Loss, Span, Spans
from lakehouse.landing.sources.kafka_values import Layout, rows
from lakehouse.settings import Settings
from lakehouse.tables.spec import Column, Job, KafkaTopic, TableSpec, setting
from lakehouse.tables.spec.kafka import OF_MESSAGE
from lakehouse_tests.conftest import Lake

ID, OTHER = "a" * 32, "b" * 32


class MockMessage:
    """A mock of confluent_kafka.Message."""

    def __init__(self, offset: int, value: bytes | None, *, key: bytes | None = b"k", at: int = 0, **given: Any) -> None:
        self._offset, self._value, self._key, self._at, self._given = offset, value, key, at, given

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def timestamp(self) -> tuple[int, int]:
        return (1, self._at) if self._at >= 0 else (0, -1)

    def headers(self) -> Any:
        return self._given.get("headers")

    def error(self) -> Any:
        return self._given.get("error")

    def __len__(self) -> int:
        return len(self._value or b"")


def landed(*spans: Span, at: float = 100.0) -> list[LandedFile]:
    return [LandedFile(f"raw/t/{span.name}", 1, "1", at + number) for number, span in enumerate(spans)]


def span(begin: int, end: int, **given: Any) -> Span:
    return Span(**{"topic": ID, "epoch": 0, "partition": 0, "begin": begin, "end": end, **given})


def layout(**given: Any) -> Layout:
    standard = {"origin": ID, "named": "quotes", "epoch": 0, "partition": 3, "key": "", "value": "json"}
    return Layout(**{**standard, "extracted_at": datetime(2026, 1, 1, tzinfo=UTC), **given})


def test_names_tell_positions_epochs_and_losses():
    found = Spans([*landed(span(0, 5), span(9, 12, lost=5), span(0, 4, partition=1)), LandedFile("raw/t/x.parquet", 1, "1", 0)])
    assert (found.position(ID, 0), found.position(ID, 1), found.position(ID, 2), found.position(OTHER, 0)) == (12, 4, None, None)
    assert (found.epoch(ID), found.epoch(OTHER), found.knows(OTHER)) == (0, 1, False)
    assert found.losses() == [Loss(0, 5, 8)] and found.losses()[0].offsets == 4
    assert found.losses(since=101.5) == []
    assert not found.remade()


def test_a_log_that_was_cut_back_goes_on_from_its_new_end_in_another_epoch():
    found = Spans(landed(span(0, 50), span(20, 20, epoch=1), span(20, 30, epoch=1)))
    assert (found.position(ID, 0), found.epoch(ID), found.remade()) == (30, 1, True)
    assert Spans(landed(span(0, 50), span(20, 20, epoch=1))).position(ID, 0) == 20


@pytest.mark.parametrize(
    ("spans", "begin", "end", "at", "lost"),
    [
        ((), 0, 10, 0, None),
        ((), 7, 10, 7, None),  # the first look
        ((span(0, 4),), 0, 10, 4, None),
        ((span(0, 4),), 4, 10, 4, None),
        ((span(0, 4),), 6, 10, 6, 4),
        ((span(0, 4, partition=1),), 6, 10, 6, 0),  # the partition joined later
        ((span(0, 4),), 9, 9, 9, 4),
    ],
)
def test_a_run_begins_behind_what_has_landed_or_where_the_brokers_begin(spans, begin, end, at, lost):
    (part,) = kafka._parts(kafka.Log(ID, {0: begin}, {0: end}), Spans(landed(*spans)))
    assert (part.at, part.end, part.lost) == (at, end, lost)


def test_ids_are_of_topic_partition_and_offset_and_bytes_stay_as_they_are():
    messages = [MockMessage(7, b'{"a":1.10}', at=1_500), MockMessage(9, None, at=-1, headers=[("h", None), ("h", b"2")])]
    found = rows(messages, layout()).to_pylist()
    assert [row["_airbyte_raw_id"] for row in found] == [f"{ID}-3-7", f"{ID}-3-9"]
    assert [row["_airbyte_data"] for row in found] == ['{"a":1.10}', "{}"]
    assert [row["_kafka_deleted"] for row in found] == [False, True]
    assert [row["_kafka_timestamp"] for row in found] == [datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), None]
    assert [row["_kafka_headers"] for row in found] == [None, '{"h": [null, "2"]}']
    assert rows([], layout()).num_rows == 0


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (b"PETR4", "PETR4"),
        (None, None),
        (b'{"symbol": 1.50}', "1.50"),
        (b'{"other": 1}', None),
        (b"{x", "{x"),
        (b"\xff", "\\xff"),
    ],
)
def test_the_key_is_a_field(key, field):
    (row,) = rows([MockMessage(0, b"{}", key=key)], layout(key="symbol")).to_pylist()
    assert row["symbol"] == field


def test_fields_beside_a_document_join_it_and_are_told_of_what_is_none(lake: Lake):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [b'{"symbol":"A","n":1}', b'{"n":2}', b"[3]", None, b'{"_kafka_offset":"x"}']
    batch = rows([MockMessage(number, value, key=b"B") for number, value in enumerate(values)], layout(key="symbol"))
    target = lake.put("t", span(0, 5).name, b"")
    pq.write_table(pa.Table.from_batches([batch]), target)
    columns = [Column(name, "string") for name in ("symbol", "n", "kafka_offset", "kafka_deleted")]
    spec = TableSpec(name="t", source=source().messages(), columns=tuple(columns), sync="append")
    lake.run(spec)
    found = [tuple(row.values()) for row in lake.rows(spec.silver, "symbol", "n", "kafka_offset", "kafka_deleted")]
    assert found == [("A", "1", "0", "false"), ("B", "2", "1", "false"), ("B", None, "3", "true")]
    refused = {row["record"]: row["reason"] for row in lake.quarantined(spec)}
    assert "not a JSON object. It has _kafka_partition 3, _kafka_offset 2," in refused.pop("[3]")
    (own,) = refused.values()
    assert own == "Partition 3, offset 4 of quotes: Its value has a field '_kafka_offset', which is the message's own."


def source(**given: Any) -> KafkaTopic:
    return KafkaTopic("t", **{"url": "h:1", "topic": "quotes", **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topic": "a b"}, "cannot be a topic"),
        ({"group": ""}, "cannot be a group"),
        ({"value": "xml"}, "value is 'xml'"),
        ({"value": "avro"}, "Avro and a registry"),
        ({"registry": "http://r"}, "Avro and a registry"),
        ({"key": "_kafka_offset"}, "cannot be the key's field"),
        ({"key": "value", "value": "text"}, "cannot be the key's field"),
        ({"max_messages": 0}, "not above zero"),
        ({"options": {"group.id": "x"}}, "option group.id is not free"),
    ],
)
def test_a_declaration_refuses_what_cannot_be(given, message):
    with pytest.raises(DeclarationError, match=message):
        source(**given)


def test_a_topic_is_no_source_itself_and_the_message_names_what_is():
    with pytest.raises(DeclarationError, match=r"messages\(\)"):
        TableSpec(name="t", source=source(), columns=(Column("a", "string"),), sync="append")  # type: ignore[arg-type]


def test_the_brokers_of_a_topic_are_the_setting_that_alerts_have_too(monkeypatch):
    from lakehouse.settings import settings as module

    declared = KafkaTopic("t", topic="quotes", options={"sasl.password": setting("T_PASSWORD", secret=True)})
    monkeypatch.setattr(module, "SOURCES", (declared,))
    monkeypatch.setattr(module, "SETTINGS", (declared.url, declared.options["sasl.password"]))
    monkeypatch.setenv("T_PASSWORD", "hush")
    for found in (Settings(kafka_bootstrap="h:9"), _with_environment(monkeypatch)):
        (system,) = found.sources
        assert (system.url, found.kafka_bootstrap) == ("h:9", "h:9")
        assert "hush" not in repr(system)
        assert kafka.topic_of(system, setting="X").options == {"sasl.password": "hush"}


def _with_environment(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LAKEHOUSE_KAFKA_BOOTSTRAP", "h:9")
    return Settings()


def test_the_check_counts_and_names_what_is_lost():
    assert result([], remade=False).passed
    told = result([Loss(1, 5, 9), Loss(2, 0, 0)], remade=False)
    assert not told.passed and told.metadata["lost_offsets"].value == 6
    assert "Partition 1: offsets 5 to 9, 5 in all" in (told.description or "")
    assert not result([], remade=True).passed


def test_without_the_client_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    topic = kafka.Topic(bootstrap="h:1", name="q", folder="t", setting="X")
    with pytest.raises(DeclarationError, match=r"confluent-kafka.*\.\[alerts\]"):
        kafka.take(topic, Storage(root=str(tmp_path), landing=str(tmp_path)), tmp_path, stop=time.monotonic() + 1)


class MockConsumer:
    """A mock of confluent_kafka.Consumer for one partition: batches, and then nothing."""

    def __init__(self, *batches: list[MockMessage]) -> None:
        self._batches, self.commits = list(batches), []

    def assign(self, parts: Any) -> None:
        pass

    def consume(self, count: int, timeout: float) -> list[MockMessage]:
        if self._batches:
            return self._batches.pop(0)
        time.sleep(min(timeout, 0.02))
        return []

    def commit(self, offsets: Any, asynchronous: bool) -> Any:
        self.commits.append({part.partition: part.offset for part in offsets})

    def close(self) -> None:
        pass


class MockError:
    def __init__(self, code: int) -> None:
        self._code = code

    def code(self) -> int:
        return self._code

    def str(self) -> str:
        return "an error"


@pytest.fixture
def mocked(monkeypatch, tmp_path):
    """Take from a mock of the client: `logs` are what the brokers have at each look."""
    pytest.importorskip("confluent_kafka")

    def taken(consumer: MockConsumer, *logs: kafka.Log, **given: Any) -> kafka.Taken:
        seen = iter(logs)
        monkeypatch.setattr(kafka, "look", lambda _: next(seen))
        monkeypatch.setattr(kafka.kafka, "consumer", lambda *_: consumer)
        topic = kafka.Topic(bootstrap="h:1", name="q", folder="t", setting="X", max_silence=0.2, **given)
        (tmp_path / "s").mkdir(exist_ok=True)
        return kafka.take(topic, Storage(root=str(tmp_path), landing=str(tmp_path)), tmp_path / "s", stop=time.monotonic() + 20)

    return taken


def names(folder: Path) -> list[tuple[int, int, int | None]]:
    found = [Span(**vars(kafka_span(path))) for path in sorted(folder.rglob("*.parquet"))]
    return [(each.begin, each.end, each.lost) for each in found]


def kafka_span(path: Path) -> Span:
    from lakehouse.landing.sources.kafka_spans import _span

    found = _span(LandedFile(f"raw/t/{path.name}", 1, "1", 0))
    assert found is not None
    return found


def test_brokers_that_fall_silent_leave_what_was_read_landed_and_nothing_committed(mocked, tmp_path):
    consumer = MockConsumer([MockMessage(n, json.dumps({"n": n}).encode()) for n in range(4)])
    with pytest.raises(SourceDownError, match=r"gave nothing of partition 0 after offset 3 for 0\.2 s"):
        mocked(consumer, kafka.Log(ID, {0: 0}, {0: 10}))
    assert names(tmp_path) == [(0, 4, None)]
    assert consumer.commits == []


def test_retention_that_overtakes_a_run_under_way_is_a_loss_and_the_run_goes_on(mocked, tmp_path):
    from confluent_kafka import KafkaError

    gone = MockMessage(-1, None, error=MockError(KafkaError._AUTO_OFFSET_RESET))
    consumer = MockConsumer(
        [MockMessage(0, b"{}"), MockMessage(1, b"{}")], [gone], [MockMessage(8, b"{}"), MockMessage(9, b"{}")]
    )
    taken = mocked(consumer, kafka.Log(ID, {0: 0}, {0: 10}), kafka.Log(ID, {0: 7}, {0: 10}))
    assert names(tmp_path) == [(0, 2, None), (7, 10, 2)]
    assert (taken.messages, taken.lost, taken.behind, consumer.commits) == (4, 5, 0, [{0: 10}])


def test_what_lands_elsewhere_tells_the_group_nothing(mocked, tmp_path):
    consumer = MockConsumer([MockMessage(0, b"{}")])
    taken = mocked(consumer, kafka.Log(ID, {0: 0}, {0: 1}), shared=False)
    assert (names(tmp_path), taken.committed, consumer.commits) == ([(0, 1, None)], "not given to its group", [])


def test_a_partition_without_a_leader_is_named_when_the_others_have_landed(mocked, tmp_path):
    with pytest.raises(SourceDownError, match="partition 1 has no leader"):
        mocked(MockConsumer([MockMessage(0, b"{}")]), kafka.Log(ID, {0: 0}, {0: 1}, (1,)))
    assert names(tmp_path) == [(0, 1, None)]


def test_the_module_of_the_page_is_collected_with_its_source_table_and_job():
    from types import ModuleType

    from lakehouse.settings import project_folder
    from lakehouse.tables.spec.collect import collected

    page = (project_folder() / "docs" / "sources.md").read_text().split("## Kafka")[1]
    module = ModuleType("cotacoes")
    exec(page.split("```python\n")[1].split("```")[0], module.__dict__)
    found = collected([module])
    (system,), (table,), (job,) = found.sources, found.tables, found.jobs
    assert (system.tags, table.tags, job.name) == (("cotacoes",), ("cotacoes",), "cotacoes")
    assert [one.name for one in found.settings] == ["LAKEHOUSE_KAFKA_BOOTSTRAP"]
    for name in re.findall(r"`(kafka_\w+)`", page.split("| column |")[1].split("\n\n")[0]):
        assert f"_{name}" in OF_MESSAGE


def test_the_sensor_is_of_the_job_that_has_the_topics_tag_whatever_the_job_is_called(monkeypatch):
    from lakehouse.landing import lag

    declared = source(tags=("cotacoes",))
    monkeypatch.setattr(lag, "SOURCES", (declared,))
    monkeypatch.setattr(lag, "JOBS", (Job("cotacoes_horarias", tag="cotacoes"), Job("other")))
    monkeypatch.setattr(Settings, "sources", property(lambda _: (declared,)))
    (sensor,) = lag.lag_sensors(Settings())
    assert (sensor.name, sensor.job_name) == ("cotacoes_horarias_lag", "cotacoes_horarias")


def by_lag(monkeypatch, waiting: int | Exception, storage: Storage, instance: dg.DagsterInstance) -> Any:
    """A tick of the sensor of a job with one topic; what waits is given, as brokers would tell it."""
    from lakehouse.landing import lag

    def behind(*_: Any) -> int:
        if isinstance(waiting, Exception):
            raise waiting
        return waiting

    declared = source(tags=("quotes",))
    monkeypatch.setattr(lag, "SOURCES", (declared,))
    monkeypatch.setattr(lag, "JOBS", (Job("quotes", cron="0 * * * *"), Job("other")))
    monkeypatch.setattr(lag, "_behind", behind)
    settings = Settings(env="prod", root=storage.root)
    monkeypatch.setattr(Settings, "sources", property(lambda _: (declared,)))
    (sensor,) = lag.lag_sensors(settings)
    assert (sensor.name, sensor.default_status) == ("quotes_lag", dg.DefaultSensorStatus.RUNNING)
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance))


def test_a_job_is_asked_for_while_messages_wait_one_run_at_a_time_and_later_after_failures(monkeypatch, storage):
    with dg.DagsterInstance.ephemeral() as instance:
        assert len(by_lag(monkeypatch, 3, storage, instance).run_requests) == 1
        assert "has landed" in by_lag(monkeypatch, 0, storage, instance).skip_message
        down = SourceDownError("Kafka at h:1 does not answer.", remedy="Look.")
        assert "does not answer" in by_lag(monkeypatch, down, storage, instance).skip_message
        run = create_run_for_test(instance, job_name="quotes", status=dg.DagsterRunStatus.STARTED)
        assert "on its way" in by_lag(monkeypatch, 3, storage, instance).skip_message
        instance.report_run_failed(run)
        assert len(by_lag(monkeypatch, 3, storage, instance).run_requests) == 1  # the first failure has no pause
        instance.report_run_failed(create_run_for_test(instance, job_name="quotes", status=dg.DagsterRunStatus.STARTED))
        assert "has failed 2 times in a row" in by_lag(monkeypatch, 3, storage, instance).skip_message
