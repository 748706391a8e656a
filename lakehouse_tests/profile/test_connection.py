"""What an API or a database has becomes a source file: valid, formatted, and nothing of a hostile description is code."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.profile.connection import look
from lakehouse.profile.source_file import module
from lakehouse.settings import project_folder
from lakehouse.tables.spec.collect import Collected, collected
from lakehouse.tables.spec.rest import ApiKey, Bearer, Cursor, NextUrl, Offset, Pages, Single


def records(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def answers(schema: dict[str, Any]) -> dict[str, Any]:
    return {"responses": {"200": {"content": {"application/json": {"schema": schema}}}}}


def query(*names: str, **given: Any) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}, **given} for name in names]}


ITEM = records(sku={"type": "string"}, preco={"type": "number", "format": "double"})
ORDER = records(
    id={"type": "integer"},
    total={"type": "number", "description": 'Amount, in "reais"\n'},
    updatedAt={"type": ["string", "null"], "format": "date-time"},
    cliente={"$ref": "#/components/schemas/Cliente"},
)
SHOP = {
    "openapi": "3.1.0",
    "info": {"title": "Loja API"},
    "servers": [{"url": "/api"}],
    "components": {
        "schemas": {"Pedido": ORDER, "Cliente": records(nome={"type": "string"}, pai={"$ref": "#/components/schemas/Cliente"})},
        "securitySchemes": {"b": {"type": "http", "scheme": "bearer"}},
    },
    "paths": {
        "/v1/pedidos": {
            "get": {
                **answers(
                    records(
                        data={"type": "array", "items": {"$ref": "#/components/schemas/Pedido"}},
                        next={"type": "string"},
                        total={"type": "integer"},
                    )
                ),
                **query("updated_since"),
            },
            "post": {},
        },
        "/v1/pedidos/{id}": {"get": answers({"$ref": "#/components/schemas/Pedido"})},
        "/v1/pedidos/{pedidoId}/itens": {
            "get": answers(
                {"type": "array", "items": records(sku={"type": "string"}, preco={"type": "number", "format": "double"})}
            )
        },
        "/v1/clientes": {
            "get": {
                **answers({"type": "array", "items": records(id={"type": "string"}, ativo={"type": "boolean"})}),
                "parameters": [
                    {"name": "page", "in": "query"},
                    {"name": "per_page", "in": "query", "schema": {"maximum": 250}},
                ],
            }
        },
        "/v1/busca": {"get": {**answers(ORDER), **query("q", required=True)}},
    },
}
SWAGGER = {
    "swagger": "2.0",
    "host": "api.example.org",
    "basePath": "/v2",
    "schemes": ["https"],
    "info": {"title": "Zoo"},
    "securityDefinitions": {"k": {"type": "apiKey", "in": "header", "name": "X-Key"}},
    "paths": {
        "/bichos": {
            "get": {
                "parameters": [{"name": "offset", "in": "query"}, {"name": "limit", "in": "query", "default": 20}],
                "responses": {"200": {"schema": {"type": "array", "items": records(id={"type": "integer"})}}},
            }
        },
        "/lojas": {
            "get": {
                "parameters": [{"name": "cursor", "in": "query"}],
                "responses": {
                    "200": {
                        "schema": records(
                            meta=records(next_cursor={"type": "string"}),
                            results={"type": "array", "items": records(uuid={"type": "string"})},
                        )
                    }
                },
            }
        },
    },
}


def written(tmp_path: Path, document: Any, *wanted: str, name: str = "") -> tuple[str, Collected]:
    """The text of the source file of an API, and what it declares."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    return made(look(str(path), name=name), *wanted)


def made(found: Any, *wanted: str) -> tuple[str, Collected]:
    system, tables, comments = found.declare(wanted)
    text = module(name=system.name, title=found.title, system=system, tables=tables, comments=comments)
    loaded = ModuleType(system.name)
    exec(compile(text, "source.py", "exec"), loaded.__dict__)
    declared = collected([loaded])
    assert [repr(one) for one in loaded.TABLES] == [repr(one) for one in tables], "the text declares what was found"
    (own,) = loaded.SOURCES
    assert repr(own) == repr(system)
    return text, declared


def test_an_api_of_three_resources_one_of_them_a_child_is_declared_of_its_description(tmp_path):
    shop = {**SHOP, "servers": [{"url": "https://loja.example.org/api"}]}
    text, declared = written(tmp_path, shop, "pedidos", "clientes", "itens", name="loja_api")
    (system,) = declared.sources
    orders, customers, items = (next(r for r in system.resources if r.name == n) for n in ("pedidos", "clientes", "itens"))
    assert (orders.path, orders.records, orders.paginate, orders.total) == ("/v1/pedidos", "data", NextUrl("next"), "total")
    assert (orders.since, orders.cursor) == ("updated_since", "updatedAt")
    assert customers.paginate == Pages(250) and items.paginate == Single() and items.path == "/v1/pedidos/{pedidos.id}/itens"
    assert isinstance(system.auth, Bearer) and [one.name for one in declared.settings] == ["LOJA_API_URL", "LOJA_API_TOKEN"]
    tables = {table.name: table for table in declared.tables}
    assert {column.name: column.type for column in tables["loja_api_pedidos"].columns} == {
        "id": "bigint",
        "total": "decimal(38,9)",
        "updatedat": "timestamp",
        "cliente": "string",
    }
    assert (tables["loja_api_pedidos"].key, tables["loja_api_pedidos"].order) == (("id",), ("updatedat",))
    assert tables["loja_api_itens"].sync == "append" and tables["loja_api_itens"].columns[0].name == "pedidos_id"
    assert [job.name for job in declared.jobs] == ["loja_api"]
    assert "# next is the next page's URL; updated_since asks for what changed" in text


