"""Spark computes what DuckDB computes: the contract of the session, expressions value by value, silver row by row.

Some tests of values and of silver are DuckDB's own, collected here once more with Spark's session and a lake on Spark.
"""

import datetime as dt
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.core.engines.session import Session, Spark, duckdb_session, open_session
from lakehouse.core.errors import DeclarationError, ExpressionError
from lakehouse.core.expressions import parse
from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import Column
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake, Row, few
from lakehouse_tests.core.engines.test_values import (  # noqa: F401
    test_a_number_is_written_as_it_is_or_not_at_all,
    test_a_text_that_an_expression_makes_is_a_number_by_the_grammar,
)
from lakehouse_tests.silver.test_elements import (  # noqa: F401
    test_elements_of_a_list,
    test_elements_that_are_values_and_arrays_within_documents,
)
from lakehouse_tests.silver.test_observed import (  # noqa: F401
    test_a_key_with_two_contents_is_resolved_by_the_last_capture_and_counted,
    test_files_are_partitioned_by_day_and_a_late_position_finds_its_own,
    test_texts_that_mean_nothing_are_null_and_instants_are_milliseconds,
)
from lakehouse_tests.silver.test_orders import test_ten_landings_each_in_an_order_of_its_own, test_ties  # noqa: F401
from lakehouse_tests.silver.test_refresh import (  # noqa: F401
    test_a_quarantined_record_is_what_was_delivered_with_where_and_why,
    test_a_result_that_is_no_value_of_its_column_is_refused_and_none_is_rounded,
    test_a_transform_runs_between_casts_and_calculated_columns,
    test_a_value_that_cannot_be_calculated_goes_alone,
    test_renames_keywords_and_calculated_columns,
    test_row_rules_count_what_they_find_and_null_meets_them,
    test_values_are_accepted_of_every_type,
    test_what_cannot_be_cast_goes_alone_and_is_named,
)

pyspark = pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark
LOCAL = Spark(master="local[2]")
MAX = 2**63 - 1


@pytest.fixture(scope="module", autouse=True)
def _application(spark_application: None) -> None:
    """One Spark application for all of this file."""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_session("spark", memory_limit="2GB", spill=str(tmp_path / "spill"), folders=[], spark=LOCAL) as opened:
        yield opened


@pytest.fixture
def duckdb(tmp_path: Path) -> Iterator[Session]:
    with duckdb_session(memory_limit="1GB", spill=str(tmp_path / "duckdb"), folders=[str(tmp_path)]) as opened:
        yield opened


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, engine="spark")


def same(one: Any, two: Any) -> bool:
    """Equal, where NaN is."""
    if isinstance(one, float) and isinstance(two, float):
        return one == two or (math.isnan(one) and math.isnan(two))
    return bool(one == two)


