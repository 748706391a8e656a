"""A connector that a table declares is an asset upstream of its bronze: one sync, from the source to silver in one run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import lakehouse.tables
from lakehouse.core.errors import DeclarationError
from lakehouse.definitions import build_defs
from lakehouse.landing.assets.connectors import install
from lakehouse.settings import load_settings
from lakehouse.tables.spec import AirbyteConnector, Column, TableSpec
from lakehouse_tests.landing.sources.test_connector import SCRIPT, SECRET

LOJA = AirbyteConnector("loja", "source-fake", {"count": 6, "every": 2}, {"users": "incremental"})
USUARIOS = TableSpec(
    name="usuarios",
    source=LOJA.stream("users"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("em", "bigint")),
    key=("id",),
    order=("em",),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lake with one declared connector, installed."""
    command = tmp_path / "connectors" / "loja" / "bin" / "source-fake"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\n{SCRIPT}")
    command.chmod(0o755)
    (tmp_path / "connectors" / "loja.json").write_text(json.dumps({"password": SECRET}))
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("LAKEHOUSE_CONNECTORS", str(tmp_path / "connectors"))
    before = lakehouse.tables.ALL
    for name, module in list(sys.modules.items()):
        if name.startswith("lakehouse.") and getattr(module, "ALL", None) is before:
            monkeypatch.setattr(module, "ALL", (*before, USUARIOS))
    yield tmp_path


def run(*keys: str) -> dg.ExecuteInProcessResult:
    definitions = build_defs(load_settings())
    job = definitions.resolve_implicit_global_asset_job_def()
    chosen = [dg.AssetKey(key.split("/")) for key in keys]
    return job.execute_in_process(asset_selection=chosen, raise_on_error=False)


def test_one_run_takes_a_source_to_silver_and_states_what_it_delivered(folder: Path) -> None:
    result = run("landing/loja", "bronze/usuarios", "silver/usuarios")
    assert result.success
    (event,) = result.asset_materializations_for_node("landing__loja")
    assert event.metadata["records"].value == 6 and event.metadata["records_users"].value == 6
    (event,) = [e for e in result.asset_materializations_for_node("silver__usuarios")]
    assert event.metadata["dagster/row_count"].value == 6
    medallion = build_defs(load_settings()).resolve_job_def("medallion_etl")
    assert dg.AssetKey(["landing", "loja"]) in medallion.asset_layer.selected_asset_keys


def test_a_config_that_is_refused_fails_the_step_once_and_shows_no_secret(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "connectors" / "loja.json").write_text(json.dumps({"password": "segredo-errado"}))
    result = run("landing/loja")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "refuses its config: password authentication failed for ***" in str(failure.step_failure_data.user_failure_data)
    assert "segredo-errado" not in "".join(capfd.readouterr())
    (folder / "connectors" / "loja.json").write_text("[]")
    (failure,) = [event for event in run("landing/loja").all_events if event.is_step_failure]
    assert "loja.json in LAKEHOUSE_CONNECTORS is no JSON object" in str(failure.step_failure_data.user_failure_data)


def test_names_that_would_leave_the_folder_are_not_installed() -> None:
    for name, package in (("../x", "a"), ("loja", "a; rm"), ("loja", "git+https://x"), ("loja", "-e")):
        with pytest.raises(DeclarationError):
            install(name, package, python=sys.executable)
