"""The sample's records as DuckDB relations: what each sync delivers, and what it must come to in the end.

Here is the SQL that makes the records and the figures, and nothing about files (that is `landing.py`).

    transactions.parquet ─▶ sale_line ──┐ one row per line, with what will happen to it
    products.parquet     ─▶ product   ──┼─▶ delivery   the records of one stream in one sync, in file order
    demographics.parquet ─▶ household ──┘ └▶ SampleTruth, counted from the three tables and not from the deliveries

**Real** (Complete Journey, households of one retailer, 2017): which household bought which product in which basket,
when, how many and for how much; each product's type and department; the income of the 801 households that told it.

**Derived from real**: `valor_unitario` is sales_value / quantity at four decimals, so quantidade x valor_unitario can
differ from the real sales_value by up to 0.00005 a unit: 74 dollars net (0.002 %) over the year, at most 2.05 a line,
because fuel is sold by the thousandth of a gallon. The 49 lines with a value but quantity 0 become one unit of that
value; the 8,820 with neither stay 0 x 0. `nome` is the product's type (its category or department where it has none).
`segmento` is the income in four bands, null where unknown. The source's times carry no zone and are taken as UTC. 4,836
lines name a product that the real catalogue lacks: they are kept, with `descricao` null and no row in `produtos`.

**Made up**: `id` (the line's ordinal); `pais` (the source names no country); `status`; every `updated_at`; `created_at`
of households (a day of 2016); the sync times; all `_airbyte_*` columns; that the last three days of a month come again
in the next sync; the deletes (1 line in 400), the old form that a quarter of them shows once more, and the updates (1
line in 600: a day later, or one unit more); that 1 product in 50 has no department and 1 known household in 10 no
segment until the last sync gives the real one. Everything made up follows from ids by arithmetic, so every run makes
the same records.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import duckdb

Stream = Literal["vendas", "produtos", "clientes"]

SYNCS = 12
MIN_LINES = 2_500  # the fifth block of 400 holds the first old form that arrives a sync after its delete


@dataclass(frozen=True, kw_only=True)
class StreamTruth:
    """Records delivered (rows of bronze) and rows alive after the last sync (rows of silver)."""

    delivered: int
    live: int


@dataclass(frozen=True, kw_only=True)
class SampleTruth:
    """What a lakehouse must come to after reading the whole sample.

    For vendas, `delivered = lines + redelivered + deleted + updated` and `live = lines - deleted`.
    """

    vendas: StreamTruth
    produtos: StreamTruth
    clientes: StreamTruth
    receita: Decimal
    """Sum of quantidade x valor_unitario over the live lines, exact to four decimals, in US dollars."""
    orders: int
    """Distinct `pedido_id` of the live lines."""
    customers: int
    """Distinct `cliente_id` of the live lines."""
    quantity: int
    """Sum of `quantidade` over the live lines."""
    lines: int
    """Distinct `id` delivered."""
    deleted: int
    """Lines that came back as `status = 'deleted'`."""
    updated: int
    """Lines that came back with another `created_at` or `quantidade`."""
    redelivered: int
    """Records that came again unchanged: the last days of each month, and old forms of deleted lines."""
    late: int
    """The part of `redelivered` that is the old form of a deleted line, with its delete or a sync later."""

    def to_json(self) -> dict[str, Any]:
        """As JSON types; `receita` as a string, since a JSON number would round it."""
        return {**asdict(self), "receita": str(self.receita)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "SampleTruth":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: the record is not one that `to_json` made.
        """
        streams = {name: StreamTruth(**record[name]) for name in ("vendas", "produtos", "clientes")}
        return cls(**{**record, **streams, "receita": Decimal(record["receita"])})


