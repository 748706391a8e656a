"""The code location: it loads as the server loads it, costs little to import, and is what the golden file and the specs say."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

import lakehouse.tables
from lakehouse.commands import sync
from lakehouse.commands.sync import GOLDEN, derived
from lakehouse.core.table.snapshot import open_existing
from lakehouse.definitions import AROUND, FLOW, build_defs
from lakehouse.gold.sources import render_sources
from lakehouse.settings import Settings, project_folder
from lakehouse.tables import ALL
from lakehouse.tables.spec import TableSpec
from lakehouse.tables.vendas import VENDAS

PROJECT = project_folder()
PACKAGE = PROJECT / "lakehouse"
#: Tables whose freshness their events decide (docs/decisions/0078).
BY_EVENTS = {dg.AssetKey(spec.silver.key) for spec in ALL if spec.health.max_event_age is not None}
HEAVY = (
    *("pandas", "pyspark", "mlflow", "boto3", "dlt", "sklearn", "streamlit"),
    *("dagster_mlflow", "dagster_airbyte", "skops", "holidays"),
)


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs(Settings())


@pytest.fixture(scope="module")
def graph(definitions):
    return definitions.resolve_asset_graph()


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


# --- loading ---------------------------------------------------------------------------------------------------------


def test_importing_and_building_the_definitions_loads_no_heavy_library_and_touches_no_lake(tmp_path):
    """Nor does importing any other module of the package, the last one first; but for those that need an extra."""
    names = [".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in reversed(_modules(PACKAGE))]
    extra = (
        "engines.spark",
        "spark_application",
        "lakehouse.runtime.postgres",
        "lakehouse.runtime.launcher",
        "ml.models",
        "sources.airbyte_client",
    )
    names = [name for name in names if not name.endswith(("__main__", *extra)) and ".dashboard.pages" not in name]
    names = [name.removesuffix(".__init__") for name in names]
    program = f"""
import importlib, sys
from lakehouse.definitions import defs
assert len(defs().resolve_asset_graph().get_all_asset_keys()) > 10
print([name for name in {HEAVY} if name in sys.modules])
for name in {names}:
    importlib.import_module(name)
