"""The job from landed files to the report, in process, on the small sample: exact figures, and what a second run, a broken
rule, another writer or a request for one table do to them.

One lake is built for the module; tests that change it work on a copy. Not here: kills (`lakehouse_tests/faults/`), the
marts' SQL and failing dbt tests (`lakehouse_tests/gold/`), the order of arrival (`lakehouse_tests/silver/`).
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

import lakehouse.tables
from lakehouse.__main__ import app
from lakehouse.automation import OWN_JOBS
from lakehouse.commands import runs, tables
from lakehouse.core.errors import RefusedWriteError
from lakehouse.definitions import build_defs
from lakehouse.resources import build_resources
from lakehouse.runtime.io_manager import DeltaIOManager
from lakehouse.sample.landing import SampleTruth, write_sample_landing
from lakehouse.settings import Settings, project_folder
from lakehouse.tables import ALL
from lakehouse.tables.spec import expression, min_rows
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import of_another_table, run_selected

STREAMS = ("vendas", "produtos", "clientes")
SUMMED = ("vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto", "vendas_por_segmento")
HISTORIES = ("produtos", "clientes")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Lake:
    """A lake in a folder, with landing below it, driven through Dagster as the commands drive it."""

    root: Path

    def run(
        self, job: str = "medallion_etl", *, only: list[str] | None = None, config=None, **overrides
    ) -> dg.ExecuteInProcessResult:
        """Run a job, or `only` these assets, on an instance of its own."""
        settings = Settings(root=str(self.root))
        with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
            warnings.simplefilter("ignore")
            definitions = build_defs(settings, resource_overrides=overrides)
            chosen = definitions.resolve_job_def(job) if only is None else definitions.resolve_implicit_global_asset_job_def()
            return chosen.execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config={**QUIET, **(config or {})},
                asset_selection=[dg.AssetKey(key.split("/")) for key in only] if only else None,
            )

    def select(self, selection: dg.AssetSelection) -> dg.ExecuteInProcessResult:
        return run_selected(self.root, selection, run_config=QUIET)

    def silver(self, source: str, target: str = "") -> dg.ExecuteInProcessResult:
        """Job `bronze_to_silver` as somebody asks for it in the UI's launchpad."""
        request = {"source_table": source, "target_table": target}
        return self.run("bronze_to_silver", config={"resources": {"request": {"config": request}}})

    def sql(self, table: str, query: str = "FROM t ORDER BY ALL") -> list[tuple]:
        """A query over a table's newest version, `t`, read with delta-rs and not with the code under test."""
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("t", DeltaTable(str(self.root / table)).to_pyarrow_table())
            return connection.execute(query).fetchall()

    def version(self, table: str) -> int:
        return DeltaTable(str(self.root / table)).version()

    def versions(self) -> dict[str, int]:
        logs = sorted(self.root.rglob("_delta_log"))
        return {str(log.parent.relative_to(self.root)): DeltaTable(str(log.parent)).version() for log in logs}

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of every file below the root, landing, logs and hidden ones included."""
        found = (path for path in self.root.rglob("*") if path.is_file() and path.name != ".reported")
        return {str(path.relative_to(self.root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def land(self, number: int, *, stream: str = "vendas", **fields) -> None:
        """One more sale, delivered after the sample."""
        record = {
            "id": 9_000_000 + number, "pedido_id": f"P{number}", "produto_id": "1", "descricao": "nova", "quantidade": 2,
            "valor_unitario": "3.5000", "cliente_id": 1, "pais": "Brasil", "status": "paid",
            "created_at": "2018-01-02T03:04:05Z", "updated_at": "2018-01-02T03:04:05Z", **fields,
        }  # fmt: skip
        at = 1_514_900_000_000 + number
        envelope = {"_airbyte_raw_id": f"new-{number}", "_airbyte_extracted_at": at, "_airbyte_meta": {"changes": []}}
        text = json.dumps({**envelope, "_airbyte_generation_id": 1, "_airbyte_data": record}) + "\n"
        (self.root / "landing" / "raw" / stream / f"2018_01_02_{at}_0.jsonl").write_text(text)


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    checks = result.get_asset_check_evaluations()
    return {f"{check.asset_key.to_user_string()}:{check.check_name}": check for check in checks if not check.passed}


def started(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.step_key for event in result.all_events if event.is_step_start}


def error(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(e.event_specific_data.error.to_string() for e in result.all_events if e.is_step_failure)


def retries(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.step_key for event in result.all_events if event.is_step_up_for_retry]


def told(result: dg.ExecuteInProcessResult) -> dict[str, dict]:
    """Metadata of every materialisation, by asset."""
    events = {e.asset_key.to_user_string(): e.materialization.metadata for e in result.get_asset_materialization_events()}
    own = {key: metadata for key, metadata in events.items() if not of_another_table(key)}
    return {key: {name: value.value for name, value in metadata.items()} for key, metadata in own.items()}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Lake, SampleTruth, dg.ExecuteInProcessResult]:
    """A materialised sample lake, what it must come to, and the run that made it. Nobody changes it."""
    lake = Lake(tmp_path_factory.mktemp("job") / "lake")
    truth = write_sample_landing(lake.root / "landing", lines=5_000)
    return lake, truth, lake.run()


@pytest.fixture
def lake(good, tmp_path) -> Lake:
    """A copy of the good lake."""
    shutil.copytree(good[0].root, tmp_path / "lake")
    return Lake(tmp_path / "lake")


# --- the figures -----------------------------------------------------------------------------------------------------


def test_bronze_has_every_delivered_record_and_silver_every_live_row(good):
    lake, truth, result = good
    assert result.success
    for stream in STREAMS:
        assert (
            lake.sql(f"bronze/{stream}", "SELECT count(*), count(DISTINCT _airbyte_raw_id) FROM t")[0][0]
            == getattr(truth, stream).delivered
        )
        assert lake.sql(f"silver/{stream}", "SELECT count(*), count(DISTINCT id) FROM t") == [(getattr(truth, stream).live,) * 2]


def test_silver_sums_to_the_samples_truth(good):
    lake, truth, _ = good
    figures = "SELECT sum(total), count(DISTINCT pedido_id), count(DISTINCT cliente_id), sum(quantidade) FROM t"
    assert lake.sql("silver/vendas", figures) == [(truth.receita, truth.orders, truth.customers, truth.quantity)]


@pytest.mark.parametrize("mart", SUMMED)
def test_a_mart_sums_to_silver(good, mart):
    lake, truth, _ = good
    assert lake.sql(f"gold/{mart}", "SELECT sum(receita), sum(linhas), sum(quantidade) FROM t") == [
        (truth.receita, truth.vendas.live, truth.quantity)
    ]


def test_customers_of_the_mart_are_those_who_bought(good):
    lake, truth, _ = good
    named = lake.sql("silver/vendas", "SELECT sum(total) FROM t WHERE cliente_id IS NOT NULL")[0][0]
    assert lake.sql("gold/clientes_rfm", "SELECT count(*), sum(receita) FROM t") == [(truth.customers, named)]


def test_a_sale_counts_for_the_segment_that_its_customer_had(good):
    """The sample delivers some customers without a segment, and with one in its last sync."""
    lake, truth, _ = good
    versions = lake.sql("silver/clientes_history", "SELECT version, is_current, count(*) FROM t GROUP BY ALL ORDER BY ALL")
    updated = truth.clientes.delivered - truth.clientes.live
    assert versions == [(1, False, updated), (1, True, truth.clientes.live - updated), (2, True, updated)]
    found = dict(lake.sql("gold/vendas_por_segmento", "SELECT segmento, linhas FROM t"))
    segments = dict(lake.sql("silver/clientes", "SELECT id, segmento FROM t"))
    lines = lake.sql("silver/vendas", "SELECT cliente_id, count(*) FROM t GROUP BY ALL")
    as_now = sum(count for customer, count in lines if segments.get(customer) is None)
    assert found["Desconhecido"] > as_now, "what a customer is now is not what it was"


def test_the_ledger_states_where_every_record_went(good):
    lake, truth, _ = good
    rows = lake.sql(
        "ops/ledger",
        'SELECT layer, "table", records_in, written, deduplicated, deleted, quarantined, rows_after FROM t ORDER BY ALL',
    )
    assert len(rows) == 8
    for layer, table, arrived, written, deduplicated, deleted, quarantined, after in rows:
        stream = getattr(truth, table.removesuffix("_history"))
        assert arrived == stream.delivered
        assert arrived == written + deduplicated + deleted + quarantined
        # In a history every record of the sample is a version: each update gives another value.
        assert after == (stream.live if layer == "silver" and "_history" not in table else stream.delivered)
    assert [row[5] for row in rows if row[:2] == ("silver", "vendas")] == [truth.deleted]


def test_every_check_was_evaluated_and_only_warnings_did_not_pass(good):
    lake, _, result = good
    graph = build_defs(Settings(root=str(lake.root))).resolve_asset_graph()
    evaluated = {(check.asset_key, check.check_name) for check in result.get_asset_check_evaluations()}
    others = {*OWN_JOBS, "monitoring"}
    shared = [key for key in graph.asset_check_keys if not {*graph.get(key.asset_key).tags} & others]
    first = (dg.AssetKey(["silver", "vendas"]), "volume_drop")  # there is no version before that it could compare with
    assert evaluated == {(key.asset_key, key.name) for key in shared} - {first}
    assert {check.severity for check in failed_checks(result).values()} == {dg.AssetCheckSeverity.WARN}
    assert set(failed_checks(result)) >= {"silver/vendas:not_null_descricao"}


def test_every_materialisation_reports_what_is_in_its_table(good):
    lake, _, result = good
    tables = {key: metadata for key, metadata in told(result).items() if not key.startswith(("reports/", "warehouse/"))}
    assert len(tables) == 14
    for key, metadata in tables.items():
        table = DeltaTable(str(lake.root / key))
        assert metadata["dagster/row_count"] == lake.sql(key, "SELECT count(*) FROM t")[0][0], key
        assert metadata["delta_version"] == table.version(), key
        assert metadata["dagster/uri"] == str(lake.root / key)
        assert {c.name for c in metadata["dagster/column_schema"].columns} == {f.name for f in table.schema().fields}
        if not key.startswith("bronze/"):
            assert metadata["dagster/column_lineage"].deps_by_column, key


def test_commits_name_the_run_the_asset_the_code_and_the_versions_they_were_made_from(good):
    lake, _, result = good
    for key in (*(f"bronze/{s}" for s in STREAMS), *(f"silver/{s}" for s in STREAMS), *(f"gold/{m}" for m in SUMMED)):
        commit = DeltaTable(str(lake.root / key)).history(1)[0]
        assert (commit["lakehouse.run_id"], commit["lakehouse.asset"]) == (result.run_id, key)
        assert len(commit["lakehouse.code_version"]) == 12
        if not key.startswith("bronze/"):
            inputs = json.loads(commit["lakehouse.inputs"])
            assert inputs
            assert inputs == {name: lake.version(name) for name in inputs}


# --- a second run ----------------------------------------------------------------------------------------------------


def test_a_second_run_states_that_there_is_nothing_to_do_and_changes_no_file(good):
    lake, _, first = good
    before = lake.files()
    result = lake.run()
    assert result.success
    idle = told(result)
    assert {key: metadata["nothing_to_do"] for key, metadata in idle.items()} == dict.fromkeys(told(first), True)
    # Dagster's page of an asset shows the newest materialisation: it has what the one before had, but for what a run took.
    of_a_run = {"rows_written", "files_added", "files_removed", "commit_seconds", "dbt_seconds", "seconds", "nothing_to_do"}
    for key, made in told(first).items():
        lost = {name for name, value in made.items() if name not in of_a_run and idle[key].get(name) != value}
        from_events = {"dagster/column_lineage", "sample"}  # of gold: from the instance's events, which this run has none of
        assert lost == (from_events if key.startswith("gold/") else set()), key
    sales = idle["silver/vendas"]
    assert sales["dagster/column_lineage"].deps_by_column and sales["dagster/column_schema"].columns
    assert sales["records_in"] == sales["written"] + sales["deduplicated"] + sales["deleted"] + sales["quarantined"] > 0
    assert lake.files() == before
    assert set(failed_checks(result)) == set(failed_checks(first))  # what holds for the tables still holds


def test_landed_files_are_never_touched(good, tmp_path):
    lake, _, _ = good
    write_sample_landing(tmp_path, lines=5_000)
    landed = {p.relative_to(tmp_path): p.read_bytes() for p in (tmp_path / "raw").rglob("*") if p.is_file()}
    assert landed
    folder = lake.root / "landing"
    assert {p.relative_to(folder): p.read_bytes() for p in (folder / "raw").rglob("*") if p.is_file()} == landed


def test_the_report_is_dated_by_the_newest_sale_and_made_again_it_is_the_same_file(lake):
    (page,) = (lake.root / "reports" / "vendas").glob("*/index.html")
    newest = lake.sql("silver/vendas", "SELECT max(created_date) FROM t")[0][0]
    assert date.fromisoformat(page.parent.name) == newest
    before = (page.read_bytes(), page.stat().st_mtime_ns)
    (page.parents[1] / "made.json").unlink()  # so that it cannot be known as current
    result = lake.run(only=["reports/vendas"])
    assert result.success
    assert told(result)["reports/vendas"]["nothing_to_do"] is False
    assert (page.read_bytes(), page.stat().st_mtime_ns) == before
    assert told(result)["reports/vendas"]["report"] == str(page)
    assert "2017-12" in told(result)["reports/vendas"]["preview"]


def test_a_run_after_one_more_delivery_works_on_what_it_touches_and_on_nothing_else(lake, good):
    before = lake.versions()
    left = [lake.root / "silver" / "vendas" / ".staged_x", lake.root / ".spill" / "x"]  # by a process that was killed
    for folder in left:
        folder.mkdir()
        (folder / "data_0.parquet").touch()
    lake.land(1)
    result = lake.run()
    assert result.success
    assert [folder.exists() for folder in left] == [False, False]
    idle = {key for key, metadata in told(result).items() if metadata.get("nothing_to_do")}
    assert idle == {f"{layer}/{stream}" for layer in ("bronze", "silver") for stream in HISTORIES} | {
        f"silver/{stream}_history" for stream in HISTORIES
    }
    after = lake.versions()
    assert {key for key in after if after[key] != before[key]} == {
        "bronze/vendas", "silver/vendas", "ops/ledger", "ops/landing_files", "ops/publications", "gold/clientes_rfm",
        *(f"gold/{m}" for m in SUMMED),
    }  # fmt: skip
    receita = good[1].receita + Decimal(7)
    for table, column in (("silver/vendas", "total"), *((f"gold/{mart}", "receita") for mart in SUMMED)):
        assert lake.sql(table, f"SELECT sum({column}) FROM t") == [(receita,)]
    assert (lake.root / "reports" / "vendas" / "2018-01-02" / "index.html").is_file()


# --- parts of the graph ----------------------------------------------------------------------------------------------


def test_one_mart_alone_is_published_and_validated_and_the_others_are_left_alone(lake):
    shutil.rmtree(lake.root / "gold")
    result = lake.run(only=["gold/vendas_mensais"])
    assert result.success
    assert list(told(result)) == ["gold/vendas_mensais"]
    assert [path.name for path in (lake.root / "gold").iterdir()] == ["vendas_mensais"]
    assert {check.asset_key.path[-1] for check in result.get_asset_check_evaluations()} == {"vendas_mensais"}
    assert len(result.get_asset_check_evaluations()) == 3
    assert len(lake.sql("gold/vendas_mensais")) == 12


def test_a_silver_table_can_be_written_somewhere_else_and_everything_that_was_there_stays(lake):
    before = lake.files()
    result = lake.silver("vendas", "vendas_processed")
    assert result.success
    assert lake.sql("silver/vendas_processed") == lake.sql("silver/vendas")
    after = lake.files()
    assert {name for name in before if before[name] != after.get(name)} == set()
    assert {name.rsplit("/", 1)[0].removesuffix("/_delta_log") for name in set(after) - set(before)} <= {
        "silver/vendas_processed", "ops/deletes_vendas_processed", "ops/ledger",
    }  # fmt: skip
    assert "silver/vendas_processed" in told(result)
    first = lake.files()
    assert lake.silver("vendas", "vendas_processed").success
    assert lake.files() == first  # twice is once


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("vendas", "../x", "'../x' cannot be a table name."),
        ("vendas", "produtos", "silver/produtos is the table of another source."),
        ("nope", "", "There is no table 'nope'."),
        ("", "vendas_x", "The target table 'vendas_x' needs a source table."),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_by_name_at_once_and_writes_nothing(good, source, target, expected):
    lake, _, _ = good
    before = lake.files()
    result = lake.silver(source, target)
    assert not result.success
    assert expected in error(result)
    assert retries(result) == []
    assert lake.files() == before


def test_a_request_for_one_table_leaves_what_landed_for_the_others_to_the_next_run(lake):
    lake.land(1)
    assert lake.run(only=["bronze/vendas"]).success
    version = lake.version("silver/vendas")
    assert lake.silver("clientes").success
    assert lake.version("silver/vendas") == version
    assert lake.silver("vendas").success
    assert lake.version("silver/vendas") == version + 1


# --- a rule that fails, another writer -------------------------------------------------------------------------------


@pytest.fixture
def declare(monkeypatch):
    """Declare other tables, everywhere."""

    def change(*specs) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("lakehouse.") and getattr(module, "ALL", None) is not None:
                monkeypatch.setattr(module, "ALL", specs)

    assert lakehouse.tables.ALL is ALL
    return change


def test_a_violated_rule_with_action_fail_stops_its_table_and_what_depends_on_it_until_it_is_fixed(lake, declare):
    before = lake.versions()
    marts = {name: state for name, state in lake.files().items() if name.startswith(("gold/", "reports/", "silver/vendas/"))}
    lake.land(1)
    lake.land(2, stream="clientes", id=77, segmento="x")
    broken = replace(VENDAS, rules=(*VENDAS.rules, expression("only_returns", "quantidade < 0", action="fail")))
    declare(broken, *[spec for spec in ALL if spec is not VENDAS])

    result = lake.run()
    assert not result.success
    check = failed_checks(result)["silver/vendas:only_returns"]
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert (check.metadata["failed"].value, check.metadata["judged"].value) == (1, 1)
    assert retries(result) == []
    assert not started(result) & {"gold", "reports__vendas"}
    assert {name: lake.files()[name] for name in marts} == marts
    assert not [name for name in set(lake.files()) - set(marts) if name.startswith(("gold/", "reports/", "silver/vendas/"))]
    # Nothing else is blocked: bronze took in what landed, and the other table went on.
    after = lake.versions()
    assert after["bronze/vendas"] == before["bronze/vendas"] + 1
    assert after["silver/clientes"] == before["silver/clientes"] + 1

    again = lake.run()  # a run later it still fails: nothing was taken as read
    assert "silver/vendas:only_returns" in failed_checks(again)
    assert lake.version("silver/vendas") == before["silver/vendas"]

    declare(*ALL)
    assert lake.run(only=["bronze/vendas", "silver/vendas", "gold/vendas_diarias"]).success
    assert lake.sql("silver/vendas", "SELECT total FROM t WHERE id = 9000001") == [(Decimal("7.0000"),)]
    assert lake.sql("gold/vendas_diarias", "SELECT receita FROM t WHERE data = DATE '2018-01-02'") == [(Decimal("7.0000"),)]


#: Checks that have a meaning for a commit alone.
OF_COMMIT = ("castable", "ledger", "complete", "order_ties", "volume_drop")
RULED = ("silver/vendas", "silver/clientes", "silver/clientes_history")


def test_the_rules_of_silver_and_of_a_history_are_run_alone_and_write_nothing(good):
    lake, _, first = good
    before = lake.files()
    result = lake.select(dg.AssetSelection.checks_for_assets(*(dg.AssetKey(key.split("/")) for key in RULED)))
    assert result.success
    assert started(result) == {key.replace("/", "__") for key in RULED}
    assert result.get_asset_materialization_events() == []
    assert lake.files() == before  # neither a commit nor a ledger's row nor a quarantine's
    found = {(check.asset_key.to_user_string(), check.check_name): check for check in result.get_asset_check_evaluations()}
    made = {(check.asset_key.to_user_string(), check.check_name): check for check in first.get_asset_check_evaluations()}
    made = {key: check for key, check in made.items() if key[0] in RULED}
    # The first run has validated every row: as many violate a rule that warns. The sample's first load had no volume to lose.
    assert {key: check.passed for key, check in found.items()} == {key: check.passed for key, check in made.items()}
    counts = {table: lake.sql(table, "SELECT count(*) FROM t")[0][0] for table in RULED}
    for (table, name), check in found.items():
        assert ("standing" in check.metadata) == (name in OF_COMMIT)
        rows = counts["silver/clientes" if name == "current" else table]
        assert name in OF_COMMIT or check.metadata["judged"].value == rows
    [(missing,)] = lake.sql("silver/vendas", "SELECT count(*) FROM t WHERE descricao IS NULL")
    assert found["silver/vendas", "not_null_descricao"].metadata["failed"].value == missing > 0


def test_a_rule_that_is_run_alone_is_counted_over_the_rows_that_are_stored(good, declare):
    lake, *_ = good
    before = lake.files()
    bulk = [
        expression("bulk_fail", "quantidade < 10", action="fail"),
        expression("bulk_warn", "quantidade < 10", action="warn"),
    ]
    spec = replace(VENDAS, rules=(*VENDAS.rules, *bulk, min_rows(9_000_000, action="warn")))
    declare(spec, *[other for other in ALL if other is not VENDAS])
    [(rows, offending)] = lake.sql("silver/vendas", "SELECT count(*), count(*) FILTER (quantidade >= 10) FROM t")
    assert offending

    def alone(*names: str) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetCheckKey(dg.AssetKey(["silver", "vendas"]), name) for name in names]
        return lake.select(dg.AssetSelection.checks(*keys))

    result = alone("bulk_warn", "min_rows_9000000", "unique_id")
    assert result.success
    found = {check.check_name: check.metadata for check in result.get_asset_check_evaluations()}
    assert set(found) == {"bulk_warn", "min_rows_9000000", "unique_id"}  # those that were asked for, and no other
    assert (found["bulk_warn"]["failed"].value, found["bulk_warn"]["judged"].value) == (offending, rows)
    assert found["min_rows_9000000"]["failed"].value == 9_000_000 - rows
    assert (found["unique_id"]["failed"].value, found["unique_id"]["judged"].value) == (0, rows)

    result = alone("bulk_fail")
    check = failed_checks(result)["silver/vendas:bulk_fail"]
    assert (check.severity, check.metadata["failed"].value) == (dg.AssetCheckSeverity.ERROR, offending)
    assert not result.success and retries(result) == []
    assert lake.files() == before


def test_a_table_that_is_made_without_its_checks_is_still_stopped_by_them(lake, declare):
    lake.land(1)
    assert lake.run(only=["bronze/vendas"]).success
    broken = replace(VENDAS, rules=(*VENDAS.rules, expression("only_returns", "quantidade < 0", action="fail")))
    declare(broken, *[spec for spec in ALL if spec is not VENDAS])
    version, table = lake.version("silver/vendas"), dg.AssetSelection.assets(dg.AssetKey(["silver", "vendas"])).without_checks()
    result = lake.select(table)
    assert not result.success
    assert "silver/vendas:only_returns" in failed_checks(result)
    assert lake.version("silver/vendas") == version
    declare(*ALL)
    assert lake.select(table).success
    assert lake.version("silver/vendas") == version + 1


def test_a_step_that_lost_against_another_writer_is_tried_again_and_validates_anew(lake):
    lake.land(1)
    disturbed = []

    class Disturbed(DeltaIOManager):
        """Somebody commits to silver/vendas just before our commit, once."""

        def handle_output(self, context, obj):
            if context.asset_key.path == ["silver", "vendas"] and not disturbed:
                disturbed.append(1)
                properties = {"delta.logRetentionDuration": "interval 40 days"}
                DeltaTable(f"{self.lake.root}/silver/vendas").alter.set_table_properties(properties)
            return super().handle_output(context, obj)

    version = lake.version("silver/vendas")
    resources = build_resources(Settings(root=str(lake.root)))
    result = lake.run(only=["bronze/vendas", "silver/vendas"], io_manager=Disturbed(lake=resources["lake"]))
    assert result.success
    assert retries(result) == ["silver__vendas"]
    assert lake.version("silver/vendas") == version + 2
    assert lake.sql("silver/vendas", "SELECT count(*) FROM t WHERE id = 9000001") == [(1,)]
    in_versions = {action["path"] for v in range(lake.version("silver/vendas") + 1) for action in _adds(lake, "silver/vendas", v)}
    assert {path.name for path in (lake.root / "silver" / "vendas").glob("*.parquet")} == in_versions


def _adds(lake: Lake, table: str, version: int) -> list[dict]:
    log = lake.root / table / "_delta_log" / f"{version:020}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    return [action["add"] for action in actions if "add" in action]


# --- commands over a lake --------------------------------------------------------------------------------------------


@pytest.fixture
def environment(lake, tmp_path, monkeypatch):
    """The environment of a command over the copy."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(lake.root))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def test_a_rebuild_gives_the_identical_table_as_a_new_version(lake, environment, capsys):
    lake.land(1, quantidade=5)
    lake.land(2, quantidade=None)  # into quarantine
    assert lake.run(only=["bronze/vendas", "silver/vendas"]).success
    before, version = lake.sql("silver/vendas"), lake.version("silver/vendas")
    quarantined = lake.sql("quarantine/vendas", "SELECT count(*), any_value(rules) FROM t")
    assert quarantined == [(1, "not_null_quantidade")]
    assert tables.rebuild("vendas") == 0
    assert lake.sql("silver/vendas") == before
    assert lake.version("silver/vendas") == version + 1
    assert lake.sql("quarantine/vendas", "SELECT count(*), any_value(rules) FROM t") == quarantined
    assert f"silver/vendas: version {version + 1}, {len(before):,} rows" in capsys.readouterr().out
    result = lake.run(only=["bronze/vendas", "silver/vendas"])
    assert result.success
    assert told(result)["silver/vendas"]["nothing_to_do"]


