"""What is measured of tables and services is what is there; what is broken or hangs is reported, and costs the rest nothing."""

import http.server
import json
import shutil
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.definitions import build_defs
from lakehouse.observability import assets as observability
from lakehouse.observability import outbox, prometheus, services, watch
from lakehouse.observability.deadline import TooLateError, side_by_side, within
from lakehouse.observability.table_health import HEALTH_TABLE, Target, measure, measure_all, targets
from lakehouse.observability.topics import KAFKA_TABLE
from lakehouse.sample.serving import served
from lakehouse.settings import Settings
from lakehouse.tables import ALL
from lakehouse.tables.spec import Health

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REF = TableRef("silver", "vendas")
COLUMNS = {"id": "bigint", "at": "timestamp"}


def write(storage: Storage, ref: TableRef, instants: list[datetime], *, commits: int = 1) -> str:
    uri = storage.uri(ref)
    for n in range(commits):
        table = open_table(uri, COLUMNS)
        with outbox.small_session(storage) as session:
            rows = [{"id": n * 1000 + m, "at": at} for m, at in enumerate(instants)]
            add = session.write(session.table(rows, COLUMNS), uri, columns=COLUMNS)
            commit_staged(Transaction(table=table, add=add))
    return uri


def test_the_figures_of_a_table_are_its_own(storage):
    uri = write(storage, REF, [NOW - timedelta(hours=3), NOW - timedelta(hours=2)], commits=3)
    bad = write(storage, TableRef("quarantine", "vendas"), [NOW])
    found = measure(Target(REF, uri, Health(event_time="at", max_quarantine=0.5), 16, (bad,)), now=NOW)
    size = sum(file.stat().st_size for file in Path(uri).glob("*.parquet"))
    assert (found.outcome, found.version, found.rows, found.files, found.bytes) == ("ok", 3, 6, 3, size)
    assert (found.small_files, found.log_length) == (3, 4)
    assert (found.newest_event_at, found.event_age_seconds) == (NOW - timedelta(hours=2), 7200)
    assert (found.quarantined, found.quarantine_share) == (1, round(1 / 7, 6))
    assert abs((datetime.now(UTC) - found.committed_at).total_seconds()) < 60


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (Health(event_time="at", max_event_age=timedelta(hours=1)), "the newest at is 2 h old, allowed are 1 h"),
        (Health(max_log=1), "2 commits since the last checkpoint, allowed are 1"),
        (Health(max_commit_age=timedelta(minutes=1)), "the last commit"),
    ],
)
def test_a_bound_that_is_broken_is_reported_with_both_figures(storage, bounds, expected):
    uri = write(storage, REF, [NOW - timedelta(hours=2)])
    found = measure(Target(REF, uri, bounds), now=NOW)
    assert found.outcome == "unhealthy"
    assert expected in found.problems


def test_a_clock_that_is_ahead_is_reported_and_not_called_stale(storage):
    uri = write(storage, REF, [NOW + timedelta(hours=2)])
    found = measure(Target(REF, uri, Health(event_time="at", max_event_age=timedelta(hours=1))), now=NOW)
    assert "2 h ahead of this clock" in found.problems
    assert not found.stale


def test_tables_that_are_absent_corrupt_or_lack_a_file_are_told_apart_and_the_others_are_measured(storage):
    write(storage, TableRef("silver", "good"), [NOW])
    corrupt = write(storage, TableRef("silver", "corrupt"), [NOW])
    Path(corrupt, "_delta_log", f"{1:020}.json").write_text('{"add": {')
    lacking = write(storage, TableRef("silver", "lacking"), [NOW])
    next(Path(lacking).glob("*.parquet")).unlink()
    refs = [TableRef("silver", name) for name in ("corrupt", "good", "lacking", "never")]
    found = {one.table: one for one in measure_all([Target(ref, storage.uri(ref)) for ref in refs])}
    assert {name: one.outcome for name, one in found.items()} == {
        "corrupt": "broken", "good": "ok", "lacking": "broken", "never": "absent",
    }  # fmt: skip
    assert "is missing" in found["lacking"].problems