def synced_at(sync: int) -> datetime:
    """When the sync of that month (0 is January 2017) ran: 06:00 of the next first.

    That is after the source's last sale (2018-01-01 04:01:20), which the last sync brings.
    """
    return datetime(2017 + (sync + 1) // 12, (sync + 1) % 12 + 1, 1, 6, 0, 0, 123_000, tzinfo=UTC)


# Runs of 20 neighbouring lines keep baskets (nine lines on average) nearly whole. The whole source is every run.
_LINES = """
CREATE TABLE sale_line AS
WITH source AS (
    SELECT *, file_row_number // 20 AS run FROM read_parquet($transactions, file_row_number = true)
), picked AS (
    SELECT * FROM source WHERE (run + 1) * $runs // $all_runs > run * $runs // $all_runs
), numbered AS (
    SELECT row_number() OVER (ORDER BY file_row_number) AS id, * FROM picked
), typed AS (
    SELECT
        id,
        transaction_timestamp AS created,
        CAST(least(datediff('month', TIMESTAMP '2017-01-01', transaction_timestamp), 11) AS INTEGER) AS sync,
        CAST(basket_id AS VARCHAR) AS basket,
        product_id AS product,
        CASE WHEN quantity = 0 AND sales_value > 0 THEN 1 ELSE quantity END AS quantity,
        CAST(round(CAST(sales_value AS DECIMAL(12, 2)) / greatest(quantity, 1), 4) AS DECIMAL(12, 4)) AS price,
        household_id AS household
    FROM numbered WHERE id <= $lines
)
SELECT
    typed.*,
    products.product_type AS description,
    sync < 11 AND created >= date_trunc('month', created) + INTERVAL 1 MONTH - INTERVAL 3 DAY AS comes_again,
    -- One id in each block, at a place that the block's number decides: the share holds in any number of lines.
    -- Deletes take odd ids and updates even ones: no line gets both. What the last sync brings has no later sync.
    sync < 11 AND (id - 1) % 400 = ((id - 1) // 400 * 2654435761) % 200 * 2 AS is_deleted,
    CASE WHEN is_deleted AND (id - 1) // 400 % 4 = 0 THEN least(sync + 1 + (id - 1) // 1600 % 2, 11) END AS late_sync,
    CASE WHEN sync < 11 AND (id - 1) % 600 = ((id - 1) // 600 * 2654435761) % 300 * 2 + 1
        THEN CASE (id - 1) // 600 % 2 WHEN 0 THEN 'date' ELSE 'quantity' END END AS change,
    -- Between the first sync that had the line and the next, and after the line's own moved date.
    date_trunc('month', created) + INTERVAL 1 MONTH + INTERVAL 2 DAY
        + to_seconds((id * 2654435761) % 2160000) AS changed
FROM typed LEFT JOIN read_parquet($products) AS products ON products.product_id = typed.product
ORDER BY id
"""

_PRODUCTS = """
CREATE TABLE product AS
SELECT
    CAST(product_id AS VARCHAR) AS id,
    coalesce(product_type, product_category, department) AS name,
    department,
    row_number() OVER (ORDER BY product_id) % 50 = 1 AS is_updated,
    TIMESTAMP '2016-01-01' + to_seconds((product_id * 2654435761) % 31536000) AS first_updated,
    TIMESTAMP '2017-12-03' + to_seconds((product_id * 2654435761) % 2160000) AS last_updated
FROM read_parquet($products)
WHERE $whole OR product_id IN (SELECT product FROM sale_line)
ORDER BY product_id
"""

_HOUSEHOLDS = """
CREATE TABLE household AS
WITH buyer AS (
    SELECT DISTINCT household AS id FROM sale_line
), known AS (
    SELECT household_id AS id, CASE
        WHEN income IN ('Under 15K', '15-24K', '25-34K') THEN 'Under 35K'
        WHEN income IN ('35-49K', '50-74K') THEN '35-74K'
        WHEN income IN ('75-99K', '100-124K') THEN '75-124K'
        ELSE '125K+' END AS segment
    FROM read_parquet($demographics)
)
SELECT
    id,
    segment,
    segment IS NOT NULL AND row_number() OVER (PARTITION BY segment IS NULL ORDER BY id) % 10 = 1 AS is_updated,
    TIMESTAMP '2016-01-01' + to_seconds((id * 2654435761) % 31536000) AS created,
    TIMESTAMP '2017-12-03' + to_seconds((id * 2654435761) % 2160000) AS changed
FROM buyer LEFT JOIN known USING (id)
ORDER BY id
"""

# `kind` breaks ties of id within a sync and tells the _airbyte ids of the same line apart:
# 0 first delivery, 1 last days of the month before, 2 old form of a deleted line, 3 delete, 4 update.
_VENDAS = """
CREATE OR REPLACE TABLE delivery AS
WITH record AS (
    SELECT 0 AS kind, * FROM sale_line WHERE sync = $sync
    UNION ALL SELECT 1, * FROM sale_line WHERE sync = $sync - 1 AND comes_again
    UNION ALL SELECT 2, * FROM sale_line WHERE sync BETWEEN $sync - 2 AND $sync - 1 AND late_sync = $sync
    UNION ALL SELECT 3, * FROM sale_line WHERE sync = $sync - 1 AND is_deleted
    UNION ALL SELECT 4, * FROM sale_line WHERE sync = $sync - 1 AND change IS NOT NULL
)
SELECT
    row_number() OVER (ORDER BY id, kind) AS position,
    CAST(CAST(md5(concat_ws('/', 'vendas', $sync, id, kind)) AS UUID) AS VARCHAR) AS raw_id,
    {
        'id': id,
        'pedido_id': basket,
        'produto_id': CAST(product AS VARCHAR),
        'descricao': description,
        'quantidade': CASE WHEN kind = 4 AND change = 'quantity' THEN quantity + 1 ELSE quantity END,
        'valor_unitario': CAST(price AS DOUBLE),
        'cliente_id': household,
        'pais': 'United States',
        'status': CASE WHEN kind = 3 THEN 'deleted' ELSE 'paid' END,
        'created_at': strftime(
            CASE WHEN kind = 4 AND change = 'date' THEN created + INTERVAL 1 DAY ELSE created END,
            '%Y-%m-%dT%H:%M:%SZ'),
        'updated_at': strftime(CASE WHEN kind >= 3 THEN changed ELSE created END, '%Y-%m-%dT%H:%M:%SZ')
    } AS record
FROM record
ORDER BY position
"""

_PRODUTOS = """
CREATE OR REPLACE TABLE delivery AS
SELECT
    row_number() OVER (ORDER BY CAST(id AS BIGINT)) AS position,
    CAST(CAST(md5(concat_ws('/', 'produtos', $sync, id)) AS UUID) AS VARCHAR) AS raw_id,
    {
        'id': id,
        'nome': name,
        'categoria': CASE WHEN $sync = 0 AND is_updated THEN NULL ELSE department END,
        'updated_at': strftime(CASE WHEN $sync = 0 THEN first_updated ELSE last_updated END, '%Y-%m-%dT%H:%M:%SZ')
    } AS record
FROM product
WHERE $sync = 0 OR is_updated
ORDER BY position
"""

_CLIENTES = """
CREATE OR REPLACE TABLE delivery AS
SELECT
    row_number() OVER (ORDER BY id) AS position,
    CAST(CAST(md5(concat_ws('/', 'clientes', $sync, id)) AS UUID) AS VARCHAR) AS raw_id,
    {
        'id': id,
        'pais': 'United States',
        'segmento': CASE WHEN $sync = 0 AND is_updated THEN NULL ELSE segment END,
        'created_at': strftime(created, '%Y-%m-%dT%H:%M:%SZ'),
        'updated_at': strftime(CASE WHEN $sync = 0 THEN created ELSE changed END, '%Y-%m-%dT%H:%M:%SZ')
    } AS record
FROM household
WHERE $sync = 0 OR is_updated
ORDER BY position
"""

_DELIVERIES: dict[Stream, str] = {"vendas": _VENDAS, "produtos": _PRODUTOS, "clientes": _CLIENTES}

_COUNTS = """
SELECT 'vendas' AS stream, sync, count(*) FROM (
    SELECT sync FROM sale_line
    UNION ALL SELECT sync + 1 FROM sale_line WHERE comes_again
    UNION ALL SELECT late_sync FROM sale_line WHERE late_sync IS NOT NULL
    UNION ALL SELECT sync + 1 FROM sale_line WHERE is_deleted
    UNION ALL SELECT sync + 1 FROM sale_line WHERE change IS NOT NULL
) GROUP BY sync
UNION ALL SELECT 'produtos', 0, count(*) FROM product
UNION ALL SELECT 'produtos', 11, count(*) FROM product WHERE is_updated
UNION ALL SELECT 'clientes', 0, count(*) FROM household
UNION ALL SELECT 'clientes', 11, count(*) FROM household WHERE is_updated
ORDER BY sync, stream DESC
"""

_TRUTH = """
WITH live AS (
    SELECT basket, household, price, quantity + CAST(change IS NOT DISTINCT FROM 'quantity' AS BIGINT) AS quantity
    FROM sale_line WHERE NOT is_deleted
)
SELECT
    (SELECT count(*) FROM live),
    (SELECT CAST(sum(price * quantity) AS DECIMAL(38, 4)) FROM live),
    (SELECT count(DISTINCT basket) FROM live),
    (SELECT count(DISTINCT household) FROM live),
    (SELECT CAST(sum(quantity) AS BIGINT) FROM live),
    count(*),
    count(*) FILTER (is_deleted),
    count(*) FILTER (change IS NOT NULL),
    count(*) FILTER (comes_again) + count(late_sync),
    count(late_sync)
FROM sale_line
"""


def source_lines(con: duckdb.DuckDBPyConnection, transactions: str) -> int:
    """Lines that the source holds, from the file's footer."""
    row = con.execute("SELECT count(*) FROM read_parquet($transactions)", {"transactions": transactions}).fetchone()
    assert row is not None
    return int(row[0])


def build_tables(con: duckdb.DuckDBPyConnection, paths: dict[str, str], *, lines: int, whole: bool) -> None:
    """Makes `sale_line`, `product` and `household` for that many lines.

    Args:
        paths: where `transactions`, `products` and `demographics` are.
        lines: how many lines to take, in short runs spread evenly over the source, which is in order of time.
        whole: also the products that no line names.
    """
    all_runs = -(-source_lines(con, paths["transactions"]) // 20)
    con.execute(
        _LINES,
        {
            "transactions": paths["transactions"],
            "products": paths["products"],
            "lines": lines,
            "runs": min(lines // 20 + 2, all_runs),  # one more than needed: the source's last run is short
            "all_runs": all_runs,
        },
    )
    con.execute(_PRODUCTS, {"products": paths["products"], "whole": whole})
    con.execute(_HOUSEHOLDS, {"demographics": paths["demographics"]})


def delivery_counts(con: duckdb.DuckDBPyConnection) -> list[tuple[Stream, int, int]]:
    """(stream, sync, records) of every delivery, in the order of the syncs."""
    return [(stream, int(sync), int(records)) for stream, sync, records in con.execute(_COUNTS).fetchall()]


def build_delivery(con: duckdb.DuckDBPyConnection, stream: Stream, *, sync: int) -> None:
    """Makes the table `delivery` (position from 1, raw_id, record as a struct) of one stream in one sync."""
    con.execute(_DELIVERIES[stream], {"sync": sync})


def compute_truth(con: duckdb.DuckDBPyConnection) -> SampleTruth:
    """The figures that a lakehouse reading the sample must reach, from the tables of `build_tables`."""
    row = con.execute(_TRUTH).fetchone()
    assert row is not None
    live, receita, orders, customers, quantity, lines, deleted, updated, redelivered, late = row
    counts = con.execute(
        "SELECT (SELECT count(*) FROM product), (SELECT count(*) FROM product WHERE is_updated),"
        " (SELECT count(*) FROM household), (SELECT count(*) FROM household WHERE is_updated)"
    ).fetchone()
    assert counts is not None
    products, products_updated, households, households_updated = counts
    return SampleTruth(
        vendas=StreamTruth(delivered=lines + redelivered + deleted + updated, live=live),
        produtos=StreamTruth(delivered=products + products_updated, live=products),
        clientes=StreamTruth(delivered=households + households_updated, live=households),
        receita=receita,
        orders=orders,
        customers=customers,
        quantity=quantity,
        lines=lines,
        deleted=deleted,
        updated=updated,
        redelivered=redelivered,
        late=late,
    )
