"""Monitoring against real parts: Kafka, PostgreSQL, MLflow, S3, a mail server with STARTTLS and an endpoint as Slack's."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from benchmarks import alerts as daemon_alerts
from benchmarks.past_runs import PastRun, put
from benchmarks.sinks import mail_server, slack_server
from deploy.stack.part import tools
from lakehouse.core.store.storage import Storage
from lakehouse.observability import kafka as brokers
from lakehouse.observability import watch
from lakehouse.observability.alerts import KINDS, Alert, raise_alerts
from lakehouse.observability.channels import senders
from lakehouse.observability.events import Event, publish_all
from lakehouse.observability.metrics import take_up
from lakehouse.observability.notifier import notify
from lakehouse.observability.routing import Routing
from lakehouse.observability.sender import send_events, waiting
from lakehouse.observability.sensors import INTERVAL
from lakehouse.settings import project_folder
from lakehouse_tests.conftest import few
from lakehouse_tests.stack.conftest import running, s3_client


def read(bootstrap: str, topic: str) -> list[tuple[str, dict]]:
    """Every message of a topic: its id header and its value."""
    import confluent_kafka as client

    consumer = client.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    found = []
    try:
        parts = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([client.TopicPartition(topic, number, client.OFFSET_BEGINNING) for number in parts])
        ended = 0
        while ended < len(parts):
            message = consumer.poll(20)
            assert message is not None, "the broker does not answer"
            if message.error():
                ended += 1
                continue
            found.append((dict(message.headers())["id"].decode(), json.loads(message.value())))
    finally:
        consumer.close()
    return found


def some_events(first: int, last: int) -> list[Event]:
    return [Event("notice", f"s{n}", {"n": n}, id=f"e{n}") for n in range(first, last)]


def test_events_arrive_once_in_order_and_as_they_are_described(kafka: str, storage: Storage) -> None:
    topic = f"events-{uuid.uuid4().hex[:8]}"
    publish_all(storage, some_events(0, 500))
    assert send_events(storage, kafka, topic=topic) == 500
    publish_all(storage, some_events(400, 600))
    assert send_events(storage, kafka, topic=topic) == 100
    assert send_events(storage, kafka, topic=topic) == 0
    found = read(kafka, topic)
    assert [identity for identity, _ in found] == [f"e{n}" for n in range(600)]
    assert {"schema", "id", "kind", "subject", "occurred_at", "run_id", "payload"} == set(found[0][1])
    assert found[7][1]["id"] == "e7"
    assert found[7][1]["payload"] == {"n": 7}


def test_a_sender_that_is_killed_after_the_broker_has_it_loses_nothing(kafka: str, storage: Storage) -> None:
    topic = f"events-{uuid.uuid4().hex[:8]}"
    publish_all(storage, some_events(0, 200))
    program = f"""
