"""Observability: what the lakehouse says about itself.

Here: alerts and events as Delta tables, and how they are sent; health of tables and services, metrics of runs.
Comes from: Dagster's event log, the tables' own logs, the services that are configured.
Goes to: `ops/` tables, Kafka, e-mail, Slack, Prometheus. Never: changes another layer's table; sends what is not in Delta yet.
Rerun: an alert, an event and a run's metrics are taken in once; what was not delivered is delivered.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from lakehouse.settings import Settings


def build_defs(settings: "Settings") -> "dg.Definitions":
    # Not above: who raises an alert, and the process that looks at tables in a store, need no Dagster.
    import dagster as dg

    from lakehouse import automation
    from lakehouse.core.clock import TIMEZONE
    from lakehouse.core.names import TableRef
    from lakehouse.gold.project import ensure_manifest
    from lakehouse.gold.schema import mart_columns
    from lakehouse.observability.assets import Surroundings, monitoring_assets
    from lakehouse.observability.sensors import INTERVAL, sensors
    from lakehouse.observability.watch import promises
    from lakehouse.tables import ALL

    gold = [TableRef("gold", name) for name in mart_columns(ensure_manifest())]
    own = [TableRef("ops", name) for name in ("ledger", "landing_files", "alerts", "events", "run_metrics")]
    ticks = {"watch": INTERVAL, "deliver": INTERVAL, "landing_files": 60}
    crons = {job.schedule_name: (job.cron, TIMEZONE) for job in automation.JOBS if job.cron}
    surroundings = Surroundings([*gold, *own], promises(automation.JOBS), lambda: {**ticks, **crons})
    assets = monitoring_assets(settings, ALL, surroundings=surroundings)
    kept = {
        "alerts": "Every alert, numbered, as it was raised.",
        "events": "Every event, numbered; the outbox of Kafka.",
        "deliveries": "Every attempt to deliver a message about an alert.",
    }
    external = [
        dg.AssetSpec(["ops", name], group_name="ops", description=text, kinds={"deltalake"}, owners=["team:dados"])
        for name, text in kept.items()
    ]
    ticking = sensors(settings, promises=surroundings.promises, tables=surroundings.tables)
    return dg.Definitions(assets=[*assets, *external], sensors=ticking)
