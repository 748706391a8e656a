"""An expression of a spec is one row expression over known columns, on either engine, or it is refused."""

import datetime as dt

import duckdb
import pytest
import sqlglot

from lakehouse.core.errors import ExpressionError
from lakehouse.core.expressions import parse

COLUMNS = ("id", "status", "quantity", "unit_price", "created_at", "ts", "seq", "cust", "order")

HOSTILE = [
    "1=1) UNION SELECT 1 --",
    "id IN (SELECT 1)",
    "(SELECT content FROM read_text('/etc/passwd')) IS NOT NULL",
    "getenv('HOME')='x'",
    "reflect('java.lang.System','getenv','HOME')='x'",
    "java_method('a','b')",
    "id=1; DROP TABLE x",
    "nextval('s')>0",
    "current_setting('s3_secret_access_key')='x'",
    "EXISTS(SELECT 1)",
    "nope > 1",
    "main.orders.id=1",
    "* ",
    "id = $1",
    "COLUMNS('.*') > 1",
    "count(*) > 1",
    "row_number() over () = 1",
    "id = ANY([1])",
    "read_blob('x')",
    "map_from_entries(x)",
    "id::STRUCT(a INT) is null",
    "status ILIKE '%a'",
    "lambda x: x",
    # and what the first list did not have
    "",
    "  ",
    "id = ?",
    "id = :p",
    "id = {x}",
    "orders.id = 1",
    "CASE WHEN",
    "'unterminated",
    "random() < 0.5",
    "id = (VALUES (1))",
    "now() > ts",
    "current_date > ts",
    "id COLLATE nocase = 'x'",
    "ID = 1",
    "[id] = [1]",
    "{'a': id} IS NULL",
    "id IN (VALUES (1))",
    "sum(id) > 1",
    "getvariable('x') = 1",
    "id = 1 -- comment\n; SELECT 1",
]

#: A rule, and the sequence numbers of the rows that meet it.
RULES = {
    "seq > 2 AND status IN ('ok','x')": [3],
    "length(trim(cust)) > 0": [1, 2, 4],
    "try_cast(created_at as timestamp) >= TIMESTAMP '2026-01-02 00:00:00'": [2, 4],
    "status = 'ok' OR status IS NULL": [1, 3, 4],
    "TRY_CAST(unit_price AS DECIMAL(12,4)) * TRY_CAST(quantity AS INT) BETWEEN 0 AND 100": [1, 3],
    "regexp_matches(created_at, '^2026-01')": [1, 2, 4],
    "TRY_CAST(quantity AS BIGINT) IS NOT NULL": [1, 2, 3],
    "status IS DISTINCT FROM 'ok'": [2, 4],
    "status IS NOT DISTINCT FROM NULL": [4],
    "seq / 2 = 1.5": [3],
    "CASE WHEN cust = 'a' THEN seq > 1 ELSE true END": [2, 3, 4],
    "NOT (status = 'ok')": [2],
    "CAST(ts AS DATE) = DATE '2026-01-02'": [2],
    '"seq" = 3': [3],
    "starts_with(created_at,'2026-03')": [],
    "coalesce(cust,'zz') LIKE 'z%'": [3],
    "year(TRY_CAST(created_at AS TIMESTAMP)) = 2026": [1, 2, 4],
    "ts > TIMESTAMP '2026-01-03 00:00:00' - INTERVAL 1 DAY": [2, 3, 4],
    "cust = 'it''s'": [2],
    r"cust = 'b\c'": [4],
    "substring(created_at,1,7)='2026-01'": [1, 2, 4],
    '"order" = 1': [1],
    "cust = '/* no comment */' OR cust = '-- x'": [],
    "round(abs(seq - 3.4)) = 1": [2, 4],
    "nullif(status, 'ok') IS NULL": [1, 3, 4],
    "seq % 2 = 0": [2, 4],
}


@pytest.fixture(scope="module")
def rows() -> "duckdb.DuckDBPyRelation":
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE r (id INT, status VARCHAR, quantity VARCHAR, unit_price VARCHAR, created_at VARCHAR, ts TIMESTAMP, "
        'seq INT, cust VARCHAR, "order" INT)'
    )
    first = dt.datetime(2026, 1, 1)
    data = [
        (1, "ok", "2", "1.5", "2026-01-01 10:00:00", first, 1, "a", 1),
        (2, "bad", "60", "2", "2026-01-02 10:00:00", first + dt.timedelta(days=1, hours=1), 2, "it's", 2),
        (3, "ok", "0", "9", "rubbish", first + dt.timedelta(days=2, hours=1), 3, None, 3),
        (4, None, "many", "1", "2026-01-04", first + dt.timedelta(days=3), 4, "b\\c", 4),
    ]
    connection.executemany("INSERT INTO r VALUES (?,?,?,?,?,?,?,?,?)", data)
    return connection.table("r")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_and_unsupported_text_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError) as refusal:
        parse(text, columns=COLUMNS)
    assert "over these columns: created_at, cust" in refusal.value.remedy


@pytest.mark.parametrize("text", RULES)
def test_an_allowed_rule_selects_these_rows(rows: "duckdb.DuckDBPyRelation", text: str) -> None:
    compiled = parse(text, columns=COLUMNS).sql("duckdb")
    found = rows.filter(compiled).project("seq").order("seq").fetchall()
    assert [number for (number,) in found] == RULES[text]


@pytest.mark.parametrize("text", RULES)
def test_the_same_rule_has_the_same_result_on_spark(rows: "duckdb.DuckDBPyRelation", text: str) -> None:
    """Spark is not here: its text, read as Spark's and printed for DuckDB, selects the same rows."""
    spark = parse(text, columns=COLUMNS).sql("spark")
    back = sqlglot.parse_one(spark, read="spark").sql(dialect="duckdb")
    found = rows.filter(back).project("seq").order("seq").fetchall()
    assert [number for (number,) in found] == RULES[text]


@pytest.mark.parametrize(
    ("text", "spark"),
    [
        ("regexp_matches(cust, '^a')", "`cust` RLIKE '^a'"),
        ("status IS NOT DISTINCT FROM 'ok'", "`status` IS NOT DISTINCT FROM 'ok'"),
        (r"cust = 'a\b'", r"`cust` = 'a\\b'"),
        ("starts_with(cust, 'a')", "STARTSWITH(`cust`, 'a')"),
        ("try_cast(quantity AS BIGINT) = 1", "TRY_CAST(`quantity` AS BIGINT) = 1"),
        ('"order" = 1', "`order` = 1"),
    ],
)
def test_spark_gets_its_own_words(text: str, spark: str) -> None:
    assert parse(text, columns=COLUMNS).sql("spark") == spark


@pytest.mark.parametrize("dialect", ["duckdb", "spark"])
def test_a_comment_is_accepted_and_dropped(dialect: str) -> None:
    compiled = parse("CAST(id AS VARCHAR) = '1' /* c */", columns=COLUMNS).sql(dialect)  # type: ignore[arg-type]
    assert "/*" not in compiled and "c" not in compiled.replace("CAST", "").replace("VARCHAR", "").lower().split()


def test_an_expression_knows_the_columns_that_it_reads() -> None:
    assert parse("id > 1 AND (status = 'id' OR cust IS NULL)", columns=COLUMNS).columns == {"id", "status", "cust"}


def test_every_column_is_quoted_so_that_keywords_can_be_columns() -> None:
    assert parse('"order" > seq', columns=COLUMNS).sql("duckdb") == '"order" > "seq"'
