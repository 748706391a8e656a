"""Orders: what the web shop's API and the branch's database say, put together.

    landing/pedidos_api ─▶ bronze/pedidos_api ─┐
    landing/pedidos_db  ─▶ bronze/pedidos_db  ─┴▶ silver/pedidos ─▶ gold/pedidos_por_canal, warehouse/pedidos

Run this source alone: `make trigger JOB=pedidos`. Days are those of America/Sao_Paulo; instants are UTC, as delivered.
"""

from datetime import timedelta

from lakehouse.tables.spec import AirbyteStream, Column, Feed, TableSpec, accepted_values, min_rows, not_null, unique

PEDIDOS = TableSpec(
    name="pedidos",
    description="Orders of both channels, one row per order.",
    feeds=(
        Feed("pedidos_api", AirbyteStream("pedidos_api", made_by="pedidos_api"), values={"canal": "api"}),
        Feed("pedidos_db", AirbyteStream("pedidos_db", made_by="pedidos_db"), values={"canal": "db"}),
    ),
    columns=(
        Column("id", "bigint", description="Order."),
        Column("nome", "string", description="Product ordered."),
        Column("valor", "decimal(12,2)", description="Price of one unit."),
        Column("quantidade", "bigint", description="Units ordered."),
        Column("total", "decimal(14,2)", expression="valor * quantidade", description="Value of the order."),
        Column("canal", "string", description="Where it was ordered: api (web shop) or db (branch)."),
        Column("updated_at", "timestamp", description="Instant of the last change."),
    ),
    key=("id",),
    order=("updated_at",),
    rules=(
        not_null("nome"),
        not_null("valor"),
        not_null("quantidade"),
        not_null("updated_at"),
        accepted_values("canal", "api", "db", action="fail"),
        min_rows(100),
        unique("id"),
    ),
    freshness=timedelta(hours=26),
    tags=("pedidos",),
)

TABLES = (PEDIDOS,)
