"""Jobs and schedules by name, and the environments that start them.

Selections are by group and tag, so a new table joins its jobs on its own. What belongs to one layer (the landing sensor) is
there.
"""

from typing import Any

import dagster as dg

from lakehouse.settings import Settings
from lakehouse.tables import ALL

#: Runs log through the code location's console logger; without this Dagster uses its own.
CONSOLE: dict[str, Any] = {"loggers": {"console": {"config": {}}}}
TIMEZONE = "America/Sao_Paulo"
#: Environments in which a schedule starts by itself; elsewhere it is there, stopped.
STARTS_IN = {"medallion_etl_daily": ("staging", "prod"), "bronze_to_silver_daily": ("prod",)}
#: The job whose runs may be for one table (`resources.TableRequest`).
SINGLE_TABLE_JOB = "bronze_to_silver"
#: What carries one of these tags has a job of its own, and is not part of `medallion_etl`.
OWN_JOBS = ("brt", "pedidos", "ml", "upkeep")
_OWNER = {"owner": "team_dados"}


def jobs() -> list[Any]:
    """The asset jobs. `dagster/max_runtime` is in seconds and needs run monitoring, which `dagster.yaml` switches on."""
    layers: dg.AssetSelection = dg.AssetSelection.groups("bronze", "silver", "gold", "reports")
    for tag in OWN_JOBS:
        layers = layers - dg.AssetSelection.tag(tag, "", include_sources=True)
    synced = [spec.silver.key for spec in ALL for part in spec.parts if not part.origin.made_by]
    return [
        dg.define_asset_job(
            "medallion_etl",
            selection=layers,
            config=CONSOLE,
            description="Landed files to bronze, silver, gold and reports: what is new, and nothing twice.",
            tags={"etl": "", "medallion": "", "dagster/max_runtime": "7200", **_OWNER},
            owners=["team:dados"],
        ),
        dg.define_asset_job(
            SINGLE_TABLE_JOB,
            selection=dg.AssetSelection.assets(*map(dg.AssetKey, synced)),
            config=CONSOLE,
            description=(
                "Silver of every table that others deliver, or of the one that run config names: "
                "resources.request.config = {source_table: vendas, target_table: vendas_processed}."
            ),
            tags={"etl": "", "bronze-to-silver": "", "dagster/max_runtime": "3600", **_OWNER},
            owners=["team:dados"],
        ),
    ]


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, started where `STARTS_IN` lists the environment."""

    def schedule(name: str, *, job: str, cron: str) -> dg.ScheduleDefinition:
        running = settings.env in STARTS_IN[name]
        return dg.ScheduleDefinition(
            name=name,
            job_name=job,
            cron_schedule=cron,
            execution_timezone=TIMEZONE,
            default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        )

    return [
        schedule("medallion_etl_daily", job="medallion_etl", cron="0 6 * * *"),
        schedule("bronze_to_silver_daily", job="bronze_to_silver", cron="0 2 * * *"),
    ]