def test_a_store_that_does_not_answer_makes_every_table_unknown_within_the_deadline():
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}", "AWS_ALLOW_HTTP": "true"}
        environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            began = time.monotonic()
            storage = Storage(root="s3://lake", landing="s3://lake/landing")
            found = measure_all([Target(REF, storage.uri(REF))], patience=3)
    assert time.monotonic() - began < 5
    assert [(one.outcome, one.problems) for one in found] == [("unknown", "There was no answer within 3 s.")]


def test_every_declared_table_is_looked_at_with_the_bounds_of_its_spec(storage):
    found = {str(target.ref): target for target in targets(storage, ALL, [TableRef("gold", "x")])}
    for spec in ALL:
        assert found[str(spec.silver)].health == spec.health
        assert {str(part.bronze) for part in spec.parts} <= set(found)
    assert "gold/x" in found


@pytest.mark.parametrize(
    "wrong", [{"max_event_age": timedelta(1)}, {"event_time": "A b"}, {"max_small": 0}, {"max_log": 0}, {"max_quarantine": 2}]
)
def test_bounds_that_cannot_be_are_refused(wrong):
    with pytest.raises(DeclarationError):
        Health(**wrong)


# --- deadlines and services ------------------------------------------------------------------------------------------


def test_a_call_that_hangs_is_abandoned_and_the_others_have_their_outcomes():
    def broken():
        raise ValueError("boom")

    began = time.monotonic()
    outcomes = side_by_side({"hangs": lambda: time.sleep(60), "works": lambda: 7, "fails": broken}, seconds=1)
    assert time.monotonic() - began < 3
    assert outcomes["works"]() == 7
    with pytest.raises(TooLateError, match="no answer within 1 s"):
        outcomes["hangs"]()
    with pytest.raises(ValueError, match="boom"):
        outcomes["fails"]()
    assert within(1, lambda: 3, what="x") == 3


