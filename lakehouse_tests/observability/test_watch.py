"""What Dagster's event log says becomes alerts and events, each once, whatever happens between two looks."""

import json
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from benchmarks.past_runs import PastRun, put
from lakehouse.observability import alerts, eventlog, events, outbox, watch
from lakehouse.observability.alerts import ALERTS_TABLE
from lakehouse.observability.events import EVENTS_TABLE
from lakehouse.observability.outcome import JobSla
from lakehouse.observability.watch import look
from lakehouse.runtime.steps import ATTEMPT_TAG

UI = "http://127.0.0.1:3000"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def now() -> datetime:
    return datetime.now(UTC)


def stored(storage, ref=ALERTS_TABLE, columns=alerts.COLUMNS):
    with outbox.small_session(storage) as session:
        return outbox.read(session, storage, ref, columns=columns, after=0)


def run(**changes) -> PastRun:
    return PastRun(now() - timedelta(seconds=5), 2.0, **changes)


def check(instance, *, passed: bool, severity=dg.AssetCheckSeverity.ERROR) -> None:
    @dg.asset(key=["silver", "vendas"], check_specs=[dg.AssetCheckSpec("unique_id", asset=["silver", "vendas"])])
    def vendas():
        result = dg.AssetCheckResult(passed=passed, severity=severity, metadata={"failed": 3, "judged": 10})
        return dg.MaterializeResult(check_results=[result], metadata={"delta_version": 4, "rows_written": 7})

    dg.materialize([vendas], instance=instance)


def test_a_run_failure_states_step_job_time_error_and_where_the_log_is(instance, storage):
    one = run(job="pedidos", outcome="failure", error="ValueError: no orders at postgres://u:hunter2@db/x\n")
    put(instance, [one])
    look(instance, storage, cursor=None, ui=UI)
    (alert,) = stored(storage)
    assert (alert["kind"], alert["severity"], alert["job"], alert["step"]) == ("run_failure", "error", "pedidos", one.step)
    assert alert["link"] == f"{UI}/runs/{one.run_id}?selection={one.step}"
    at = (one.start + timedelta(seconds=2)).strftime("%Y-%m-%d %H:%M:%S")
    assert alert["body"] == f"Step {one.step} of pedidos failed at {at} UTC: ValueError: no orders at postgres://***@db/x"


def test_a_failed_check_that_fails_no_run_is_an_alert_and_its_recovery_ends_it(instance, storage):
    check(instance, passed=True)
    cursor = look(instance, storage, cursor=None).cursor
    assert stored(storage) == []
    check(instance, passed=False)
    cursor = look(instance, storage, cursor=cursor).cursor
    (alert,) = stored(storage)
    assert (alert["kind"], alert["subject"]) == ("check_failed", "silver/vendas: check unique_id failed")
    assert "failed 3, judged 10" in alert["body"]
    check(instance, passed=True)
    look(instance, storage, cursor=cursor)
    assert [row["state"] for row in stored(storage)] == ["raised", "resolved"]


