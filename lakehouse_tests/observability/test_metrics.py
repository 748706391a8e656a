"""Every finished run is in ops/run_metrics once, and the service levels are those of an independent computation."""

import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.past_runs import PastRun, put
from lakehouse.core.errors import ConflictError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.definitions import build_defs
from lakehouse.observability import eventlog, metrics, outbox
from lakehouse.observability.metrics import COLUMNS, METRICS_TABLE, take_up
from lakehouse.observability.notifier import DELIVERIES
from lakehouse.observability.outcome import JobSla
from lakehouse.settings import Settings, project_folder

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def instance(request, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    if request.param == "memory":
        with dg.DagsterInstance.ephemeral() as made:
            yield made
    else:
        (tmp_path / "dagster").mkdir()
        (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
            yield made


def rows(storage: Storage, kind: str = "") -> list[dict]:
    table = open_existing(storage.uri(METRICS_TABLE))
    with outbox.small_session(storage) as session:
        found = session.rows(session.read(table.paths(), COLUMNS).sort("event_id", "kind"))
    return [row for values in found if (row := dict(zip(COLUMNS, values, strict=True)))["kind"] == kind or not kind]


def runs(count: int, *, job: str = "ten", outcome: str = "success", since: int = 0) -> list[PastRun]:
    return [PastRun(NOW + timedelta(minutes=since + n), 1.5, job, outcome) for n in range(count)]


def test_a_run_and_its_step_are_a_row_each_with_what_dagster_recorded(instance, storage):
    put(instance, [PastRun(NOW, 12.5, rows=7, retries=2)])
    assert take_up(instance, storage, job_slas=[JobSla("ten", timedelta(seconds=10))]) == 1
    run, step = rows(storage)
    assert (run["kind"], run["job"], run["outcome"], run["retries"], run["rows"]) == ("run", "ten", "success", 2, 7)
    assert (run["started_at"], run["duration_seconds"]) == (NOW, 12.5)
    assert (step["step"], step["asset"], step["duration_seconds"]) == ("silver__vendas", "silver/vendas", 12.5)
    assert run["sla_seconds"] == 10
    assert step["sla_met"] is None


def test_each_outcome(instance, storage):
    kinds = ["success", "failure", "canceled"]
    put(instance, [PastRun(NOW, 1, outcome=kind) for kind in kinds] + [PastRun(NOW, 3, worker_gone=True)])
    take_up(instance, storage)
    assert [row["outcome"] for row in rows(storage, "run")] == [*kinds, "failure"]
    assert [row["outcome"] for row in rows(storage, "step")] == ["success", "failure", "lost", "lost"]


def test_what_is_new_is_taken_up_once(instance, storage):
    put(instance, runs(3))
    assert take_up(instance, storage) == 3
    version = open_existing(storage.uri(METRICS_TABLE)).version
    assert take_up(instance, storage) == 0
    assert open_existing(storage.uri(METRICS_TABLE)).version == version  # nothing to do, no commit
    put(instance, runs(2, since=10))
    assert take_up(instance, storage) == 2
    assert len(rows(storage, "run")) == 5


def test_a_backlog_is_taken_up_in_several_commits(instance, storage, monkeypatch):
    monkeypatch.setattr(metrics, "_BATCH", 4)
    monkeypatch.setattr(eventlog, "MARGIN", 2)
    put(instance, runs(10))
    assert take_up(instance, storage) == 10
    assert len({row["run_id"] for row in rows(storage, "run")}) == len(rows(storage, "run")) == 10


def test_an_end_that_becomes_visible_late_is_not_lost(instance, storage):
    """PostgreSQL gives a storage id before it commits, so a lower one may appear after a higher one was read."""
    put(instance, runs(3))
    take_up(instance, storage)
    table = open_existing(storage.uri(METRICS_TABLE))
    one = rows(storage, "run")[1]
    with outbox.small_session(storage) as session:  # as if the second had not been visible then
        others = [row for row in rows(storage) if row["run_id"] != one["run_id"]]
        add = session.write(session.table(others, COLUMNS), table.uri, columns=COLUMNS)
        commit_staged(Transaction(table=table, add=add, remove=table.files))
    assert take_up(instance, storage) == 1
    assert one["run_id"] in {row["run_id"] for row in rows(storage, "run")}


def test_an_instance_that_was_made_anew_begins_anew(storage):
    for _ in range(2):
        with dg.DagsterInstance.ephemeral() as instance:
            put(instance, runs(2))
            assert take_up(instance, storage) == 2
    assert len(rows(storage, "run")) == 4


def test_a_commit_that_fails_delivers_neither_rows_nor_cursor(instance, storage, monkeypatch):
    put(instance, runs(2))

    def conflict(*_args, **_kwargs):
        raise ConflictError("Another was first.", remedy="")

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "commit_staged", conflict)
        patch.setattr(metrics, "redo_on_conflict", lambda work: work())
        with pytest.raises(ConflictError):
            take_up(instance, storage)
    assert take_up(instance, storage) == 2


@pytest.mark.slow
def test_two_that_take_up_at_once_take_each_run_once(tmp_path, storage):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        put(instance, runs(20))
    program = f"""
import dagster as dg
from lakehouse.core.store.storage import Storage
from lakehouse.observability.metrics import take_up
with dg.DagsterInstance.from_config({str(home)!r}) as instance:
    take_up(instance, Storage(root={storage.root!r}, landing={storage.landing!r}))
"""
    both = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", program]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(rows(storage, "run")) == len({row["run_id"] for row in rows(storage, "run")}) == 20


# --- service levels --------------------------------------------------------------------------------------------------


def test_the_dbt_sources_are_the_tables_that_are_written():
    import yaml

    text = (project_folder() / "dbt_project" / "models" / "staging" / "_ops_sources.yml").read_text()
    tables = {table["name"]: table["columns"] for table in yaml.safe_load(text)["sources"][0]["tables"]}
    declared = {"run_metrics": COLUMNS, "deliveries": DELIVERIES}
    assert {n: {c["name"]: c["data_type"] for c in columns} for n, columns in tables.items()} == declared


@pytest.mark.stack
def test_rates_percentiles_and_sla_misses_of_500_runs_equal_an_independent_computation(tmp_path):
    chance = random.Random(5)
    past = []
    for n in range(500):
        start = NOW - timedelta(days=40) * chance.random() - timedelta(hours=1)
        outcome = chance.choices(["success", "failure", "canceled"], [90, 8, 2])[0]
        past.append(PastRun(start, round(chance.lognormvariate(2, 1), 3), f"job_{n % 3}", outcome, f"silver/t{n % 4}"))
    past.append(PastRun(NOW - timedelta(seconds=10), 10, "job_0"))  # the windows end with it
    storage = Settings(root=str(tmp_path)).storage
    with dg.DagsterInstance.ephemeral() as instance:
        put(instance, past)
        take_up(instance, storage, job_slas=[JobSla("job_1", timedelta(seconds=20))])
        job = build_defs(Settings(root=str(tmp_path))).resolve_job_def("slo")
        assert job.execute_in_process(instance=instance).success
    # The moment of the request is when the record was made, which for a made-up history is now; so the SLA is checked anew here.
    met = {row["run_id"]: row["sla_met"] for row in rows(storage, "run")}
    for group, mart in (("job", "slo_jobs"), ("asset", "slo_assets")):
        table = open_existing(storage.uri(TableRef("gold", mart)))
        with outbox.small_session(storage) as session:
            found = session.rows(session.read(table.paths(), table.columns).select(*table.columns))
        levels = {(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in found}
        expected = set()
        for window, length in {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}.items():
            inside = [r for r in past if r.start + timedelta(seconds=r.seconds) > NOW - length]
            for name in {getattr(r, group) for r in inside}:
                mine = [r for r in inside if getattr(r, group) == name]
                expected.add((name, window))
                level = levels[name, window]
                # the step of a run that was canceled did not end: for its asset that is a failure
                ends = {"success": "success", "failure": "failure", "canceled": "canceled" if group == "job" else "failure"}
                good, bad = (sum(ends[r.outcome] == o for r in mine) for o in ("success", "failure"))
                assert (level["runs"], level["successes"], level["failures"]) == (len(mine), good, bad)
                assert level["success_rate"] == pytest.approx(good / (good + bad)) if good + bad else True
                seconds = sorted(r.seconds for r in mine)
                for share in (50, 95, 99):
                    assert level[f"p{share}_seconds"] == pytest.approx(percentile(seconds, share / 100), abs=1e-6)
                if group == "job":
                    missed = sum(met[r.run_id] is False for r in mine)
                    ended = sum(r.outcome != "canceled" for r in mine)  # a run that was canceled counts neither way
                    assert (level["sla_judged"], level["sla_misses"]) == (ended if name == "job_1" else 0, missed)
                    assert level["error_budget_left"] == pytest.approx(1 - (bad / (good + bad)) / 0.01)
        assert expected == set(levels)


def percentile(values: list[float], share: float) -> float:
    """Linear interpolation between the two nearest ranks; the median agrees with the standard library's."""
    position = share * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    found = values[low] + (values[high] - values[low]) * (position - low)
    assert share != 0.5 or found == pytest.approx(statistics.median(values))
    return found