@pytest.fixture
def web():
    """An HTTP server: /ok answers, /bad with 500, /slow not at all."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(60 if self.path == "/slow" else 0)
            self.send_response(200 if self.path in ("/ok", "/health", "/server_info") else 500)
            self.end_headers()

        def log_message(self, *_args):
            """Say nothing."""

    with served(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_services_are_called_and_only_those_that_are_configured(storage, web):
    assert services.configured(storage, databases={}) == []
    assert (
        services.configured(storage, databases={"warehouse": "sqlite:///x"}, mlflow="sqlite:///y", spark_master="local[*]") == []
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    asked = services.configured(
        storage,
        databases={"postgres": f"postgresql://u:hunter2@127.0.0.1:{closed}/x"},
        mlflow=web,
        ui=web,
        spark_master=f"spark://127.0.0.1:{closed}",
        urls=[f"{web}/ok", f"{web}/bad", f"{web}/slow"],
    )
    began = time.monotonic()
    found = {outcome.service: outcome for outcome in services.examine(asked, patience=7)}
    assert time.monotonic() - began < 9
    assert {name for name, outcome in found.items() if outcome.healthy} == {"mlflow", "webserver", f"http:{web}/ok"}
    assert "answered 500" in found[f"http:{web}/bad"].error
    assert "timed out" in found[f"http:{web}/slow"].error
    assert "does not answer" in found["postgres"].error
    assert "takes a connection" in found["spark"].error
    assert "hunter2" not in repr(found)


def test_an_alert_goes_out_for_what_is_down_and_a_recovery_for_what_was(storage):
    from lakehouse.observability.alerts import raise_alerts

    def outcome(healthy):
        return services.Outcome("kafka", "h:1", healthy, 3.0, "" if healthy else "no answer")

    def look(healthy):
        made = services.alerts([outcome(healthy)], standing=watch.open_keys(storage), run_id="r", link="", at=NOW)
        raise_alerts(storage, made)
        return [(alert.kind, alert.state) for alert in made]

    assert look(True) == []
    assert look(False) == [("service_unhealthy", "raised")]
    assert look(True) == [("service_unhealthy", "resolved")]
    assert look(True) == []


def test_daemons_schedules_and_sensors_that_fail_or_stall_are_unhealthy():
    from dagster._daemon.types import DaemonHeartbeat

    with dg.DagsterInstance.ephemeral() as instance:
        assert services.dagster_parts(instance, cadence={}) == []  # none has ever run here
        instance.add_daemon_heartbeat(DaemonHeartbeat(NOW.timestamp(), "SENSOR", "id", []))
        for later, healthy in ((timedelta(seconds=40), True), (timedelta(minutes=4), False)):
            (service,) = services.dagster_parts(instance, cadence={}, now=NOW + later)
            assert services.examine([service])[0].healthy == healthy


def test_a_tick_that_failed_or_did_not_come(monkeypatch):
    from types import SimpleNamespace as Tick

    def problem(tick, cadence, minutes):
        return services._tick_problem(tick, cadence, NOW + timedelta(minutes=minutes))

    good = Tick(status=Tick(value="SKIPPED"), timestamp=NOW.timestamp(), error=None)
    bad = Tick(status=Tick(value="FAILURE"), timestamp=NOW.timestamp(), error=Tick(message="boom"))
    assert problem(None, 15, 60) == ""
    assert problem(bad, 15, 1) == "Its last tick failed: boom"
    assert problem(good, 15, 4) == ""
    assert "the next was due" in problem(good, 15, 6)
    assert problem(good, ("0 6 * * *", "America/Sao_Paulo"), 60 * 9) == ""  # 06:00 there is 09:00 UTC
    assert "the next was due" in problem(good, ("0 6 * * *", "America/Sao_Paulo"), 60 * 9 + 6)


# --- the job ---------------------------------------------------------------------------------------------------------


def test_the_monitoring_job_measures_and_hides_nothing(tmp_path, web):
    settings = Settings(root=str(tmp_path / "lake"), probe_urls=f"{web}/ok,{web}/bad", kafka_bootstrap="127.0.0.1:1")
    storage = settings.storage
    corrupt = storage.uri(TableRef("silver", "produtos"))
    write(storage, TableRef("silver", "produtos"), [NOW])
    Path(corrupt, "_delta_log", f"{0:020}.json").write_text("{")
    job = build_defs(settings).resolve_job_def("monitoring")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed == {"silver_produtos", "leaders"}
    assert {"service:kafka", f"service:http:{web}/bad"} == watch.open_keys(storage)
    text = prometheus.text(storage)
    assert f'lakehouse_service_healthy{{service="http:{web}/ok"}} 1.0' in text.splitlines()
    assert f'lakehouse_service_healthy{{service="http:{web}/bad"}} 0.0' in text.splitlines()
    assert "lakehouse_incident_open" not in text  # nobody was told yet
    assert (
        open_table(storage.uri(HEALTH_TABLE), {}).rows == len(result.get_asset_check_evaluations()) - 2
    )  # of topics: leaders and lag


def test_a_run_reports_on_the_tables_that_a_person_needs_to_know_of(tmp_path):
    settings = Settings(root=str(tmp_path / "lake"))
    ref = TableRef("silver", "produtos")  # whose events no bound is declared for
    storage, log = settings.storage, Path(settings.storage.uri(ref), "_delta_log", f"{0:020}.json")
    write(storage, ref, [NOW])
    good, definitions = log.read_text(), build_defs(settings)
    job = definitions.resolve_job_def("monitoring")
    with dg.DagsterInstance.ephemeral() as instance:

        def reported() -> dict[str, bool]:
            result = job.execute_in_process(instance=instance)
            assert result.success
            checks = result.get_asset_check_evaluations()
            return {check.check_name: check.passed for check in checks if check.asset_key.path[-1] == "table_health"}

        first = reported()
        assert all(first.values()) and {target.check for target in targets(storage, ALL, [])} < set(first)
        assert reported() == {}
        log.write_text("{")
        assert reported() == reported() == {"silver_produtos": False}  # as long as it is wrong, every run has it
        log.write_text(good)
        assert reported() == {"silver_produtos": True}
        assert reported() == {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observability, "_REPEAT_AFTER", timedelta())
            assert len(reported()) == observability._REPEATED < len(first)
        rows = open_table(storage.uri(HEALTH_TABLE), {}).rows
        assert rows == 7 * len(first)  # every run measures every table
        # by hand: the asset with its checks, or checks alone, which record nothing
        whole = definitions.resolve_implicit_global_asset_job_def()
        key = dg.AssetKey(["ops", "table_health"])
        by_hand = whole.execute_in_process(instance=instance, asset_selection=[key])
        assert len(by_hand.get_asset_check_evaluations()) == len(first)
        alone = dg.materialize(
            [definitions.resolve_assets_def(key)],
            selection=dg.AssetSelection.checks(dg.AssetCheckKey(key, "silver_produtos")),
            instance=instance,
        )
        assert [check.check_name for check in alone.get_asset_check_evaluations()] == ["silver_produtos"]
        assert not alone.get_asset_materialization_events()
        assert open_table(storage.uri(HEALTH_TABLE), {}).rows == rows + len(first)


def test_a_metric_has_its_name_help_type_labels_and_value(tmp_path):
    """Dashboards ask for these names and labels."""
    storage = Settings(root=str(tmp_path)).storage
    columns = {"topic": "string", "group": "string", "end_offset": "bigint", "lag": "bigint", "measured_at": "timestamp"}
    row = {"topic": 'a"b', "group": None, "end_offset": 1234567, "lag": None}
    for hours in (2, 1):  # only the last measurement is shown
        at = NOW - timedelta(hours=hours)
        outbox.record(storage, KAFKA_TABLE, columns=columns, rows=[{**row, "measured_at": at, "end_offset": 1234567 - hours}])
    assert prometheus.text(storage).splitlines() == [
        "# HELP lakehouse_kafka_end_offset Sum of the partitions' end offsets.",
        "# TYPE lakehouse_kafka_end_offset gauge",
        'lakehouse_kafka_end_offset{group="",topic="a\\"b"} 1.234566e+06',
    ]


def test_metrics_are_served_and_a_lake_that_cannot_be_read_is_503(tmp_path):
    import urllib.error
    import urllib.request

    storage = Settings(root=str(tmp_path)).storage
    listening: list[int] = []
    serving = threading.Thread(
        target=lambda: prometheus.serve(storage, host="127.0.0.1", port=0, ready=listening.append), daemon=True
    )
    serving.start()
    while not listening:
        time.sleep(0.01)
    base = f"http://127.0.0.1:{listening[0]}"
    assert urllib.request.urlopen(f"{base}/health").read() == b"ok\n"
    broken = Path(storage.uri(KAFKA_TABLE), "_delta_log", f"{0:020}.json")
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(f"{base}/metrics")
    assert "kafka_health" in refused.value.read().decode()
    shutil.rmtree(broken.parents[1])
    with urllib.request.urlopen(f"{base}/metrics") as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{base}/else")


def test_what_a_store_in_a_process_of_its_own_reports_is_read_back(storage):
    from lakehouse.observability import table_health
    from lakehouse.observability.deadline import in_process

    uri = write(storage, REF, [NOW])
    target = Target(
        REF, uri, Health(event_time="at", max_event_age=timedelta(1)), 16, (storage.uri(TableRef("quarantine", "x")),)
    )
    document = json.dumps({"now": NOW.isoformat(), "targets": [table_health._document(target)]})
    (entry,) = json.loads(in_process("lakehouse.observability.table_health", document, seconds=60))
    here, there = measure(target, now=NOW), table_health._read(entry)
    assert {**vars(there), "milliseconds": 0} == {**vars(here), "milliseconds": 0}