def test_a_rule_stops_a_rebuild_too_and_the_exit_code_shows_it(lake, environment, declare, capsys):
    before = lake.sql("silver/vendas"), lake.version("silver/vendas")
    broken = replace(VENDAS, rules=(*VENDAS.rules, expression("only_returns", "quantidade < 0", action="fail")))
    declare(broken, *[spec for spec in ALL if spec is not VENDAS])
    assert tables.rebuild("vendas") == 1
    output = capsys.readouterr()
    assert "only_returns (" in output.err and "make rebuild TABLE=vendas REASON=" in output.err
    assert f"silver/vendas keeps version {before[1]}" in output.err
    assert (lake.sql("silver/vendas"), lake.version("silver/vendas")) == before


@pytest.mark.slow
def test_a_night_with_a_stopped_batch_command_by_command(lake, environment, declare, capfd):
    rest = [spec for spec in ALL if spec is not VENDAS]
    personal = [replace(c, personal=True) if c.name == "cliente_id" else c for c in VENDAS.columns]
    big = expression("no_bulk", "quantidade < 1000", action="fail")
    declare(replace(VENDAS, columns=tuple(personal), rules=(*VENDAS.rules, big)), *rest)
    rows = len(lake.sql("silver/vendas"))
    lake.land(1, quantidade=5000, cliente_id=4711)
    lake.land(2)
    assert runs.materialize("key:bronze/vendas or key:silver/vendas") == 1
    output = "".join(capfd.readouterr())
    assert f"no_bulk (1 of 2) stopped the batch: silver/vendas keeps version {lake.version('silver/vendas')}" in output
    assert "make release TABLE=vendas REASON=" in output
    result = CliRunner().invoke(app, ["release", "vendas", "sale of the year, said Ana"])
    assert (result.exit_code, len(lake.sql("silver/vendas"))) == (0, rows + 1)
    listed = CliRunner().invoke(app, ["quarantine", "vendas"]).output
    assert "no_bulk" in listed and '"quantidade": "5000"' in listed and "make redrive TABLE=vendas" in listed
    assert '"cliente_id": "***"' in listed and "4711" not in listed
    (line,) = CliRunner().invoke(app, ["quarantine", "vendas", "--json"]).output.splitlines()
    assert json.loads(line)["rules"] == "no_bulk" and "4711" not in line
    assert "Nothing of vendas can leave" in CliRunner().invoke(app, ["redrive", "vendas"]).output
    declare(VENDAS, *rest)
    assert "1 written" in CliRunner().invoke(app, ["redrive", "vendas"]).output
    assert len(lake.sql("silver/vendas")) == rows + 2
    assert CliRunner().invoke(app, ["quarantine", "vendas"]).output == "Nothing of vendas is in quarantine.\n"
    assert isinstance(CliRunner().invoke(app, ["release", "vendas", "again"]).exception, RefusedWriteError)
    assert runs.materialize("key:bronze/vendas or key:silver/vendas") == 0