import os, signal
from lakehouse.core.table import transaction
from lakehouse.core.store.storage import Storage
from lakehouse.observability.sender import send_events
transaction.write_version = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
send_events(Storage(root={storage.root!r}, landing={storage.landing!r}), {kafka!r}, topic={topic!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert waiting(storage) == 200
    send_events(storage, kafka, topic=topic)
    counts = Counter(identity for identity, _ in read(kafka, topic))
    assert set(counts) == {f"e{n}" for n in range(200)}
    assert set(counts.values()) == {1}  # better than promised: what had arrived was found by its id


@pytest.mark.slow
def test_a_broker_that_is_away_for_two_minutes_loses_and_doubles_nothing(storage: Storage) -> None:
    with running("kafka") as own:
        bootstrap, topic = own.env["LAKEHOUSE_KAFKA_BOOTSTRAP"], "lakehouse.events"
        over = threading.Event()
        failed = []

        def job() -> None:
            number = 0
            while not over.is_set():
                publish_all(storage, some_events(number, number + 5))
                number += 5
                over.wait(0.5)

        def deliver() -> None:
            while not over.is_set():
                try:
                    send_events(storage, bootstrap, timeout=5)
                except brokers.KafkaError as error:
                    failed.append(str(error))
                over.wait(1)

        threads = [threading.Thread(target=work) for work in (job, deliver)]
        for thread in threads:
            thread.start()
        time.sleep(15)
        own.down()
        time.sleep(120)
        own.up()
        time.sleep(20)
        over.set()
        for thread in threads:
            thread.join()
        send_events(storage, bootstrap)
        counts = Counter(identity for identity, _ in read(bootstrap, topic))
    assert failed
    assert "password" not in " ".join(failed)
    assert waiting(storage) == 0
    assert set(counts) == {f"e{n}" for n in range(len(counts))}
    assert len(counts) > 200
    assert set(counts.values()) == {1}


def test_lag_and_offsets_are_those_of_kafkas_own_tool(kafka: str) -> None:
    import confluent_kafka as client
    from confluent_kafka.admin import AdminClient, NewTopic

    topic, group = f"orders-{uuid.uuid4().hex[:8]}", f"loader-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(20)
    before = datetime.now(UTC)
    brokers.produce(kafka, topic, [(str(n), f"k{n}", b"x") for n in range(100)], timeout=20)
    consumer = client.Consumer(
        {"bootstrap.servers": kafka, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    ends = {number: consumer.get_watermark_offsets(client.TopicPartition(topic, number), timeout=20)[1] for number in range(3)}
    read_to = [client.TopicPartition(topic, number, end // (number + 2)) for number, end in ends.items()]
    for patience in range(30):
        try:
            consumer.commit(offsets=read_to, asynchronous=False)
            break
        except client.KafkaException as error:  # the first group of a broker waits for its coordinator
            assert patience < 29, error
            time.sleep(1)
    consumer.close()
    (health,) = brokers.topics(kafka, [(topic, group)], timeout=20)

    command = ["java", "-cp", f"{tools()}/kafka/*", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"]
    printed = subprocess.run(
        [*command, "--bootstrap-server", kafka, "--describe", "--group", group], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split() for line in printed.splitlines() if re.match(rf"{group}\s+{topic}\s", line)]
    columns = {"committed": 3, "end_offset": 4, "lag": 5}
    tool = {name: sum(int(line[position]) for line in lines if line[position] != "-") for name, position in columns.items()}
    assert len(lines) == health.partitions == 3
    assert (health.committed, health.end_offset, health.lag) == (tool["committed"], tool["end_offset"], tool["lag"])
    assert (health.end_offset, health.lag, health.leaderless) == (100, 100 - sum(part.offset for part in read_to), 0)
    assert health.newest_ms is not None
    assert before.timestamp() * 1000 - 1000 <= health.newest_ms <= time.time() * 1000 + 1000
    strange, fresh = f"strange-{uuid.uuid4().hex[:8]}", f"fresh-{uuid.uuid4().hex[:8]}"
    astray = client.Consumer({"bootstrap.servers": kafka, "group.id": strange, "enable.auto.commit": False})
    astray.commit(offsets=[client.TopicPartition(topic, number, ends[number] + 430) for number in ends], asynchronous=False)
    astray.close()
    for group_of_all in (strange, fresh):  # a position beyond the end, and none at all: everything is unread
        (health,) = brokers.topics(kafka, [(topic, group_of_all)], timeout=20)
        assert health.lag == 100
        assert {part.partition: part.lag for part in health.parts} == ends
    (nothing,) = brokers.topics(kafka, [("no-such-topic", "")], timeout=20)
    assert (nothing.partitions, nothing.lag) == (0, None)


def test_every_kind_of_alert_reaches_every_channel(kafka: str, storage: Storage, tmp_path: Path, monkeypatch) -> None:
    with mail_server(tmp_path) as mail, slack_server() as slack:
        monkeypatch.setenv("SSL_CERT_FILE", str(mail.ca))
        channels = senders(
            kafka=kafka, smtp=mail.url, emails=("o@example.org",), token="xoxb-1", channel="#d", slack_url=slack.url
        )
        raise_alerts(storage, [Alert(kind, "error", f"about {kind}", "Why.", job="j", run_id=kind) for kind in KINDS])
        step = notify(storage, channels, routing=Routing(), patience=60)
        assert (step.sent, step.failed) == (3 * len(KINDS), 0)
        by_kind = {value["kind"]: value for _, value in read(kafka, "lakehouse.alerts") if value["run_id"] in KINDS}
        assert set(by_kind) == set(KINDS)
        assert by_kind["sla_miss"]["schema"] == "lakehouse.alert.v1"
        assert by_kind["sla_miss"]["subject"] == "[ERROR] about sla_miss"
        assert len(mail.mails) == len(slack.messages) == len(KINDS)


@pytest.fixture
def production(postgres: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    storage = {"module": "lakehouse.runtime.postgres", "class": "PostgresStorage", "config": {"postgres_url": postgres}}
    config = {
        "storage": {"custom": storage},
        "telemetry": {"enabled": False},
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text(json.dumps(config))
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


def test_runs_are_watched_and_measured_on_postgresql(production: dg.DagsterInstance, storage: Storage) -> None:
    now = datetime.now(UTC) - timedelta(minutes=1)
    put(production, [PastRun(now, 2.0), PastRun(now, 3.0, outcome="failure"), PastRun(now, 4.0, worker_gone=True)])
    found = watch.look(production, storage, cursor=None)
    assert (found.alerts, found.entries) == (2, 7)  # the success ends nothing; three begins, three ends, one table
    assert watch.look(production, storage, cursor=found.cursor).entries == 0
    assert take_up(production, storage) == 3
    assert take_up(production, storage) == 0


@pytest.mark.slow
def test_one_bad_address_of_three_costs_the_others_nothing_and_they_get_one_mail_by_the_real_daemon(
    tmp_path: Path, monkeypatch
) -> None:
    good, bad = ("ana@example.org", "eva@example.org"), "bia@example.org"
    (tmp_path / "dagster").mkdir()
    shutil.copy(project_folder() / "dagster.yaml", tmp_path / "dagster")
    with mail_server(tmp_path) as mail, slack_server() as slack:
        mail.refused[bad] = "550 5.1.1 No such user here"
        own = daemon_alerts.settings(mail, slack, good[0], bad, good[1])
        folders = {
            "DAGSTER_HOME": tmp_path / "dagster",
            "LAKEHOUSE_ROOT": tmp_path / "lake",
            "LAKEHOUSE_LANDING": tmp_path / "raw",
        }
        for name, value in {**own, **folders}.items():
            monkeypatch.setenv(name, str(value))
        with dg.DagsterInstance.get() as instance, daemon_alerts.daemon(tmp_path, own):
            daemon_alerts.switch_on(instance)
            failed = daemon_alerts.fail(instance, 2)
            expected = {f"[ERROR] {name} failed in read_{name}" for name in failed} | {f"[ERROR] email:{bad} gets no alerts"}
            deadline = time.monotonic() + 120
            while any({*mail.of(address)} != expected for address in good):
                assert time.monotonic() < deadline, {address: mail.of(address) for address in good}
                time.sleep(0.5)
            time.sleep(4 * INTERVAL)  # nothing comes again
    for address in good:
        assert sorted(mail.of(address)) == sorted(expected)
    assert mail.of(bad) == []
    assert len(slack.messages) == len(expected)


@pytest.mark.parametrize("part", few(["s3", "postgres", "kafka", "mlflow"], "s3"))
def test_a_service_that_is_stopped_is_noticed_told_and_told_again_when_it_is_back(part: str, tmp_path: Path, monkeypatch) -> None:
    from lakehouse.definitions import build_defs
    from lakehouse.settings import load_settings

    named = {"s3": "store:s3://lake/landing", "postgres": "warehouse", "kafka": "kafka", "mlflow": "mlflow"}[part]
    with running(part) as own, mail_server(tmp_path) as mail:
        position = {"LAKEHOUSE_ROOT": str(tmp_path / "lake"), "SSL_CERT_FILE": str(mail.ca)}
        if part == "s3":
            position |= {name: value for name, value in own.env.items() if name.startswith("AWS_")}
            s3_client(position).create_bucket(Bucket="lake")
            position["LAKEHOUSE_LANDING"] = "s3://lake/landing"
        else:
            names = {"postgres": "LAKEHOUSE_WAREHOUSE_URL", "kafka": "LAKEHOUSE_KAFKA_BOOTSTRAP", "mlflow": "MLFLOW_TRACKING_URI"}
            position[names[part]] = own.env[names[part]]
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for its process
        for name, value in position.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        job = build_defs(settings).resolve_job_def("monitoring")
        channels = senders(smtp=mail.url, emails=("o@example.org",))

        def monitor(instance: dg.DagsterInstance) -> list[str]:
            """One look at the services; the subjects of the mails that it brought."""
            before = len(mail.mails)
            key = dg.AssetKey(["ops", "service_health"])
            assert job.execute_in_process(instance=instance, asset_selection=[key]).success
            assert notify(settings.storage, channels, routing=Routing()).failed == 0
            return mail.subjects[before:]

        with dg.DagsterInstance.ephemeral() as instance:
            assert monitor(instance) == []
            own.down()
            assert monitor(instance) == [f"[ERROR] {named} is not healthy"]
            own.up()
            assert monitor(instance) == [f"[RESOLVED] {named} is not healthy"]
        output = " ".join(str(mail.get_content()) for mail in mail.mails)
        for name in ("STACK_POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
            assert own.env[name] not in output
