"""Empty is not success: a lake without data, one with sales only, and one whose landing folder is mistyped."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from lakehouse.automation import CONSOLE
from lakehouse.definitions import build_defs
from lakehouse.observability.metrics import Delivered, delivered
from lakehouse.sample.landing import write_sample_landing
from lakehouse.settings import Settings

SALES = ("clientes_rfm", "vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto")
OTHERS = ("brt_frota_atual", "brt_frota_por_minuto", "brt_servicos_por_hora", "pedidos_por_canal")


class Ran:
    """A job's run on an instance of its own: its result, its outcome, what it warned of."""

    def __init__(self, root: Path, *, landing: str = "", gold: bool = False) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            definitions = build_defs(Settings(root=str(root), landing_dir=landing))
            job = definitions.resolve_implicit_global_asset_job_def() if gold else definitions.resolve_job_def("medallion_etl")
            keys = [key for key in definitions.resolve_all_asset_keys() if key.path[0] == "gold"]
            self.result = job.execute_in_process(
                instance=instance, raise_on_error=False, run_config=CONSOLE, asset_selection=keys if gold else None
            )
            status = "success" if self.result.success else "failure"
            self.found: Delivered = delivered(instance, self.result.run_id, status)
            logged = instance.all_logs(self.result.run_id)
            self.warned = [entry.user_message for entry in logged if entry.level == 30]
        self.made = {event.asset_key.to_user_string() for event in self.result.get_asset_materialization_events()}
        self.checks = self.result.get_asset_check_evaluations()


def versions(root: Path) -> dict[str, int]:
    """Of every table of silver and gold."""
    logs = [*root.glob("silver/*/_delta_log"), *root.glob("gold/*/_delta_log")]
    return {str(log.parent.relative_to(root)): DeltaTable(str(log.parent)).version() for log in logs}


@pytest.fixture(scope="module")
def sales(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sales")
    write_sample_landing(root / "landing", lines=5_000)
    first = Ran(root)
    assert first.result.success and first.found.outcome == "delivered"
    return root


@pytest.fixture(scope="module")
def nothing(tmp_path_factory) -> tuple[Path, Ran]:
    root = tmp_path_factory.mktemp("nothing")
    return root, Ran(root)


def test_a_lake_without_data_is_empty_and_the_folders_are_named(nothing):
    root, ran = nothing
    assert ran.result.success
    assert ran.found.outcome == "empty" and not ran.found.failed
    assert f"{root}/landing/raw/vendas" in ran.found.empty
    assert any("landing/vendas delivers nothing: no file is in" in line and "LAKEHOUSE_LANDING" in line for line in ran.warned)


def test_a_lake_without_data_has_no_mart_and_no_report(nothing):
    root, ran = nothing
    assert not [*root.glob("gold/*/_delta_log"), *root.glob("reports/**/*.html")]
    assert not {key for key in ran.made if key.startswith(("gold/", "reports/"))}


def test_a_rule_that_validated_nothing_is_not_reported_as_passed(nothing):
    assert [check for check in nothing[1].checks if check.passed] == []


def test_gold_is_green_on_a_lake_with_sales_only_and_the_other_marts_are_skipped(sales):
    ran = Ran(sales, gold=True)
    assert ran.result.success
    assert ran.found.outcome in ("delivered", "nothing")
    assert ran.made >= {f"gold/{name}" for name in SALES}
    assert not ran.made & {f"gold/{name}" for name in OTHERS}
    assert any(line.startswith("gold/pedidos_por_canal is skipped: nothing has ever landed for ") for line in ran.warned)


def test_marts_that_are_current_report_the_checks_that_have_looked_at_rows(sales):
    ran = Ran(sales, gold=True)
    looked = {check.asset_key.to_user_string() for check in ran.checks if check.passed}
    assert ran.found.outcome == "nothing" and looked >= {f"gold/{name}" for name in SALES}


def test_a_mistyped_landing_folder_is_told_and_changes_nothing(sales, tmp_path):
    before = versions(sales)
    ran = Ran(sales, landing=str(tmp_path / "landnig"))
    assert ran.result.success
    assert ran.found.outcome == "empty" and f"{tmp_path}/landnig/raw" in ran.found.empty
    assert any(f"no file is in {tmp_path}/landnig/raw. bronze/vendas stays at version" in line for line in ran.warned)
    assert versions(sales) == before


def test_a_source_whose_files_were_removed_after_they_were_read_is_not_empty(sales, tmp_path):
    shutil.copytree(sales, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "landing" / "raw" / "clientes")
    assert Ran(tmp_path / "lake").found.outcome == "nothing"


def test_a_table_that_lost_its_silver_is_an_error_and_not_a_pipeline_without_data(sales, tmp_path):
    shutil.copytree(sales, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "silver" / "clientes")
    ran = Ran(tmp_path / "lake", gold=True)
    assert not ran.result.success and ran.found.outcome == "failed"