# --- values ----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "k": "bigint", "n": "bigint", "m": "bigint", "i": "int", "d": "decimal(12,4)", "e": "decimal(38,10)", "f": "double",
    "t": "string", "s": "string", "b": "boolean", "ts": "timestamp", "day": "date",
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "n": [None, 0, 1, -1, 2, 7, -7, MAX, -MAX - 1],
    "m": [None, 0, 1, -2, 2, 7, -7, MAX, -MAX - 1],
    "i": [None, 0, 1, -5, 2**31 - 1, -(2**31)],
    "d": [None, *map(Decimal, ("0", "1.5", "-2.5", "99999999.9999", "0.0001"))],
    "e": [None, *map(Decimal, ("0", "1.5", "9999999999999999999999999999.9999999999", "-1"))],
    "f": [None, 0.0, -0.0, 1.5, 2.5, -2.5, math.nan, math.inf, 1e300, 9999999.99995, 0.00015],
    "t": [None, "", "x", "1", "-7", "3.5", " 4 ", "2026-01-05", "2026-01-05T10:00:00Z", "true", "É", "ab\n", "a%b_c", "a\\b"],
    "b": [None, True, False],
    "ts": [None, dt.datetime(2026, 1, 5, 10, 0, 0, 123400, dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)],
    "day": [None, dt.date(2026, 1, 5), dt.date(1, 1, 1)],
}
VALUES["s"] = VALUES["t"]
EXPRESSIONS = {
    "bigint": (
        "n * 2 + n * 2", "nullif(CAST(t AS BIGINT), 1)", "CAST(t AS BIGINT) + CAST(t AS BIGINT)", "d * 2", "d * 0.0001", "e",
        "f * 2", "f * 9e18", "CAST(d AS BIGINT)", "n + m", "n - m", "n * m", "n // m", "-n", "abs(n)",
        "i + i", "f * f", "f", "d", "round(d)", "t", "b", "length(t)",
        "CAST(t AS BIGINT)", "TRY_CAST(t AS BIGINT) + 1", "CASE WHEN t = 'x' THEN 1 ELSE CAST(t AS BIGINT) END",
        "CASE n WHEN 1 THEN m + 1 WHEN 2 THEN m * m ELSE 0 END", "coalesce(n, m + 1, 5)", "nullif(n, 1)", "year(ts)", "d / 0",
    ),
    "int": ("n", "i * 2", "i + 1", "i / 2", "f", "month(day)"),
    "double": ("n / m", "d / d", "f * 10", "f + 1e308", "round(f)", "round(f, 2)", "-f", "f / 0", "CAST(t AS DOUBLE)"),
    "decimal(12,4)": (
        "d * d", "d * 0.5", "e", "round(d * 0.55, 4)", "d + d", "d / 3", "f", "n", "abs(d)", "-d", "d % 2",
        "CAST(t AS DECIMAL(10,2))",
    ),
    "decimal(18,4)": ("d * n", "n * 0.5"),
    "decimal(38,0)": ("e", "d", "round(e)"),
    "decimal(38,10)": ("e * e", "e + e", "e * 2"),
    "string": (
        "CAST(n AS VARCHAR) || '!'", "CAST(d AS VARCHAR)", "CAST(ts AS VARCHAR)", "CAST(day AS VARCHAR)", "upper(t)", "trim(t)",
        "substring(t, 2, 2)", "replace(t, 'x', 'yy')", "t || s", "concat(t, s)", "nullif(t, '')",
    ),
    "date": ("CAST(ts AS DATE)", "ts", "day + INTERVAL 1 DAY", "CAST(t AS DATE)"),
    "timestamp": ("CAST(t AS TIMESTAMP)", "ts - INTERVAL 1 DAY", "t"),
    "boolean": (
        "n = t", "t = n", "day = t", "n BETWEEN 0 AND 5", "n IN (1, 2, 7)", "n IS DISTINCT FROM m", "d > 1.5", "f > d", "e > n",
        "t LIKE '%a%'", r"t LIKE 'a\%'", "t NOT LIKE '%b%'", "starts_with(t, 'a')", "regexp_matches(t, 'b$')",
        r"regexp_matches(t, '\d')", "b AND n > 0", "n * m IN (1, 2, 3)", "n * m BETWEEN 1 AND 9",
        "NOT b OR CAST(t AS BIGINT) > 0", "n > 0 AND m * m > 0", "n IS NULL OR n > m",
        "ts >= TIMESTAMP '2026-01-01 00:00:00'", "CAST(t AS BOOLEAN)", "n", "t NOT IN ('x', '1')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPRESSIONS)
def test_expressions_have_the_same_values_and_fail_on_the_same_rows(session: Session, duckdb: Session, kind: str) -> None:
    chance = random.Random(0)
    rows = [{"k": k, **{name: chance.choice(values) for name, values in VALUES.items()}} for k in range(400)]
    texts = {f"v{n}": text for n, text in enumerate(EXPRESSIONS[kind])}
    values = {name: (parse(text, columns=COLUMNS), kind) for name, text in texts.items()}
    names = ["k", *values, *(f"bad_{name}" for name in values)]
    one, two = (
        {
            row[0]: row[1:]
            for row in engine.rows(engine.compute(engine.table(rows, COLUMNS), values, failed="bad_").select(*names))
        }
        for engine in (duckdb, session)
    )
    differ = {
        (texts[name], *(repr(rows[k][c]) for c in values[name][0].columns)): (one[k][n], two[k][n])
        for k in one
        for n, name in enumerate([*values, *values])
        if not same(one[k][n], two[k][n])
    }
    assert differ == {}


def test_what_is_persisted_is_where_plans_begin(session: Session) -> None:
    """A plan that goes back to the files is analysed again by every step, and held by the driver for as long as Spark caches."""
    frame = session.table([{"a": n} for n in range(9)], {"a": "bigint"})
    for _ in range(4):
        frame = session.persist(frame.join(frame.select("a"), on="a", how="inner"))
    plan = frame.to_native()._jdf.queryExecution().optimizedPlan().toString()
    assert plan.startswith("LogicalRDD") and len(plan.splitlines()) == 1
    assert session.count(frame) == 9


# --- files -----------------------------------------------------------------------------------------------------------


def test_both_engines_read_what_either_wrote_with_the_same_statistics(session: Session, duckdb: Session, tmp_path: Path) -> None:
    rows = [{**{name: values[n % len(values)] for name, values in VALUES.items()}, "k": n} for n in range(40)]
    rows = [{**row, "t": (row["t"] or "") * 9, "ts": row["ts"] and row["ts"].replace(year=2026)} for row in rows]
    folder = tmp_path / "a b%20[é]"
    staged = {
        engine: engine.write(engine.table(rows, COLUMNS), str(folder), columns=COLUMNS, sort_by=["k"])
        for engine in (duckdb, session)
    }
    by_duckdb, by_spark = (files for files in staged.values())
    assert [(f.rows, f.lower, f.upper, f.nulls) for f in by_duckdb] == [(f.rows, f.lower, f.upper, f.nulls) for f in by_spark]
    assert json.loads(by_duckdb[0].stats) == json.loads(by_spark[0].stats)
    for files in staged.values():
        paths = [f"{folder}/{file.path}" for file in files]
        content = [
            sorted(map(repr, engine.rows(engine.read(paths, COLUMNS, path_column="p").drop("f", "ts"))))
            for engine in (duckdb, session)
        ]
        assert content[0] == content[1] and len(content[0]) == 40
        instants = [
            [row[0] for row in engine.rows(engine.read(paths, COLUMNS).sort("k").select("ts"))] for engine in (duckdb, session)
        ]
        assert instants[0] == instants[1] == [row["ts"] for row in rows]
    assert list(folder.glob(".staged_*")) == []


def test_rows_are_counted_and_named(session: Session) -> None:
    import narwhals as nw

    frame = session.table([{"id": 2, "nome": "b"}, {"id": 1, "nome": None}], {"id": "bigint", "nome": "string"})
    assert (session.count(frame), session.count(frame.filter(nw.col("id") > 2))) == (2, 0)
    assert session.dicts(frame.sort("id")) == [{"id": 1, "nome": None}, {"id": 2, "nome": "b"}]
    assert session.dicts(frame.sort("id"), "nome") == [{"nome": None}, {"nome": "b"}]


def test_a_row_id_identifies_a_row_among_those_of_the_files(session: Session, tmp_path: Path) -> None:
    columns = {"a": "bigint"}
    files = [
        session.write(session.table([{"a": n} for n in range(first, first + 5)], columns), str(tmp_path), columns=columns)
        for first in (0, 5)
    ]
    paths = [str(tmp_path / file.path) for written in files for file in written]
    rows = session.rows(session.read(paths, columns, path_column="p", row_id=("f", "r")))
    assert len({(f, r) for *_, f, r in rows}) == len({a for a, *_ in rows}) == 10
    assert {paths[f] for *_, f, _ in rows} == set(paths) and all(p == paths[f] for _, p, f, _ in rows)


def test_key_ranges_prove_the_order_or_nothing(session: Session, duckdb: Session, tmp_path: Path) -> None:
    columns = {"a": "bigint", "b": "string"}

    def key_ranges(rows: list[Row], key: list[str]) -> list[Any]:
        files = duckdb.write(duckdb.table(rows, columns), str(tmp_path), columns=columns)
        paths = [str(tmp_path / file.path) for file in files]
        return [engine.key_ranges(paths, key) for engine in (duckdb, session)]

    ordered = [{"a": n // 2, "b": "xy"[n % 2]} for n in range(200_000)]
    one, two = key_ranges(ordered, ["a", "b"])
    assert sorted(one) == sorted(two) and len(one) == 2
    assert key_ranges(ordered, ["a"]) == [None, None]
    assert key_ranges([{"a": 2}, {"a": 1}], ["a"]) == [None, None]
    assert key_ranges([{"a": None}], ["a"]) == [None, None]
    assert session.key_ranges([], ["a"]) == []


def test_sorted_files_follow_each_other_and_are_not_larger_than_wanted(session: Session, tmp_path: Path) -> None:
    import narwhals as nw

    columns = {"id": "bigint", "t": "string"}
    rows = [{"id": n * 7919 % 300_007, "t": str(n * n)} for n in range(300_000)]
    frame = session.table(rows, columns).with_columns(nw.col("id"))
    files = session.write(frame, str(tmp_path), columns=columns, sort_by=["id"], file_mb=1)
    bounds = sorted((file.lower["id"], file.upper["id"]) for file in files)
    assert len(files) > 2 and sum(file.rows for file in files) == 300_000
    assert all(one[1] < two[0] for one, two in pairwise(bounds))
    assert max(file.size for file in files) < 1_500_000


# --- silver ----------------------------------------------------------------------------------------------------------


def sale(number: int, day: int, **fields: Any) -> Row:
    at = f"2026-01-{day:02d}T10:00:00Z"
    row = {"id": number, "pedido_id": f"p{number // 3}", "produto_id": "a", "descricao": "é'\"", "quantidade": number % 7 - 2}
    row |= {"valor_unitario": f"{number % 90}.{number % 9}", "cliente_id": number % 5 or None, "pais": "BR", "status": "pago"}
    return {**row, "created_at": at, "updated_at": at, **fields}


def sales() -> list[list[Row]]:
    """Three deliveries: new lines, then updates, deletes, repeats, late versions and values that are none."""
    bad = [
        {"valor_unitario": "abc"},
        {"quantidade": "1.5"},
        {"id": "x"},
        {"created_at": "amanhã"},
        {"valor_unitario": "99999999.99995"},
    ]
    first = (
        [sale(n, 5) for n in range(600)]
        + [sale(n, 5) for n in range(0, 60, 7)]
        + [sale(900 + n, 5, **b) for n, b in enumerate(bad)]
    )
    second = [sale(n, 9, quantidade=5) for n in range(0, 600, 11)] + [sale(n, 9, status="deleted") for n in range(3, 600, 40)]
    second += [sale(n, 2, descricao="late") for n in range(5, 600, 50)] + [sale(n, 9) for n in range(600, 650)]
    third = [sale(3, 4), sale(43, 20), sale(1000, 9, pedido_id=None), sale(1001, 9), sale(83, 9, quantidade=MAX)]
    return [first, second, third]


def state(lake: Lake) -> dict[str, list[Row]]:
    """What must not depend on the engine."""
    moving = ("committed_at", "version", "run_id")
    ledger = [{k: v for k, v in row.items() if k not in moving} for row in lake.ledger()]
    return {
        "silver": lake.rows(VENDAS.silver),
        "deletes": lake.rows(lake.deletes(VENDAS)),
        "quarantine": lake.quarantined(VENDAS),
        "ledger": sorted(ledger, key=repr),
    }


def test_engines_that_alternate_at_a_table_make_the_same_one(tmp_path: Path) -> None:
    """Spark, DuckDB, Spark, and a rebuild on Spark, beside a lake that DuckDB alone keeps."""
    alone, alternating = Lake(tmp_path / "alone"), tmp_path / "turns"
    for number, (rows, engine) in enumerate(zip(sales(), ("spark", "duckdb", "spark"), strict=True)):
        for lake in (alone, Lake(alternating, engine=engine)):
            lake.land("vendas", f"f{number}", rows)
            refresh = lake.run(VENDAS)
            assert not refresh.stopped and refresh.entry is not None and refresh.entry.balanced
        assert state(Lake(alternating)) == state(alone), f"delivery {number}"
    assert len(alone.quarantined(VENDAS)) >= 6 and len(alone.rows(VENDAS.silver)) > 600
    for lake in (alone, Lake(alternating, engine="spark")):
        before = lake.rows(VENDAS.silver)
        assert lake.refresh(VENDAS, rebuild=True).transaction is not None
        assert lake.rows(VENDAS.silver) == before
    assert state(Lake(alternating)) == state(alone)
    assert Lake(alternating).stray_files() == [] or {Path(f).parent.parent.name for f in Lake(alternating).stray_files()} == set()
    snapshot = open_existing(Lake(alternating).storage.uri(VENDAS.silver))
    assert snapshot is not None and [*snapshot.columns] == [*alone.rows(VENDAS.silver)[0]]


ALTERNATING = [("spark", "duckdb", "spark", "duckdb"), ("duckdb", "spark", "duckdb", "spark")]


@pytest.mark.parametrize("engines", few(ALTERNATING, ALTERNATING[0]))
def test_an_engine_goes_on_after_the_other_an_optimise_and_a_column_more(tmp_path: Path, engines: tuple[str, ...]) -> None:
    """Beside a lake that DuckDB alone keeps and nobody compacts; the third delivery is the first with the new column."""
    alone, alternating, spec = Lake(tmp_path / "alone"), tmp_path / "turns", VENDAS
    first, second, third = sales()
    third = [{**row, "desconto": f"0.{n}"} for n, row in enumerate(third)]
    again = [sale(n, 25, desconto="0.05") for n in range(0, 700, 13)] + [sale(n, 26, status="deleted") for n in range(9, 80, 9)]
    for number, (rows, engine) in enumerate(zip([first, second, third, again], engines, strict=True)):
        if number == 2:
            spec = replace(VENDAS, columns=(*VENDAS.columns, Column("desconto", "decimal(9,2)")))
        for lake in (alone, Lake(alternating, engine=engine)):
            lake.land("vendas", f"f{number}", rows)
            refresh = lake.run(spec)
            assert not refresh.stopped and refresh.entry is not None and refresh.entry.balanced
        assert state(Lake(alternating)) == state(alone), f"delivery {number}"
        bronze, silver = (DeltaTable(Lake(alternating).storage.uri(ref)) for ref in (spec.bronze, spec.silver))
        assert bronze.optimize.compact()["numFilesRemoved"] == (2 if number else 0)
        assert silver.optimize.z_order(["updated_at"])["numFilesAdded"] == 1  # out of the order of keys
        assert state(Lake(alternating)) == state(alone), f"delivery {number}, compacted"
    found = [row["desconto"] for row in alone.rows(spec.silver)]
    assert len([value for value in found if value is not None]) > 40 and None in found


# --- what is missing ---------------------------------------------------------------------------------------------------

ATTEMPT = """
import sys
from lakehouse.core.engines.session import Spark, open_session
from lakehouse.core.errors import DeclarationError, ExpressionError
try:
    with open_session("spark", memory_limit="1GB", spill=sys.argv[1], folders=[], spark=Spark(master=sys.argv[2])) as session:
        session.table([{"a": 1}], {"a": "int"})
except DeclarationError as error:
    print(error)
"""


def attempt(tmp_path: Path, master: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT, str(tmp_path / "spill" / "x"), master],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_without_java_the_setting_and_the_remedy_are_reported(tmp_path: Path) -> None:
    output = attempt(tmp_path, "local[1]", JAVA_HOME=str(tmp_path / "nowhere"), PATH="/nowhere:/bin")
    assert output == (
        "The engine spark (LAKEHOUSE_ENGINE) could not start Java. "
        "Install Java 17 or later and put it on PATH or in JAVA_HOME, or set LAKEHOUSE_ENGINE=duckdb.\n"
    )


def test_a_master_that_does_not_answer_is_named(tmp_path: Path) -> None:
    output = attempt(tmp_path, "spark://127.0.0.1:1")
    assert output.startswith("The Spark master spark://127.0.0.1:1 (LAKEHOUSE_SPARK_MASTER) does not answer. Start it")


def test_a_master_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as server:  # it listens, and never says a word
        started = time.monotonic()
        output = attempt(tmp_path, f"spark://127.0.0.1:{server.getsockname()[1]}")
    assert "(LAKEHOUSE_SPARK_MASTER) did not answer within 30 s. Start it" in output
    assert time.monotonic() - started < 75


def test_an_engine_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DeclarationError, match="There is no engine 'pandas'"),
        open_session("pandas", memory_limit="1GB", spill=str(tmp_path), folders=[]),
    ):
        pass


@pytest.mark.parametrize(("text", "kind"), [("nome * 2", "bigint"), ("id AND true", "boolean")])
def test_an_expression_that_does_not_fit_is_refused_with_its_text(session: Session, text: str, kind: str) -> None:
    frame = session.table([{"id": 1, "nome": None}], {"id": "bigint", "nome": "date"})
    with pytest.raises(ExpressionError, match=re.escape(f"The expression '{text}' cannot be computed as {kind}")):
        session.compute(frame, {"x": (parse(text, columns=["id", "nome"]), kind)}, failed="_failed_")