def test_the_exit_code_is_1_and_the_failed_check_is_named_when_a_rule_stops_a_table(lake, environment, declare, capfd):
    lake.land(1)
    broken = replace(VENDAS, rules=(*VENDAS.rules, expression("only_returns", "quantidade < 0", action="fail")))
    declare(broken, *[spec for spec in ALL if spec is not VENDAS])
    assert runs.materialize("key:bronze/vendas or key:silver/vendas") == 1
    assert "failed check: silver/vendas only_returns\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("table", "damage", "select", "expected"),
    [
        ("bronze/vendas", "data", 'key:"bronze/vendas"', "is missing; "),
        ("silver/vendas", "log", 'key:"silver/vendas"', "is cut off or garbled"),
        ("silver/vendas", "data", 'key:"gold/vendas_diarias"', "is missing; "),
        ("gold/vendas_diarias", "log", 'key:"reports/vendas"', "is cut off or garbled"),
    ],
)
def test_a_damaged_table_ends_the_run_with_a_sentence_that_names_the_file(
    lake, environment, capfd, table, damage, select, expected
):
    """Also where there is nothing to do; and no retry, which cannot fix it."""
    if table == "silver/vendas" and "gold" in select:
        shutil.rmtree(lake.root / "gold")  # so that it is read
    if damage == "data":
        harmed = max((lake.root / table).glob("*.parquet"))
        harmed.unlink()
    else:
        harmed = max((lake.root / table / "_delta_log").glob("*.json"))
        harmed.write_bytes(harmed.read_bytes()[:100])
    assert runs.materialize(select) == 1
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if str(harmed) in line]
    assert lines
    layer, name = table.split("/")
    for line in lines:
        assert expected in line
        assert "Put it back from a backup." in line
        assert line.endswith(
            {
                "bronze": "see docs/operations.md: A table is damaged.",
                "silver": f"make rebuild TABLE={name}",
                "gold": f"make materialize SELECT='key:\"gold/{name}\"'",
            }[layer]
        )
    assert "Traceback" not in err
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert not instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)


