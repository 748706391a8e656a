"""The query of *Visão geral*: what ran, what failed, how fresh the tables are, whether the ledger adds up, what is open.

What failed within 24 hours is the query of *Execuções*: both pages end at the same moment, with the same figures.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import narwhals as nw

from lakehouse.dashboard import executions
from lakehouse.dashboard.executions import RUN, Executions, runs_since
from lakehouse.dashboard.reading import Lake, Row
from lakehouse.observability import outbox, outcome
from lakehouse.observability.notifier import INCIDENTS_TABLE, load
from lakehouse.observability.services import SERVICES_TABLE
from lakehouse.observability.table_health import HEALTH_TABLE
from lakehouse.reports.vendas import ledger_of
from lakehouse.tables.spec import refs_of

#: A job that did not run for so long is not shown.
_LOOK_BACK = timedelta(days=30)


@dataclass(frozen=True)
class Overview:
    """Rows are as in their tables.

    Attributes:
        last_runs: the newest run of every job of the last 30 days, by name.
        day: the 24 hours of *Execuções*, with the runs of it that are not good; what ended since is apart there too.
        tables: the last measurement of silver and gold.
        services: the last measurement of services.
        ledger: layer, table, in_rows, written, deduplicated, deleted, quarantined, balanced.
        incidents: keys of alerts that stand.
    """

    last_runs: list[Row]
    day: Executions
    tables: list[Row]
    services: list[Row]
    ledger: list[Row]
    incidents: list[str]


def read(lake: Lake) -> Overview:
    runs = _last_runs(lake)
    incidents = lake.opened(INCIDENTS_TABLE)
    refs = refs_of(*lake.settings.tables)
    health = outbox.newest(lake.session, lake.storage, HEALTH_TABLE)
    return Overview(
        last_runs=runs,
        day=executions.read(lake, "24h", outcomes=outcome.BAD),
        tables=sorted(
            (row for row in health if row["layer"] in ("silver", "gold")),
            key=lambda row: (row["layer"] != "silver", row["table"]),
        ),
        services=sorted(outbox.newest(lake.session, lake.storage, SERVICES_TABLE), key=lambda row: row["service"]),
        ledger=ledger_of(lake.session, lake.storage, dict.fromkeys(refs)),
        incidents=[one.key for one in load(lake.session, incidents) if one.state == "open"] if incidents else [],
    )


def _last_runs(lake: Lake) -> list[Row]:
    frame = runs_since(lake, datetime.now(UTC) - _LOOK_BACK)
    if frame is None:
        return []
    newest = frame.group_by("job").agg(nw.col("finished_at").max().alias("last"))
    last = frame.join(newest, left_on=["job", "finished_at"], right_on=["job", "last"]).sort("job")
    return list({row["job"]: row for row in lake.select(last, *RUN)}.values())
