"""`make doctor` on tables of other writers: what each has, and whether it is read."""

from dataclasses import replace
from pathlib import Path

import pytest

import lakehouse.tables
from lakehouse.commands import doctor
from lakehouse.commands.doctor import sources
from lakehouse.core.table.snapshot import open_table
from lakehouse.settings import Settings
from lakehouse.tables.spec import DeltaSource
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.foreign import Theirs


@pytest.fixture
def found(tmp_path, monkeypatch):
    """What is found of a table that is made of another writer's in a folder."""

    def ask(**how):
        spec = replace(VENDAS, source=DeltaSource(str(tmp_path / "t"), "vendas_spark", **how))
        monkeypatch.setattr(lakehouse.tables, "ALL", (spec,))
        [finding] = sources()
        return finding.state, finding.message

    return ask


def test_a_table_that_is_read_is_named_with_its_features(found, tmp_path):
    Theirs(tmp_path / "t", {"id": "long"}, mapped=True, features=["deletionVectors"]).add({"id": [1, 2]}, deleted=[0])
    assert found() == ("ok", f"vendas_spark {tmp_path}/t: version 1 with deletionVectors, columnMapping, 1 files")


def test_one_that_is_not_read_is_a_fault_with_its_remedy(found, tmp_path):
    assert found() == ("WRONG", f"vendas_spark: there is no Delta table in {tmp_path}/t. Look at its DeltaSource.")
    theirs = Theirs(tmp_path / "t", {"id": "long", "at": "timestamp"}, partition_by=["at"])
    theirs.add({"id": [1]}, partition={"at": "2021-09-08 11:11:11"})
    assert found()[0] == "WRONG" and "has no time zone. Name the zone" in found()[1]
    assert found(timezone="America/Sao_Paulo")[0] == "ok"


def test_a_deep_look_names_the_table_whose_file_is_missing_or_cut(lake):
    record = {"id": 1, "pedido_id": "o", "produto_id": "p", "quantidade": 1, "valor_unitario": "2.50", "status": "sold"}
    lake.land("vendas", "2026_01_01_1_0", [record])
    lake.ingest(VENDAS)
    settings = Settings(root=lake.storage.root, landing=lake.storage.landing)
    *others, last = doctor.tables(settings)
    assert (others, last.state) == ([], "ok") and "data files were looked at" in last.message
    uri = lake.storage.uri(VENDAS.bronze)
    (file,) = open_table(uri, {}).files
    Path(uri, file.path).write_bytes(b"")
    wrong, last = doctor.tables(settings)
    assert wrong.state == "WRONG" and wrong.message.startswith("bronze/vendas: ") and file.path in wrong.message


def test_a_gigabyte_of_events_is_told_with_what_serves_better(tmp_path, monkeypatch):
    runs = tmp_path / "history" / "runs"
    runs.mkdir(parents=True)
    (runs / "index.db").write_bytes(bytes(2000))
    assert [*doctor.history(tmp_path)] == []
    monkeypatch.setattr(doctor, "_MUCH_HISTORY", 1000)
    [finding] = doctor.history(tmp_path)
    assert finding.state == "note" and "PostgreSQL" in finding.message


def test_each_source_tells_whether_it_can_be_asked_and_no_secret() -> None:
    from lakehouse.commands.doctor import source_systems

    def found(**given: str) -> dict[str, str]:
        return {finding.message.split(":")[0]: finding.line for finding in source_systems(Settings(**given))}

    dev, prod = found(), found(env="prod", pedidos_db_url="postgresql://u:hush@h/d", pedidos_api_url="https://h/x")
    assert dev["source pedidos_api"] == "ok     source pedidos_api: its sample stands in for LAKEHOUSE_PEDIDOS_API_URL"
    assert "LAKEHOUSE_PEDIDOS_API_TOKEN: not set" in prod["source pedidos_api"]
    assert prod["source pedidos_db"] == "ok     source pedidos_db: LAKEHOUSE_PEDIDOS_DB_URL is set"
    assert "hush" not in str(prod) and found(env="prod")["source pedidos_db"].startswith("note")
    assert dev["source brt"] == "ok     source brt: LAKEHOUSE_BRT_URL is set"
