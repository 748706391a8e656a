"""The outcome of a run, case by case; and that dashboard, health, Prometheus and gold/slo_jobs report the same of a history."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import dagster as dg
import pytest

from benchmarks.past_runs import PastRun, put
from lakehouse.core.table.snapshot import open_existing
from lakehouse.dashboard import executions, overview
from lakehouse.dashboard.reading import Reader
from lakehouse.definitions import build_defs
from lakehouse.observability import outbox, prometheus
from lakehouse.observability.alerts import ALERTS_TABLE
from lakehouse.observability.metrics import COLUMNS, METRICS_TABLE, delivered, take_up
from lakehouse.observability.outcome import BAD, GOOD, Check, JobSla, Outcome, Step, of_run, of_step
from lakehouse.observability.watch import look
from lakehouse.settings import Settings

SOURCE, RULE = Check("landing/brt_captura", "captura"), Check("silver/vendas", "min_rows_1")
MEASURED = Check("ops/kafka_health", "lag")
WROTE, IDLE, UNLANDED = Step("success", wrote=True), Step("success"), Step("success", empty=["lake/raw/vendas"])
CASES: dict[str, tuple[str, list[Step], str | None]] = {
    "something was written": ("success", [IDLE, WROTE], "delivered"),
    "nothing was new": ("success", [IDLE, IDLE], "nothing"),
    "a run without steps": ("success", [], "nothing"),
    "a source has never delivered": ("success", [UNLANDED, IDLE], "empty"),
    "one of two sources has never delivered": ("success", [UNLANDED, WROTE], "empty"),
    "a source was down": ("success", [Step("success", failed=[SOURCE]), WROTE], "degraded"),
    "a source was down, and another has never delivered": ("success", [Step("success", failed=[SOURCE]), UNLANDED], "degraded"),
    "a rule that does not block found something": ("success", [Step("success", failed=[RULE], wrote=True)], "stopped"),
    "a rule stopped a batch": ("failure", [Step("failure", by_rule=True, failed=[RULE]), WROTE], "stopped"),
    "a rule stopped a batch, and a source was down": (
        "failure",
        [Step("failure", by_rule=True, failed=[RULE, SOURCE])],
        "stopped",
    ),
    "a step failed": ("failure", [Step("failure"), WROTE], "failed"),
    "a step failed, and a rule stopped another": ("failure", [Step("failure"), Step("failure", by_rule=True)], "failed"),
    "the worker was gone": ("failure", [WROTE, Step()], "failed"),
    "it failed before its first step": ("failure", [], "failed"),
    "a measurement found what is wrong elsewhere": ("success", [Step("success", failed=[MEASURED], wrote=True)], "delivered"),
    "a person canceled it": ("canceled", [WROTE, Step("failure")], None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outcome_of_a_run(case):
    status, steps, expected = CASES[case]
    assert of_run(status, steps) == expected


def test_every_outcome_has_a_case_and_is_good_or_bad():
    assert {expected for _, _, expected in CASES.values()} == {*get_args(Outcome), None}
    assert {*GOOD, *BAD} == {*get_args(Outcome)} and not {*GOOD} & {*BAD}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (WROTE, "delivered"),
        (IDLE, "nothing"),
        (UNLANDED, "empty"),
        (Step("success", failed=[SOURCE]), "degraded"),
        (Step("failure", by_rule=True, failed=[RULE]), "stopped"),
        (Step("failure"), "failed"),
        (Step(), "failed"),
        (Step("skipped"), None),
    ],
)
def test_the_outcome_of_a_step(step, expected):
    assert of_step(step) == expected


@pytest.mark.parametrize(
    ("metadata", "wrote"),
    [
        ({"delta_version": 4, "rows_written": 0}, True),  # it may have removed rows
        ({"nothing_to_do": True, "delta_version": 4}, False),
        ({"degraded": True, "error": "down"}, False),
        ({"new_records": 0, "delivered": 12}, False),
        ({"records": 0}, False),
        ({"records": 3}, True),
    ],
)
def test_what_a_materialisation_wrote(metadata, wrote):
    step = Step()
    step.materialised(metadata)
    assert step.wrote is wrote


# --- one history, four readers -----------------------------------------------------------------------------------------

FOLDER = "landing/raw/vendas"
KINDS: dict[str, dict[str, Any]] = {
    "delivered": {},
    "nothing": {"metadata": {"nothing_to_do": True}},
    "empty": {"metadata": {"nothing_to_do": True, "never_delivered": FOLDER}},
    "degraded": {"asset": "landing/pedidos_api", "failed": ("extracted",), "metadata": {"degraded": True}},
    "stopped": {"outcome": "failure", "failed": ("min_rows_1",)},
    "failed": {"outcome": "failure"},
    "canceled": {"outcome": "canceled"},
}
#: By job what its runs delivered, the last of them last.
HISTORY = {
    "medallion_etl": ["delivered", "failed", "stopped", "canceled", "nothing", "empty"],
    "pedidos": ["delivered", "delivered", "nothing", "degraded"],
    "mlops": ["failed", "stopped"],
    "maintenance": ["degraded", "delivered"],
}


def past(now: datetime) -> list[PastRun]:
    length = max(map(len, HISTORY.values()))
    return [
        PastRun(now - timedelta(minutes=10 * (length - n)), 5, job, **KINDS[kind])
        for job, kinds in HISTORY.items()
        for n, kind in enumerate(kinds)
    ]


def test_what_is_measured_of_a_run_is_what_its_events_tell(storage):
    with dg.DagsterInstance.ephemeral() as instance:
        for kind, given in KINDS.items():
            run = PastRun(datetime.now(UTC), 1.0, **given)
            put(instance, [run])
            found = delivered(instance, run.run_id, run.outcome)
            assert found.outcome == (kind if kind != "canceled" else None)
            assert [check.name for check in found.failed] == [*run.failed]
            assert found.empty == ((FOLDER,) if kind == "empty" else ())


def test_a_table_of_a_release_before_outcomes_gets_the_column_and_its_rows_none(storage):
    before = {name: kind for name, kind in COLUMNS.items() if name != "delivery"}
    outbox.record(storage, METRICS_TABLE, columns=before, rows=[{"event_id": 0, "kind": "run", "outcome": "success"}])
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, [PastRun(datetime.now(UTC), 1.0)])
        assert take_up(instance, storage) == 1
    table = open_existing(storage.uri(METRICS_TABLE))
    with outbox.small_session(storage) as session:
        rows = session.dicts(session.read(table.paths(), table.columns), "event_id", "kind", "delivery")
    assert {(row["event_id"] == 0, row["kind"], row["delivery"]) for row in rows} == {
        (True, "run", None), (False, "run", "delivered"), (False, "step", "delivered")
    }  # fmt: skip


def test_a_run_that_delivered_nothing_good_has_missed_its_sla_however_fast_it_was(storage):
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, [PastRun(datetime.now(UTC) - timedelta(seconds=2), 1.0, kind, **given) for kind, given in KINDS.items()])
        take_up(instance, storage, job_slas=[JobSla(kind, timedelta(hours=1)) for kind in KINDS])
    table = open_existing(storage.uri(METRICS_TABLE))
    with outbox.small_session(storage) as session:
        rows = session.dicts(session.read(table.paths(), COLUMNS), "kind", "job", "sla_met")
    met = {row["job"]: row["sla_met"] for row in rows if row["kind"] == "run"}
    assert met == {kind: kind in GOOD if kind != "canceled" else None for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_alert_of_a_missed_sla_ends_with_a_run_that_met_it_and_with_no_other(kind, storage):
    """The alert and the number have one source; what failed has an alert of its own, so it raises no second one."""
    slas = [JobSla("pedidos", timedelta(hours=1))]
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, [PastRun(datetime.now(UTC), 2 * 3600, "pedidos")])
        cursor = look(instance, storage, cursor=None, job_slas=slas).cursor
        put(instance, [PastRun(datetime.now(UTC) - timedelta(seconds=2), 1.0, "pedidos", **KINDS[kind])])
        look(instance, storage, cursor=cursor, job_slas=slas)
        take_up(instance, storage, job_slas=slas)
    runs, raised = open_existing(storage.uri(METRICS_TABLE)), open_existing(storage.uri(ALERTS_TABLE))
    with outbox.small_session(storage) as session:
        rows = session.dicts(session.read(runs.paths(), COLUMNS).sort("event_id"), "kind", "sla_met")
        told = session.dicts(session.read(raised.paths(), raised.columns).sort("number"), "kind", "state", "body")
    met = [row["sla_met"] for row in rows if row["kind"] == "run"]
    slas_told = [row for row in told if row["kind"] == "sla_miss"]
    after = {"delivered": ["resolved"], "nothing": ["resolved"], "empty": ["raised"]}.get(kind, [])
    assert [row["state"] for row in slas_told] == ["raised", *after]
    assert met[0] is False and (met[1] is True) == (after == ["resolved"])
    if kind in BAD and kind != "empty":  # its own alert tells of it
        assert {row["kind"] for row in told} & {"run_failure", "check_failed"}
    if kind == "empty":
        assert "delivered nothing" in slas_told[-1]["body"]


def test_dashboard_health_prometheus_and_the_mart_report_the_same_of_a_history(tmp_path):
    settings = Settings(root=str(tmp_path))
    storage, now = settings.storage, datetime.now(UTC)
    old = {
        "kind": "run",
        "job": "pedidos",
        "retries": 0,
        "rows": 1,
        "duration_seconds": 1.0,
        "finished_at": now - timedelta(hours=2),
    }
    before = {name: kind for name, kind in COLUMNS.items() if name != "delivery"}
    rows = [
        {**old, "event_id": -n, "log": "old", "run_id": f"old{n}", "outcome": how} for n, how in enumerate(("success", "failure"))
    ]
    outbox.record(storage, METRICS_TABLE, columns=before, rows=rows)  # two runs of a release before outcomes
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, past(now))
        take_up(instance, storage)
        defs = build_defs(settings)
        assert defs.resolve_job_def("slo").execute_in_process(instance=instance).success
        put(instance, [PastRun(now, 1.0, "pedidos", **KINDS["failed"])])  # ended after the levels were computed
        take_up(instance, storage)
        reader = Reader(settings, fresh=0)
        shown = {job: reader.ask(executions.read, "24h", (job,)) for job in HISTORY}
        first = reader.ask(overview.read)
        scraped = prometheus.text(storage)
    for job, recent in HISTORY.items():
        kinds = [*recent, "delivered", "failed"] if job == "pedidos" else recent
        good, bad = (sum(kind in these for kind in kinds) for these in (GOOD, BAD))
        (level,) = shown[job].levels
        assert (level["runs"], level["successes"], level["failures"]) == (len(kinds), good, bad)
        assert level["success_rate"] == pytest.approx(good / (good + bad))
        assert level["error_budget_left"] == pytest.approx(1 - bad / (good + bad) / 0.01)
        listed = [row["delivery"] for row in shown[job].runs]
        assert len(listed) == shown[job].total == level["runs"]
        assert sum(name in BAD for name in listed) == level["failures"]
        assert sum(name in GOOD for name in listed) == level["successes"]
        assert f'lakehouse_job_failures{{job="{job}",time_window="24h"}} {float(bad)}' in scraped
        assert f'lakehouse_job_runs{{job="{job}",time_window="24h"}} {float(len(kinds))}' in scraped
    assert [row["delivery"] for row in shown["pedidos"].newer] == ["failed"]  # shown, and apart
    # Both pages end at the same moment, with the same failures.
    assert {found.until for found in shown.values()} == {first.day.until}
    assert first.day.failures == len(first.day.runs) == sum(found.failures for found in shown.values())
    assert [(row["job"], row["delivery"]) for row in first.day.newer] == [("pedidos", "failed")]
