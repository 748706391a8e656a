"""Alerts and events are kept once per id, numbered without a gap, whoever writes at the same time; and without secrets."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.observability import alerts, events, outbox
from lakehouse.observability.alerts import ALERTS_TABLE, Alert, raise_alert, raise_alerts
from lakehouse.observability.events import EVENTS_TABLE, Event, publish


def failed(run: str, **changes) -> Alert:
    return Alert("run_failure", severity="error", **{"subject": "pedidos failed", "run_id": run, **changes})


def stored(storage, ref=ALERTS_TABLE, columns=alerts.COLUMNS, after=0):
    with outbox.small_session(storage) as session:
        return outbox.read(session, storage, ref, columns=columns, after=after)


def test_an_alert_is_stored_once_per_id_and_logged(storage, caplog):
    with caplog.at_level("INFO"):
        assert raise_alert(storage, failed("r1", body="The API did not answer."))
        assert not raise_alert(storage, failed("r1", body="The API did not answer."))
    assert [record.getMessage() for record in caplog.records] == ["run_failure raised: pedidos failed: The API did not answer."]
    (row,) = stored(storage)
    assert (row["number"], row["kind"], row["run_id"]) == (1, "run_failure", "r1")
    assert open_existing(storage.uri(ALERTS_TABLE)).version == 1


def test_a_batch_is_one_commit_and_only_what_is_new_of_it_is_stored(storage):
    raise_alert(storage, failed("r1"))
    new = raise_alerts(storage, [failed(f"r{n}") for n in (1, 2, 3, 2)])
    assert [alert.run_id for alert in new] == ["r2", "r3"]
    assert [row["number"] for row in stored(storage)] == [1, 2, 3]
    assert [row["run_id"] for row in stored(storage, after=2)] == ["r3"]
    assert open_existing(storage.uri(ALERTS_TABLE)).version == 2


def test_ids_are_found_in_files_that_contain_many_rows(storage):
    raise_alerts(storage, [failed(f"r{n}") for n in range(500)])
    assert raise_alerts(storage, [failed(f"r{n}") for n in range(499, 502)]) != []
    assert len(stored(storage)) == 502


def test_two_processes_that_write_at_once_lose_and_double_nothing(storage):
    program = f"""
from lakehouse.core.store.storage import Storage
from lakehouse.observability.events import Event, publish
import sys
storage = Storage(root={storage.root!r}, landing={storage.landing!r})
for n in range(12):
    publish(storage, Event("notice", "shared", id=f"shared-{{n}}"))
    publish(storage, Event("notice", "own", id=f"{{sys.argv[1]}}-{{n}}"))
"""
    started = [subprocess.Popen([sys.executable, "-c", program, name]) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    rows = stored(storage, EVENTS_TABLE, events.COLUMNS)
    assert [row["number"] for row in rows] == list(range(1, 37))
    assert len({row["id"] for row in rows}) == 36


def test_a_cursor_travels_with_the_rows(storage):
    raise_alerts(storage, [failed("r1")], watermarks={"event_log": 17})
    assert open_existing(storage.uri(ALERTS_TABLE)).watermark("event_log") == 17


SECRETS = {
    "postgres://lake:hunter2@db/x": "hunter2",
    "smtp://a%40b.c:pa55@mail:587": "pa55",
    "token xoxb-12-34-abcdef": "xoxb-12-34-abcdef",
    "AWS_SECRET_ACCESS_KEY=abc/def+1": "abc/def+1",
    "{'password': 'p w'}": "p w",
    'Authorization: "Bearer eyJ.abc-1"': "eyJ.abc-1",
    "https://h/x?api_key=k1&token=k2": "k2",
    "https://s3/x?X-Amz-Signature=deadbeef": "deadbeef",
}


@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_is_stored_in_an_alert_or_an_event(storage, text):
    alert = failed("r1", subject=f"It failed: {text}", body=f"Because of {text}.")
    event = Event("notice", text, {"error": text})
    for output in (alert.subject, alert.body, alert.key, event.subject, event.json_payload()):
        assert SECRETS[text] not in output
    assert "It failed" in alert.subject


def test_what_an_event_is_on_the_wire(storage):
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert publish(storage, Event("model_promoted", "ml/receita", {"version": 3}, id="p1", run_id="r", occurred_at=at))
    assert not publish(storage, Event("model_promoted", "ml/receita", {"version": 3}, id="p1"))
    (row,) = stored(storage, EVENTS_TABLE, events.COLUMNS)
    assert json.loads(events.message(row)) == {
        "schema": "lakehouse.event.v1", "id": "p1", "kind": "model_promoted", "subject": "ml/receita", "run_id": "r",
        "occurred_at": "2026-01-02T03:04:00+00:00", "payload": {"version": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: Alert("explosion", severity="error", subject="x"),
        lambda: Alert("notice", severity="fatal", subject="x"),
        lambda: Alert("notice", severity="info", subject=" "),
        lambda: Alert("notice", severity="info", subject="x", occurred_at=datetime(2026, 1, 1)),
        lambda: Event("explosion", "x"),
        lambda: Event("notice", ""),
        lambda: Event("notice", "x", {"at": datetime(2026, 1, 1)}),
    ],
)
def test_a_wrong_record_is_refused_with_the_remedy(make):
    with pytest.raises(DeclarationError, match=r"(Use|Say|Give) .*\.$"):
        make()
