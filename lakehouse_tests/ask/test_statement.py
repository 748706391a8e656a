"""A statement asks, or is refused with what to do; which tables it names is DuckDB's own parser's answer."""

import duckdb
import pytest

from lakehouse.ask.statement import StatementError, parse, split


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "tables"),
    {
        "select 1": [],
        "values (1)": [],
        "from silver.vendas": ["silver/vendas"],
        "FROM Silver.VENDAS limit 1;": ["silver/vendas"],
        "describe silver.vendas": ["silver/vendas"],
        "summarize silver.vendas": ["silver/vendas"],
        "explain from silver.vendas": ["silver/vendas"],
        "explain analyze (from gold.a)": ["gold/a"],
        "explain (format json) from gold.a": ["gold/a"],
        "select (select max(a) from gold.b) from bronze.c where x in (from ops.d)": ["gold/b", "bronze/c", "ops/d"],
        "with x as (from gold.a) select * from x join silver.b using (id)": ["gold/a", "silver/b"],
        "with recursive x as (select 1 a union all select a + 1 from x where a < 3) from x": [],
        "pivot (from silver.v) on a in ('x') using sum(b)": ["silver/v"],
        "select * from range(3), unnest([1])": [],
        "select 'copy', 'attach' -- drop table x": [],
    }.items(),
)
def test_a_question_names_its_tables(connection, text, tables):
    assert sorted(map(str, parse(connection, text).tables)) == sorted(tables)


@pytest.mark.parametrize("text", ["show tables", "show all tables", "from information_schema.tables", "from duckdb_views()"])
def test_a_question_for_the_list_of_tables_is_one(connection, text):
    assert parse(connection, text).lists_tables


@pytest.mark.parametrize(
    ("text", "named"),
    {
        "copy silver.v to 'x.csv'": "COPY",
        "explain analyze copy silver.v to 'x.csv'": "COPY",
        "export database 'x'": "EXPORT",
        "attach 'x.duckdb'": "ATTACH",
        "install httpfs": "INSTALL",
        "load httpfs": "LOAD",
        "set memory_limit = '1TB'": "SET",
        "use silver": "USE",
        "pragma database_list": "PRAGMA",
        "call pragma_version()": "CALL",
        "begin": "transactions",
        "insert into silver.v values (1)": "INSERT",
        "update silver.v set a = 1": "UPDATE",
        "delete from silver.v": "DELETE",
        "truncate silver.v": "DELETE",
        "merge into silver.v using gold.a on true when matched then delete": "MERGE INTO",
        "create table x as from silver.v": "CREATE",
        "create macro f() as 1": "CREATE",
        "drop view silver.v": "DROP",
        "alter table silver.v add column x int": "ALTER",
        "prepare x as select 1": "PREPARE",
        "vacuum": "VACUUM",
        "from '/etc/passwd'": "/etc/passwd",
        "from 'data/lake/silver/v/a.parquet'": "a.parquet",
        "from read_text('/etc/passwd')": "read_text",
        "select * from (select * from read_parquet('x.parquet'))": "read_parquet",
        "from glob('*')": "glob",
        "from query('from silver.v')": "query",
        'with "a.parquet" as (from "a.parquet") from "a.parquet"': "a.parquet",
        'select * from (with "a.parquet" as (select 1) from "a.parquet"), "a.parquet"': "a.parquet",
        'with recursive "a.parquet" as (from "a.parquet" union all from "a.parquet") from "a.parquet"': "a.parquet",
        "from vendas": "silver.vendas",
        "from other.silver.vendas": "other.silver.vendas",
        "from landing.vendas": "landing.vendas",
        "from silver.v at (version => 3)": "AT=",
        "select write_log('x')": "write_log",
        "select 1; select 2": "2 statements",
        "": "no statement",
        "sel": 'near "sel"',
    }.items(),
)
def test_everything_else_is_refused_with_what_to_do(connection, text, named):
    with pytest.raises(StatementError) as refused:
        parse(connection, text)
    assert named in str(refused.value) and str(refused.value).strip()[-1] in ".…)" and refused.value.remedy


def test_statements_of_one_text_are_told_apart(connection):
    assert split(connection, "select ';'; from silver.v -- ;\n;") == ["select ';';", "from silver.v -- ;\n;"]
