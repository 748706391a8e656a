"""A run with another source or target: it lands where it was asked to, and no cursor is of two sources."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from lakehouse.__main__ import app
from lakehouse.core.errors import DeclarationError
from lakehouse.landing import request
from lakehouse.landing.assets.systems import Systems, _asset
from lakehouse.landing.request import ExtractionRequest
from lakehouse.landing.sources.cursors import cursor
from lakehouse.landing.sources.override import folders, override
from lakehouse.resources import build_resources
from lakehouse.settings import Settings
from lakehouse.tables import SOURCES, parts
from lakehouse.tables.spec import (
    AirbyteConnector,
    AirbyteStream,
    Column,
    Database,
    KafkaTopic,
    NextUrl,
    Query,
    Resource,
    RestApi,
    SourceSystem,
    Table,
    TableSpec,
)
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.rest_stub import Stub, serve

FILIAL = Database(
    "filial",
    tables=(Table("pedidos"), Table("clientes", cursor=None), Query("estoque", "SELECT 1 AS id")),
)
LOJA = RestApi(
    "loja",
    resources=(
        Resource("pedidos", path="/v1/pedidos", since="updated_since", cursor="updated_at", paginate=NextUrl()),
        Resource("lojas", path="/v1/lojas"),
        Resource("itens", path="/v1/pedidos/{pedidos.id}/itens"),
        Resource("vendas", path="/v1/vendas", cursor="updated_at"),
    ),
)
COTACOES = KafkaTopic("cotacoes", topic="financial-data-stream", url="127.0.0.1:9")
PEDIDOS = TableSpec(
    name="pedidos_filial", source=FILIAL.table("pedidos"), key=("id",), order=("updated_at",),
    columns=(Column("id", "bigint"), Column("updated_at", "timestamp")),
)  # fmt: skip


def asked(**given: str) -> Any:
    taken = folders((FILIAL, LOJA, COTACOES), [AirbyteStream("vendas", folder="public/vendas")])
    return override((FILIAL, LOJA, COTACOES), **{"stream": "", "source": "", "target": "", **given}, taken=taken)


# --- what is asked, and what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"stream": "filial/pedidos", "source": "pedidos_2025", "target": "teste"}, Table("pedidos_2025", folder="teste")),
        ({"stream": "filial/pedidos", "source": "a.b", "target": "teste"}, Table("b", schema="a", folder="teste")),
        ({"stream": "filial/pedidos", "source": "b"}, Table("b", folder="filial/pedidos")),
        ({"stream": "clientes", "target": "teste"}, Table("clientes", cursor=None, folder="teste")),
        ({"stream": "clientes", "source": "a.b", "target": "teste"}, Table("b", None, "a", "teste")),
        ({"stream": "estoque", "target": "teste"}, Query("estoque", "SELECT 1 AS id", folder="teste")),
        ({"stream": "lojas", "source": "v2/lojas", "target": "teste"}, Resource("lojas", path="v2/lojas", folder="teste")),
    ],
)
def test_the_named_stream_alone_is_asked(given, expected):
    found = asked(**given)
    assert [*found.of(found.system).streams] == [expected]


def test_a_topic_lands_elsewhere_and_its_group_is_not_told():
    found = asked(stream="cotacoes", source="financial-data-test", target="teste").of(COTACOES)
    assert (found.topic, found.folder(found.streams[0])) == ("financial-data-test", "teste")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "teste"}, "No stream is named that .* Name one of filial/pedidos, filial/clientes, "),
        ({"stream": "pedidos", "target": "teste"}, "'pedidos' is more than one stream that"),
        ({"stream": "filial", "target": "teste"}, "'filial' is more than one stream that"),
        ({"stream": "loja/nada", "target": "teste"}, "'loja/nada' is no stream that"),
        ({"stream": "filial/pedidos"}, "'filial/pedidos' is named without another source or target"),
        ({"stream": "filial/pedidos", "target": "../x"}, "'../x' cannot be a target. Use 1 to 63 lower-case"),
        ({"stream": "filial/pedidos", "target": "filial"}, "raw/filial is where a declared stream lands. .* filial_teste"),
        ({"stream": "filial/pedidos", "target": "public"}, "raw/public is where a declared stream lands"),
        ({"stream": "filial/pedidos", "source": "x; drop", "target": "t"}, "'x; drop' cannot be a table name"),
        ({"stream": "filial/pedidos", "source": "a.b.c", "target": "t"}, "'a.b' cannot be a schema name"),
        ({"stream": "clientes", "source": "b"}, "filial/clientes lands whole each time, .* Give a target."),
        ({"stream": "lojas", "source": "/v2/lojas"}, "loja/lojas lands whole each time, .* Give a target."),
        ({"stream": "estoque", "source": "b", "target": "t"}, "filial/estoque is a query, .* Give a target alone."),
        ({"stream": "itens", "target": "t"}, "loja/itens is asked for the records of pedidos, .* Name loja/pedidos."),
        ({"stream": "loja/pedidos", "source": "/v2/pedidos"}, "has the child itens, .* Give a target."),
        ({"stream": "vendas", "source": "https://other/v1"}, "'https://other/v1' cannot be a path of loja"),
        ({"stream": "vendas", "source": "/v1/../admin", "target": "t"}, "cannot be a path of loja"),
        ({"stream": "vendas", "source": "/v1/x?key=1", "target": "t"}, "cannot be a path of loja"),
        ({"stream": "cotacoes", "source": "other"}, "cotacoes/cotacoes knows what has landed .* Give a target."),
        ({"stream": "cotacoes", "source": "a b", "target": "t"}, "'a b' cannot be a topic"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence_with_its_remedy(given, message):
    with pytest.raises(DeclarationError, match=message) as caught:
        asked(**given)
    assert str(caught.value).endswith(".")


def test_no_folder_that_a_declaration_names_can_be_a_target():
    connector = AirbyteConnector("airbyte", "source-faker", streams={"users": "incremental", "purchases": "incremental"})
    assert folders((), [connector.stream("users")]) == {"users", "purchases"}
    known = folders(SOURCES, [part.origin for part in parts()])
    assert {"vendas", "pedidos_api", "pedidos_db", "brt_gps"} <= known


# --- what lands ---------------------------------------------------------------------------------------------------------


class Asked:
    """Declared systems as assets over a lake, run with run config."""

    def __init__(self, lake: Lake, monkeypatch: pytest.MonkeyPatch, *systems: tuple[SourceSystem, str]) -> None:
        self.lake, self.systems = lake, systems
        monkeypatch.setattr(request, "SOURCES", tuple(declared for declared, _ in systems))

    def run(self, **given: Any) -> dg.ExecuteInProcessResult:
        storage = self.lake.storage
        settings = Settings(root=storage.root, landing_dir=storage.landing)
        found = {declared.name: replace(declared, url=url) for declared, url in self.systems}
        own = {
            **build_resources(settings),
            "systems": Systems(found=found, samples=False, landing=storage.landing, cache=str(self.lake.folder / "cache")),
            "extraction": ExtractionRequest(**given),
        }
        wanted = given.get("only") or given.get("stream", "").partition("/")[0] or self.systems[0][0].name

        @dg.asset(deps=[["landing", wanted]])
        def after() -> None: ...

        assets = [*(_asset(declared, found[declared.name]) for declared, _ in self.systems if declared.name == wanted), after]
        return dg.materialize(assets, resources=own, raise_on_error=False)

    def ids(self, folder: str) -> list[str]:
        import pyarrow.parquet as pq

        paths = [f"{self.lake.storage.landing}/{file.path}" for file in self.lake.storage.landed(folder)]
        return sorted(row["id"] for path in paths for row in pq.ParquetFile(path).read(["id"]).to_pylist())

    def reached(self, folder: str) -> str:
        found = cursor(self.lake.storage.landed(folder))
        return found.isoformat()[:10] if found is not None else ""


def made(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    events = result.get_asset_materialization_events()
    return {e.asset_key.to_user_string(): {k: v.value for k, v in e.materialization.metadata.items()} for e in events}


def error(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    [event] = result.get_step_failure_events()
    failure = event.event_specific_data.error
    return f"{failure.message} {failure.cause.message if failure.cause else ''}"


@pytest.fixture
def filial(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Asked:
    path: Path = lake.folder / "filial.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, first, day in (("pedidos", 1, 10), ("pedidos_2025", 101, 20), ("pedidos_antigos", 201, 1), ("clientes", 1, 1)):
            connection.execute(f"CREATE TABLE {table} (id INTEGER, updated_at TEXT)")
            rows = [(n, f"2026-01-{day:02}T00:00:00Z") for n in range(first, first + 3)]
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
    declared = replace(FILIAL, tables=FILIAL.tables[:2])
    return Asked(lake, monkeypatch, (declared, f"sqlite:///{path}"))


def test_a_target_lands_apart_from_the_declared_stream_its_cursor_and_its_table(filial: Asked, lake: Lake):
    result = made(filial.run(stream="filial/pedidos", target="pedidos_teste"))
    assert {*result} == {"landing/pedidos_teste"}, "nothing follows, and the declared asset is as it was"
    assert result["landing/pedidos_teste"]["asked"] == "filial/pedidos"
    assert (filial.ids("pedidos_teste"), filial.reached("pedidos_teste")) == (["1", "2", "3"], "2026-01-10")
    assert (filial.ids("filial"), filial.reached("filial/pedidos")) == ([], "")
    lake.run(PEDIDOS)
    assert lake.rows(PEDIDOS.bronze) == []
    assert made(filial.run(stream="filial/pedidos", target="pedidos_teste"))["landing/pedidos_teste"]["new_records"] == 0
    assert {*made(filial.run())} == {"landing/filial", "after"}
    assert filial.ids("filial/pedidos") == ["1", "2", "3"]


def test_another_source_and_target_have_a_cursor_of_their_own(filial: Asked):
    made(filial.run())
    result = made(filial.run(stream="filial/pedidos", source="pedidos_2025", target="teste"))
    assert result["landing/teste"]["asked"] == "filial/pedidos with the source pedidos_2025"
    assert (filial.ids("teste"), filial.reached("teste")) == (["101", "102", "103"], "2026-01-20")
    assert filial.reached("filial/pedidos") == "2026-01-10"


def test_a_stream_that_lands_whole_has_its_generations_in_the_target(filial: Asked, lake: Lake):
    made(filial.run(stream="filial/clientes", source="pedidos_2025", target="teste"))
    assert (lake.storage.completed("teste"), lake.storage.completed("filial/clientes")) == (1, 0)


def test_a_target_of_another_source_is_refused_and_one_in_which_nothing_landed_is_not(filial: Asked, lake: Lake):
    assert "no such table" in error(filial.run(stream="filial/pedidos", source="pedidos_2052", target="teste"))
    made(filial.run(stream="filial/pedidos", source="pedidos_2025", target="teste"))
    expected = (
        "raw/teste has what filial/pedidos with the source pedidos_2025 delivered, and this run asks filial/pedidos: "
        "their cursors would mix. Use a target of another name, or remove that folder."
    )
    assert expected in error(filial.run(stream="filial/pedidos", target="teste"))
    lake.put("outro", "a.csv", "id\n1\n")
    message = error(filial.run(stream="filial/pedidos", target="outro"))
    assert "raw/outro has files that no run with this target has landed" in message


def test_another_source_in_the_declared_stream_lands_once_and_leaves_its_cursor(filial: Asked):
    made(filial.run(stream="filial/pedidos", source="pedidos_antigos"))
    assert (filial.ids("filial/pedidos"), filial.reached("filial/pedidos")) == (["201", "202", "203"], "")
    assert {*made(filial.run())} == {"landing/filial", "after"}
    assert filial.reached("filial/pedidos") == "2026-01-10"
    result = made(filial.run(stream="filial/pedidos", source="pedidos_2025"))
    assert {*result} == {"landing/filial", "after"}
    assert result["landing/filial"]["new_records"] == 3
    assert filial.reached("filial/pedidos") == "2026-01-10", "its newest record is of the 20th"
    assert made(filial.run(stream="filial/pedidos", source="pedidos_2025"))["landing/filial"]["new_records"] == 0
    late = made(filial.run(stream="filial/pedidos", source="pedidos_2025", since="2026-01-21"))
    assert late["landing/filial"]["delivered"] == 0
    assert made(filial.run())["landing/filial"]["new_records"] == 0


@pytest.fixture
def stub() -> Iterator[Stub]:
    lists = {
        "/v1/pedidos": [{"id": str(n), "updated_at": f"2026-01-{n:02}T00:00:00Z"} for n in range(1, 13)],
        "/v2/pedidos": [{"id": str(n), "updated_at": f"2026-02-{n:02}T00:00:00Z"} for n in range(21, 25)],
    }
    with serve(Stub(lists)) as found:
        yield found


def test_another_path_of_an_api_is_asked_and_nothing_of_it_is_in_the_cache_of_the_declared_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, stub: Stub
):
    declared = replace(LOJA, resources=LOJA.resources[:1], cache=timedelta(hours=1))
    loja = Asked(lake, monkeypatch, (declared, stub.url))
    result = made(loja.run(stream="loja", source="/v2/pedidos", target="teste"))
    assert result["landing/teste"]["source"].endswith("/v2/pedidos")
    assert (loja.ids("teste"), loja.reached("teste")) == (["21", "22", "23", "24"], "2026-02-24")
    found = made(loja.run())["landing/loja"]
    assert (found["cache_hit"], found["new_records"], loja.reached("loja/pedidos")) == (False, 12, "2026-01-12")
    made(loja.run(stream="loja", source="/v2/pedidos"))
    assert (len(loja.ids("loja/pedidos")), loja.reached("loja/pedidos")) == (16, "2026-01-12")


def test_a_system_that_is_not_the_asked_one_refuses_the_run(filial: Asked, monkeypatch: pytest.MonkeyPatch):
    other = Database("outra", tables=(Table("pedidos"),))
    monkeypatch.setattr(request, "SOURCES", (*request.SOURCES, other))
    result = filial.run(stream="outra/pedidos", target="teste", only="filial")
    assert "landing/filial is part of it. Choose landing/outra alone in the Launchpad, or use make trigger" in error(result)


# --- by command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Any]]:
    from lakehouse.commands import foreground

    given: list[tuple[dict[str, Any], Any]] = []
    monkeypatch.setattr(foreground, "job_named", lambda job: job)
    monkeypatch.setattr(foreground, "execute", lambda job, config, keys, **_: given.append((config, keys)) or 0)
    return given


def trigger(*words: str) -> str:
    result = CliRunner().invoke(app, ["trigger", *words])
    return "" if result.exit_code == 0 else str(result.exception)


def test_the_command_asks_the_named_stream_and_runs_what_that_is_for(executed):
    words = ["pedidos", "--stream", "pedidos_db", "--source-table", "arquivo.pedidos_2025"]
    assert trigger(*words, "--target-table", "pedidos_teste", "--full", "1") == ""
    assert trigger(*words) == ""
    (config, keys), (other, more) = executed
    asked = {"full": True, "stream": "pedidos_db", "source": "arquivo.pedidos_2025", "target": "pedidos_teste"}
    assert config == {"resources": {"extraction": {"config": asked}}}
    assert keys == [dg.AssetKey(["landing", "pedidos_db"])]
    assert other["resources"]["extraction"]["config"] == {"stream": "pedidos_db", "source": "arquivo.pedidos_2025"}
    names = {key.to_user_string() for key in more}
    assert {"landing/pedidos_db", "bronze/pedidos_db", "silver/pedidos"} <= names and "landing/pedidos_api" not in names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pedidos", "--target-table", "teste"], "Name one of pedidos_api/pedidos, pedidos_db/pedidos in TABLE"),
        (["pedidos", "--stream", "pedidos_db"], "'pedidos_db' is named without another source or target"),
        (["pedidos", "--stream", "pedidos_db", "--target-table", "vendas"], "raw/vendas is where a declared stream lands"),
        (["medallion_etl", "--stream", "pedidos_db"], "medallion_etl asks no source system, .* Use pedidos."),
        (["medallion_etl", "--target-table", "teste", "--source-table", "vendas"], "medallion_etl runs for all tables."),
    ],
)
def test_the_command_refuses_before_it_runs(executed, words, message):
    import re

    assert re.search(message, trigger(*words))
    assert executed == []
