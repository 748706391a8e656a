"""PostgreSQL and MariaDB as sources: the text that lands of each type, cursors, generations, queries, and what they refuse."""

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lakehouse.core.errors import SourceDownError, SourceRefusedError
from lakehouse.core.sql import open_engine
from lakehouse.tables.spec import Column, Query, Table, TableSpec
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults import KILLS, branch
from lakehouse_tests.landing.branch import Branch

Sql = Callable[[str], None]


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each."""
    server = str(request.getfixturevalue(request.param))
    name = f"t{uuid.uuid4().hex[:12]}"
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture
def sql(url: str) -> Iterator[Sql]:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect().execution_options(no_parameters=True) as connection:

        def run(statement: str) -> None:
            connection.exec_driver_sql(statement)

        yield run


def _of(url: str, dialect: str) -> None:
    if not url.startswith(dialect):
        pytest.skip(f"of {dialect}")


# --- values -----------------------------------------------------------------------------------------------------------------

#: Of PostgreSQL: type, SQL of a value, the text that lands.
POSTGRESQL = [
    ("numeric", "12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
    ("numeric(12,2)", "0.10", "0.10"),
    ("numeric", "'NaN'", "NaN"),
    ("real", "0.1", "0.1"),
    ("double precision", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("double precision", "'Infinity'", "Infinity"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("boolean", "true", "t"),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("date", "'infinity'", "infinity"),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
    ("timestamp", "'2024-01-01 10:00:00.123456'", "2024-01-01 10:00:00.123456"),
    ("timestamptz", "'2024-01-01 10:00:00.5-03'", "2024-01-01 13:00:00.5+00"),
    ("time", "'23:59:59.999999'", "23:59:59.999999"),
    ("timetz", "'10:00-03'", "10:00:00-03"),
    ("interval", "'1 year 2 months 3 days 04:05:06.7'", "P1Y2M3DT4H5M6.7S"),
    ("bytea", "'\\x00ff'", "\\x00ff"),
    ("json", """'{"b": 1.10,  "a": null}'""", '{"b": 1.10,  "a": null}'),
    ("jsonb", """'{"b": 1.10,  "a": null}'""", '{"a": null, "b": 1.10}'),
    ("integer[]", "ARRAY[[1,2],[3,NULL]]", "[[1,2],[3,null]]"),
    ("text[]", """ARRAY['a,b', 'c"d', NULL]""", '["a,b","c\\"d",null]'),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("humor", "'bom'", "bom"),
    ("bit(3)", "B'101'", "101"),
    ("money", "'1234.50'::numeric::money", "1234.50"),
    ("char(4)", "'ab'", "ab  "),
    ("text", "'linha 1\r\nlinha 2, \"x\"\t\\N'", 'linha 1\r\nlinha 2, "x"\t\\N'),
    ("text", "''", ""),
    ("text", "NULL", None),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("valor_pequeno", "7", "7"),
]
#: Of MariaDB.
MARIADB = [
    ("decimal(38,18)", "12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
    ("decimal(12,2)", "0.10", "0.10"),
    ("float", "16777217", "16777216"),
    ("float", "0.1", "0.10000000149011612"),
    ("double", "0.1e0 + 0.2e0", "0.30000000000000004"),
    ("bigint unsigned", "18446744073709551615", "18446744073709551615"),
    ("int(8) zerofill", "42", "00000042"),
    ("tinyint(1)", "1", "1"),
    ("tinyint(1)", "7", "7"),
    ("bit(1)", "b'1'", "1"),
    ("bit(8)", "b'101'", "00000101"),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("date", "'0000-00-00'", "0000-00-00"),
    ("datetime(6)", "'2024-01-01 10:00:00.123456'", "2024-01-01 10:00:00.123456"),
    ("datetime", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
    ("timestamp(3) null", "'2024-01-01 10:00:00.5'", "2024-01-01 13:00:00.500"),
    ("time(3)", "'-838:59:59.5'", "-838:59:59.500"),
    ("year", "2024", "2024"),
    ("varbinary(4)", "x'00ff'", "00ff"),
    ("blob", "x'e7'", "e7"),
    ("json", """'{"b": 1.10,  "a": null}'""", '{"b": 1.10,  "a": null}'),
    ("enum('bom','ruim')", "'bom'", "bom"),
    ("set('a','b')", "'a,b'", "a,b"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "'::1'", "::1"),
    ("char(4)", "'ab'", "ab"),
    ("varchar(40) character set latin1", "'ação'", "ação"),
    ("text", "'linha 1\\r\\nlinha 2, \"x\"\\t 100% %s'", 'linha 1\r\nlinha 2, "x"\t 100% %s'),
    ("text character set utf8mb4", "'🚌'", "🚌"),
    ("text", "''", ""),
    ("text", "NULL", None),
]


def test_each_type_lands_as_the_text_that_it_is(url: str, sql: Sql, lake: Lake) -> None:
    if url.startswith("postgresql"):
        values = POSTGRESQL
        sql("CREATE TYPE humor AS ENUM ('bom', 'ruim')")
        sql("CREATE DOMAIN valor_pequeno AS integer CHECK (VALUE < 10)")
        # Neither is the server's default, nor what lands.
        sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET extra_float_digits = 0")
        sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET datestyle = 'German'")
    else:
        values = MARIADB
        sql("SET SESSION sql_mode = ''")
        sql("SET SESSION time_zone = '-03:00'")
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(values))
    sql(f"CREATE TABLE tudo (id integer PRIMARY KEY, {columns})")
    sql(f"INSERT INTO tudo VALUES (1, {', '.join(value for _, value, _ in values)})")
    source = Branch.of(lake, url, Table("tudo", cursor=None))
    source.take()
    (row,) = source.records("tudo")
    found = {f"{kind} {value}": row[f"c{number}"] for number, (kind, value, _) in enumerate(values)}
    assert found == {f"{kind} {value}": text for kind, value, text in values}
    assert source.new() == {"tudo": 0}


def test_a_declared_zone_is_that_of_instants_without_one(url: str, sql: Sql, lake: Lake) -> None:
    local, instant = ("timestamp", "timestamptz") if url.startswith("postgresql") else ("datetime", "timestamp")
    sql(f"CREATE TABLE vendas (id integer, updated_at {local}, recebido {instant}, dia date)")
    at = "'2024-07-01 10:00:00+00'" if url.startswith("postgresql") else "'2024-07-01 10:00:00'"
    sql("SET time_zone = '+00:00'" if url.startswith("mysql") else "SET timezone = 'UTC'")
    sql(f"INSERT INTO vendas VALUES (1, '2024-07-01 10:00:00', {at}, '2024-07-01')")
    source = Branch.of(lake, url, Table("vendas", timezone="America/Sao_Paulo"))
    assert str(source.take()["vendas"].cursor) == "2024-07-01 13:00:00+00:00"
    row = source.values("vendas")["1"]
    assert row["updated_at"] == "2024-07-01 13:00:00+00" and row["dia"] == "2024-07-01"
    assert row["recebido"] in ("2024-07-01 10:00:00+00", "2024-07-01 10:00:00")
    sql(f"INSERT INTO vendas VALUES (2, '2024-07-01 09:50:00', {at}, '2024-07-01')")  # late, within the overlap
    assert source.new() == {"vendas": 1}
    assert source.new() == {"vendas": 0}


def test_a_value_that_silver_cannot_have_is_quarantined_with_its_cause(url: str, sql: Sql, lake: Lake) -> None:
    _of(url, "mysql")
    sql("SET SESSION sql_mode = ''")
    sql("CREATE TABLE contas (id bigint unsigned, ativo tinyint(1), desde date, updated_at datetime)")
    sql("INSERT INTO contas VALUES (1, 1, '2024-01-01', '2024-01-01'), (2, 7, '2024-01-01', '2024-01-02')")
    sql("INSERT INTO contas VALUES (3, 0, '0000-00-00', '2024-01-03'), (18446744073709551615, 0, NULL, '2024-01-04')")
    source = Branch.of(lake, url, Table("contas"))
    types = {"id": "bigint", "ativo": "boolean", "desde": "date", "updated_at": "timestamp"}
    spec = TableSpec(
        name="contas",
        source=source.declared.table("contas"),
        columns=tuple(Column(name, kind) for name, kind in types.items()),
        key=("id",),
        order=("updated_at",),
    )
    source.take()
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver)] == [1]
    assert len(lake.quarantined(spec)) == 3


# --- cursors, generations, queries --------------------------------------------------------------------------------------------


def test_numbers_instants_generations_and_queries_of_one_database(url: str, sql: Sql, lake: Lake) -> None:
    sql("CREATE TABLE pedidos (id bigint PRIMARY KEY, nome varchar(40), updated_at timestamp NULL)")
    sql("CREATE TABLE clientes (id integer, nome varchar(40))")
    for number in range(1, 61):
        sql(f"INSERT INTO pedidos VALUES ({number}, 'item {number}', '2024-01-01 10:{number % 60:02}:00')")
        sql(f"INSERT INTO clientes VALUES ({number}, 'Ana {number}')")
    source = Branch.of(
        lake,
        url,
        Table("pedidos", cursor="id", overlap=5),
        Table("clientes", cursor=None),
        Query("nomes", "SELECT nome AS id, count(*) AS n, '50%s' AS p FROM clientes WHERE nome LIKE 'Ana 1%' GROUP BY nome"),
    )
    first = source.take()
    assert {name: (landed.new, landed.cursor, landed.generation) for name, landed in first.items()} == {
        "pedidos": (60, 60, 0),
        "clientes": (60, None, 1),
        "nomes": (11, None, 1),
    }
    assert source.new() == {"pedidos": 0, "clientes": 0, "nomes": 0}
    sql("INSERT INTO pedidos VALUES (61, 'novo', NULL)")
    sql("DELETE FROM clientes WHERE id = 12")
    again = source.take()
    assert (again["pedidos"].delivered, again["pedidos"].new) == (7, 1)
    assert (again["clientes"].new, again["clientes"].generation) == (59, 2)
    assert (again["nomes"].new, again["nomes"].generation) == (10, 2)
    assert source.values("nomes")["Ana 13"] == {"id": "Ana 13", "n": "1", "p": "50%s"}


def test_an_instant_is_a_cursor_with_ties_nulls_and_late_rows(url: str, sql: Sql, lake: Lake) -> None:
    sql("CREATE TABLE pedidos (id bigint PRIMARY KEY, updated_at timestamp NULL)")
    sql("INSERT INTO pedidos VALUES (1, '2024-01-01 10:00:00'), (2, '2024-01-01 10:00:00'), (3, NULL)")
    source = Branch.of(lake, url, Table("pedidos"))
    assert str(source.take()["pedidos"].cursor) == "2024-01-01 10:00:00+00:00"
    sql("INSERT INTO pedidos VALUES (4, '2024-01-01 10:00:00'), (5, '2024-01-01 09:50:00'), (6, '2024-01-01 09:00:00')")
    assert source.new() == {"pedidos": 2}  # what is older than the overlap is not seen
    assert sorted(source.values("pedidos")) == ["1", "2", "3", "4", "5"]


def test_days_as_a_cursor_lose_no_row_of_the_same_day(url: str, sql: Sql, lake: Lake) -> None:
    from datetime import timedelta

    sql("CREATE TABLE dias (id bigint, dia date)")
    sql("INSERT INTO dias VALUES (1, '2024-01-01')")
    source = Branch.of(lake, url, Table("dias", cursor="dia"), overlap=timedelta())
    assert source.new() == {"dias": 1}
    sql("INSERT INTO dias VALUES (2, '2024-01-01')")
    assert source.new() == {"dias": 1}


def test_a_query_cannot_write_even_by_a_function(url: str, sql: Sql, lake: Lake) -> None:
    sql("CREATE TABLE diario (id integer)")
    if url.startswith("postgresql"):
        body = "INSERT INTO diario VALUES (1) RETURNING id"
        sql(f"CREATE FUNCTION anota() RETURNS integer LANGUAGE sql AS '{body}'")
        expected = "cannot execute INSERT in a read-only transaction"
    else:
        sql("CREATE FUNCTION anota() RETURNS integer MODIFIES SQL DATA BEGIN INSERT INTO diario VALUES (1); RETURN 1; END")
        expected = "READ ONLY transaction"
    with pytest.raises(SourceRefusedError, match=expected):
        Branch.of(lake, url, Query("anotado", "SELECT anota() AS id")).take()


# --- what they refuse -----------------------------------------------------------------------------------------------------------


def test_a_wrong_password_table_or_right_is_one_sentence_without_the_password(url: str, sql: Sql, lake: Lake) -> None:
    sql("CREATE TABLE pedidos (id integer)")
    wrong = re.sub(r"://([^:@/]+):[^@]*@", r"://\1:nao-mostre@", url)
    with pytest.raises(SourceRefusedError, match="FILIAL_DB_URL") as caught:
        Branch.of(lake, wrong, Table("pedidos", cursor="id")).take()
    assert "nao-mostre" not in str(caught.value)
    with pytest.raises(SourceRefusedError, match=r"The table nada could not be read: .*nada"):
        Branch.of(lake, url, Table("nada", cursor=None)).take()
    with pytest.raises(SourceRefusedError, match="no such column: nada"):
        Branch.of(lake, url, Table("pedidos", cursor="nada")).take()
    with pytest.raises(SourceRefusedError, match="The query x could not be read"):
        Branch.of(lake, url, Query("x", "SELECT nada FROM pedidos")).take()
    with pytest.raises(SourceDownError, match="could not be read"):
        Branch.of(lake, re.sub(r":\d+/", ":9/", url), Table("pedidos", cursor="id")).take()


def test_a_server_that_falls_silent_is_left_at_the_deadline(url: str, sql: Sql, lake: Lake) -> None:
    sleep = "pg_sleep(20)" if url.startswith("postgresql") else "sleep(20)"
    begun = time.monotonic()
    with pytest.raises(SourceDownError):
        Branch.of(lake, url, Query("lenta", f"SELECT {sleep} AS id")).take(seconds=1)
    assert time.monotonic() - begun < 10


def test_a_connection_that_is_cut_in_mid_stream_lands_nothing(url: str, sql: Sql, lake: Lake) -> None:
    _of(url, "mysql")
    sql("CREATE TABLE n (id integer)")
    sql("INSERT INTO n SELECT seq FROM seq_1_to_3000")
    source = Branch.of(lake, url, Query("lenta", "SELECT id, sleep(0.002) AS s, repeat('x', 5000) AS t FROM n"))
    engine = open_engine(url, setting="X", statement_seconds=60)

    def cut() -> None:
        with engine.connect() as connection:
            for _ in range(100):
                time.sleep(0.05)
                found = connection.exec_driver_sql(
                    "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT id, sl%%'"
                )
                if number := found.scalar():
                    time.sleep(0.5)
                    connection.exec_driver_sql(f"KILL {number}")
                    return

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(SourceDownError, match="could not be read"):
        source.take()
    cutter.join()
    assert source.names("lenta") == []


def test_a_large_table_is_streamed(url: str, sql: Sql, lake: Lake, tmp_path: Path) -> None:
    """300 MB of rows, of which a driver that does not stream would have a gigabyte. The bound of 500 MB is the bench's."""
    import subprocess
    import sys

    series = "generate_series(1, 300000) AS s(seq)" if url.startswith("postgresql") else "seq_1_to_300000"
    sql(f"CREATE TABLE largo (id integer, t {'text' if url.startswith('postgresql') else 'mediumtext'})")
    wide = 3_000_000 if url.startswith("postgresql") else 1_000  # COPY writes lines: one of 12 MB
    sql(f"INSERT INTO largo VALUES (0, repeat('é\"', {wide}))")
    sql(f"INSERT INTO largo SELECT seq, repeat('{'x' * 100}', 10) FROM {series}")
    program = """
import re, sys
from pathlib import Path
from lakehouse.tables.spec import Table
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.branch import Branch
print(Branch.of(Lake(Path(sys.argv[1])), sys.argv[2], Table("largo", cursor="id")).new())
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(lake.folder), url], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    new, peak = done.stdout.splitlines()
    assert new == "{'largo': 300001}"
    assert int(peak) < 600_000


# --- kills --------------------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_kills_at_random_moments_lose_and_double_nothing(url: str, lake: Lake) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect().execution_options(no_parameters=True) as connection:

        def run(statement: str) -> list[tuple[object, ...]]:
            done = connection.exec_driver_sql(statement)
            return [tuple(row) for row in done.fetchall()] if done.returns_rows else []

        assert branch.campaign(lake.folder / "lake", url, run, seed=8) >= KILLS
        branch.check(lake.folder / "lake", run)
