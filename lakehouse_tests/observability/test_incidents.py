"""Who is told what, how often: incidents and routing, without a clock or a network of their own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.core.errors import DeclarationError
from lakehouse.observability import routing as rules
from lakehouse.observability.alerts import KINDS, Alert
from lakehouse.observability.incidents import delivered, due, failed, retained, take_in
from lakehouse.observability.routing import Route, Routing, Silence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EMAIL = Routing(routes=(Route(channels=("email",), minimum="info"),))


def alert(number: int, at: datetime = NOON, *, key: str = "k", state: str = "raised", severity: str = "error") -> dict:
    made = Alert("run_failure", severity, "pedidos failed", "Because.", key, state=state, occurred_at=at, id=str(number))
    return {**made.row(), "number": number, "raised_at": at}


def play(alerts: list[dict], *, minutes: int, routing: Routing = EMAIL, up=lambda now: True) -> list:
    """Messages that went out, when the notifier is called every 15 s."""
    incidents, sent, waiting = [], [], list(alerts)
    for tick in range(minutes * 4 + 1):
        now = NOON + timedelta(seconds=15 * tick)
        arrived = [a for a in waiting if a["raised_at"] <= now]
        waiting = waiting[len(arrived) :]
        incidents = take_in(incidents, arrived, routing=routing)
        for message in due(incidents, routing=routing, targets=["email", "slack", "kafka"], now=now):
            n = next(n for n, incident in enumerate(incidents) if incident.number == message.incident)
            if up(now):
                incidents[n] = delivered(incidents[n], message.target, routing=routing, at=now)
                sent.append((now, message))
            else:
                incidents[n] = failed(incidents[n], message.target, error="down", at=now)
    return sent


def test_a_thousand_failures_in_an_hour_are_three_messages_and_the_count_is_right():
    alerts = [alert(n + 1, NOON + timedelta(seconds=3.6 * n)) for n in range(1000)]
    alerts.append(alert(1001, NOON + timedelta(minutes=70), state="resolved"))
    sent = [message for _, message in play(alerts, minutes=80)]
    assert [(message.state, message.count) for message in sent] == [("raised", 1), ("raised", 1000), ("resolved", 1000)]
    assert "(1,000 times since 2026-01-01 12:00 UTC)" in sent[1].subject
    assert "having occurred 1,000 times" in sent[2].body
    assert len({message.id for message in sent}) == 3


def test_what_comes_and_goes_all_the_time_is_told_no_more_than_three_times_an_hour():
    alerts = []
    for n in range(120):  # every 30 s
        alerts.append(alert(2 * n + 1, NOON + timedelta(seconds=30 * n)))
        alerts.append(alert(2 * n + 2, NOON + timedelta(seconds=30 * n + 15), state="resolved"))
    sent = play(alerts, minutes=59)
    assert len(sent) == 3
    last = play(alerts, minutes=150)[-1][1]
    assert (last.state, last.count) == ("resolved", 120)


def test_a_recovery_is_told_and_what_returns_after_a_window_is_a_new_incident():
    alerts = [alert(1), alert(2, NOON + timedelta(minutes=5), state="resolved"), alert(3, NOON + timedelta(minutes=90))]
    sent = [message for _, message in play(alerts, minutes=100)]
    assert [(m.incident, m.state, m.count) for m in sent] == [(1, "raised", 1), (1, "resolved", 1), (3, "raised", 1)]
    assert sent[1].subject.startswith("[RESOLVED] pedidos failed")
    assert "after 5 min" in sent[1].body


def test_a_channel_that_was_down_gets_one_message_per_incident_with_the_right_count():
    alerts = [alert(n + 1, NOON + timedelta(seconds=n)) for n in range(50)]
    sent = play(alerts, minutes=60, up=lambda now: now > NOON + timedelta(minutes=30))
    assert [(m.state, m.count) for _, m in sent] == [("raised", 50)]
    assert sent[0][0] <= NOON + timedelta(minutes=36)  # pauses double up to five minutes


def test_one_that_began_and_ended_while_the_channel_was_down_is_told_as_that():
    alerts = [alert(1), alert(2, NOON + timedelta(minutes=5), state="resolved")]
    ((_, message),) = play(alerts, minutes=60, up=lambda now: now > NOON + timedelta(minutes=30))
    assert message.state == "resolved"
    assert "It was: Because." in message.body


def test_an_end_without_a_beginning_is_nothing():
    assert play([alert(1, state="resolved")], minutes=1) == []


def test_what_is_silent_is_counted_and_told_when_the_silence_is_over():
    silence = Silence(keys="k*", until=NOON + timedelta(minutes=10), reason="backfill")
    alerts = [alert(n + 1, NOON + timedelta(minutes=n)) for n in range(5)]
    sent = play(alerts, minutes=30, routing=replace(EMAIL, silences=(silence,)))
    assert [(at, m.count) for at, m in sent] == [(NOON + timedelta(minutes=10), 5)]


def test_routing_goes_by_severity_kind_and_key():
    routing = Routing(
        routes=(
            Route(channels=("email",), minimum="error"),
            Route(channels=("slack",), kinds=("sla_miss",), minimum="info"),
            Route(channels=("kafka",), keys="service:*", minimum="info"),
        )
    )
    assert routing.channels(kind="run_failure", severity="error", key="x") == ("email",)
    assert routing.channels(kind="sla_miss", severity="warning", key="x") == ("slack",)
    assert routing.channels(kind="notice", severity="info", key="service:kafka") == ("kafka",)
    assert routing.channels(kind="notice", severity="info", key="x") == ()


def test_by_default_errors_and_stale_tables_reach_every_channel():
    for kind in KINDS:
        assert Routing().channels(kind=kind, severity="error", key="x") == ("kafka", "email", "slack")
    assert Routing().channels(kind="stale_table", severity="warning", key="x") == ("kafka", "email", "slack")
    assert Routing().channels(kind="check_failed", severity="warning", key="x") == ("kafka", "slack")


@given(
    st.lists(
        st.tuples(st.integers(0, 7200), st.sampled_from(["a", "b"]), st.sampled_from(["raised", "raised", "resolved"])),
        max_size=40,
    )
)
@settings(max_examples=40, deadline=None)
def test_in_the_end_the_channel_knows_the_state_and_the_count_of_every_key(happened):
    """And was never told more than `limit` times within a window."""
    alerts = [
        alert(n, NOON + timedelta(seconds=at), key=key, state=state) for n, (at, key, state) in enumerate(sorted(happened), 1)
    ]
    sent = play(alerts, minutes=420)
    incidents = take_in([], alerts, routing=EMAIL)
    for incident in incidents:
        told = [message for _, message in sent if message.incident == incident.number]
        assert (told[-1].state == "resolved") == (incident.state == "resolved")
        assert told[-1].count == incident.count
        times = [at for at, message in sent if message.incident == incident.number]
        assert all(sum(timedelta() <= at - other < EMAIL.window for other in times) <= EMAIL.limit for at in times)
    assert sum(incident.count for incident in incidents) == sum(state == "raised" for _, _, state in happened)


def test_only_what_is_over_told_and_old_is_forgotten():
    incidents = take_in([], [alert(1), alert(2, NOON, state="resolved"), alert(3, NOON, key="open")], routing=EMAIL)
    later = NOON + timedelta(days=8)
    assert len(retained(incidents, routing=EMAIL, targets=["email"], now=later)) == 2  # nobody was told yet
    notice = Alert("notice", "info", "1,234 orders loaded", occurred_at=NOON)
    (output,) = take_in([], [{**notice.row(), "number": 9}], routing=EMAIL)
    assert retained([output], routing=EMAIL, targets=["email"], now=NOON) == [output]
    assert retained([output], routing=EMAIL, targets=["email"], now=later) == []
    told = [delivered(incident, "email", routing=EMAIL, at=NOON) for incident in incidents]
    assert [incident.key for incident in retained(told, routing=EMAIL, targets=["email"], now=later)] == ["open"]


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_lakes_own_routing_is_used_once_it_is_there(storage):
    assert rules.load(storage) == Routing()
    document = {"window_minutes": 10, "routes": [{"channels": ["slack"], "keys": "check:*"}]}
    uri = rules.save(storage, document, seen=None)
    assert uri.endswith("ops/routing/routing.json")
    found = rules.load(storage)
    assert found.window == timedelta(minutes=10)
    assert found.channels(kind="check_failed", severity="warning", key="check:a:b") == ("slack",)
    assert found.channels(kind="run_failure", severity="critical", key="x") == ()


@pytest.mark.parametrize(
    "document",
    [
        {"routes": [{"channels": ["pigeon"]}]},
        {"routes": [{"channels": []}]},
        {"routes": [{"channels": "email"}]},
        {"routes": [{"channels": ["email"], "minimum": "loud"}]},
        {"routes": [{"channels": ["email"], "kinds": ["weather"]}]},
        {"routes": [{"channels": ["email"], "to": "me"}]},
        {"silences": [{"keys": "*", "until": "2026-01-01T00:00:00", "reason": "no zone"}]},
        {"silences": [{"keys": "*", "until": "2026-01-01T00:00:00+00:00", "reason": " "}]},
        {"window_minutes": 0},
        {"limit": 1},
        {"windows": 3},
    ],
)
def test_a_wrong_routing_is_refused_and_changes_nothing(storage, document):
    with pytest.raises(DeclarationError):
        rules.save(storage, document, seen=None)
    assert rules.load(storage) == Routing()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"routes": [3]}', b'{"window_minutes": "soon"}', b"\xff"])
def test_a_garbled_file_is_named(storage, content):
    rules.save(storage, {}, seen=None)
    from lakehouse.core.names import TableRef

    storage.put(TableRef("ops", "routing"), "routing.json", content)
    with pytest.raises(DeclarationError, match=r"routing\.json"):
        rules.load(storage)
