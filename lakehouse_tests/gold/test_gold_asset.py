"""The gold asset: which marts are published, which keep their version, and what the run says about it.

Over a few rows of silver that the tests write themselves. The marts' SQL is tested in `test_marts.py`.
"""

import json
import os
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.commands import runs
from lakehouse.core.errors import DeclarationError
from lakehouse.core.rules import Finding
from lakehouse.core.table.snapshot import open_existing
from lakehouse.gold import assets, marts, project, published_tests
from lakehouse.observability import outbox
from lakehouse.resources import build_resources
from lakehouse.settings import Settings, project_folder
from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS
from lakehouse_tests.conftest import run_selected
from lakehouse_tests.gold.few_rows import FAILS, MARTS, NOON, Lake, base, copy_project, lake, sale

__all__ = ["base", "lake"]

WARNS = "{{ config(severity='warn') }} select * from {{ ref('vendas_mensais') }}"


def published(result: dg.ExecuteInProcessResult) -> set[str]:
    """Marts of which a new version was committed."""
    events = result.get_asset_materialization_events()
    return {e.asset_key.path[-1] for e in events if "nothing_to_do" not in e.materialization.metadata}


def current(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {e.asset_key.path[-1] for e in events if "nothing_to_do" in e.materialization.metadata}


def unpassed(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckSeverity]:
    return {check.check_name: check.severity for check in result.get_asset_check_evaluations() if not check.passed}


def error(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(e.event_specific_data.error.to_string() for e in result.all_events if e.is_step_failure)


def retried(result: dg.ExecuteInProcessResult) -> bool:
    return any(event.is_step_up_for_retry for event in result.all_events)


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Path:
    """The dbt project with one more test that fails and one more that warns."""
    files = {"tests/sells_nothing.sql": FAILS, "tests/has_no_month.sql": WARNS}
    return copy_project(tmp_path_factory.mktemp("dbt") / "strict", files)


@pytest.fixture(scope="module")
def curious(tmp_path_factory) -> Path:
    """The dbt project with a test that reads a file outside the lake, and one that would open the database to it."""
    opens = "{% if execute %}{% do run_query('SET enable_external_access = true') %}{% endif %}"
    tests = {
        "tests/reads_a_file.sql": "SELECT 1 FROM {{ ref('vendas_diarias') }}, read_text('/etc/passwd')",
        "tests/opens_the_database.sql": opens + "SELECT 1 FROM {{ ref('vendas_diarias') }} WHERE false",
    }
    return copy_project(tmp_path_factory.mktemp("dbt") / "curious", tests)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """The dbt project with a model that does not run."""
    text = (project_folder() / "dbt_project" / "models" / "marts" / "vendas_por_pais.sql").read_text()
    assert "pais" in text
    files = {"models/marts/vendas_por_pais.sql": text.replace("pais", "nacao")}
    return copy_project(tmp_path_factory.mktemp("dbt") / "wrong", files)


# --- what is published -----------------------------------------------------------------------------------------------


def test_marts_are_published_with_the_columns_of_their_contracts(base):
    assert base.versions() == dict.fromkeys(MARTS, 1)
    days = sorted(base.rows("vendas_diarias"), key=lambda row: row["data"])
    assert [(str(d["data"]), d["pedidos"], d["linhas"], d["receita"]) for d in days] == [
        ("2024-03-01", 1, 2, Decimal("5.0000")),
        ("2024-03-02", 1, 1, Decimal("2.5000")),
    ]
    manifest = project.ensure_manifest()
    for mart in MARTS:
        contract = list(manifest["nodes"][f"model.lakehouse.{mart}"]["columns"])
        fields = DeltaTable(str(base.root / "gold" / mart)).schema().fields
        assert [field.name for field in fields] == contract


def test_marts_are_left_alone_while_silver_and_their_models_are_unchanged(lake):
    result = lake.run()
    assert (result.success, published(result), current(result)) == (True, set(), MARTS)
    assert lake.versions() == dict.fromkeys(MARTS, 1)
    assert set(unpassed(result)) == set()


def test_only_marts_that_read_a_changed_table_are_computed_again(lake):
    customer = {"id": 2, "pais": "Chile", "segmento": "s", "created_at": NOON, "updated_at": NOON, "_extracted_at": NOON}
    lake.silver(CLIENTES, [customer], mode="append")
    result = lake.run()
    assert (published(result), current(result)) == ({"clientes_rfm"}, MARTS - {"clientes_rfm"})


def test_a_silver_table_that_was_made_anew_is_another_one_although_its_version_is_the_same(lake):
    shutil.rmtree(lake.root / "silver" / "vendas")
    lake.silver(VENDAS, [sale(7, created_date="2025-01-01")])
    assert DeltaTable(str(lake.root / "silver" / "vendas")).version() == 1
    result = lake.run()
    assert result.success
    assert published(result) == MARTS
    assert [str(row["data"]) for row in lake.rows("vendas_diarias")] == ["2025-01-01"]


def test_empty_silver_gives_empty_marts_once(lake):
    storage = Settings(root=str(lake.root)).storage
    for spec in (VENDAS, PRODUTOS, CLIENTES):  # what has landed was withdrawn since
        lake.silver(spec, [])
        outbox.record(storage, spec.bronze, columns={"_airbyte_raw_id": "string"}, rows=[{"_airbyte_raw_id": "1"}])
    result = lake.run()
    assert result.success and not result.get_asset_check_evaluations(), "what looked at no row has not passed"
    assert {mart: len(lake.rows(mart)) for mart in MARTS} == dict.fromkeys(MARTS, 0)
    assert current(lake.run()) == MARTS


def test_marts_with_rows_stay_where_silver_is_empty_and_nothing_has_ever_landed(lake):
    before = {mart: lake.rows(mart) for mart in MARTS}
    for spec in (VENDAS, PRODUTOS, CLIENTES):
        lake.silver(spec, [])
    result = lake.run()
    assert result.success and not published(result)
    assert {mart: lake.rows(mart) for mart in MARTS} == before


def test_a_mart_asked_for_alone_is_replaced_whole_by_one_dbt_run_and_states_what_it_is_made_of(lake, monkeypatch):
    lake.silver(VENDAS, [sale(9, created_date="2025-01-01")])
    calls = []
    invoke = assets.invoke
    monkeypatch.setattr(assets, "invoke", lambda arguments, **how: calls.append(arguments) or invoke(arguments, **how))
    result = lake.run("vendas_diarias")
    assert result.success
    assert published(result) == {"vendas_diarias"}
    assert {check.asset_key.path[-1] for check in result.get_asset_check_evaluations()} == {"vendas_diarias"}
    assert lake.versions() == {**dict.fromkeys(MARTS, 1), "vendas_diarias": 2}
    assert calls == [["build", "--select", "stg_vendas", "vendas_diarias"]]
    assert [str(row["data"]) for row in lake.rows("vendas_diarias")] == ["2025-01-01"]
    assert len(DeltaTable(str(lake.root / "gold" / "vendas_diarias"), version=1).to_pyarrow_table()) == 2

    (event,) = result.get_asset_materialization_events()
    lineage = event.materialization.metadata["dagster/column_lineage"].value.deps_by_column
    assert lineage["receita"] == [dg.TableColumnDep(dg.AssetKey(["silver", "vendas"]), "total")]
    assert lineage["data"] == [dg.TableColumnDep(dg.AssetKey(["silver", "vendas"]), "created_date")]
    assert event.materialization.metadata["dbt_seconds"].value > 0
    (sample,) = event.materialization.metadata["sample"].records
    assert (sample.data["data"], sample.data["linhas"]) == ("2025-01-01", 1)

    assert published(lake.run()) == MARTS - {"vendas_diarias"}  # it is current, the others see the same silver
    assert len(calls) == 2


@pytest.mark.slow
def test_a_mart_that_is_current_shows_the_lineage_and_figures_of_the_run_that_made_it(lake):
    lake.silver(VENDAS, [sale(9, created_date="2025-01-01")])

    def reported(instance: dg.DagsterInstance) -> dict:
        (event,) = lake.run("vendas_diarias", instance=instance).get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    with dg.DagsterInstance.ephemeral() as instance:
        made, once, again = (reported(instance) for _ in range(3))
    of_the_run = {"rows_written", "files_added", "files_removed", "commit_seconds", "dbt_seconds"}
    assert made["dagster/column_lineage"].deps_by_column["receita"]
    for idle in (once, again):
        assert idle == {**{name: value for name, value in made.items() if name not in of_the_run}, "nothing_to_do": True}
    with dg.DagsterInstance.ephemeral() as forgetful:  # whose history is gone
        assert "dagster/column_lineage" not in reported(forgetful)


# --- failing tests and models ----------------------------------------------------------------------------------------


def test_a_failing_test_blocks_its_mart_until_it_passes_and_a_warning_does_not(lake, strict):
    result = lake.run(dbt=strict)
    assert not result.success
    assert not retried(result)
    assert unpassed(result) == {"sells_nothing": dg.AssetCheckSeverity.ERROR, "has_no_month": dg.AssetCheckSeverity.WARN}
    assert published(result) == {"vendas_mensais"}
    assert current(result) == MARTS - {"vendas_diarias", "vendas_mensais"}  # neither their models nor their tests changed
    assert lake.versions()["vendas_diarias"] == 1

    again = lake.run(dbt=strict)  # the failure is tested again, the warning stands although there is nothing to do
    assert unpassed(again) == unpassed(result)
    assert not again.success
    assert current(again) == MARTS - {"vendas_diarias"}
    assert lake.versions()["vendas_diarias"] == 1
    _nothing_is_left(lake)

    lake.silver(VENDAS, [sale(4)], mode="append")
    fixed = lake.run("vendas_diarias")
    assert fixed.success
    assert sum(row["linhas"] for row in lake.rows("vendas_diarias")) == 4


def _nothing_is_left(lake: Lake) -> None:
    """No scratch database, and no data file that was staged and not committed."""
    assert list((lake.root / ".spill").iterdir()) == []
    for mart in MARTS:
        log = (lake.root / "gold" / mart / "_delta_log").glob("*.json")
        actions = [json.loads(line) for file in log for line in file.read_text().splitlines()]
        known = {action["add"]["path"] for action in actions if "add" in action}
        assert {path.name for path in (lake.root / "gold" / mart).glob("*.parquet")} == known


def test_a_model_that_does_not_run_is_named_with_the_reason_and_the_other_marts_are_published(lake, wrong):
    lake.silver(VENDAS, [sale(4)], mode="append")
    before = lake.rows("vendas_por_pais")
    result = lake.run(dbt=wrong)
    assert not result.success
    assert not retried(result)
    assert "gold/vendas_por_pais was not built: " in error(result)
    assert "nacao" in error(result)
    assert published(result) == MARTS - {"vendas_por_pais"}
    assert lake.rows("vendas_por_pais") == before
    named = {check.check_name for check in result.get_asset_check_evaluations() if check.asset_key.path[-1] == "vendas_por_pais"}
    assert named
    assert named <= set(unpassed(result))  # its tests were not run, so they have not passed
    _nothing_is_left(lake)


def test_dbt_sees_the_lake_and_no_other_file_and_cannot_change_that(lake, curious):
    lake.silver(VENDAS, [sale(4)], mode="append")
    before = lake.versions()["vendas_diarias"]
    result = lake.run("vendas_diarias", dbt=curious)
    assert not result.success
    output = {check.check_name: str(check.metadata.get("message")) for check in result.get_asset_check_evaluations()}
    assert 'Cannot access file "/etc/passwd"' in output["reads_a_file"]
    assert "the configuration has been locked" in output["opens_the_database"]
    assert lake.versions()["vendas_diarias"] == before


def test_a_project_that_does_not_parse_is_an_error_that_names_the_file(lake, tmp_path):
    broken = copy_project(tmp_path / "broken", {"models/marts/vendas_por_pais.sql": "select * from {{ ref('nothing') }}"})
    with pytest.raises(project.DbtError, match=r"models/marts/vendas_por_pais\.sql.*nothing.*Fix the model"):
        lake.run(dbt=broken)


def test_gold_without_any_data_skips_its_marts(tmp_path):
    result = Lake(tmp_path).run()
    assert result.success
    assert not published(result)
    assert not list(tmp_path.glob("gold/*/_delta_log")), "no empty mart is shown"


def test_marts_of_a_source_that_is_not_there_leave_the_others_to_move_on(lake):
    shutil.rmtree(lake.root / "silver" / "clientes")
    result = lake.run()
    assert "gold/clientes_rfm: silver/clientes does not exist." in error(result)
    assert published(result) | current(result) == MARTS - {"clientes_rfm"}


def test_other_marts_move_on_the_exit_code_is_1_and_the_failed_dbt_test_is_named(lake, strict, monkeypatch, tmp_path, capfd):
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(lake.root))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setattr(project, "project_dir", lambda: strict)
    before = lake.rows("vendas_diarias")
    lake.silver(VENDAS, [sale(4)], mode="append")
    assert runs.trigger("medallion_etl") == 1
    output = capfd.readouterr().err
    assert "failed check: gold/vendas_diarias sells_nothing\n" in output
    assert "failed check: gold/vendas_mensais has_no_month" not in output
    assert lake.versions() == {**dict.fromkeys(MARTS, 2), "vendas_diarias": 1, "vendas_por_segmento": 1}
    assert lake.rows("vendas_diarias") == before
    assert not (lake.root / "reports" / "vendas").exists()  # the report waits for its marts


# --- the audit: dbt's tests over what is published ---------------------------------------------------------------------


def audited(lake: Lake) -> dict[str, dict[str, Finding]]:
    found: dict[str, dict[str, Finding]] = {}
    for ref, finding in published_tests.audit(build_resources(Settings(root=str(lake.root)))["lake"], project.ensure_manifest()):
        found.setdefault(ref.table, {})[finding.rule] = finding
    return found


def test_what_a_hand_has_put_into_a_mart_is_found_by_the_audit(lake: Lake) -> None:
    before = audited(lake)
    assert set(before) == MARTS and all(finding.passed for one in before.values() for finding in one.values())
    assert all(len(one) > 1 for one in before.values()), "its tests"
    mart = DeltaTable(str(lake.root / "gold" / "vendas_por_pais"))
    write_deltalake(mart, mart.to_pyarrow_table().slice(0, 1), mode="append")
    after = audited(lake)
    wrong = {name for name, finding in after["vendas_por_pais"].items() if not finding.passed}
    assert any("unique" in name for name in wrong), wrong
    assert all(finding.passed for table, one in after.items() if table != "vendas_por_pais" for finding in one.values())


def alone(lake: Lake, *marts: str) -> dict[str, dict[str, bool]]:
    """Run the tests of some marts without the marts, as `Execute all` does: what was evaluated, by mart and check."""
    selection = dg.AssetSelection.checks_for_assets(*(dg.AssetKey(["gold", mart]) for mart in marts))
    result = run_selected(lake.root, selection)
    assert result.get_asset_materialization_events() == [] and not retried(result)
    found: dict[str, dict[str, bool]] = {}
    for check in result.get_asset_check_evaluations():
        found.setdefault(check.asset_key.path[-1], {})[check.check_name] = check.passed
    assert result.success == all(passed for one in found.values() for passed in one.values())
    return found


def test_the_tests_of_marts_are_run_alone_over_what_is_published(lake: Lake) -> None:
    before = lake.versions()
    found = alone(lake, "vendas_por_pais", "vendas_diarias")
    assert set(found) == {"vendas_por_pais", "vendas_diarias"}
    assert all(len(one) > 1 and all(one.values()) for one in found.values())
    mart = DeltaTable(str(lake.root / "gold" / "vendas_por_pais"))
    write_deltalake(mart, mart.to_pyarrow_table().slice(0, 1), mode="append")
    after = alone(lake, "vendas_por_pais")
    assert any("unique" in name and not passed for name, passed in after["vendas_por_pais"].items())
    assert lake.versions() == {**before, "vendas_por_pais": before["vendas_por_pais"] + 1}  # that of the hand
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    assert alone(lake, "vendas_diarias", "vendas_por_segmento") == {}  # the next run makes both first


def test_a_mart_whose_source_has_moved_on_is_left_to_the_next_run(lake: Lake) -> None:
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    found = audited(lake)["vendas_diarias"]
    assert [*found] == ["current"] and "silver/vendas has moved on" in str(found["current"].detail)


def test_damaged_marts_and_an_empty_lake_are_for_others_to_name(lake: Lake, tmp_path: Path) -> None:
    folder = lake.root / "gold" / "vendas_diarias"
    mart = open_existing(str(folder))
    assert mart is not None
    (folder / mart.files[0].path).unlink()
    found = audited(lake)
    assert "cannot be read" in str(found["vendas_diarias"]["current"].detail) and len(found["vendas_por_pais"]) > 1
    assert audited(Lake(tmp_path / "none")) == {}


def test_a_mart_that_is_published_by_days_has_a_test_that_every_row_is_of_one():
    by_days = [mart for mart in marts.marts_of(project.ensure_manifest()).values() if mart.partition]
    assert by_days
    for mart in by_days:
        marts._check_parts({mart.unique_id: mart})
        with pytest.raises(DeclarationError, match=f"nothing tests that every row has one.*{mart.name}.yml"):
            marts._check_parts({mart.unique_id: replace(mart, checks={})})
        with pytest.raises(DeclarationError, match="no date column"):
            marts._check_parts({mart.unique_id: replace(mart, columns={**mart.columns, mart.partition: "string"})})
