"""Sales: order lines, products and customers, as Airbyte delivers them from the shop's database.

    landing/raw/{vendas,produtos,clientes}  ─▶  bronze/…  ─▶  silver/…, …_history  ─▶  gold/vendas_*, gold/clientes_rfm

Run this source alone: `make materialize SELECT='group:vendas'`. Instants are UTC, as delivered.
"""

from datetime import timedelta

from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    Health,
    Subject,
    TableSpec,
    in_range,
    min_rows,
    not_null,
    unique,
    volume_drop,
)

VENDAS = TableSpec(
    name="vendas",
    description="Sales, one row per order line. A line with status 'deleted' is gone.",
    source=AirbyteStream("vendas"),
    columns=(
        Column("id", "bigint", description="Order line."),
        Column("pedido_id", "string", description="Order that the line belongs to."),
        Column("produto_id", "string", description="Product sold; refers to produtos.id."),
        Column("descricao", "string", description="Product text as printed on the order."),
        Column("quantidade", "bigint", description="Units; negative for a return."),
        Column("valor_unitario", "decimal(12,4)", description="Price of one unit."),
        Column("cliente_id", "bigint", description="Customer; null for an anonymous sale."),
        Column("pais", "string", description="Country of the customer."),
        Column("status", "string", description="State of the line, as delivered."),
        Column("created_at", "timestamp", description="Instant of the sale."),
        Column("updated_at", "timestamp", description="Instant of the last change."),
        Column("created_date", "date", expression="CAST(created_at AS DATE)", description="Day of the sale, UTC."),
        Column("total", "decimal(18,4)", expression="quantidade * valor_unitario", description="Value of the line."),
    ),
    key=("id",),
    order=("updated_at",),
    deleted="status = 'deleted'",
    rules=(
        not_null("pedido_id"),
        not_null("produto_id"),
        not_null("quantidade"),
        not_null("valor_unitario"),
        not_null("created_at"),
        not_null("updated_at"),
        not_null("descricao", action="warn"),
        in_range("valor_unitario", minimum=0, action="warn"),
        min_rows(1),
        unique("id"),
        volume_drop(0.5),
    ),
    freshness=timedelta(hours=26),
    health=Health(event_time="updated_at", max_event_age=timedelta(hours=50)),
    subject=Subject("cliente", "cliente_id"),
    tags=("vendas",),
)

PRODUTOS = TableSpec(
    name="produtos",
    description="Products, one row per product.",
    source=AirbyteStream("produtos"),
    columns=(
        Column("id", "string", description="Product."),
        Column("nome", "string", description="Name."),
        Column("categoria", "string", description="Department; null where the source does not say."),
        Column("updated_at", "timestamp", description="Instant of the last change."),
    ),
    key=("id",),
    order=("updated_at",),
    rules=(not_null("nome", action="warn"), not_null("updated_at"), min_rows(1), unique("id")),
    history=True,
    freshness=timedelta(hours=26),
    health=Health(event_time="updated_at"),
    tags=("vendas",),
)

CLIENTES = TableSpec(
    name="clientes",
    description="Customers, one row per customer.",
    source=AirbyteStream("clientes"),
    columns=(
        Column("id", "bigint", description="Customer."),
        Column("pais", "string", description="Country."),
        Column("segmento", "string", description="Segment; null where the source does not say."),
        Column("created_at", "timestamp", description="Instant of the first contact."),
        Column("updated_at", "timestamp", description="Instant of the last change."),
    ),
    key=("id",),
    order=("updated_at",),
    rules=(not_null("updated_at"), min_rows(1), unique("id")),
    history=True,
    freshness=timedelta(hours=26),
    health=Health(event_time="updated_at"),
    subject=Subject("cliente", "id"),
    tags=("vendas",),
)

TABLES = (VENDAS, PRODUTOS, CLIENTES)
PUBLISHED = (
    "gold/vendas_diarias",
    "gold/vendas_mensais",
    "gold/vendas_por_pais",
    "gold/vendas_por_produto",
    "gold/clientes_rfm",
)
