"""The queries of *Execuções*: rates, percentiles and SLA misses from `gold/slo_jobs`, and from `ops/run_metrics` the runs that
these count. What ended since is apart: figures and rows are of one moment.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import narwhals as nw

from lakehouse.core.names import TableRef
from lakehouse.dashboard.reading import Lake, Row, since
from lakehouse.observability import outcome
from lakehouse.observability.metrics import COLUMNS, METRICS_TABLE

RUN = (
    *("run_id", "job", "requested_at", "started_at", "finished_at", "duration_seconds"),
    *("outcome", "delivery", "retries", "rows", "sla_met"),
)
SLO_TABLE = TableRef("gold", "slo_jobs")
#: The windows of `gold/slo_jobs`, and what the page calls them.
WINDOWS = {"24h": ("24 horas", timedelta(hours=24)), "7d": ("7 dias", timedelta(days=7)), "30d": ("30 dias", timedelta(days=30))}
#: So many runs are shown, the newest.
MOST = 500
_BEGINNING = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True)
class Executions:
    """Runs of a window. It ends where `gold/slo_jobs` was computed, and before that with the newest run.

    Attributes:
        until: that end; None when there is no run.
        jobs: every job of the window.
        runs: those that were asked for, newest first, at most `MOST` of `total`.
        levels: rows of `gold/slo_jobs` for these jobs; none before the first run of job `slo`.
        newer: runs that ended after the window, which `levels` do not count yet, newest first, at most `MOST`.
    """

    until: datetime | None
    jobs: list[str]
    runs: list[Row]
    total: int
    levels: list[Row]
    newer: list[Row]

    @property
    def failures(self) -> int | None:
        """Runs of the window that are not good, as gold/slo_jobs counts them; None before its first run."""
        return sum(row["failures"] for row in self.levels) if self.levels else None


def read(lake: Lake, window: str, jobs: tuple[str, ...] = (), outcomes: tuple[str, ...] = ()) -> Executions:
    """The runs of a window of `WINDOWS`, of some jobs and with some outcomes, or of all.

    Args:
        outcomes: of `observability/outcome.py`, and `canceled`.
    """
    every = [row for row in lake.rows(SLO_TABLE) if row["time_window"] == window]
    levels = sorted((row for row in every if not jobs or row["job"] in jobs), key=lambda row: row["job"])
    measured = runs_since(lake)
    newest: datetime | None = None
    if measured is not None:
        newest = lake.session.rows(measured.select(nw.col("finished_at").max()))[0][0]
    until = max((row["as_of"] for row in every), default=newest)
    frame = runs_since(lake, until - WINDOWS[window][1]) if until is not None else None
    if until is None or frame is None:
        return Executions(None, [], [], 0, levels, [])
    known = sorted(row[0] for row in lake.session.rows(frame.select("job").unique()))
    if jobs:
        frame = frame.filter(nw.col("job").is_in(list(jobs)))
    if outcomes:
        frame = frame.filter(nw.coalesce(nw.col("delivery"), nw.col("outcome")).is_in(list(outcomes)))
    within = frame.filter(nw.col("finished_at") <= until)
    runs, newer = (
        lake.select(part.sort("finished_at", descending=True).head(MOST), *RUN)
        for part in (within, frame.filter(nw.col("finished_at") > until))
    )
    return Executions(until, known, runs, lake.session.count(within), levels, newer)


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
