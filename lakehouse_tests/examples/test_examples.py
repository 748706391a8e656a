"""The steps that people bring: each runs as an asset of the lake, is short, and is the code that docs/extending.md shows."""

import re
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.definitions import build_defs
from lakehouse.settings import Settings, load_settings, project_folder
from lakehouse.silver.refresh import silver_columns
from lakehouse.tables.vendas import VENDAS

EXAMPLES = project_folder() / "lakehouse" / "examples"
CODE = sorted({*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sql")} - {EXAMPLES / "__init__.py", EXAMPLES / "assets.py"})
NOON = "2024-03-01 12:00:00+00"


def sale(number: int) -> dict:
    """A row of silver/vendas: two countries, three months, eleven customers, four products, prices below and above ten."""
    price = Decimal(number % 20) + Decimal("0.3333")
    return {
        "id": number, "pedido_id": f"P{number}", "produto_id": f"x{number % 4}", "descricao": "X", "quantidade": 2,
        "valor_unitario": str(price), "cliente_id": number % 11, "pais": "Chile" if number % 3 else "Brasil", "status": "paid",
        "created_at": NOON, "updated_at": NOON, "created_date": f"2024-0{1 + number % 3}-05", "total": str(2 * price),
        "_extracted_at": NOON,
    }  # fmt: skip


SALES = [sale(number) for number in range(100)]


def totals(group) -> dict:
    """Rows and revenue by a function of a row, in plain Python."""
    found: dict = defaultdict(Decimal)
    for row in SALES:
        found[group(row)] += Decimal(row["total"])
    counted = Counter(map(group, SALES))
    return {name: (counted[name], total) for name, total in found.items()}


@pytest.fixture
def settings(tmp_path) -> Settings:
    found = Settings(root=str(tmp_path), examples=True, spark_master="local[1]")
    columns = silver_columns(VENDAS)
    write = Write(frame=lambda session: session.table(SALES, columns), columns=columns, mode="overwrite")
    with duckdb_session(memory_limit="500MB", spill=found.spill, folders=[str(tmp_path)]) as session:
        commit_staged(stage_write(session, found.storage.uri(VENDAS.silver), write))
    return found


def run(settings: Settings, table: str) -> dg.ExecuteInProcessResult:
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["gold", table])], raise_on_error=False)


def rows(settings: Settings, table: str) -> list[tuple]:
    found = open_existing(settings.storage.uri(TableRef("gold", table)))
    with duckdb_session(memory_limit="500MB", spill=settings.spill, folders=[settings.root]) as session:
        return session.rows(session.read(found.paths(), found.columns))


def recorded(settings: Settings, result: dg.ExecuteInProcessResult, table: str) -> None:
    """The commit reports who made it of what, the materialisation how many rows, and the check that it passed."""
    assert result.success
    commit = open_existing(settings.storage.uri(TableRef("gold", table))).provenance
    assert (commit.run_id, commit.asset, commit.operation) == (result.run_id, f"gold/{table}", "overwrite")
    assert commit.inputs == {"silver/vendas": 1}  # 0 is the table without rows
    assert re.fullmatch(r"[0-9a-f]{12}", commit.code_version)
    (made,) = result.get_asset_materialization_events()
    assert made.materialization.metadata["rows_written"].value == len(rows(settings, table))
    (check,) = result.get_asset_check_evaluations()
    assert check.passed and commit.findings[check.check_name].passed


def grouped(settings: Settings, table: str) -> dict:
    return {name: (count, total) for name, count, total in rows(settings, table)}


def test_a_pandas_function(settings):
    recorded(settings, run(settings, "example_sales_by_country"), "example_sales_by_country")
    assert grouped(settings, "example_sales_by_country") == totals(lambda row: row["pais"])


def test_a_sql_file(settings):
    recorded(settings, run(settings, "example_sales_by_month"), "example_sales_by_month")
    found = {str(month)[:7]: figures for month, figures in grouped(settings, "example_sales_by_month").items()}
    assert found == totals(lambda row: row["created_date"][:7])


def test_an_existing_asset(settings):
    recorded(settings, run(settings, "example_best_customers"), "example_best_customers")
    expected = {name: total for name, (_, total) in totals(lambda row: row["cliente_id"]).items()}
    del expected[min(expected, key=lambda name: expected[name])]
    assert dict(rows(settings, "example_best_customers")) == expected


@pytest.mark.spark
def test_a_pyspark_function(settings):
    pytest.importorskip("pyspark")
    recorded(settings, run(settings, "example_sales_by_band"), "example_sales_by_band")
    expected = totals(lambda row: "low" if Decimal(row["valor_unitario"]) < 10 else "high")
    assert grouped(settings, "example_sales_by_band") == expected


@pytest.mark.spark
def test_a_spark_submit_job(settings):
    pytest.importorskip("pyspark")
    recorded(settings, run(settings, "example_sales_by_product"), "example_sales_by_product")
    assert grouped(settings, "example_sales_by_product") == totals(lambda row: row["produto_id"])
    assert list(Path(settings.spill).glob("*/out")) == [], "nothing is left in scratch"


def test_a_check_that_stops_a_step_leaves_the_table_at_its_version_and_one_that_warns_does_not(settings, monkeypatch):
    from lakehouse.examples import pandas_function

    assert run(settings, "example_sales_by_country").success
    monkeypatch.setattr(pandas_function, "by_country", lambda sales: sales.head(0))
    result = run(settings, "example_sales_by_country")
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert result.get_asset_materialization_events() == []
    assert open_existing(settings.storage.uri(pandas_function.TABLE)).version == 1


def test_every_example_is_an_asset_like_the_others_and_is_there_only_when_it_is_asked_for(monkeypatch):
    plain = build_defs(Settings()).resolve_asset_graph()
    monkeypatch.setenv("LAKEHOUSE_EXAMPLES", "1")
    graph = build_defs(load_settings()).resolve_asset_graph()
    keys = graph.get_all_asset_keys() - plain.get_all_asset_keys()
    assert len(keys) == 5
    assert plain.get_all_asset_keys() < graph.get_all_asset_keys()
    for key in keys:
        node = graph.get(key)
        assert (node.group_name, node.parent_keys) == ("examples", {dg.AssetKey(["silver", "vendas"])})
        assert node.code_version and node.owners and node.freshness_policy
        (check,) = node.check_keys
        assert graph.get_check_spec(check).blocking
        assert graph.assets_def_for_key(key).op.retry_policy.max_retries >= 1


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_every_example_is_at_most_25_lines_and_is_what_the_documentation_shows(path):
    text = path.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    page = (project_folder() / "docs" / "extending.md").read_text()
    language = "sql" if path.suffix == ".sql" else "python"
    assert f"```{language}\n{text}```" in page, f"docs/extending.md does not show {path.name} as it is"