print([name for name in {HEAVY} if name in sys.modules])
"""
    lake = tmp_path / "lake"
    environment = {**os.environ, "LAKEHOUSE_ROOT": str(lake), "LAKEHOUSE_LANDING": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", "[]"]
    assert not lake.exists()


def test_the_servers_loader_finds_the_code_location_through_the_projects_configuration():
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run([dagster, "definitions", "validate"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location lakehouse" in done.stdout + done.stderr


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", _modules(PACKAGE / "core"), ids=lambda path: path.stem)
def test_core_knows_neither_dagster_nor_settings_nor_the_environment(path):
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & {"dagster", "dagster_dbt", "dotenv", "pydantic_settings"}
    own = {name for name in _imports(path) if name.startswith("lakehouse.")}
    assert all(name.startswith("lakehouse.core.") or name == "lakehouse.core" for name in own), own
    assert not re.search(r"\benviron\b|\bgetenv\b", path.read_text())


def test_only_settings_reads_the_environment():
    readers = {path.name for path in _modules(PACKAGE) if re.search(r"os\.environ|os\.getenv|\benviron\b", path.read_text())}
    assert readers == {"light.py", "settings.py"}  # both of lakehouse/settings


@pytest.mark.parametrize("layer", [*FLOW, *AROUND])
def test_a_layer_opens_with_its_contract(layer):
    module = importlib.import_module(f"lakehouse.{layer}")
    title, blank, *contract = module.__doc__.strip().splitlines()
    assert re.match(rf"{layer}: .+\.", title, flags=re.IGNORECASE)
    assert blank == ""
    assert len(contract) in (4, 5)
    assert contract[0].startswith("Here: ")
    text = "\n".join(contract)
    assert [re.search(rf"(?:^|\. ){part}: .+", text, flags=re.MULTILINE) is not None for part in (
        "Comes from", "Goes to", "Never", "Rerun",
    )] == [True] * 4  # fmt: skip
    assert callable(importlib.import_module(f"lakehouse.{layer}.defs").build_defs)


def test_every_layer_of_the_package_is_on_the_map():
    layers = {path.parent.name for path in PACKAGE.glob("*/defs.py")}
    assert layers == {*FLOW, *AROUND}


#: The layers that each layer's tables are made of.
READS: dict[str, set[str]] = {
    "landing": set(),
    "bronze": {"landing"},
    "silver": {"bronze"},
    "gold": {"silver", "bronze"},  # marts of deliveries read bronze
    "warehouse": {"silver", "gold"},
    "ml": {"gold"},
    "reports": {"gold", "ml", "ops"},
    "ops": {"warehouse"},
}


# --- the graph -------------------------------------------------------------------------------------------------------


def test_the_golden_file_and_the_dbt_sources_are_what_the_specs_give():
    files = derived()
    assert PROJECT / GOLDEN in files
    for path, content in files.items():
        assert path.read_text() == content, f"{path} is stale: make sync"


def test_a_stale_file_is_reported_and_fixed(tmp_path, monkeypatch, capsys):
    location = tmp_path / "models" / "_sources.yml"
    monkeypatch.setattr(sync, "project_folder", lambda: tmp_path)
    monkeypatch.setattr(sync, "derived", lambda: {location: "one\ntwo\n"})

    assert sync.sync(check=True) == 1
    assert capsys.readouterr().err == "models/_sources.yml is not what the specs say. Run make sync.\n"
    assert not location.exists(), "a check writes nothing"
    assert sync.sync() == 0
    assert capsys.readouterr().out == "models/_sources.yml: 2 new lines, 0 gone\n"
    assert sync.sync(check=True) == sync.sync() == 0
    assert capsys.readouterr().out == ""
    location.write_text("one\ntwo\n# edited\n")
    assert sync.sync(check=True) == 1


def test_the_golden_file_lists_every_asset_and_every_check(graph):
    keys, checks = (part.splitlines() for part in (PROJECT / GOLDEN).read_text().split("\n\n"))
    assert keys == sorted(key.to_user_string() for key in graph.get_all_asset_keys())
    assert checks == sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys)


def test_an_assets_key_is_layer_and_table_and_its_tag_the_layer(graph):
    for key in graph.get_all_asset_keys():
        assert len(key.path) == 2
        assert graph.get(key).tags["layer"] == key.path[0]
        assert key.path[0] in READS


def test_every_asset_states_what_it_is_whose_it_is_and_what_it_is_made_with(graph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert len(node.description or "") > 10, key
        assert node.owners, key
        assert node.kinds, key


def test_every_materialisable_asset_has_a_code_version_or_makes_a_page_and_depends_on_nothing_to_its_right(graph):
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        layer = key.path[0]
        if layer == "ops" and key.path[1] != "pedidos_notice":  # what is measured depends on nothing that a run could make
            continue
        assert node.parent_keys or layer == "landing", key
        reads = READS[layer] | {layer} if "slo" not in node.tags else {"ops", layer}
        assert {parent.path[0] for parent in node.parent_keys} <= reads, key
        assert node.code_version or layer in ("reports", "landing", "ops"), key


def test_every_check_blocks_and_states_what_it_is_about(graph):
    for key in graph.asset_check_keys:
        spec = graph.get_check_spec(key)
        # A capture that fails has no asset to block with; without one channel of the orders a run goes on, degraded; and
        # nothing waits for a measurement.
        own = key.asset_key.path == ["landing", "brt_captura"] or key.name == "extracted" or key.asset_key.path[0] == "ops"
        assert spec.blocking != own, key
    for spec in ALL:
        described = [graph.get_check_spec(key) for key in graph.asset_check_keys if key.asset_key.path[0] in ("bronze", "silver")]
        assert all(check.description for check in described), spec.name


def test_every_silver_table_states_how_old_it_may_be_once(graph):
    assert BY_EVENTS  # one at least is declared
    for spec in ALL:
        policy = graph.get(dg.AssetKey(spec.silver.key)).freshness_policy
        if spec.health.max_event_age is not None:
            assert policy is None, spec.name  # its events decide: a policy could report otherwise
            continue
        window = policy.fail_window.to_timedelta()
        assert window == spec.freshness or spec.freshness is None, spec.name


def test_everything_that_is_made_states_how_old_it_may_be(graph):
    by_runs = graph.materializable_asset_keys - BY_EVENTS
    for key in by_runs:
        assert graph.get(key).freshness_policy is not None, key
    windows = {key: graph.get(key).freshness_policy.fail_window.to_timedelta() for key in by_runs}
    assert windows[dg.AssetKey(["gold", "vendas_diarias"])] == windows[dg.AssetKey(["bronze", "vendas"])]
    assert windows[dg.AssetKey(["gold", "slo_jobs"])] < windows[dg.AssetKey(["gold", "vendas_diarias"])]


def test_a_code_version_changes_with_the_declaration_and_only_with_it():
    def version(spec: TableSpec) -> str:
        from lakehouse.silver.assets import silver_asset

        (found,) = silver_asset(spec).specs
        return found.code_version

    spec = VENDAS
    assert version(spec) == version(replace(spec))
    assert version(spec) == version(replace(spec, description="Another text."))
    changed = [replace(spec, rules=spec.rules[1:]), replace(spec, deleted=None), replace(spec, order=("created_at",))]
    assert len({version(other) for other in (spec, *changed)}) == 1 + len(changed)


# --- a table is one record -------------------------------------------------------------------------------------------


@pytest.fixture
def one_more(monkeypatch) -> TableSpec:
    """The record that `docs/tables.md` shows, declared."""
    block = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "tables.md").read_text(), flags=re.DOTALL)
    scope = dict(vars(importlib.import_module("lakehouse.tables.spec")))
    exec(block[1], scope)
    spec = scope["DEVOLUCOES"]
    before = lakehouse.tables.ALL
    for name, module in list(sys.modules.items()):
        if name.startswith("lakehouse.") and getattr(module, "ALL", None) is before:
            monkeypatch.setattr(module, "ALL", (*before, spec))
    return spec


def test_one_more_record_is_one_more_table_in_every_layer_with_a_check_per_rule(one_more, graph):
    more = build_defs(Settings()).resolve_asset_graph()
    assert {key.to_user_string() for key in more.get_all_asset_keys() - graph.get_all_asset_keys()} == {
        "landing/devolucoes",
        "bronze/devolucoes",
        "silver/devolucoes",
    }
    checks = {key.name for key in more.asset_check_keys - graph.asset_check_keys if key.asset_key.path[0] == "silver"}
    rules = {"not_null_id", "not_null_valor", "range_valor", "matches_nota", "unique_id", "min_rows_100"}
    assert checks == rules | {"castable", "ledger", "complete", "order_ties"}
    assert {key.name for key in more.asset_check_keys - graph.asset_check_keys if key.asset_key.path[0] == "bronze"} == {
        "readable_files", "readable_records", "schema_drift", "changed_by_airbyte", "field_collisions", "ledger",
    }  # fmt: skip
    medallion = build_defs(Settings()).resolve_job_def("medallion_etl")
    assert {dg.AssetKey(["bronze", "devolucoes"]), dg.AssetKey(["silver", "devolucoes"])} <= set(
        medallion.asset_layer.selected_asset_keys
    )


def test_one_more_record_reaches_the_dbt_sources_and_the_golden_file(one_more, monkeypatch, tmp_path):
    import yaml

    from lakehouse.gold import sources

    text = render_sources(lakehouse.tables.ALL)
    tables = yaml.safe_load(text)["sources"][0]["tables"]
    (source,) = [table for table in tables if table["name"] == "devolucoes"]
    assert [column["name"] for column in source["columns"]] == ["id", "valor", "quantidade", "total", "nota", "updated_at"]
    assert source["config"]["meta"]["dagster"]["asset_key"] == ["silver", "devolucoes"]

    written = tmp_path / "_sources.yml"
    monkeypatch.setattr(sources, "sources_path", lambda: written)
    assert derived() == {written: text}  # first the sources, since dbt's graph is read with them
    written.write_text(text)
    golden = derived()[PROJECT / GOLDEN]
    assert "silver/devolucoes\n" in golden
    assert "silver/devolucoes:range_valor\n" in golden


def test_one_more_record_is_all_that_its_files_need_to_become_silver(one_more, tmp_path):
    folder = tmp_path / "landing" / "raw" / "devolucoes"
    folder.mkdir(parents=True)
    records = [{"id": n, "Valor Total": "2.50", "quantidade": n % 3, "updated_at": "2024-01-01T00:00:00Z"} for n in range(1, 201)]
    with (folder / "2024_01_01_1704067200000_0.jsonl").open("w") as file:
        for record in records:
            envelope = {"_airbyte_raw_id": f"r{record['id']}", "_airbyte_extracted_at": 1704067200000, "_airbyte_meta": {}}
            file.write(json.dumps({**envelope, "_airbyte_generation_id": 1, "_airbyte_data": record}) + "\n")
    job = build_defs(Settings(root=str(tmp_path))).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey([layer, "devolucoes"]) for layer in ("bronze", "silver")]
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)
    assert result.success
    silver = open_existing(str(tmp_path / "silver" / "devolucoes"))
    assert silver.rows == sum(1 for record in records if record["quantidade"])
    assert list(silver.columns) == ["id", "valor", "quantidade", "total", "nota", "updated_at", "_extracted_at"]
