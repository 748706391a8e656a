"""What a group has not read, and when that is too much; the brokers are real in `stack/test_monitoring.py`."""

from datetime import UTC, datetime

import pytest

from lakehouse.observability import kafka, topics
from lakehouse.observability.kafka import KafkaError, PartitionLag, TopicHealth
from lakehouse.observability.topics import Watched, watched


@pytest.mark.parametrize(
    ("begin", "end", "committed", "lag"),
    [
        (0, 100, 100, 0),
        (0, 100, 30, 70),
        (0, 100, None, 100),  # it never committed
        (40, 100, None, 60),
        (40, 100, 10, 60),  # what it has not read has expired in part
        (0, 100, 530, 100),  # the topic was made anew
        (0, 0, None, 0),
        (7, 7, 7, 0),
        (7, 7, 400, 0),
    ],
)
def test_what_is_unread_is_never_negative_and_is_all_where_a_group_stands_nowhere(begin, end, committed, lag):
    assert PartitionLag(0, begin, end, committed).lag == lag


def test_a_setting_names_topics_groups_and_bounds():
    assert watched("orders:loader:5000, orders:audit,plain", max_lag=10) == [
        Watched("orders", "loader", 5000),
        Watched("orders", "audit", 10),
        Watched("plain"),
    ]


def health(topic: str, group: str, *positions: int | None) -> TopicHealth:
    parts = tuple(PartitionLag(number, 0, 100, at) for number, at in enumerate(positions))
    lag = sum(part.lag for part in parts) if group else None
    return TopicHealth(topic, group, len(positions), 0, 100 * len(positions), 100, None, lag, None, parts)


@pytest.fixture
def look(storage, monkeypatch):
    def looked(wanted: list[Watched], *found: TopicHealth) -> topics.Look:
        monkeypatch.setattr(kafka, "topics", lambda *_, **__: list(found))
        return topics.look(storage, "h:1", wanted, at=datetime.now(UTC), run_id="r", patience=5)

    return looked


def test_a_group_beyond_its_bound_is_named_and_one_at_it_is_not(look):
    wanted = [Watched("orders", "loader", 149), Watched("orders", "audit", 150), Watched("plain")]
    found = look(wanted, health("orders", "loader", 50, None), health("orders", "audit", 50, None), health("plain", "", None))
    assert found.behind == ["loader has not read 150 messages of orders (at most 149)"]
    assert [(row["group"], row["partition"], row["committed"], row["lag"]) for row in found.lags[:2]] == [
        ("loader", 0, 50, 50),
        ("loader", 1, None, 100),
    ]


def test_brokers_that_do_not_answer_are_an_error_of_every_topic_and_no_group_is_behind(storage, monkeypatch):
    def down(*_, **__):
        raise KafkaError("Kafka at h:1 does not answer: refused.", remedy="")

    monkeypatch.setattr(kafka, "topics", down)
    found = topics.look(storage, "h:1", [Watched("orders", "loader", 1)], at=datetime.now(UTC), run_id="r", patience=5)
    assert [row["error"] for row in found.topics] == ["Kafka at h:1 does not answer: refused."]
    assert (found.behind, found.lags) == ([], [])
