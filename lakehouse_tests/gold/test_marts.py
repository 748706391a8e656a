"""The marts say what the sales say: dbt's numbers beside plain Python's, over a few hundred made-up order lines.

Here: the dbt project on its own, in a scratch database below `tmp_path`, and the pure functions that read its manifest or write
its sources. Not here: publishing, Dagster runs, Delta.
"""

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from dbt.cli.main import dbtRunner

from lakehouse.core.errors import DeclarationError
from lakehouse.gold import sources
from lakehouse.gold.schema import mart_columns
from lakehouse.settings import project_folder
from lakehouse.tables import ALL
from lakehouse.tables.spec import history_table, with_histories
from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS

PROJECT = project_folder() / "dbt_project"
MARTS = ("clientes_rfm", "vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto", "vendas_por_segmento")
#: Marts that are not about sales: their shape is looked at here, their figures where their sources are tested.
OTHERS = (
    "brt_frota_atual",
    "brt_frota_por_minuto",
    "brt_servicos_por_hora",
    "pedidos_por_canal",
    "slo_assets",
    "slo_feeds",
    "slo_jobs",
)
MEASURES = ("pedidos", "clientes", "linhas", "quantidade", "receita")
WARNINGS = {"sales_gap_over_two_weeks": 1, "products_without_record": 2, "customers_without_record": 1}
Row = dict[str, Any]


# --- the data --------------------------------------------------------------------------------------------------------


def _sales() -> list[Row]:
    """Order lines with everything that makes a sum or a count go wrong."""
    chance = random.Random(20)
    rows: list[Row] = []

    def sell(day: datetime, **given: Any) -> None:
        line: Row = {
            "id": len(rows) + 1,
            "pedido_id": f"P{chance.randrange(90):03d}",  # so orders span days and months, and customers
            "produto_id": f"X{chance.randrange(12):02d}",
            "descricao": f"texto {chance.randrange(5)}",
            "quantidade": chance.choice([-3, 1, 1, 2, 12, 600]),
            "valor_unitario": Decimal(chance.randrange(1, 99_999)) / 10_000,
            "cliente_id": chance.choice([None, *range(1, 24)]),
            "pais": chance.choice(["Brasil", "Brasil", "Chile", "Cabo Verde", None]),
            "status": "paid",
            "created_at": day,
            "updated_at": day,
        }
        line.update(given)
        line["created_date"] = line["created_at"].date()
        line["total"] = line["quantidade"] * line["valor_unitario"]
        rows.append(line)

    first = datetime(2024, 11, 20, tzinfo=UTC)
    for _ in range(400):  # twenty days without a sale in the middle
        offset = chance.choice([*range(30), *range(50, 75)])
        sell(first + timedelta(days=offset, seconds=chance.randrange(86_400)))
    midnight = datetime(2024, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    sell(midnight, produto_id="SEM NOME", descricao="velha")
    sell(midnight, produto_id="SEM NOME", descricao="nova")  # the same instant: the higher id is newer
    sell(midnight + timedelta(microseconds=1), produto_id="SEM NOME", descricao=None)
    sell(midnight, produto_id="SEM REGISTRO", descricao="ainda assim")
    sell(midnight, produto_id="SEM TEXTO", descricao=None)
    sell(midnight, cliente_id=99, quantidade=-1)
    return rows


SALES = _sales()
PRODUCTS: list[Row] = [
    {"id": f"X{n:02d}", "nome": f"Produto {n}", "categoria": "casa" if n % 3 else None, "updated_at": datetime(2025, 1, 1)}
    for n in range(12)
] + [{"id": "SEM NOME", "nome": None, "categoria": "rua", "updated_at": datetime(2025, 1, 1)}]
CUSTOMERS: list[Row] = [
    {"id": n, "pais": "Brasil", "segmento": ["varejo", "atacado", None][n % 3], "created_at": None, "updated_at": None}
    for n in range(1, 40)
]
#: Two versions of most customers, the second since a day in the middle; some begin then, and two ended.
_MIDDLE = datetime(2024, 12, 5, tzinfo=UTC)
_FIRST, _END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 20, tzinfo=UTC)
CUSTOMER_VERSIONS: list[Row] = [
    {
        **{**row, "segmento": [row["segmento"], "antigo"][is_first]},
        "valid_from": _FIRST if is_first else _MIDDLE,
        "valid_to": _MIDDLE if is_first else _END if row["id"] in (2, 4) else None,
        "is_current": not is_first and row["id"] not in (2, 4),
        "version": 1 if is_first else 2,
    }
    for row in CUSTOMERS
    for is_first in (True, False)
    if not (is_first and row["id"] % 5 == 0)
]


