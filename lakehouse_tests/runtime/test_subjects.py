"""The groups of the graph are subjects, its layers are tags and the beginnings of keys."""

import dagster as dg
import pytest

from lakehouse.core.names import DELTA_LAYERS
from lakehouse.definitions import build_defs
from lakehouse.runtime.subjects import SEVERAL, subjects_of
from lakehouse.settings import Settings
from lakehouse.tables import ALL, SUBJECTS


@pytest.fixture(scope="module")
def definitions(tmp_path_factory):
    return build_defs(Settings(root=str(tmp_path_factory.mktemp("lake"))))


def test_what_is_made_of_a_subjects_tables_is_of_that_subject(definitions):
    graph = definitions.resolve_asset_graph()
    groups = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert set(groups.values()) == {"vendas", "pedidos", "brt", "ml", "ops"}
    for key, subject in {
        "landing/vendas": "vendas",
        "bronze/clientes": "vendas",
        "silver/clientes_history": "vendas",
        "gold/clientes_rfm": "vendas",
        "warehouse/vendas_diarias": "vendas",
        "reports/vendas": "vendas",
        "landing/brt_captura": "brt",
        "gold/brt_frota_atual": "brt",
        "bronze/pedidos_api": "pedidos",
        "warehouse/pedidos": "pedidos",
        "reports/modelo": "ml",
        "gold/slo_jobs": "ops",
        "reports/manutencao": "ops",
    }.items():
        assert groups[key] == subject, key


def test_a_layer_is_selected_by_its_tag_and_by_the_beginning_of_keys(definitions):
    graph = definitions.resolve_asset_graph()
    for layer in ("landing", "bronze", "silver", "gold", "warehouse", "reports", "ml", "ops"):
        made = {key for key in graph.materializable_asset_keys if key.path[0] == layer}  # beside what others deliver
        for select in (f"tag:layer={layer}", f'key:"{layer}/*"'):
            assert dg.AssetSelection.from_string(select).resolve(graph) & graph.materializable_asset_keys == made, select


def test_every_table_has_the_name_that_sql_has_for_it(definitions):
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        if key.path[0] in DELTA_LAYERS:
            assert graph.get(key).metadata["dagster/table_name"] == f"{key.path[0]}.{key.path[1]}"


def test_what_is_made_of_several_subjects_is_of_the_lake_unless_it_names_a_group():
    specs = [
        dg.AssetSpec(["gold", "both"], deps=[["silver", "vendas"], ["silver", "pedidos"]], group_name="gold"),
        dg.AssetSpec(["gold", "of_both"], deps=[["gold", "both"]]),
        dg.AssetSpec(["gold", "own"], deps=[["silver", "vendas"]], group_name="examples"),
        dg.AssetSpec(["gold", "measured"], deps=[["silver", "vendas"], ["ops", "run_metrics"]]),
    ]
    subject = subjects_of(dg.Definitions(assets=specs), ALL, SUBJECTS)
    assert [subject(spec).group_name for spec in specs] == [SEVERAL, SEVERAL, "examples", "vendas"]