def test_what_is_no_list_is_passed_over_with_the_reason(tmp_path):
    path = tmp_path / "openapi.yaml"
    import yaml

    path.write_text(yaml.safe_dump({**SHOP, "servers": [{"url": "https://loja.example.org"}]}))
    found = look(str(path))
    assert set(found.lines) == {"pedidos", "clientes", "itens"}
    assert dict(found.passed_over) == {
        "/v1/busca": "it needs the parameter q",
        "/v1/pedidos/{id}": "its answer lists no records",
    }
    with pytest.raises(DeclarationError, match="no 'nada' to declare"):
        found.declare(["nada"])


def test_a_child_is_declared_with_the_parent_that_it_is_asked_for(tmp_path):
    _, declared = written(tmp_path, {**SHOP, "servers": [{"url": "https://x.example.org"}]}, "itens")
    assert [resource.name for resource in declared.sources[0].resources] == ["pedidos", "itens"]
    assert [table.name for table in declared.tables] == ["loja_api_itens"]


def test_swagger_of_version_2_is_read_too(tmp_path):
    _, declared = written(tmp_path, SWAGGER, "bichos", "lojas")
    (system,) = declared.sources
    animals, shops = system.resources
    assert animals.paginate == Offset(20) and shops.paginate == Cursor("meta.next_cursor", parameter="cursor")
    assert shops.records == "results" and isinstance(system.auth, ApiKey) and system.auth.header == "X-Key"


HOSTILE = '"); import os; os.system("echo"); ("'


def test_nothing_of_a_hostile_description_becomes_code(tmp_path):
    text = {"type": "string", "description": HOSTILE}
    document = {
        "openapi": "3.0.0",
        "info": {"title": f'Loja """ {HOSTILE}'},
        "servers": [{"url": "https://x.example.org"}],
        "components": {"securitySchemes": {"k": {"type": "apiKey", "in": "header", "name": HOSTILE}}},
        "paths": {
            f"/a{HOSTILE}": {"get": answers({"type": "array", "items": records(id={"type": "integer"})})},
            "/b": {
                "get": {
                    **answers(
                        records(
                            **{
                                "data": {"type": "array", "items": records(**{HOSTILE: text})},
                                HOSTILE: {"type": "array", "items": records(id={"type": "string"})},
                            }
                        )
                    ),
                    **query(HOSTILE),
                }
            },
            "/c": {"get": answers({"$ref": "#/paths/~1c/get"})},
        },
    }
    code, declared = written(tmp_path, document, "b")
    assert "import os" not in [line.strip() for line in code.splitlines()]
    assert declared.tables[0].columns[0].source == HOSTILE


@pytest.mark.parametrize("body", ["", "[]", "{}", "<html>", '{"paths": []}', "a: [", '{"openapi": "3", "paths": {"/a": null}}'])
def test_what_describes_no_api_is_told_in_one_sentence(tmp_path, body):
    path = tmp_path / "x"
    path.write_text(body)
    with pytest.raises(DeclarationError, match=r"description|neither JSON|where the API is"):
        look(str(path))


def test_the_tables_of_a_database_are_declared_of_its_catalogue(tmp_path):
    with closing(sqlite3.connect(tmp_path / "filial.db")) as database, database:
        database.execute("CREATE TABLE pedidos (id INTEGER PRIMARY KEY, valor NUMERIC(12,2), updated_at TIMESTAMP)")
        database.execute("CREATE TABLE lojas (cnpj TEXT PRIMARY KEY, Nome TEXT)")
        database.execute('CREATE TABLE "outra tabela" (id INTEGER)')
    found = look(f"sqlite:///{tmp_path}/filial.db")
    assert dict(found.passed_over) == {"outra tabela": "its name is none that is read here"}
    text, declared = made(found, "pedidos", "lojas")
    (system,) = declared.sources
    assert [(table.name, table.cursor) for table in system.tables] == [("pedidos", "updated_at"), ("lojas", None)]
    orders, shops = declared.tables
    assert (orders.sync, orders.key, orders.order) == ("dedup", ("id",), ("updated_at",))
    assert (shops.sync, shops.key) == ("overwrite", ("cnpj",))
    assert 'rules=(min_rows(1, action="warn"),)' in text, "a table that is empty now fails no run"
    assert str(tmp_path) not in text and "sqlite" not in text, "the URL is a setting"


@pytest.mark.parametrize("document", [SHOP, SWAGGER], ids=["shop", "zoo"])
def test_a_source_file_is_formatted_as_ruff_does(tmp_path, document):
    given = {**document, "servers": [{"url": "https://x.example.org"}]}
    wanted = ("pedidos", "clientes", "itens") if document is SHOP else ("bichos", "lojas")
    text, _ = written(tmp_path, given, *wanted)
    path = tmp_path / "source.py"
    path.write_text(text)
    config = ["--config", str(project_folder() / "pyproject.toml")]
    for command in (["format", "--diff"], ["check", "--no-fix"]):
        ruff = [sys.executable, "-m", "ruff", *command, *config, str(path)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
