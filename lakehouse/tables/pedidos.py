"""Orders: what the web shop's API and the branch's database say, put together.

    landing/pedidos_api ─▶ bronze/pedidos_api ─┐
    landing/pedidos_db  ─▶ bronze/pedidos_db  ─┴▶ silver/pedidos ─▶ gold/pedidos_por_canal, warehouse/pedidos

Run this source alone: `make trigger JOB=pedidos`. Days are those of America/Sao_Paulo; instants are UTC, as delivered.
"""

from datetime import timedelta

from lakehouse.tables.spec import (
    Bearer,
    Column,
    Database,
    Feed,
    Job,
    Resource,
    RestApi,
    Retry,
    Table,
    TableSpec,
    accepted_values,
    min_rows,
    not_null,
    setting,
    unique,
)

_CHANNEL_DOWN = setting(
    "LAKEHOUSE_PEDIDOS_CHANNEL_DOWN",
    {"dev": "degraded", "staging": "fail", "prod": "degraded"},
    choices=("degraded", "fail"),
    description="when one of the two stays down: `degraded` goes on with the other, `fail` does not",
)

PEDIDOS_API = RestApi(
    "pedidos_api",
    description="Orders of the web shop, from its API.",
    url=setting("LAKEHOUSE_PEDIDOS_API_URL", description="the web shop's API", unset="the sample's, in `dev`"),
    auth=Bearer(
        setting("LAKEHOUSE_PEDIDOS_API_TOKEN", secret=True, description="sent to it as `Authorization: Bearer`"),
    ),
    resources=(Resource("pedidos", since="updated_since", cursor="updated_at", total="total", folder="pedidos_api"),),
    retry=Retry(
        setting("LAKEHOUSE_PEDIDOS_API_RETRIES", 3, minimum=0, maximum=20, description="tries after the first"),
        setting(
            "LAKEHOUSE_PEDIDOS_API_RETRY_SECONDS",
            {"dev": 5.0, "staging": 60.0, "prod": 60.0},
            minimum=0,
            maximum=3600,
            description="seconds between them, give or take; a longer Retry-After is kept to",
        ),
    ),
    cache=setting(
        "LAKEHOUSE_PEDIDOS_API_CACHE_SECONDS",
        3600.0,
        minimum=0,
        maximum=86_400,
        description="for so long the pages of one extraction are good for the next; 0 asks every time",
    ),
    when_down=_CHANNEL_DOWN,
    sample="lakehouse.sample.pedidos:api",
)

PEDIDOS_DB = Database(
    "pedidos_db",
    description="Orders of the branch, from its SQL database.",
    url=setting(
        "LAKEHOUSE_PEDIDOS_DB_URL",
        secret=True,
        description=(
            "the branch's database: any SQLAlchemy URL (`?options=-csearch_path%3Dname` for a schema) with a table `pedidos`"
        ),
        unset="the sample's, in `dev`",
    ),
    tables=(Table("pedidos", cursor="updated_at", folder="pedidos_db"),),
    retry=Retry(
        2,
        setting(
            "LAKEHOUSE_PEDIDOS_DB_RETRY_SECONDS",
            {"dev": 5.0, "staging": 30.0, "prod": 30.0},
            minimum=0,
            maximum=3600,
            description="seconds between its two tries after the first",
        ),
    ),
    when_down=_CHANNEL_DOWN,
    sample="lakehouse.sample.pedidos:database",
)

PEDIDOS = TableSpec(
    name="pedidos",
    description="Orders of both channels, one row per order.",
    feeds=(
        Feed("pedidos_api", PEDIDOS_API.resource("pedidos"), values={"canal": "api"}),
        Feed("pedidos_db", PEDIDOS_DB.table("pedidos"), values={"canal": "db"}),
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
)

#: A delivered file becomes records, records become rows.
CLEAN, TRANSFORM = Retry(2, 30), Retry(2, 30)

SOURCES = (PEDIDOS_API, PEDIDOS_DB)
TABLES = (PEDIDOS,)
JOBS = (
    Job(
        "pedidos",
        cron="0 2 * * *",
        sla=timedelta(hours=1),
        executor="processes",
        retries={"bronze": CLEAN, "silver": TRANSFORM},
        description="Orders of both channels: extract, clean, transform and check, load into the warehouse, report.",
    ),
)
PUBLISHED = ("silver/pedidos", "gold/pedidos_por_canal")
