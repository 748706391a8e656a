"""A window of an extraction lands what it asked for, and the cursor never passes what was not taken."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from lakehouse.__main__ import app
from lakehouse.core.errors import DeclarationError
from lakehouse.landing.sources import extract, rest
from lakehouse.landing.sources.window import Window, window
from lakehouse_tests.landing.shop import Shop, serve

STREAM = "pedidos_api"


def order(day: int):
    return {"id": day, "updated_at": f"2024-01-{day:02}T12:00:00Z"}


def day(number: int) -> datetime:
    return datetime(2024, 1, number, 12, tzinfo=UTC)


@pytest.fixture
def shop():
    with serve(Shop([order(n) for n in range(1, 11)])) as found:
        yield found


@pytest.fixture
def take(lake, shop):
    def _take(asked: Window | None = None) -> extract.Landed:
        asked = asked or Window()
        landed = lake.storage.landed(STREAM)
        since = asked.begin(extract.cursor(landed), overlap=timedelta())
        api = rest.Api(url=shop.url, cache_seconds=0)
        fetched = rest.fetch(api, lake.folder / "cache", since=since, deadline=time.monotonic() + 30)
        with lake.session() as session:
            return extract.land(
                session, lake.storage, STREAM, fetched.paths, cursor_field="updated_at", started=fetched.started,
                landed=landed, window=asked,
            )  # fmt: skip

    return _take


def test_an_end_leaves_the_rest_to_the_next_extraction(take):
    found = take(Window(until=day(4)))
    assert (found.delivered, found.new, found.cursor) == (3, 3, day(3))
    found = take()
    assert (found.delivered, found.new, found.cursor) == (8, 7, day(10))


def test_a_window_in_the_past_lands_what_came_late_and_leaves_the_cursor(take, shop):
    take()
    shop.orders.append({"id": 99, "updated_at": "2024-01-02T13:00:00Z"})
    found = take(Window(since=day(2), until=day(5)))
    assert (found.new, found.cursor) == (1, day(10))


@pytest.mark.parametrize("landed_before", [True, False])
def test_a_window_that_begins_after_the_cursor_moves_it_not(take, shop, landed_before):
    if landed_before:
        take(Window(until=day(3)))
    found = take(Window(since=day(8)))
    assert (found.new, found.cursor) == (3, day(2) if landed_before else None)
    assert take().new == (5 if landed_before else 7)
    shop.orders.append(order(11))
    assert (take().new, take().cursor) == (1, day(11))


def test_everything_is_asked_for_again_and_lands_once(take, shop):
    take()
    shop.orders.append({"id": 99, "updated_at": "2023-01-01T00:00:00Z"})
    assert take().new == 0
    found = take(Window(full=True))
    assert (found.delivered, found.new, found.cursor) == (11, 1, day(10))


def test_a_record_without_an_instant_is_in_every_window(take, shop):
    shop.orders.append({"id": 99, "updated_at": ""})
    assert take(Window(until=day(2))).new == 2
    assert take(Window(until=day(2))).new == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"full": True, "since": "2026-01-01", "until": ""}, "A full extraction has no beginning"),
        ({"full": False, "since": "2026-02-01", "until": "2026-01-01"}, "is empty"),
        ({"full": False, "since": "ontem", "until": ""}, "FROM .*'ontem'"),
        ({"full": False, "since": "", "until": "31/01/2026"}, "UNTIL .*'31/01/2026'"),
    ],
)
def test_a_window_that_is_none_is_refused(given, message):
    with pytest.raises(DeclarationError, match=message):
        window(**given)


def test_dates_are_those_of_the_business():
    found = window(full=False, since="2026-01-31", until="2026-02-01T08:00Z")
    assert str(found) == "from 2026-01-31T03:00:00+00:00 until 2026-02-01T08:00:00+00:00"
    assert not window(full=False, since="", until="")


def test_the_command_gives_the_window_to_the_run_and_refuses_what_asks_nobody(monkeypatch):
    from lakehouse.commands import foreground

    given = []
    monkeypatch.setattr(foreground, "job_named", lambda job: job)
    monkeypatch.setattr(foreground, "execute", lambda job, config, **_: given.append((job, config)) or 0)
    assert CliRunner().invoke(app, ["trigger", "pedidos", "--full", "1", "--until", "2026-01-01"]).exit_code == 0
    assert CliRunner().invoke(app, ["trigger", "pedidos", "--full", "0"]).exit_code == 0
    assert json.dumps(given) == json.dumps(
        [("pedidos", {"resources": {"extraction": {"config": {"full": True, "until": "2026-01-01"}}}}), ("pedidos", {})]
    )
    refused = CliRunner().invoke(app, ["trigger", "medallion_etl", "--full", "1"])
    assert "asks no source system" in str(refused.exception)
    assert "pedidos" in str(refused.exception)
