"""Tables and queries of a database land exactly: what is new by a cursor, or whole as generations."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError, LakehouseError, SourceRefusedError
from lakehouse.core.sql import open_engine
from lakehouse.landing.sources.catalogue import tables
from lakehouse.tables.spec import Column, Database, Query, Resource, RestApi, Table, TableSpec
from lakehouse.tables.spec.collect import collected
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.branch import Branch

Sql = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "branch.db"


@pytest.fixture
def sql(path: Path) -> Sql:
    def run(statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement, values)

    run("CREATE TABLE pedidos (id INTEGER, nome TEXT, ativo INTEGER, updated_at TEXT)")
    for number in range(1, 101):
        run("INSERT INTO pedidos VALUES (?, ?, 1, ?)", number, f"item {number}", f"2024-01-{number % 28 + 1:02}T00:00:00Z")
    return run


def branch(lake: Lake, path: Path, *given: Table | Query, **more: Any) -> Branch:
    return Branch.of(lake, f"sqlite:///{path}", *given, **more)


# --- a cursor that is a number ------------------------------------------------------------------------------------------


def test_rows_with_higher_numbers_land_once_and_late_ones_within_the_overlap(lake: Lake, path: Path, sql: Sql) -> None:
    sql("UPDATE pedidos SET id = id + 1000000")
    source = branch(lake, path, Table("pedidos", cursor="id", overlap=50))
    first = source.take()["pedidos"]
    assert (first.delivered, first.new, first.cursor) == (100, 100, 1000100)
    assert source.names("pedidos")[0].startswith("n1000100_") and "_until_n1000100." in source.names("pedidos")[0]
    sql("INSERT INTO pedidos VALUES (1000101, 'novo', 1, NULL)")
    sql("INSERT INTO pedidos VALUES (1000060, 'atrasado', 1, NULL)")  # committed late
    sql("INSERT INTO pedidos VALUES (NULL, 'sem numero', 1, NULL)")
    again = source.take()["pedidos"]
    assert (again.new, again.cursor) == (3, 1000101)
    assert again.delivered < 60
    assert source.new() == {"pedidos": 0}
    assert len(source.records("pedidos")) == 103


def test_a_negative_number_and_one_beyond_64_bits_are_cursors(lake: Lake, path: Path, sql: Sql) -> None:
    sql("CREATE TABLE contas (id NUMERIC(20, 0), nome TEXT)")
    sql("INSERT INTO contas VALUES (-5, 'a')")
    source = branch(lake, path, Table("contas", cursor="id", overlap=0))
    assert source.take()["contas"].cursor == -5
    sql("INSERT INTO contas VALUES (9223372036854775807, 'b')")
    assert source.take()["contas"].cursor == 9223372036854775807
    assert source.new() == {"contas": 0}


def test_a_table_whose_cursor_becomes_another_kind_is_read_whole_once(lake: Lake, path: Path, sql: Sql) -> None:
    assert branch(lake, path, Table("pedidos")).new() == {"pedidos": 100}
    numbered = branch(lake, path, Table("pedidos", cursor="id"))
    assert numbered.new() == {"pedidos": 0}  # the same records: known by what they say
    sql("INSERT INTO pedidos VALUES (101, 'novo', 1, '2024-03-01T00:00:00Z')")
    assert numbered.take()["pedidos"].cursor == 101
    assert branch(lake, path, Table("pedidos")).new() == {"pedidos": 0}


def test_what_grows_with_nothing_is_refused_as_a_cursor(lake: Lake, path: Path, sql: Sql) -> None:
    sql("CREATE TABLE medidas (id INTEGER, valor REAL)")
    with pytest.raises(SourceRefusedError, match="The column valor of the table medidas cannot be its cursor: it is a double"):
        branch(lake, path, Table("medidas", cursor="valor")).take()
    with pytest.raises(SourceRefusedError, match="no such column: updated_at") as caught:
        branch(lake, path, Table("medidas")).take()
    assert "Use one of id, valor" in caught.value.remedy


# --- generations ----------------------------------------------------------------------------------------------------------

CLIENTES = (Column("id", "bigint"), Column("nome", "string"))


def overwritten(source: Branch, name: str = "pedidos") -> TableSpec:
    return TableSpec(name=name, source=source.declared.table(name), columns=CLIENTES, sync="overwrite", max_loss=1.0)


def test_a_full_refresh_shows_deleted_rows_and_lands_only_what_has_changed(lake: Lake, path: Path, sql: Sql) -> None:
    source = branch(lake, path, Table("pedidos", cursor=None))
    spec = overwritten(source)
    first = source.take()["pedidos"]
    assert (first.new, first.generation, first.cursor) == (100, 1, None)
    assert lake.storage.completed("filial/pedidos") == 1
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 100
    before = source.names("pedidos")
    unchanged = source.take()["pedidos"]
    assert (unchanged.delivered, unchanged.new, unchanged.generation) == (100, 0, 1)
    assert source.names("pedidos") == before
    sql("DELETE FROM pedidos WHERE id <= 40")
    sql("UPDATE pedidos SET nome = 'outro' WHERE id = 41")
    assert source.take()["pedidos"].generation == 2
    lake.run(spec)
    rows = lake.rows(spec.silver, "id", "nome")
    assert len(rows) == 60 and rows[0] == {"id": 41, "nome": "outro"}
    sql("DELETE FROM pedidos")
    assert source.take()["pedidos"].generation == 3
    assert source.take()["pedidos"].generation == 3  # of no records, and the same
    lake.run(spec)
    assert lake.rows(spec.silver) == []


def test_a_generation_that_was_cut_off_is_never_shown_and_the_next_one_is(
    lake: Lake, path: Path, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.landing.sources import generation

    source = branch(lake, path, Table("pedidos", cursor=None))
    spec = overwritten(source)
    source.take()
    lake.run(spec)
    sql("DELETE FROM pedidos WHERE id > 10")
    with monkeypatch.context() as patch:
        patch.setattr(generation.files, "put", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            source.take()
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 100
    with monkeypatch.context() as patch:  # after the last file, before the mark
        patch.setattr(type(lake.storage), "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            source.take()
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 100
    done = source.take()["pedidos"]
    assert (done.generation, done.new) == (2, 0)  # all of it had landed
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 10


def test_copies_are_of_a_generation_as_often_as_the_table_has_them(lake: Lake, path: Path, sql: Sql) -> None:
    sql("INSERT INTO pedidos SELECT * FROM pedidos WHERE id = 7")
    source = branch(lake, path, Table("pedidos", cursor=None))
    assert source.new() == {"pedidos": 101}
    raw = [row["_airbyte_raw_id"] for row in source.records("pedidos")]
    assert len(set(raw)) == 101
    sql("DELETE FROM pedidos WHERE id = 7")
    assert source.take()["pedidos"].generation == 2


def test_soft_deletes_are_deletes_of_silver(lake: Lake, path: Path, sql: Sql) -> None:
    sql("ALTER TABLE pedidos ADD COLUMN mudou TEXT")
    sql("UPDATE pedidos SET mudou = '2024-01-01T00:00:00Z'")
    source = branch(lake, path, Table("pedidos", cursor="mudou"))
    columns = (*CLIENTES, Column("ativo", "boolean"), Column("mudou", "timestamp"))
    spec = TableSpec(
        name="pedidos",
        source=source.declared.table("pedidos"),
        columns=columns,
        key=("id",),
        order=("mudou",),
        deleted="ativo = false",
    )
    source.take()
    lake.run(spec)
    sql("UPDATE pedidos SET ativo = 0, mudou = '2024-02-01T00:00:00Z' WHERE id = 3")
    assert source.new() == {"pedidos": 1}
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 99


def test_a_table_of_generations_needs_a_source_that_lands_whole() -> None:
    module: Any = ModuleType("x")
    source = Database("filial", url="sqlite:////x.db", tables=(Table("pedidos"), Table("clientes", cursor=None)))
    spec = TableSpec(name="pedidos", source=source.table("pedidos"), columns=CLIENTES, sync="overwrite")
    module.SOURCES, module.TABLES = (source,), (spec,)
    with pytest.raises(DeclarationError, match="'pedidos' is overwritten") as caught:
        collected([module])
    assert "cursor=None" in caught.value.remedy
    module.TABLES = (TableSpec(name="clientes", source=source.table("clientes"), columns=CLIENTES, sync="overwrite"),)
    assert collected([module]).sources == (source,)


@pytest.mark.parametrize(("cursor", "fits"), [("updated_at", False), ("", True)])
def test_so_do_the_resources_of_an_api(cursor: str, fits: bool) -> None:
    module: Any = ModuleType("x")
    api = RestApi("loja", url="https://h/x", resources=(Resource("clientes", cursor=cursor),))
    module.SOURCES = (api,)
    module.TABLES = (TableSpec(name="clientes", source=api.resource("clientes"), columns=CLIENTES, sync="overwrite"),)
    if fits:
        assert collected([module]).sources == (api,)
    else:
        with pytest.raises(DeclarationError, match="'clientes' is overwritten"):
            collected([module])


# --- queries --------------------------------------------------------------------------------------------------------------


def test_what_a_query_returns_lands_as_generations(lake: Lake, path: Path, sql: Sql) -> None:
    text = "SELECT ativo AS id, count(*) AS linhas, '100%' AS parte FROM pedidos -- por estado; sem\n GROUP BY 1;"
    source = branch(lake, path, Query("por_estado", text, key=("id",)))
    assert source.new() == {"por_estado": 1}
    assert source.values("por_estado") == {"1": {"id": "1", "linhas": "100", "parte": "100%"}}
    assert source.new() == {"por_estado": 0}


def test_a_query_whose_key_is_none_is_refused_and_the_other_tables_land(lake: Lake, path: Path, sql: Sql) -> None:
    sql("INSERT INTO pedidos VALUES (NULL, '', 0, NULL)")
    source = branch(
        lake,
        path,
        Query("dobrados", "SELECT a.id FROM pedidos a, pedidos b WHERE b.id <= 2 OR b.id IS NULL", key=("id",)),
        Query("dois", "SELECT id, nome AS ID FROM pedidos"),
        Table("pedidos"),
    )
    with pytest.raises(SourceRefusedError, match=r"202 rows are copies, and 3 have a null\. Two columns are called"):
        source.take()
    assert source.names("dobrados") == [] and len(source.records("pedidos")) == 101


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM pedidos",
        "SELECT 1; DROP TABLE pedidos",
        "WITH x AS (DELETE FROM pedidos RETURNING id) SELECT * FROM x",
        "SELECT * INTO copia FROM pedidos",
        "SELECT 1 FROM pedidos FOR UPDATE",
        "PRAGMA user_version",
        "/*! DROP TABLE pedidos */ SELECT 1",
        "",
    ],
)
def test_a_query_that_is_not_one_select_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match=r"is not one SELECT|a source is read only"):
        Query("estoque", text)


def test_words_in_texts_and_quoted_names_are_no_statements() -> None:
    Query("estoque", """(SELECT "update", 'drop; table', `delete` FROM x) /* insert */ UNION ALL SELECT 1, 2, 3 -- call""")


def test_a_session_that_reads_cannot_write(path: Path, sql: Sql) -> None:
    import sqlalchemy as sa

    engine = open_engine(f"sqlite:///{path}", setting="X", statement_seconds=5, read_only=True)
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM pedidos")


# --- values ---------------------------------------------------------------------------------------------------------------


def test_sqlite_values_land_as_they_are_whatever_the_columns_type(lake: Lake, path: Path, sql: Sql) -> None:
    sql("CREATE TABLE tudo (id INTEGER, a ANY, b NUMERIC, c BLOB)")
    sql("INSERT INTO tudo VALUES (1, 9223372036854775807, 0.1, x'00ff')")
    sql("INSERT INTO tudo VALUES (2, 'texto ; \"x\"', '12.30', NULL)")
    sql("INSERT INTO tudo VALUES (3, 1e300, 1e22, '')")
    source = branch(lake, path, Table("tudo", cursor=None))
    source.take()
    assert source.values("tudo") == {
        "1": {"id": "1", "a": "9223372036854775807", "b": "0.1", "c": "00ff"},
        "2": {"id": "2", "a": 'texto ; "x"', "b": "12.3", "c": None},
        "3": {"id": "3", "a": "1e+300", "b": "1e+22", "c": ""},
    }


def test_instants_without_a_zone_are_those_of_the_declared_one(lake: Lake, path: Path, sql: Sql) -> None:
    sql("CREATE TABLE vendas (id INTEGER, em DATETIME, updated_at DATETIME, dia DATE)")
    rows = ["2024-01-01 10:00:00", "2024-01-01T10:00:00.25Z", "0000-00-00 00:00:00", "hoje"]
    for number, text in enumerate(rows, start=1):
        sql("INSERT INTO vendas VALUES (?, ?, '2024-01-01 09:00:00', '2024-01-01')", number, text)
    source = branch(lake, path, Table("vendas", timezone="America/Sao_Paulo"))
    first = source.take()["vendas"]
    assert first.cursor is not None and str(first.cursor) == "2024-01-01 12:00:00+00:00"
    found = source.values("vendas")
    assert [found[n]["em"] for n in "1234"] == ["2024-01-01 13:00:00+00", *rows[1:]]
    assert found["1"]["dia"] == "2024-01-01"
    assert source.new() == {"vendas": 0}


def test_rows_of_an_hour_that_comes_twice_are_not_lost(lake: Lake, path: Path, sql: Sql) -> None:
    """Berlin set its clocks back at 03:00 on 2024-10-27: what was written after 02:59 began with 02:00 again."""
    from datetime import UTC, datetime

    from lakehouse.landing.sources.catalogue import Catalogue, Known
    from lakehouse.landing.sources.database import SqlTable, _asked

    table = SqlTable(url="", table="t", timezone="Europe/Berlin")
    known = Catalogue({"updated_at": Known("timestamp", family="local")})
    asked = _asked(datetime(2024, 10, 27, 0, 50, tzinfo=UTC), table, known, "mysql")
    assert asked == "2024-10-27 01:50:00"  # 02:50 less the hour
    assert _asked(datetime(2024, 10, 26, 0, 50, tzinfo=UTC), table, known, "mysql") == "2024-10-26 02:50:00"


# --- declarations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["*", ("pedidos",), [Table("pedidos")]])
def test_tables_are_named_one_by_one(given: Any) -> None:
    with pytest.raises(DeclarationError, match="Source 'filial': tables are") as caught:
        Database("filial", url="sqlite:////x.db", tables=given)
    assert "Name each" in caught.value.remedy


def test_the_tables_of_a_database_are_listed_by_patterns(path: Path, sql: Sql) -> None:
    for name in ("vendas_2023", "vendas_2024", "vendas_tmp", '"Outra Tabela"'):
        sql(f"CREATE TABLE {name} (id INTEGER)")
    sql("CREATE VIEW vendas_todas AS SELECT 1 AS id")
    engine = open_engine(f"sqlite:///{path}", setting="X", statement_seconds=5, read_only=True)
    with engine.connect() as connection:
        assert tables(connection, include=("vendas_*",), exclude=("*_tmp",)) == ["vendas_2023", "vendas_2024", "vendas_todas"]
        assert tables(connection) == ["pedidos", "vendas_2023", "vendas_2024", "vendas_tmp", "vendas_todas"]


@pytest.mark.parametrize(
    ("url", "extra"), [("mysql://u:pw@h/d", "mysql"), ("mariadb://u:pw@h/d", "mysql"), ("mssql://u:pw@h/d", "mssql")]
)
def test_a_driver_that_is_not_installed_is_one_sentence_with_its_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for module in ("pymysql", "pymssql"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LakehouseError) as caught:
        open_engine(url, setting="FILIAL_DB_URL", statement_seconds=5)
    assert "FILIAL_DB_URL needs a driver that is not installed" in caught.value.what
    assert f"'.[{extra}]'" in caught.value.remedy and "pw" not in str(caught.value)


def test_the_database_that_the_page_declares_is_one() -> None:
    from lakehouse.settings import project_folder
    from lakehouse.tables.spec import setting

    page = (project_folder() / "docs" / "sources.md").read_text().partition("## Databases")[2]
    block = page.partition("```python\n")[2].partition("CLIENTES =")[0]
    names: dict[str, Any] = {"Database": Database, "Table": Table, "Query": Query, "setting": setting}
    exec(block, names)
    assert [one.full_refresh for one in names["FILIAL"].tables] == [False, False, True, True]
