"""The bare counterpart of `medallion_etl`: the sample landing to silver and gold in one script of DuckDB and deltalake.

It knows which file of the sample has which form, keeps no bronze, and has no rules, quarantine, ledger, dbt tests or report;
`clientes_rfm` is its frequency and revenue only. What it writes of the other tables must be equal to the lakehouse's. It
imports nothing of the lakehouse.

    python -m benchmarks.bare_job <landing> <lake>
"""

import json
import sys
import time
from pathlib import Path

import duckdb
from deltalake import WriterProperties, write_deltalake

# JSON lines of v1 and v2 differ in one name; the fields are read as text, as they stand in the other forms.
_READ = {
    ("vendas", "json"): """
CREATE TEMP VIEW vendas_json AS
SELECT make_timestamptz(coalesce(_airbyte_extracted_at, _airbyte_emitted_at) * 1000) AS _extracted_at, _airbyte_data.*
FROM read_json(getvariable('folder') || '/raw/vendas/*.jsonl.gz', columns = {
    _airbyte_emitted_at: 'BIGINT', _airbyte_extracted_at: 'BIGINT',
    _airbyte_data: 'STRUCT(id VARCHAR, pedido_id VARCHAR, produto_id VARCHAR, descricao VARCHAR, quantidade VARCHAR,
        valor_unitario VARCHAR, cliente_id VARCHAR, pais VARCHAR, status VARCHAR, created_at VARCHAR, updated_at VARCHAR)'})
""",
    ("vendas", "csv"): """
CREATE TEMP VIEW vendas_csv AS
SELECT make_timestamptz(CAST(_airbyte_extracted_at AS BIGINT) * 1000) AS _extracted_at, COLUMNS('^[^_].*')
FROM read_csv(getvariable('folder') || '/raw/vendas/*.csv.gz', all_varchar = true)
""",
    ("vendas", "parquet"): """
CREATE TEMP VIEW vendas_parquet AS
SELECT _airbyte_extracted_at AS _extracted_at, CAST(COLUMNS('^[^_].*') AS VARCHAR)
FROM read_parquet(getvariable('folder') || '/raw/vendas/*.parquet')
""",
    ("produtos", "json"): """
CREATE TEMP VIEW produtos_json AS
SELECT make_timestamptz(coalesce(_airbyte_extracted_at, _airbyte_emitted_at) * 1000) AS _extracted_at, _airbyte_data.*
FROM read_json(getvariable('folder') || '/raw/produtos/*.jsonl.gz', columns = {
    _airbyte_emitted_at: 'BIGINT', _airbyte_extracted_at: 'BIGINT',
    _airbyte_data: 'STRUCT(id VARCHAR, nome VARCHAR, categoria VARCHAR, updated_at VARCHAR)'})
""",
    ("produtos", "parquet"): """
CREATE TEMP VIEW produtos_parquet AS
SELECT _airbyte_extracted_at AS _extracted_at, CAST(COLUMNS('^[^_].*') AS VARCHAR)
FROM read_parquet(getvariable('folder') || '/raw/produtos/*.parquet')
""",
    ("clientes", "json"): """
CREATE TEMP VIEW clientes_json AS
SELECT make_timestamptz(coalesce(_airbyte_extracted_at, _airbyte_emitted_at) * 1000) AS _extracted_at, _airbyte_data.*
FROM read_json(getvariable('folder') || '/raw/clientes/*.jsonl.gz', columns = {
    _airbyte_emitted_at: 'BIGINT', _airbyte_extracted_at: 'BIGINT',
    _airbyte_data: 'STRUCT(id VARCHAR, pais VARCHAR, segmento VARCHAR, created_at VARCHAR, updated_at VARCHAR)'})
""",
    ("clientes", "parquet"): """
CREATE TEMP VIEW clientes_parquet AS
SELECT _airbyte_extracted_at AS _extracted_at, CAST(COLUMNS('^[^_].*') AS VARCHAR)
FROM read_parquet(getvariable('folder') || '/raw/clientes/*.parquet')
""",
}

