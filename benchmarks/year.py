"""Case `year`: what a year of minutes takes in Dagster's SQLite files, from a sample of real ones.

    python -m benchmarks.year FOLDER [--minutes N] [--periods N]

A period is so many minutes of the simulated feed as the schedule `brt_capture_minutely` asks for them (nine of ten run the
capture alone), with a monitoring run every fifth, in one process. After each period but the first, the maintenance's own
functions remove and vacuum what is older than the period. So the files are those of a lake whose retention is one period.

A year is extrapolated: the bytes of a measured minute times the minutes that retention leaves. Not in the sample: the few events
of the process that Dagster starts for each run, and other jobs.
"""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.cases.graph import BRT_CAPTURE
from benchmarks.stored import of_run

VEHICLES, MONITORED = 750, 5
_DAY = 24 * 60


def simulate(folder: Path, *, minutes: int, periods: int) -> dict[str, Any]:
    """Run the periods; bytes after each, and of each kind of run."""
    home, answers = folder / "dagster", folder / "answers"
    answers.mkdir(parents=True)
    (home / "dagster.yaml").write_bytes(Path("dagster.yaml").read_bytes())
    sizes: list[int] = []
    kinds: dict[str, list[dict[str, int]]] = {"minute": [], "export": [], "monitoring": []}
    begun = time.perf_counter()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        lake = _Lake(instance, answers)
        for period in range(periods):
            start = datetime.now(UTC)
            for minute in range(minutes):
                kind, run_id = lake.capture(period * minutes + minute)
                kinds[kind].append(of_run(home, run_id))
                if minute % MONITORED == 0:
                    kinds["monitoring"].append(of_run(home, lake.monitor()))
            grown = _bytes(home)
            if period:
                lake.maintain(before=start)
            sizes.append(_bytes(home))
        per_minute = (grown - sizes[-2]) / minutes
    text = {kind: _mean([run["event_bytes"] + run["index_bytes"] for run in runs]) for kind, runs in kinds.items()}
    return {
        "seconds": time.perf_counter() - begun,
        "minutes": minutes,
        "bytes_per_minute": per_minute,
        "periods": sizes,
        **{f"{kind}_events": value for kind, value in text.items()},
        "history_days": lake.settings.history_days,
    }


class _Lake:
    """The jobs of one lake, run as schedules run them."""

    def __init__(self, instance: dg.DagsterInstance, answers: Path) -> None:
        from lakehouse.automation import CONSOLE, JOBS
        from lakehouse.definitions import build_defs
        from lakehouse.settings import load_settings

        warnings.simplefilter("ignore")
        self.instance, self.answers, self.settings = instance, answers, load_settings()
        self.config = {**CONSOLE, "loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        definitions = build_defs(self.settings)
        self.jobs = {name: definitions.resolve_job_def(name) for name in (BRT_CAPTURE.job, "monitoring")}
        self.part = {job.name: job.part for job in JOBS}[BRT_CAPTURE.job]
        self.start = int(datetime.now(UTC).timestamp() * 1000) - 10 * _DAY * 60_000

    def capture(self, number: int) -> tuple[str, str]:
        """One minute: its kind, and its run."""
        from lakehouse.sample.brt import answer

        at = self.start + number * 60_000
        path = self.answers / f"{at}.json"
        path.write_bytes(answer(at, vehicles=VEHICLES))
        part = self.part(self.settings) if self.part is not None else None
        run_id = self._run(BRT_CAPTURE.job, part)
        path.unlink()
        return ("minute" if part else "export"), run_id

    def monitor(self) -> str:
        """One monitoring run."""
        return self._run("monitoring", None)

    def _run(self, job: str, part: list[dg.AssetKey] | None) -> str:
        done = self.jobs[job].execute_in_process(instance=self.instance, run_config=self.config, asset_selection=part)
        return str(done.run_id)

    def maintain(self, *, before: datetime) -> None:
        """What the maintenance does with Dagster's history, for runs of before an instant."""
        from lakehouse.maintenance.run_history import prune
        from lakehouse.maintenance.sqlite_files import forget_runs, vacuum_all
        from lakehouse.observability.eventlog import run_files
        from lakehouse.observability.metrics import take_up

        take_up(self.instance, self.settings.storage)
        prune(self.instance, self.settings.storage, age=timedelta(), now=before)
        for path in run_files(self.instance):  # as if they were of long ago
            os.utime(path, (0, 0))
        forget_runs(self.instance, now=datetime.now(UTC))
        vacuum_all(Path(self.instance.root_directory), logs=run_files(self.instance))


def _bytes(folder: Path) -> int:
    """What the files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.year", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--periods", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print(json.dumps(simulate(arguments.folder, minutes=arguments.minutes, periods=arguments.periods)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
