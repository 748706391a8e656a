"""The queries of *Execuções*: rates, percentiles and SLA misses from `gold/slo_jobs`, and from `ops/run_metrics` the runs that
these count. What ended since is apart: figures and rows are of one moment.
"""

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
