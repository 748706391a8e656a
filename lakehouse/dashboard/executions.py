"""The queries of *Execuções*: runs of a window from `ops/run_metrics`; rates, percentiles and SLA misses from `gold/slo_jobs`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import narwhals as nw

from lakehouse.core.names import TableRef
from lakehouse.dashboard.overview import RUN, runs_since
from lakehouse.dashboard.reading import Lake, Row

SLO_TABLE = TableRef("gold", "slo_jobs")
#: The windows of `gold/slo_jobs`, and what the page calls them.
WINDOWS = {"24h": ("24 horas", timedelta(hours=24)), "7d": ("7 dias", timedelta(days=7)), "30d": ("30 dias", timedelta(days=30))}
#: So many runs are shown, the newest.
MOST = 500


@dataclass(frozen=True)
class Executions:
    """Runs of a window, which ends with the newest run.

    Attributes:
        until: that end; None when there is no run.
        jobs: every job of the window.
        runs: those that were asked for, newest first, at most `MOST` of `total`.
        levels: rows of `gold/slo_jobs` for these jobs; as of the last run of job `slo`.
    """

    until: datetime | None
    jobs: list[str]
    runs: list[Row]
    total: int
    levels: list[Row]


def read(lake: Lake, window: str, jobs: tuple[str, ...] = (), outcomes: tuple[str, ...] = ()) -> Executions:
    """The runs of a window of `WINDOWS`, of some jobs and with some outcomes, or of all."""
    levels = [row for row in lake.rows(SLO_TABLE) if row["time_window"] == window and (not jobs or row["job"] in jobs)]
    every = runs_since(lake)
    until: datetime | None = lake.session.rows(every.select(nw.col("finished_at").max()))[0][0] if every is not None else None
    frame = runs_since(lake, until - WINDOWS[window][1]) if until is not None else None
    if until is None or frame is None:
        return Executions(None, [], [], 0, levels)
    known = sorted(row[0] for row in lake.session.rows(frame.select("job").unique()))
    if jobs:
        frame = frame.filter(nw.col("job").is_in(list(jobs)))
    if outcomes:
        frame = frame.filter(nw.col("outcome").is_in(list(outcomes)))
    total = lake.session.count(frame)
    runs = lake.select(frame.sort("finished_at", descending=True).head(MOST), *RUN)
    return Executions(until, known, runs, total, sorted(levels, key=lambda row: row["job"]))