def test_a_warning_is_a_warning(instance, storage):
    check(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
    look(instance, storage, cursor=None)
    assert [row["severity"] for row in stored(storage)] == ["warning"]


def test_a_run_whose_worker_is_gone_is_told_from_one_that_failed(instance, storage):
    put(instance, [run(worker_gone=True), run(outcome="failure")])
    look(instance, storage, cursor=None)
    assert [row["kind"] for row in stored(storage)] == ["run_worker_gone", "run_failure"]


def test_a_failure_that_dagster_tries_again_is_not_announced_and_neither_is_a_cancellation(instance, storage):
    put(instance, [run(outcome="failure", tags={"dagster/will_retry": "true"}), run(outcome="canceled")])
    assert look(instance, storage, cursor=None).alerts == 0


def test_a_run_that_succeeds_ends_the_failure_of_its_job_only(instance, storage):
    put(instance, [run(job="a", outcome="failure"), run(job="b", outcome="failure")])
    cursor = look(instance, storage, cursor=None).cursor
    put(instance, [run(job="a")])
    look(instance, storage, cursor=cursor)
    assert [(row["key"], row["state"]) for row in stored(storage)] == [
        ("run_failure:a", "raised"), ("run_failure:b", "raised"), ("run_failure:a", "resolved"),
    ]  # fmt: skip


def test_the_third_failure_in_a_row_of_what_the_landing_sensor_asks_for_is_an_alert_of_its_own(instance, storage):
    tries = [run(job="medallion_etl", outcome="failure", tags={ATTEMPT_TAG: str(n)}) for n in (1, 2, 3, 4)]
    put(instance, tries)
    cursor = look(instance, storage, cursor=None).cursor
    told = [row for row in stored(storage) if row["kind"] == "automation"]
    assert [row["run_id"] for row in told] == [one.run_id for one in tries[2:]]  # one incident, counted
    assert told[0]["subject"] == "medallion_etl has failed 3 times in a row: what landed is not taken in"
    assert "make trigger JOB=medallion_etl" in told[0]["body"]
    put(instance, [run(job="medallion_etl")])
    look(instance, storage, cursor=cursor)
    assert ("not_taken:medallion_etl", "resolved") in [(row["key"], row["state"]) for row in stored(storage)]


def test_twenty_failures_wait_together_for_what_dagster_decides_about_a_retry(storage, monkeypatch):
    paused, sleep = [], time.sleep
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: (paused.append(seconds), sleep(0))[0])
    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True}}) as instance:
        put(instance, [run(job=f"job_{n}", outcome="failure") for n in range(20)])
        assert look(instance, storage, cursor=None).alerts == 20
    assert paused == [0.5]


def test_a_success_before_a_failure_is_not_its_end(instance, storage):
    put(instance, [run(job="a"), run(job="a", outcome="failure")])
    look(instance, storage, cursor=None)
    assert [row["state"] for row in stored(storage)] == ["raised"]


def test_an_sla_miss_is_told_while_the_run_is_still_running_and_once(instance, storage):
    one = PastRun(now(), 0, job="pedidos")
    instance.add_run(dg.DagsterRun(job_name="pedidos", run_id=one.run_id, status=dg.DagsterRunStatus.STARTED))
    job_slas = [JobSla("pedidos", timedelta(hours=1))]
    cursor = look(instance, storage, cursor=None, job_slas=job_slas).cursor
    assert stored(storage) == []
    later = now() + timedelta(minutes=61)
    cursor = look(instance, storage, cursor=cursor, job_slas=job_slas, now=later).cursor
    look(instance, storage, cursor=cursor, job_slas=job_slas, now=later + timedelta(minutes=5))
    (alert,) = stored(storage)
    assert alert["kind"] == "sla_miss"
    assert "has been on its way for 1 h 01 min" in alert["body"]


def test_a_run_that_ends_late_is_a_miss_and_the_next_in_time_ends_it(instance, storage):
    job_slas = [JobSla("pedidos", timedelta(seconds=30))]
    put(instance, [PastRun(now(), 60, job="pedidos")])
    cursor = look(instance, storage, cursor=None, job_slas=job_slas).cursor
    put(instance, [PastRun(now(), 1, job="pedidos")])
    look(instance, storage, cursor=cursor, job_slas=job_slas)
    assert [(row["kind"], row["state"]) for row in stored(storage)] == [("sla_miss", "raised"), ("sla_miss", "resolved")]


def test_runs_and_published_tables_are_events(instance, storage):
    check(instance, passed=True)
    put(instance, [run(job="bad", outcome="failure")])
    look(instance, storage, cursor=None)
    found = stored(storage, EVENTS_TABLE, events.COLUMNS)
    assert [row["kind"] for row in found] == ["run_started", "table_published", "run_succeeded", "run_started", "run_failed"]
    assert json.loads(found[1]["payload"]) == {"job": found[0]["subject"], "delta_version": 4, "rows_written": 7}