_SILVER = {
    "vendas": """
CREATE TEMP TABLE vendas AS
WITH records AS (
    FROM vendas_json UNION ALL BY NAME FROM vendas_csv UNION ALL BY NAME FROM vendas_parquet
), typed AS (
    SELECT
        CAST(id AS BIGINT) AS id,
        pedido_id,
        produto_id,
        descricao,
        CAST(quantidade AS BIGINT) AS quantidade,
        CAST(valor_unitario AS DECIMAL(12, 4)) AS valor_unitario,
        CAST(cliente_id AS BIGINT) AS cliente_id,
        pais,
        status,
        CAST(created_at AS TIMESTAMPTZ) AS created_at,
        CAST(updated_at AS TIMESTAMPTZ) AS updated_at,
        CAST(CAST(created_at AS TIMESTAMP) AS DATE) AS created_date,
        CAST(CAST(quantidade AS BIGINT) * CAST(valor_unitario AS DECIMAL(18, 4)) AS DECIMAL(18, 4)) AS total,
        _extracted_at
    FROM records
), newest AS (
    SELECT * FROM typed
    QUALIFY row_number() OVER (
        PARTITION BY id ORDER BY updated_at DESC, _extracted_at DESC, status = 'deleted' DESC
    ) = 1
)
SELECT * FROM newest WHERE status <> 'deleted' ORDER BY id
""",
    "produtos": """
CREATE TEMP TABLE produtos AS
SELECT id, nome, categoria, CAST(updated_at AS TIMESTAMPTZ) AS updated_at, _extracted_at
FROM (FROM produtos_json UNION ALL BY NAME FROM produtos_parquet)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC, _extracted_at DESC) = 1
ORDER BY id
""",
    "clientes": """
CREATE TEMP TABLE clientes AS
SELECT
    CAST(id AS BIGINT) AS id,
    pais,
    segmento,
    CAST(created_at AS TIMESTAMPTZ) AS created_at,
    CAST(updated_at AS TIMESTAMPTZ) AS updated_at,
    _extracted_at
FROM (FROM clientes_json UNION ALL BY NAME FROM clientes_parquet)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC, _extracted_at DESC) = 1
ORDER BY id
""",
}

MEASURES = """
CREATE TEMP MACRO orders_of(pedido_id) AS CAST(count(DISTINCT pedido_id) AS BIGINT);
CREATE TEMP MACRO customers_of(cliente_id) AS CAST(count(DISTINCT cliente_id) AS BIGINT);
CREATE TEMP MACRO units_of(quantidade) AS CAST(sum(quantidade) AS BIGINT);
CREATE TEMP MACRO revenue_of(total) AS CAST(sum(total) AS DECIMAL(18, 4));
"""

GOLD = {
    "vendas_diarias": """
CREATE TEMP VIEW vendas_diarias AS
SELECT created_date AS data, orders_of(pedido_id) AS pedidos, customers_of(cliente_id) AS clientes, count(*) AS linhas,
    units_of(quantidade) AS quantidade, revenue_of(total) AS receita
FROM vendas GROUP BY data ORDER BY data
""",
    "vendas_mensais": """
CREATE TEMP VIEW vendas_mensais AS
SELECT strftime(created_date, '%Y-%m') AS mes, orders_of(pedido_id) AS pedidos, customers_of(cliente_id) AS clientes,
    count(*) AS linhas, units_of(quantidade) AS quantidade, revenue_of(total) AS receita
FROM vendas GROUP BY mes ORDER BY mes
""",
    "vendas_por_pais": """
CREATE TEMP VIEW vendas_por_pais AS
SELECT coalesce(pais, 'Desconhecido') AS pais, orders_of(pedido_id) AS pedidos, customers_of(cliente_id) AS clientes,
    count(*) AS linhas, units_of(quantidade) AS quantidade, revenue_of(total) AS receita
FROM vendas GROUP BY ALL ORDER BY pais
""",
    "vendas_por_produto": """
CREATE TEMP VIEW vendas_por_produto AS
SELECT produto_id, any_value(nome) AS nome, any_value(categoria) AS categoria, orders_of(pedido_id) AS pedidos,
    customers_of(cliente_id) AS clientes, count(*) AS linhas, units_of(quantidade) AS quantidade, revenue_of(total) AS receita
FROM vendas LEFT JOIN produtos ON produto_id = produtos.id GROUP BY produto_id ORDER BY produto_id
""",
    "clientes_rfm": """
CREATE TEMP VIEW clientes_rfm AS
SELECT cliente_id, min(created_date) AS primeira_compra, max(created_date) AS ultima_compra,
    orders_of(pedido_id) AS frequencia, revenue_of(total) AS receita
FROM vendas WHERE cliente_id IS NOT NULL GROUP BY cliente_id ORDER BY cliente_id
""",
}


def run(landing: str, lake: str) -> None:
    """Write silver and gold of the landing below `lake`."""
    properties = WriterProperties(compression="ZSTD", compression_level=1)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET VARIABLE folder = $folder", {"folder": landing})
        con.execute(MEASURES)
        for statement in [*_READ.values(), *_SILVER.values(), *GOLD.values()]:
            con.execute(statement)
        for layer, tables in (("silver", _SILVER), ("gold", GOLD)):
            for name in tables:
                folder = Path(lake) / layer / name
                folder.mkdir(parents=True)
                write_deltalake(str(folder), con.table(name).to_arrow_reader(), writer_properties=properties)


if __name__ == "__main__":
    begun = time.perf_counter()
    run(sys.argv[1], sys.argv[2])
    print(json.dumps({"seconds": time.perf_counter() - begun}))