def _silver(database: Path) -> None:
    """What the Python side leaves for dbt: schema `silver`, one view per table, over files."""
    with duckdb.connect(str(database)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE SCHEMA silver")
        connection.execute("USE silver")
        for spec, rows in (
            (VENDAS, SALES),
            (PRODUTOS, PRODUCTS),
            (CLIENTES, CUSTOMERS),
            (history_table(CLIENTES), CUSTOMER_VERSIONS),
        ):
            file = database.with_name(spec.silver_name + ".parquet")
            types = {column.name: column.type.replace("timestamp", "timestamptz") for column in spec.columns}
            declared = [duckdb.ColumnExpression(name).cast(types[name]).alias(name) for name in types]
            frame = _relation(connection, rows, list(types)).select(
                *declared, duckdb.ConstantExpression(0).alias("_extracted_at")
            )
            frame.write_parquet(str(file))
            connection.read_parquet(str(file)).create_view(spec.silver_name)


def _relation(connection: duckdb.DuckDBPyConnection, rows: Sequence[Row], names: Sequence[str]) -> Any:
    import pyarrow as pa

    return connection.from_arrow(pa.table({name: [row[name] for row in rows] for name in names}))


# --- dbt, once -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dbt:
    """A scratch folder, the parsed project, and the results of what ran in it: `{test or model: (status, failures)}`."""

    folder: Path
    manifest: Any
    results: Mapping[str, tuple[str, int]]

    @property
    def database(self) -> Path:
        return self.folder / "scratch.duckdb"

    @property
    def nodes(self) -> list[Mapping[str, Any]]:
        return list(self.written["nodes"].values())

    @property
    def written(self) -> dict[str, Any]:
        """The manifest as the Python side reads it."""
        written: dict[str, Any] = json.loads((self.folder / "target" / "manifest.json").read_text())
        return written

    def rows(self, mart: str) -> list[Row]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            relation = connection.table("gold." + mart)
            return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def compiled(self, query: str) -> str:
        """A query of dbt as SQL."""
        fixed = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--quiet", "--no-write-json"]
        fixed += [
            "--target-path",
            str(self.folder / "inline"),
            "--log-path",
            str(self.folder / "logs"),
            "--log-level-file",
            "none",
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LAKEHOUSE_GOLD_SCRATCH", str(self.database))
            outcome = dbtRunner().invoke(["compile", "--inline", query, *fixed])
        assert outcome.exception is None, outcome.exception
        return str(outcome.result.results[0].node.compiled_code)

    def run(self, *arguments: str) -> "Dbt":
        fixed = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--quiet"]
        fixed += ["--target-path", str(self.folder / "target"), "--log-path", str(self.folder / "logs")]
        chosen = arguments[0] != "parse" and "--select" not in arguments  # the sources of other marts are not here
        fixed += ["--select", *[f"+{mart}" for mart in MARTS]] if chosen else []
        fixed += ["--log-level-file", "none"] + ([] if arguments[0] == "parse" else ["--no-write-json"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LAKEHOUSE_GOLD_SCRATCH", str(self.database))
            outcome = dbtRunner(manifest=self.manifest).invoke([*arguments, *fixed])
        assert outcome.exception is None, outcome.exception
        if arguments[0] == "parse":
            return Dbt(self.folder, outcome.result, {})
        results = {r.node.name: (str(r.status), int(r.failures or 0)) for r in outcome.result.results}
        return Dbt(self.folder, self.manifest, results)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LAKEHOUSE_GOLD_THREADS", raising=False)
        return Dbt(tmp_path_factory.mktemp("gold"), None, {}).run("parse", "--no-partial-parse")


@pytest.fixture(scope="module")
def built(parsed: Dbt) -> Dbt:
    _silver(parsed.database)
    return parsed.run("build")


@pytest.fixture
def doctored(built: Dbt, tmp_path: Path) -> Iterator[Callable[..., Dbt]]:
    """Change a copy of the built database by SQL, then run dbt on it."""

    def doctor(statements: Sequence[str], *arguments: str) -> Dbt:
        own = Dbt(tmp_path, built.manifest, {})
        shutil.copy(built.database, own.database)
        with duckdb.connect(str(own.database)) as connection:
            for statement in statements:
                connection.execute(statement)
        return own.run(*arguments)

    yield doctor


# --- the numbers -----------------------------------------------------------------------------------------------------


def _measures(lines: Sequence[Row]) -> Row:
    return {
        "pedidos": len({line["pedido_id"] for line in lines}),
        "clientes": len({line["cliente_id"] for line in lines} - {None}),
        "linhas": len(lines),
        "quantidade": sum(line["quantidade"] for line in lines),
        "receita": sum((line["total"] for line in lines), Decimal(0)),
    }


def _grouped(key: Callable[[Row], Any], lines: Sequence[Row] = SALES) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for line in lines:
        groups[key(line)].append(line)
    return groups


@pytest.mark.parametrize(
    ("mart", "column", "key"),
    [
        ("vendas_diarias", "data", lambda line: line["created_date"]),
        ("vendas_mensais", "mes", lambda line: line["created_date"].isoformat()[:7]),
        ("vendas_por_pais", "pais", lambda line: line["pais"] or "Desconhecido"),
        ("vendas_por_produto", "produto_id", lambda line: line["produto_id"]),
    ],
)
def test_measures_are_those_that_python_counts(built: Dbt, mart: str, column: str, key: Callable[[Row], Any]) -> None:
    expected = {group: _measures(lines) for group, lines in _grouped(key).items()}
    rows = built.rows(mart)
    assert len(rows) == len(expected)
    assert {row[column]: {name: row[name] for name in MEASURES} for row in rows} == expected
    assert [row[column] for row in rows] == sorted(expected)


def test_a_sale_is_of_the_segment_that_its_customer_had_then(built: Dbt) -> None:
    def segment(line: Row) -> str:
        def valid(row: Row) -> bool:
            began = row["id"] == line["cliente_id"] and row["valid_from"] <= line["created_at"]
            return began and (row["valid_to"] is None or line["created_at"] < row["valid_to"])

        return next((row["segmento"] for row in CUSTOMER_VERSIONS if valid(row)), None) or "Desconhecido"

    expected = {name: _measures(lines) for name, lines in _grouped(segment).items()}
    assert {*expected} == {"Desconhecido", "antigo", "atacado", "varejo"}
    rows = built.rows("vendas_por_segmento")
    assert {row["segmento"]: {name: row[name] for name in MEASURES} for row in rows} == expected


def test_a_table_as_it_was_at_an_instant(built: Dbt) -> None:
    """The end of an interval is not part of it."""
    wanted = {
        _FIRST - timedelta(days=1): {},
        _FIRST: {row["id"]: "antigo" for row in CUSTOMERS if row["id"] % 5},
        _MIDDLE: {row["id"]: row["segmento"] for row in CUSTOMERS},
        _END: {row["id"]: row["segmento"] for row in CUSTOMERS if row["id"] not in (2, 4)},
    }
    instants = [f"timestamptz '{at:%Y-%m-%d %H:%M:%S}+00'" for at in wanted]
    each = [f"select {n} as n, id, segmento from {{{{ as_of('clientes', \"{at}\") }}}}" for n, at in enumerate(instants)]
    query = built.compiled(" union all ".join(each))
    with duckdb.connect(str(built.database), read_only=True) as connection:
        rows = connection.execute(query).fetchall()
    found = [{who: segment for n, who, segment in rows if n == number} for number in range(len(instants))]
    assert found == list(wanted.values())


def test_a_month_is_not_the_sum_of_its_days(built: Dbt) -> None:
    for measure in ("pedidos", "clientes"):
        by_day = sum(row[measure] for row in built.rows("vendas_diarias") if row["data"].month == 11)
        [by_month] = [row[measure] for row in built.rows("vendas_mensais") if row["mes"] == "2024-11"]
        assert by_day > by_month


def test_a_product_is_named_by_its_record_else_by_its_newest_text(built: Dbt) -> None:
    named = {row["produto_id"]: (row["nome"], row["categoria"]) for row in built.rows("vendas_por_produto")}
    assert named["X01"] == ("Produto 1", "casa")
    assert named["X03"] == ("Produto 3", None)
    assert named["SEM NOME"] == ("nova", "rua")
    assert named["SEM REGISTRO"] == ("ainda assim", None)
    assert named["SEM TEXTO"] == ("SEM TEXTO", None)


def _fifths(ordered: Sequence[int]) -> dict[int, int]:
    """1 to 5 by position; the first parts are one longer when five does not divide."""
    size, longer = divmod(len(ordered), 5)
    sizes = [size + (part < longer) for part in range(5)]
    scores = [part + 1 for part in range(5) for _ in range(sizes[part])]
    return dict(zip(ordered, scores, strict=True))


def _segment(r: int, f: int, m: int) -> str:
    if r >= 3:
        if f >= 4:
            return "Campeões" if r >= 4 and m >= 4 else "Leais"
        return "Recentes" if r >= 4 and f <= 2 else "Promissores"
    if f >= 3:
        return "Em risco"
    return "Hibernando" if r == 2 else "Perdidos"


def test_customers_are_scored_as_documented(built: Dbt) -> None:
    bought = _grouped(lambda line: line["cliente_id"], [line for line in SALES if line["cliente_id"] is not None])
    last = {who: max(line["created_date"] for line in lines) for who, lines in bought.items()}
    measures = {who: _measures(lines) for who, lines in bought.items()}
    r, f, m = (
        _fifths(sorted(bought, key=lambda who: (value[who], who)))
        for value in (
            last,
            {who: counted["pedidos"] for who, counted in measures.items()},
            {who: counted["receita"] for who, counted in measures.items()},
        )
    )
    records = {row["id"]: row for row in CUSTOMERS}
    newest = max(line["created_date"] for line in SALES)
    expected = [
        {
            "cliente_id": who,
            "pais": records.get(who, {}).get("pais"),
            "segmento": records.get(who, {}).get("segmento"),
            "primeira_compra": min(line["created_date"] for line in bought[who]),
            "ultima_compra": last[who],
            "recencia_dias": (newest - last[who]).days,
            "frequencia": measures[who]["pedidos"],
            "receita": measures[who]["receita"],
            "r_score": r[who],
            "f_score": f[who],
            "m_score": m[who],
            "segmento_rfm": _segment(r[who], f[who], m[who]),
        }
        for who in sorted(bought)
    ]
    assert built.rows("clientes_rfm") == expected
    assert len({row["segmento_rfm"] for row in expected}) >= 5, "the sample no longer reaches most segments"


# --- the tests of the project ------------------------------------------------------------------------------------------


def test_sound_data_passes_every_error_test_and_the_warnings_count(built: Dbt) -> None:
    others = {f"model.lakehouse.{name}" for name in OTHERS}
    tests = {n["name"] for n in built.nodes if n["resource_type"] == "test" and not others & {*n["depends_on"]["nodes"]}}
    assert tests <= set(built.results)
    assert {name: got for name, got in built.results.items() if got[0] not in ("success", "pass")} == {
        name: ("warn", count) for name, count in WARNINGS.items()
    }


def test_marts_that_differ_from_silver_by_the_last_digit_fail(doctored: Callable[..., Dbt]) -> None:
    change = "UPDATE gold.MART SET receita = receita + 0.0001 WHERE rowid = 0"
    after = doctored([change.replace("MART", mart) for mart in MARTS], "test")
    failed = {name: got for name, got in after.results.items() if got[0] not in ("pass", "warn")}
    assert failed == {f"{mart}_equals_silver": ("fail", 1) for mart in MARTS}


def test_a_line_counted_twice_between_staging_and_mart_fails(doctored: Callable[..., Dbt]) -> None:
    twice = [
        "CREATE TABLE staging.once AS FROM staging.stg_vendas",
        "DROP VIEW staging.stg_vendas",
        "CREATE VIEW staging.stg_vendas AS FROM staging.once UNION ALL (FROM staging.once LIMIT 1)",
    ]
    after = doctored(twice, "build", "--select", "vendas_mensais")
    assert after.results["vendas_mensais"] == ("success", 0)
    assert after.results["vendas_mensais_equals_silver"] == ("fail", 3)
    assert after.results["unique_vendas_mensais_mes"] == ("pass", 0)


def test_a_repeated_row_breaks_the_grain(doctored: Callable[..., Dbt]) -> None:
    after = doctored(
        ["INSERT INTO gold.vendas_por_pais FROM gold.vendas_por_pais LIMIT 1"], "test", "--select", "vendas_por_pais"
    )
    assert after.results["unique_vendas_por_pais_pais"] == ("fail", 1)


def test_a_column_of_another_type_than_the_contract_stops_the_mart(doctored: Callable[..., Dbt]) -> None:
    other = [
        "DROP VIEW silver.produtos",
        "CREATE VIEW silver.produtos AS SELECT 1 AS id, 'a' AS nome, 'b' AS categoria, now() AS updated_at",
    ]
    after = doctored(other, "build", "--select", "stg_vendas", "stg_produtos", "vendas_por_produto")
    assert after.results["stg_produtos"][0] == "error"
    assert after.results["vendas_por_produto"][0] == "skipped"


def test_one_mart_is_built_with_its_own_tests_and_leaves_the_published_ones(parsed: Dbt, tmp_path: Path) -> None:
    alone = Dbt(tmp_path, parsed.manifest, {})
    _silver(alone.database)
    with duckdb.connect(str(alone.database)) as connection:
        connection.execute("CREATE SCHEMA gold")
        connection.execute("CREATE VIEW gold.vendas_diarias AS SELECT DATE '2024-01-01' AS data")
    after = alone.run("build", "--select", "stg_clientes", "stg_produtos", "stg_vendas", "vendas_mensais")
    assert {name for name in after.results if not name.startswith("stg_")} == {
        "vendas_mensais",
        "unique_vendas_mensais_mes",
        "not_null_vendas_mensais_mes",
        "vendas_mensais_equals_silver",
    }
    assert after.rows("vendas_diarias") == [{"data": date(2024, 1, 1)}]


def test_no_sales_give_empty_marts_that_pass(doctored: Callable[..., Dbt]) -> None:
    nothing = [
        "CREATE TABLE silver.none AS FROM silver.vendas LIMIT 0",
        "DROP VIEW silver.vendas",
        "CREATE VIEW silver.vendas AS FROM silver.none",
    ]
    after = doctored(nothing, "build")
    assert {name: got for name, got in after.results.items() if got[0] not in ("success", "pass")} == {}
    assert [after.rows(mart) for mart in MARTS] == [[]] * len(MARTS)


# --- what every model states -------------------------------------------------------------------------------------------


def test_every_model_states_its_grain_its_contract_and_its_columns(parsed: Dbt) -> None:
    models = {node["name"]: node for node in parsed.nodes if node["resource_type"] == "model"}
    assert {name for name in models if not name.startswith("stg_")} == {*MARTS, *OTHERS}
    for name, node in models.items():
        assert "Grain: one row per" in node["description"], name
        assert node["config"]["contract"]["enforced"] is True, name
        undescribed = [column["name"] for column in node["columns"].values() if not column["description"]]
        assert not undescribed, name
        assert node["patch_path"].endswith(f"/{name}.yml"), "one yml per model"


def test_every_dbt_test_is_a_check_of_exactly_one_mart(parsed: Dbt) -> None:
    from dagster_dbt import DagsterDbtTranslator

    manifest, translator = parsed.written, DagsterDbtTranslator()
    specs = {
        node["name"]: translator.get_asset_spec(manifest, uid, None)
        for uid, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["name"] in (*MARTS, *OTHERS)
    }
    checks: dict[str, list[str]] = defaultdict(list)
    for name, spec in specs.items():
        assert spec.key.path == ["gold", name]
        assert (spec.group_name, list(spec.owners)) == ("gold", ["team:dados"])
        assert {dep.asset_key.path[0] for dep in spec.deps} <= {"silver", "bronze", "ops"}, "staging is not an asset of its own"
        for uid, node in manifest["nodes"].items():
            if node["resource_type"] == "test":
                check = translator.get_asset_check_spec(spec, manifest, uid, None)
                if check is not None:
                    checks[check.name].append(name)
                    assert check.blocking == (node["config"]["severity"].lower() == "error"), check.name
    tests = [node["name"] for node in parsed.nodes if node["resource_type"] == "test"]
    assert sorted(checks) == sorted(tests)
    assert all(len(marts) == 1 for marts in checks.values())
    assert {mart for [mart] in checks.values()} == {*MARTS, *OTHERS}


# --- contracts as column types ------------------------------------------------------------------------------------------


def test_the_candidates_have_the_columns_that_are_published(built: Dbt) -> None:
    columns = mart_columns(built.written)
    assert list(columns) == sorted([*MARTS, *OTHERS])
    assert columns["vendas_mensais"] == {"mes": "string", **dict.fromkeys(MEASURES, "bigint"), "receita": "decimal(18,4)"}
    duckdb_types = {"string": "VARCHAR", "int": "INTEGER"}
    with duckdb.connect(str(built.database), read_only=True) as connection:
        for mart, types in ((mart, columns[mart]) for mart in MARTS):
            table = connection.table("gold." + mart)
            actual = dict(zip(table.columns, map(str, table.types), strict=True))
            assert actual == {name: duckdb_types.get(kind, kind.upper()) for name, kind in types.items()}


def _manifest(data_type: str | None, *, enforced: bool = True) -> dict[str, Any]:
    node = {
        "resource_type": "model",
        "name": "m",
        "fqn": ["lakehouse", "marts", "m"],
        "config": {"contract": {"enforced": enforced}},
        "columns": {"c": {"name": "c", "data_type": data_type}},
    }
    return {"nodes": {"model.lakehouse.m": node}}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("VARCHAR", "string"),
        ("Integer", "int"),
        ("numeric(18, 4)", "decimal(18,4)"),
        ("DECIMAL( 38 , 0 )", "decimal(38,0)"),
        ("timestamp with time zone", "timestamp"),
        ("timestamptz", "timestamp"),
        ("boolean", "boolean"),
    ],
)
def test_types_are_named_as_in_the_specs(declared: str, expected: str) -> None:
    assert mart_columns(_manifest(declared)) == {"m": {"c": expected}}


@pytest.mark.parametrize("declared", [None, "", "hugeint", "decimal", "decimal(39,4)", "decimal(4,5)", "struct(a int)"])
def test_a_type_that_cannot_be_published_is_refused_by_name(declared: str | None) -> None:
    with pytest.raises(DeclarationError, match=r"Column 'c' of the mart 'm' .* models/marts/m\.yml"):
        mart_columns(_manifest(declared))


def test_a_mart_without_a_contract_is_refused() -> None:
    with pytest.raises(DeclarationError, match="no enforced contract"):
        mart_columns(_manifest("bigint", enforced=False))


# --- sources -------------------------------------------------------------------------------------------------------------


def test_the_sources_file_is_what_the_specs_state() -> None:
    assert sources.sources_path().read_text(encoding="utf-8") == sources.render_sources(ALL), "run make sync"


def test_a_source_is_the_declared_silver_table() -> None:
    text = sources.render_sources(ALL)
    assert "make sync" in text.splitlines()[0]
    source, delivered = yaml.safe_load(text)["sources"]
    assert (source["name"], source["schema"]) == ("silver", "silver")
    assert (delivered["name"], delivered["schema"]) == ("bronze", "bronze")
    bronze = [part.bronze for spec in ALL for part in spec.parts]
    assert [table["config"]["meta"]["dagster"]["asset_key"] for table in delivered["tables"]] == [ref.key for ref in bronze]
    for spec, table in zip(with_histories(*ALL), source["tables"], strict=True):
        assert table["name"] == spec.silver_name
        assert table["config"]["meta"]["dagster"]["asset_key"] == spec.silver.key
        assert {column["name"]: column["data_type"] for column in table["columns"]} == {
            column.name: column.type for column in spec.columns
        }
