"""A feed that is down: it is below 100 % in event time, health is red at once, and there is one alert and one recovery."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from benchmarks.past_runs import PastRun, put
from lakehouse.dashboard import business
from lakehouse.dashboard.reading import Reader
from lakehouse.definitions import build_defs
from lakehouse.observability import prometheus, watch
from lakehouse.observability.metrics import take_up
from lakehouse.observability.notifier import notify
from lakehouse.observability.routing import Routing
from lakehouse.settings import Settings

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
UP = {"job": "brt_capture", "asset": "landing/brt_captura", "metadata": {"captured_at": 1}}
DOWN = {**UP, "failed": ("captura",), "metadata": {"degraded": True}}


def minute(n: int, *, down: bool = False) -> PastRun:
    """The run of the minute `n` minutes ago."""
    return PastRun(NOW.replace(second=5) - timedelta(minutes=n), 2.0, **(DOWN if down else UP))


def test_a_feed_that_was_down_for_a_part_of_the_time_is_below_100_percent_by_exactly_that(tmp_path):
    settings = Settings(root=str(tmp_path))
    up, down, unasked = range(120, 80, -1), range(80, 60, -1), range(60, 30, -1)  # minutes ago
    past = [*(minute(n) for n in up), *(minute(n, down=True) for n in down), *(minute(n) for n in range(30, 0, -1))]
    past.append(PastRun(NOW - timedelta(seconds=2), 1.0, "monitoring", asset="ops/run_metrics"))
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, past)
        take_up(instance, settings.storage)
        assert build_defs(settings).resolve_job_def("slo").execute_in_process(instance=instance).success
    rows = {row["time_window"]: row for row in Reader(settings, fresh=0).ask(business.feeds)}
    assert set(rows) == {"24h", "7d", "30d"}
    for row in rows.values():  # due from the first capture on, also while nothing asked
        assert (row["feed"], row["minutes_due"], row["minutes_captured"]) == ("landing/brt_captura", 120, 70)
        assert row["delivery_rate"] == pytest.approx(70 / 120)
        assert row["newest_minute"] == NOW.replace(second=0) - timedelta(minutes=1)
    assert len(unasked) + len(down) + 70 == 120
    scraped = prometheus.text(settings.storage)
    assert 'lakehouse_feed_minutes_captured{feed="landing/brt_captura",time_window="24h"} 70.0' in scraped


def test_a_lake_without_the_feed_has_no_row(tmp_path):
    settings = Settings(root=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        assert build_defs(settings).resolve_job_def("slo").execute_in_process(instance=instance).success
    assert Reader(settings, fresh=0).ask(business.feeds) == []


class Mailbox:
    """A channel that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def send(self, message) -> None:
        self.told.append((message.kind, message.state))


def test_a_feed_that_is_down_for_minutes_is_one_alert_and_one_recovery(storage):
    """One look and one sending a minute, as the sensors do."""
    mailbox, cursor, now = Mailbox(), None, datetime.now(UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        for n in range(12, 0, -1):
            given = DOWN if 10 > n > 3 else {**UP, "passed": ("captura",)}
            put(instance, [PastRun(now - timedelta(minutes=n), 2.0, **given)])
            cursor = watch.look(instance, storage, cursor=cursor).cursor
            notify(storage, {"email": mailbox}, routing=Routing())
    assert mailbox.told == [("check_failed", "raised"), ("check_failed", "resolved")]
