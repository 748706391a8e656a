"""The query of *Visão geral*: what ran, what failed, how fresh the tables are, whether the ledger adds up, what is open."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import narwhals as nw

from lakehouse.dashboard.reading import Lake, Row, since
from lakehouse.observability import outbox, outcome
from lakehouse.observability.metrics import COLUMNS, METRICS_TABLE
from lakehouse.observability.notifier import INCIDENTS_TABLE, load
from lakehouse.observability.services import SERVICES_TABLE
from lakehouse.observability.table_health import HEALTH_TABLE
from lakehouse.reports.vendas import ledger_of

RUN = (
    *("run_id", "job", "requested_at", "started_at", "finished_at", "duration_seconds"),
    *("outcome", "delivery", "retries", "rows", "sla_met"),
)
#: A job that did not run for so long is not shown.
_LOOK_BACK = timedelta(days=30)
_BEGINNING = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True)
class Overview:
    """Rows are as in their tables.

    Attributes:
        last_runs: the newest run of every job of the last 30 days, by name.
        failed: runs of the last 24 hours that are not good, as gold/slo_jobs counts them, newest first.
        tables: the last measurement of silver and gold.
        services: the last measurement of services.
        ledger: layer, table, in_rows, written, deduplicated, deleted, quarantined, balanced.
        incidents: keys of alerts that stand.
    """

    last_runs: list[Row]
    failed: list[Row]
    tables: list[Row]
    services: list[Row]
    ledger: list[Row]
    incidents: list[str]


def read(lake: Lake) -> Overview:
    runs = _last_runs(lake)
    incidents = lake.opened(INCIDENTS_TABLE)
    refs = [ref for spec in lake.settings.tables for ref in (*[part.bronze for part in spec.parts], spec.silver)]
    health = outbox.newest(lake.session, lake.storage, HEALTH_TABLE)
    return Overview(
        last_runs=runs,
        failed=_failed(lake),
        tables=sorted(
            (row for row in health if row["layer"] in ("silver", "gold")),
            key=lambda row: (row["layer"] != "silver", row["table"]),
        ),
        services=sorted(outbox.newest(lake.session, lake.storage, SERVICES_TABLE), key=lambda row: row["service"]),
        ledger=ledger_of(lake.session, lake.storage, refs),
        incidents=[one.key for one in load(lake.session, incidents) if one.state == "open"] if incidents else [],
    )


def is_bad(run: Row) -> bool:
    """Whether a run delivered less than it should, or later than its SLA allows."""
    return run["delivery"] in outcome.BAD or run["sla_met"] is False


def runs_since(lake: Lake, after: datetime = _BEGINNING) -> "nw.LazyFrame[Any] | None":
    """The runs that finished after an instant, as gold/slo_jobs counts them; None when none was ever measured.

    `delivery` is what counts: of a row of a release before there was one, what its status says.
    """
    table = lake.opened(METRICS_TABLE)
    if table is None or not table.files:
        return None
    frame = lake.session.read(table.paths(since(table, "finished_at", after)), COLUMNS)
    by_status = nw.lit(None, nw.String)
    for status, delivery in outcome.BY_STATUS.items():
        by_status = nw.when(nw.col("outcome") == status).then(nw.lit(delivery)).otherwise(by_status)
    frame = frame.with_columns(nw.coalesce(nw.col("delivery"), by_status).alias("delivery"))
    return frame.filter((nw.col("kind") == "run") & (nw.col("finished_at") > after))


def _last_runs(lake: Lake) -> list[Row]:
    frame = runs_since(lake, datetime.now(UTC) - _LOOK_BACK)
    if frame is None:
        return []
    newest = frame.group_by("job").agg(nw.col("finished_at").max().alias("last"))
    last = frame.join(newest, left_on=["job", "finished_at"], right_on=["job", "last"]).sort("job")
    return list({row["job"]: row for row in lake.select(last, *RUN)}.values())


def _failed(lake: Lake) -> list[Row]:
    frame = runs_since(lake, datetime.now(UTC) - timedelta(hours=24))
    if frame is None:
        return []
    return lake.select(frame.filter(nw.col("delivery").is_in(list(outcome.BAD))).sort("finished_at", descending=True), *RUN)
