"""What observability gives to the code location."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from lakehouse.core.clock import TIMEZONE
from lakehouse.core.names import TableRef
from lakehouse.gold.project import ensure_manifest
from lakehouse.gold.schema import mart_columns
from lakehouse.landing.lag import LAG_SECONDS, lag_sensors
from lakehouse.observability.assets import Surroundings, monitoring_assets
from lakehouse.observability.outcome import job_slas
from lakehouse.observability.sensors import INTERVAL, sensors
from lakehouse.settings import Settings
from lakehouse.tables import ALL


def build_defs(settings: Settings, *, jobs: Iterable[Any]) -> dg.Definitions:
    """Measurements, alerts and their sensors. `jobs` are those of `automation.py`, with their schedules and SLAs."""
    jobs = tuple(jobs)
    gold = [TableRef("gold", name) for name in mart_columns(ensure_manifest())]
    own = [TableRef("ops", name) for name in ("ledger", "landing_files", "alerts", "events", "run_metrics")]
    lag = {sensor.name: LAG_SECONDS for sensor in lag_sensors(settings)}
    ticks = {"watch": INTERVAL, "deliver": INTERVAL, "landing_files": 60, **lag}
    crons = {job.schedule_name: (job.cron, TIMEZONE) for job in jobs if job.cron}
    surroundings = Surroundings([*gold, *own], job_slas(jobs), lambda: {**ticks, **crons})
    assets = monitoring_assets(settings, ALL, surroundings=surroundings)
    described = {
        "alerts": "Every alert, numbered, as it was raised.",
        "events": "Every event, numbered; the outbox of Kafka.",
        "deliveries": "Every attempt to deliver a message about an alert.",
    }
    external = [
        dg.AssetSpec(["ops", name], group_name="ops", description=text, kinds={"deltalake"}, owners=["team:dados"])
        for name, text in described.items()
    ]
    ticking = sensors(settings, job_slas=surroundings.job_slas, tables=surroundings.tables)
    return dg.Definitions(assets=[*assets, *external], sensors=ticking)
