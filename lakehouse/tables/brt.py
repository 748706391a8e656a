"""BRT Rio: where every bus of the BRT was last seen, asked once a minute.

    city's feed ─▶ landing/brt_captura ─▶ landing/brt_csv ─▶ bronze/brt_gps ─▶ silver/brt_gps ─▶ gold/brt_*  ─▶ reports/brt

Run this source alone: `make trigger JOB=brt_capture`. An answer lists each vehicle's last known position, so an old position
comes again with every answer until the vehicle moves: it stays one row, which counts how often and when it was seen. The feed
has had 12, 13 and 15 fields; those that are not declared stay in bronze.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from lakehouse.core.errors import DeclarationError
from lakehouse.tables.spec import (
    CapturedFeed,
    Column,
    Job,
    TableSpec,
    expression,
    in_range,
    min_rows,
    not_null,
    setting,
    unique,
)

_LOCAL = "timestamp_gps AT TIME ZONE 'America/Sao_Paulo'"


@dataclass(frozen=True)
class Box:
    """Where a position can be, in degrees."""

    south: float
    north: float
    west: float
    east: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90 and -180 <= self.west < self.east <= 180):
            raise DeclarationError(f"{self} is no box.", remedy="Give south, north, west and east in degrees.")


#: The city and the towns around it that the lines reach. `LAKEHOUSE_BRT_BOX` sets another.
BOX = Box(south=-23.10, north=-22.70, west=-43.80, east=-43.10)

BRT = CapturedFeed(
    "brt",
    url=setting(
        "LAKEHOUSE_BRT_URL",
        "https://dados.mobilidade.rio/gps/brt",
        pattern=r"https?://[^/]|file:///",
        form="https://host/path, or file:///folder with recorded answers",
        description="the BRT feed; `file:///folder` replays recorded answers `<ms>.json`, one a run",
    ),
    records="veiculos",
    lands="brt_gps",
    buffer=setting("LAKEHOUSE_BRT_BUFFER", 10, minimum=1, maximum=1_440, description="captures that make one CSV, 1 to 1440"),
)

BRT_GPS = TableSpec(
    name="brt_gps",
    description=(
        "Positions of the buses of the BRT Rio, one row per vehicle and GPS instant, however often it was delivered. Of "
        "different contents for one position the one captured last stands; of those in one capture, the greatest."
    ),
    source=BRT.captures,
    columns=(
        Column("timestamp_gps", "timestamp", source="dataHora", form="epoch_ms", description="Instant of the position."),
        Column("id_veiculo", "string", source="codigo", description="Vehicle."),
        Column("placa", "string", nulls=("", " "), description="Licence plate; the feed gives it for one vehicle in 25."),
        Column("servico", "string", source="linha", nulls=("", " ", "0"), description="Line; null while it serves none."),
        Column("latitude", "double", description="Degrees."),
        Column("longitude", "double", description="Degrees."),
        Column("velocidade", "double", invalid="null", description="km/h."),
        Column("sentido", "string", nulls=("", " "), description="`ida` or `volta`."),
        Column("trajeto", "string", nulls=("", " "), description="Name of the route."),
        Column("id_trajeto", "string", source="id_migracao_trajeto", nulls=("", " "), description="Route."),
        Column(
            "hodometro",
            "double",
            invalid="null",
            nulls=("", " "),
            description="Odometer in km; it may be negative.",
        ),
        Column(
            "direcao",
            "double",
            invalid="null",
            nulls=("", " "),
            description="Heading in degrees; some are over 360.",
        ),
        Column("ignicao", "boolean", invalid="null", nulls=("", " "), description="Whether the ignition is on."),
        Column("primeira_captura_em", "timestamp", observed="first", description="First capture that had it."),
        Column("ultima_captura_em", "timestamp", observed="last", description="Last capture that had it."),
        Column("capturas", "int", observed="count", description="Captures that had it."),
        Column("data", "date", expression=f"CAST({_LOCAL} AS DATE)", description="Day of the position, America/Sao_Paulo."),
        Column("hora", "int", expression=f"EXTRACT(HOUR FROM {_LOCAL})", description="Its hour, America/Sao_Paulo."),
    ),
    # Instants first: files are kept in the order of the key, and new positions are the newest.
    key=("timestamp_gps", "id_veiculo"),
    order=("timestamp_gps",),
    partition="data",
    rules=(
        not_null("latitude"),
        not_null("longitude"),
        in_range("latitude", minimum=BOX.south, maximum=BOX.north),
        in_range("longitude", minimum=BOX.west, maximum=BOX.east),
        # The feed began after that: an instant in seconds, read as milliseconds, is one of 1970.
        expression("instante_antigo", "timestamp_gps >= CAST('2010-01-01 00:00:00' AS TIMESTAMP)"),
        expression("instante_futuro", "timestamp_gps <= primeira_captura_em + INTERVAL '5' MINUTE"),
        min_rows(1),
        unique("timestamp_gps", "id_veiculo"),
    ),
    freshness=timedelta(minutes=30),
    file_mb=4,
    tags=("brt",),
)


def within(spec: TableSpec, box: Box) -> TableSpec:
    """The table with another box in its rules."""
    bounds = {
        "range_latitude": in_range("latitude", minimum=box.south, maximum=box.north),
        "range_longitude": in_range("longitude", minimum=box.west, maximum=box.east),
    }
    return replace(spec, rules=tuple(bounds.get(rule.name, rule) for rule in spec.rules))


SOURCES = (BRT,)
TABLES = (BRT_GPS,)
JOBS = (
    Job(
        "brt_capture",
        tag="brt",
        description="One capture of the BRT feed; every tenth exports the CSV and goes on through bronze to the report.",
        max_runtime=timedelta(minutes=10),
        sla=timedelta(minutes=2),
        cron="* * * * *",
        every="minutely",
        tags=(),
    ),
)
PUBLISHED = ("gold/brt_frota_atual", "gold/brt_frota_por_minuto", "gold/brt_servicos_por_hora")