def test_a_damaged_mart_comes_back_as_the_message_states(lake, environment, capfd):
    rows = lake.sql("gold/vendas_mensais")
    max((lake.root / "gold" / "vendas_mensais" / "_delta_log").glob("*.json")).write_text("")
    select = 'key:"gold/vendas_mensais"'
    assert runs.materialize(select) == 1
    move, _, make = capfd.readouterr().err.splitlines()[-2].partition("from silver: ")[2].partition(" && ")
    assert make == f"make materialize SELECT='{select}'"
    subprocess.run(shlex.split(move), check=True)
    assert runs.materialize(select) == 0
    assert lake.sql("gold/vendas_mensais") == rows


def test_the_summary_lists_every_table_with_its_rows_and_the_report(lake, environment, capsys):
    assert runs.summary() == 0
    output = capsys.readouterr().out
    for table in lake.versions():
        rows = lake.sql(table, "SELECT count(*) FROM t")[0][0]
        shown = [line for line in output.splitlines() if line.startswith(f"{table} ")]
        if table.startswith(("ops/deletes", "ops/points", "ops/landing", "ops/publications")) or (
            table.startswith("quarantine/") and not rows
        ):
            assert shown == []
        else:
            assert [f" {rows:,} " in line for line in shown] == [True], table
    assert f"report: {lake.root}/reports/vendas/2017-12-29/index.html" in output


def test_dagsters_own_command_materialises_a_mart_into_the_same_history(lake, environment, tmp_path):
    """As docs/commands.md shows it, from a folder without `.env`, whose DAGSTER_HOME would go before this one."""
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [dagster, "asset", "materialize", "-m", "lakehouse.definitions", "--select", 'key:"gold/vendas_diarias"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert instance.get_latest_materialization_event(dg.AssetKey(["gold", "vendas_diarias"])).run_id == run.run_id
