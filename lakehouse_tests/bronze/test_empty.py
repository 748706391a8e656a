"""What is read of a source that has never delivered: the command that asks it, or where its files are looked for."""

import pytest

from lakehouse.bronze import empty
from lakehouse.bronze.empty import looked_in, warning
from lakehouse.tables import JOBS, parts
from lakehouse.tables.spec import (
    AirbyteConnector,
    AirbyteServer,
    AirbyteStream,
    CapturedFeed,
    Column,
    Database,
    DeltaSource,
    Job,
    KafkaTopic,
    PlainFiles,
    Resource,
    RestApi,
    Source,
    SourceSystem,
    Table,
    TableSpec,
)
from lakehouse_tests.conftest import Lake

API = RestApi("loja_api", resources=(Resource("pedidos"),), tags=("loja",))
FILIAL = Database("filial", tables=(Table("pedidos"),), tags=("filial",))
COTACOES = KafkaTopic("cotacoes", topic="cotacoes", tags=("cotacoes",))
FROTA = CapturedFeed("frota", url="file:///x", lands="frota_gps", records="veiculos", tags=("frota",))
ALONE = Database("sem_job", tables=(Table("pedidos"),))
CONNECTOR = AirbyteConnector("faker", "source-faker", streams={"users": "incremental"})
SERVER = AirbyteServer("servidor", "e735894a-e773-4938-969f-45f53957b75b", {"vendas": ""})
ASK = (
    "Ask its source: make trigger JOB={}. If that has run, the source has no records yet, or LAKEHOUSE_LANDING is another folder."
)
LAND = "Land its files there, or correct LAKEHOUSE_LANDING or the folder that lakehouse/tables/ declares."


def table(source: Source) -> TableSpec:
    return TableSpec(name="t", source=source, columns=(Column("id", "bigint"),), key=("id",), order=("id",))


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> tuple[SourceSystem, ...]:
    found = (API, FILIAL, COTACOES, FROTA, ALONE)
    monkeypatch.setattr(empty, "SOURCES", found)
    jobs = (Job("loja_diaria", tag="loja"), Job("filial"), Job("cotacoes"), Job("frota_captura", tag="frota"))
    monkeypatch.setattr(empty, "JOBS", jobs)
    return found


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (API.resource("pedidos"), ASK.format("loja_diaria")),
        (FILIAL.table("pedidos"), ASK.format("filial")),
        (COTACOES.messages(), ASK.format("cotacoes")),
        (FROTA.captures, "Ask its source: make trigger JOB=frota_captura, with as many TIMES as its buffer takes captures."),
        (ALONE.table("pedidos"), ASK.format("medallion_etl")),
        (CONNECTOR.stream("users"), ASK.format("medallion_etl")),
        (SERVER.stream("vendas"), ASK.format("medallion_etl")),
        (AirbyteStream("vendas"), LAND),
        (PlainFiles("loja"), LAND),
    ],
)
def test_a_source_that_has_never_delivered_is_asked_by_its_job_or_lands_its_files(lake: Lake, declared, source, remedy):
    spec = table(source)
    folder = looked_in(lake.storage, spec, listed=0)
    text = warning(spec, folder, version=-1)
    assert folder == f"{lake.storage.landing}/raw/{source.folder}"
    assert text == f"landing/{source.asset} delivers nothing: no file is in {folder}. bronze/t stays at version -1. {remedy}"


def test_a_table_of_another_writer_has_no_folder_to_put_files_into(declared):
    text = warning(table(DeltaSource("/theirs/vendas", "theirs")), "/theirs/vendas", version=-1)
    assert text.endswith("Have its writer commit rows, or correct the location that lakehouse/tables/ declares.")


def test_what_had_landed_is_not_asked_for_again_into_a_folder_that_is_mistyped(lake: Lake, declared):
    spec = table(API.resource("pedidos"))
    lake.land("loja_api/pedidos", "a", [{"id": 1}])
    lake.ingest(spec)
    (lake.folder / "landing").rename(lake.folder / "elsewhere")
    folder = looked_in(lake.storage, spec, listed=0)
    assert warning(spec, folder, version=0).endswith(
        f"no file is in {folder}. bronze/t stays at version 0. Files had landed before: correct LAKEHOUSE_LANDING."
    )


def test_the_declared_tables_name_jobs_that_ask_them():
    asked = {part.name: warning(part, f"/x/raw/{part.origin.folder}", version=-1) for part in parts() if part.origin.made_by}
    assert "make trigger JOB=pedidos." in asked["pedidos_api"] and "make trigger JOB=brt_capture," in asked["brt_gps"]
    assert {job.name for job in JOBS} == {"pedidos", "brt_capture"}