def test_landed_files_are_events_once(instance, lake):
    from lakehouse.tables import ALL

    lake.land("produtos", "one", [{"id": "a", "nome": "x", "updated_at": "2026-01-01T00:00:00Z"}])
    lake.ingest(next(spec for spec in ALL if spec.name == "produtos"))
    cursor = look(instance, lake.storage, cursor=None).cursor
    look(instance, lake.storage, cursor=cursor)
    look(instance, lake.storage, cursor=None)  # a cursor that was lost
    (event,) = stored(lake.storage, EVENTS_TABLE, events.COLUMNS)
    assert event["kind"] == "file_landed"
    assert json.loads(event["payload"])["path"] == "raw/produtos/one.jsonl"


def test_a_look_that_was_cut_off_is_repeated_without_doubles(instance, storage, monkeypatch):
    put(instance, [run(outcome="failure"), run()])

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lakehouse.observability.watch.publish_all", killed)
        with pytest.raises(KeyboardInterrupt):
            look(instance, storage, cursor=None)
    look(instance, storage, cursor=None)
    assert len(stored(storage)) == len({row["id"] for row in stored(storage)}) == 2  # the failure, and its end
    assert len(stored(storage, EVENTS_TABLE, events.COLUMNS)) == 5


def test_what_becomes_visible_late_is_seen_and_what_was_seen_is_not_seen_again(instance, storage, monkeypatch):
    put(instance, [run(job=f"j{n}", outcome="failure") for n in range(3)])
    real = eventlog.entries
    hidden = [e.id for e in real(instance, after=0, types=[dg.DagsterEventType.RUN_FAILURE], limit=9)][1]
    with monkeypatch.context() as patch:
        patch.setattr(eventlog, "entries", lambda *a, **k: [e for e in real(*a, **k) if e.id != hidden])
        first = look(instance, storage, cursor=None)
    assert first.alerts == 2
    second = look(instance, storage, cursor=first.cursor)
    assert (second.alerts, second.entries) == (1, 1)
    assert look(instance, storage, cursor=second.cursor).entries == 0


def test_what_failed_long_before_the_first_look_is_history(instance, storage):
    put(instance, [PastRun(now() - timedelta(hours=3), 1, outcome="failure"), run(outcome="failure")])
    assert look(instance, storage, cursor=None).alerts == 1


def test_another_instance_is_read_from_its_own_beginning(storage):
    cursor = None
    for _ in range(2):
        with dg.DagsterInstance.ephemeral() as made:
            put(made, [run(outcome="failure")])
            found = look(made, storage, cursor=cursor)
            cursor = found.cursor
            assert found.alerts == 1


def test_the_heartbeat_is_called_after_a_good_monitoring_run_only(instance, tmp_path):
    import http.server
    import threading

    from lakehouse.observability.sensors import sensors
    from lakehouse.settings import Settings

    called: list[str] = []
    answers = [200, 500, 500, 200, 200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            called.append(self.path)
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *_args):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/ping/s3cret"

    def tick(cursor: str | None) -> tuple[str, str]:
        watch = sensors(Settings(root=str(tmp_path), heartbeat_url=url), job_slas=(), tables=())[0]
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            return watch(context).skip_message, context.cursor

    put(instance, [run(job="monitoring", outcome="failure"), run(job="other")])
    output, cursor = tick(None)
    assert (called, "heartbeat" in output) == ([], False)
    put(instance, [run(job="monitoring")])
    output, cursor = tick(cursor)
    assert called == ["/ping/s3cret"]
    assert output.endswith("The heartbeat was sent.")
    storage = Settings(root=str(tmp_path)).storage
    assert stored(storage)[-1]["key"] == "run_failure:monitoring"
    for _ in answers[:]:
        put(instance, [run(job="monitoring")])
        output, cursor = tick(cursor)
    told = [(row["state"], row["subject"]) for row in stored(storage) if row["key"] == "automation:heartbeat"]
    assert told == [("raised", "The heartbeat cannot be sent")] * 2 + [("resolved", "The heartbeat is sent again")]
    assert not any("s3cret" in row["body"] for row in stored(storage))
    server.shutdown()
    server.server_close()
    put(instance, [run(job="monitoring")])
    output, _ = tick(cursor)
    assert "The heartbeat failed" in output
    assert "s3cret" not in output
