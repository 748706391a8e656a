"""A lake and a DAGSTER_HOME that an earlier commit made are taken over: nothing is read anew, doubled or lost.

    old_lake.py: code of the history ─▶ lake, home ─▶ today's commands over both

About two minutes, since both commits run every job.
Alone: `python -m pytest lakehouse_tests/end_to_end/test_takeover.py -m stack -n 0`.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from deltalake import DeltaTable

from lakehouse.settings import project_folder
from lakehouse_tests.end_to_end import old_lake
from lakehouse_tests.end_to_end.old_lake import Done

pytestmark = pytest.mark.stack

#: What has something to do when every job of `make run` runs once more over what is there, and why.
ADVANCES = {
    "gold/slo_assets": "measures the runs since",
    "gold/slo_feeds": "is new, and measures the runs since",
    "gold/slo_jobs": "measures the runs since",
    "gold/vendas_por_segmento": "is new",
    "ml/evaluation": "the first evaluation had no champion to compare with",
    "ops/alerts": "what the monitoring found",
    "ops/events": "every run is an event",
    "ops/kafka_health": "a measurement per run",
    "ops/ledger": "has rows of the new tables",
    "ops/model_decisions": "a decision per run",
    "ops/points_clientes_history": "is new",
    "ops/points_produtos_history": "is new",
    "ops/publications": "is new, and names what was there",
    "ops/run_metrics": "a row per run",
    "ops/service_health": "a measurement per run",
    "ops/table_health": "a measurement per run",
    "silver/clientes_history": "is new",
    "silver/produtos_history": "is new",
}
JOBS = ("medallion_etl", "bronze_to_silver", "pedidos", "brt_capture", "mlops", "monitoring", "slo")


@dataclass(frozen=True)
class Taken:
    """The lake before today's code, after every job, and after the rebuild; and what each command printed."""

    folder: Path
    old_runs: set[str]
    before: dict[str, int]
    after: dict[str, int]
    sales: Counter[str]
    done: dict[str, Done]


def versions(lake: Path) -> dict[str, int]:
    """The Delta version of every table of a lake."""
    logs = sorted(lake.rglob("_delta_log"))
    return {str(log.parent.relative_to(lake)): DeltaTable(str(log.parent)).version() for log in logs}


def rows(table: Path) -> Counter[str]:
    """The rows of a table as a multiset."""
    files = DeltaTable(str(table)).file_uris()
    found = duckdb.read_parquet(files, union_by_name=True)
    return Counter(str(row) for row in found.select(", ".join(sorted(f'"{name}"' for name in found.columns))).fetchall())


def run_ids(folder: Path) -> set[str]:
    """The runs that a home lists."""
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        return {run.run_id for run in instance.get_runs()}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("takeover")
    try:
        old_lake.make(project_folder(), folder)
    except LookupError as error:
        pytest.fail(str(error))
    lake, today = folder / "lake", project_folder()
    before, sales, old_runs = versions(lake), rows(lake / "silver" / "vendas"), run_ids(folder)
    done = old_lake.commands(folder, today, *[f"trigger {job}" for job in JOBS])
    after = versions(lake)
    (one,) = [run for run in sorted(old_runs)[:1]]
    done += old_lake.commands(
        folder, today, "rebuild vendas", "quarantine brt_gps --json", "health --json", "summary", f"logs {one} --json",
        "trigger maintenance",
    )  # fmt: skip
    return Taken(folder, old_runs, before, after, sales, {one.command: one for one in done})


def test_every_job_of_today_runs_and_no_table_advances_that_has_nothing_to_do(taken: Taken) -> None:
    """`old_lake.commands` has asserted the exit codes: 0 is that no step and no check of severity error failed."""
    assert {f"trigger {job}" for job in (*JOBS, "maintenance")} <= set(taken.done)
    assert set(taken.before) <= set(taken.after)
    advanced = {name for name, version in taken.after.items() if version != taken.before.get(name)}
    assert advanced - set(ADVANCES) == set()
    assert {"ops/run_metrics", "ops/table_health"} <= advanced, "nothing was measured: did the jobs run over this lake?"


def test_the_lake_has_every_layer_and_a_champion(taken: Taken) -> None:
    """Else the test above would hold of a lake with nothing in it."""
    layers = Counter(name.partition("/")[0] for name in taken.before)
    assert {"bronze", "silver", "gold", "ml", "quarantine", "ops"} <= set(layers)
    assert {"ml/previsao_vendas", "gold/brt_frota_atual", "silver/pedidos", "silver/vendas"} <= set(taken.before)
    assert taken.sales.total() > 3000


def test_a_rebuild_gives_the_identical_table(taken: Taken) -> None:
    assert "silver/vendas: version 2" in taken.done["rebuild vendas"].output
    assert rows(taken.folder / "lake" / "silver" / "vendas") == taken.sales


def test_quarantine_and_ledger_are_read(taken: Taken) -> None:
    refused = [json.loads(line) for line in taken.done["quarantine brt_gps --json"].output.splitlines()]
    assert {row["layer"] for row in refused} == {"silver"} and all(row["rules"] for row in refused)
    ledger = DeltaTable(str(taken.folder / "lake" / "ops" / "ledger"))
    entries = duckdb.read_parquet(ledger.file_uris(), union_by_name=True)
    balanced = entries.select("layer, records_in = written + deduplicated + deleted + quarantined").distinct().fetchall()
    assert sorted(balanced) == [("bronze", True), ("silver", True)]


def test_health_finds_nothing_wrong_with_the_tables(taken: Taken) -> None:
    found = json.loads(taken.done["health --json"].output)
    assert found["healthy"], found


def test_the_runs_of_the_old_home_are_listed_and_their_logs_read(taken: Taken) -> None:
    assert len(taken.old_runs) >= 7
    assert taken.old_runs < run_ids(taken.folder)
    (logs,) = [done for command, done in taken.done.items() if command.startswith("logs ")]
    assert json.loads(logs.output)["run"]["run_id"] in taken.old_runs
