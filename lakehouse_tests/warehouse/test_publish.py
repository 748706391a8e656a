"""The warehouse holds whole versions of a table, each once, and nothing older in place of something newer (SQLite here;
PostgreSQL in `stack/test_pedidos.py`)."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, SourceDownError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.settings import Settings
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse.warehouse import publish as module
from lakehouse.warehouse.assets import warehouse_targets
from lakehouse.warehouse.publish import Target, Warehouse, publish, published_state

ITENS = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("nome", "string"),
        Column("valor", "decimal(12,2)"),
        Column("dia", "date"),
        Column("bom", "boolean"),
        Column("peso", "double"),
        Column("em", "timestamp"),
    ),
    key=("id",),
    order=("em",),
)
TARGET = Target(ITENS.silver, {column.name: column.type for column in ITENS.columns}, ITENS.key)


class Shelf:
    """A silver table and the SQLite database that it is published to."""

    spec = ITENS

    def __init__(self, lake, tmp_path):
        self.lake, self.path = lake, tmp_path / "warehouse.db"
        self.warehouse = Warehouse(url=f"sqlite:///{self.path}", chunksize=7, lock_seconds=0.2)

    def land(self, *rows):
        self.number = getattr(self, "number", 0) + 1
        self.lake.land("itens", f"2024_01_0{self.number}_170406720000{self.number}_0", rows)
        self.lake.run(self.spec)

    def publish(self, *, target=TARGET, version=None):
        snapshot = open_existing(self.lake.storage.uri(ITENS.silver), version=version)
        with self.lake.session() as session:
            return publish(session, self.warehouse, target, snapshot)

    def sql(self, query="SELECT * FROM itens ORDER BY id"):
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()


def item(number, **fields):
    row = {"id": number, "nome": f"item {number}", "valor": "0.10", "dia": "2024-01-01", "bom": True, "peso": 1.5}
    return {**row, "em": f"2024-01-01T00:00:{number:02}Z", **fields}


@pytest.fixture
def shelf(lake, tmp_path):
    return Shelf(lake, tmp_path)


def test_a_table_is_published_with_its_declared_types_and_a_second_time_nothing_is_written(shelf):
    shelf.land(*[item(n) for n in range(1, 21)])
    first = shelf.publish()
    assert (first.rows, first.written) == (20, True)
    assert shelf.sql()[0] == (1, "item 1", 0.1, "2024-01-01", 1, 1.5, "2024-01-01 00:00:01.000000")
    declared = [row[2] for row in shelf.sql("PRAGMA table_info(itens)")]
    assert declared == ["BIGINT", "TEXT", "NUMERIC(12, 2)", "DATE", "BOOLEAN", "DOUBLE", "DATETIME"]
    before = shelf.path.read_bytes()
    again = shelf.publish()
    assert (again.version, again.rows, again.written) == (first.version, 20, False)
    assert shelf.path.read_bytes() == before


def test_a_new_version_replaces_the_old_rows_and_what_readers_built_stays(shelf):
    shelf.land(*[item(n) for n in range(1, 4)])
    shelf.publish()
    with closing(sqlite3.connect(shelf.path)) as connection, connection:
        connection.execute("CREATE VIEW soma AS SELECT round(sum(valor), 2) AS s FROM itens")
        connection.execute("CREATE INDEX por_dia ON itens (dia)")
    shelf.land(item(2, valor="5.00", em="2024-02-01T00:00:00Z"), item(9))
    assert shelf.publish().rows == 4
    assert shelf.sql("SELECT s FROM soma") == [(5.3,)]
    assert shelf.sql("SELECT name FROM sqlite_master WHERE type = 'index' AND name = 'por_dia'")
    assert published_state(shelf.warehouse, TARGET)[1]["rows"] == 4


def test_an_older_version_does_not_come_back(shelf):
    shelf.land(item(1))
    old = shelf.publish().version
    shelf.land(item(2))
    shelf.publish()
    assert shelf.publish(version=old).written is False
    assert len(shelf.sql()) == 2


def test_a_lake_table_that_was_made_anew_is_published_though_its_versions_begin_again(shelf, make_lake):
    shelf.land(item(1))
    shelf.land(item(2))
    shelf.publish()
    shelf.lake, shelf.number = make_lake(), 0
    shelf.land(item(7))
    assert shelf.publish().written
    assert [row[0] for row in shelf.sql()] == [7]


def test_other_columns_make_the_table_anew(shelf):
    shelf.land(item(1))
    shelf.publish()
    fewer = Target(ITENS.silver, {"id": "bigint", "nome": "string"}, ITENS.key)
    assert shelf.publish(target=fewer).written
    assert shelf.sql() == [(1, "item 1")]


def test_a_table_that_somebody_dropped_comes_back(shelf):
    shelf.land(item(1))
    shelf.publish()
    with closing(sqlite3.connect(shelf.path)) as connection, connection:
        connection.execute("DROP TABLE itens")
    assert shelf.publish().written
    assert len(shelf.sql()) == 1


def test_a_failure_on_the_way_leaves_the_version_before(shelf, monkeypatch):
    shelf.land(item(1))
    before = shelf.publish()
    shelf.land(*[item(n) for n in range(2, 30)])
    copy = module._copy

    def half(*args, **named):
        copy(*args, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_copy", half)
    with pytest.raises(KeyboardInterrupt):
        shelf.publish()
    assert len(shelf.sql()) == 1
    assert published_state(shelf.warehouse, TARGET)[0] == before.version
    monkeypatch.setattr(module, "_copy", copy)
    assert shelf.publish().rows == 29


def test_a_lock_that_is_not_given_is_an_error_that_names_it_and_the_rows_stay(shelf):
    shelf.land(item(1))
    shelf.publish()
    shelf.land(item(2))
    with closing(sqlite3.connect(shelf.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceDownError, match="warehouse/itens could not be written: another session holds a lock"):
            shelf.publish()
    assert len(shelf.sql()) == 1
    assert shelf.publish().rows == 2


def test_values_that_csv_and_sql_could_take_for_others_stay_what_they_are(shelf):
    odd = ["", "\\N", "NULL", 'a"b', "a,b", "a\nb", "x'; DROP TABLE itens; --", "é—日本"]
    shelf.land(*[item(n, nome=text) for n, text in enumerate(odd, start=1)], item(50, nome=None, valor=None, dia=None))
    shelf.publish()
    assert [row[1] for row in shelf.sql()] == [*odd, None]
    assert shelf.sql("SELECT valor, dia FROM itens WHERE id = 50") == [(None, None)]


def test_sums_are_those_of_the_version_that_is_published(shelf):
    shelf.land(*[item(n) for n in range(1, 31)])
    shelf.publish()
    version, figures = published_state(shelf.warehouse, TARGET)
    assert figures["rows"] == 30
    assert round(Decimal(str(figures["valor"])), 2) == Decimal("3.00")
    assert version == open_existing(shelf.lake.storage.uri(ITENS.silver)).version
    assert published_state(shelf.warehouse, Target(TableRef("silver", "nope"), {"id": "bigint"})) is None


# --- what is listed --------------------------------------------------------------------------------------------------


def test_the_default_lists_orders_and_the_marts_of_sales():
    assert {str(listed.target.ref) for listed in warehouse_targets(Settings())} >= {
        "warehouse/pedidos", "warehouse/pedidos_por_canal", "warehouse/vendas_diarias", "warehouse/clientes_rfm",
    }  # fmt: skip


@pytest.mark.parametrize("listed", ["gold/nope", "silver/vendas; DROP TABLE x", "bronze/vendas", "vendas", "silver/"])
def test_a_table_that_is_not_declared_is_refused(listed):
    with pytest.raises(DeclarationError, match="LAKEHOUSE_WAREHOUSE_TABLES lists"):
        warehouse_targets(Settings(warehouse_tables=listed))


def test_two_tables_of_one_name_are_refused():
    with pytest.raises(DeclarationError, match="gives two tables the name 'vendas'"):
        warehouse_targets(Settings(warehouse_tables="silver/vendas, silver/vendas"))


@pytest.mark.parametrize("schema", ["public; DROP SCHEMA public", 'a"b', "Public", "pg catalog"])
def test_a_schema_that_could_be_more_than_a_name_is_refused(schema):
    with pytest.raises(DeclarationError, match="schema name"):
        Warehouse(url="sqlite:////x.db", schema=schema)


def test_a_schema_on_sqlite_is_refused(shelf):
    shelf.land(item(1))
    shelf.warehouse = Warehouse(url=shelf.warehouse.url, schema="mart")
    with pytest.raises(DeclarationError, match="SQLite has no schemas"):
        shelf.publish()


def test_columns_pass_the_allow_list_too(shelf):
    with pytest.raises(DeclarationError, match="column name"):
        shelf.land(item(1))
        shelf.publish(target=Target(ITENS.silver, {"id": "bigint", 'x" bigint); DROP TABLE y; --': "string"}, ("id",)))


# --- tables that are kept apart by days --------------------------------------------------------------------------------


DAILY = replace(ITENS, partition="dia")


class Days(Shelf):
    """The same, with silver kept apart by `dia`."""

    spec = DAILY


@pytest.fixture
def days(lake, tmp_path):
    shelf = Days(lake, tmp_path)
    for day in range(1, 5):
        shelf.land(*[item(10 * day + n, dia=f"2024-03-0{day}") for n in range(3)])
    shelf.publish()
    with closing(sqlite3.connect(shelf.path)) as connection, connection:
        connection.execute("CREATE TABLE gone (id)")
        connection.execute("CREATE TRIGGER seen AFTER DELETE ON itens BEGIN INSERT INTO gone VALUES (old.id); END")
    return shelf


def test_only_the_days_that_changed_are_replaced(days):
    days.land(item(20, dia="2024-03-02", valor="7.00", em="2024-04-01T00:00:00Z"), item(50, dia="2024-03-05"))
    done = days.publish()
    assert (done.rows, done.written) == (13, True)
    assert days.sql("SELECT id FROM gone ORDER BY id") == [(20,), (21,), (22,)]
    assert days.sql("SELECT count(*), round(sum(valor), 2) FROM itens") == [(13, 8.2)]
    assert published_state(days.warehouse, TARGET)[1]["rows"] == 13


def test_a_row_whose_day_is_another_leaves_the_old_one(days):
    days.land(item(20, dia="2024-03-04", em="2024-04-01T00:00:00Z"))
    assert days.publish().rows == 12
    assert days.sql("SELECT id, dia FROM itens WHERE id = 20") == [(20, "2024-03-04")]
    assert {row[0] // 10 for row in days.sql("SELECT id FROM gone")} == {2, 4}


def test_all_days_are_replaced_where_the_version_before_cannot_be_opened(days, monkeypatch):
    days.land(item(50, dia="2024-03-05"))

    def cleaned_up(uri, *, version):
        raise BrokenTableError("That version is gone.", remedy="None.")

    monkeypatch.setattr(module, "open_existing", cleaned_up)
    assert days.publish().rows == 13
    assert len(days.sql("SELECT id FROM gone")) == 12
    assert len(days.sql()) == 13
