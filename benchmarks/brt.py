"""The BRT replay (case `brt`): captures of the simulated feed through the job `brt_capture`, run by run, in one process.

    python -m benchmarks.brt bare URL FILE               call and append, nothing else
    python -m benchmarks.brt replay CAPTURES [--days N]  so many captures of 750 vehicles a day, a minute apart, on so many days

`replay` prints what each export took (wall and CPU), so that its growth is seen: over the exports of a day, whose partition of
silver grows, and over days, of which nothing may be felt. The lake is the environment's; the event log is in memory: what
writing it to disk costs a run is part of the case's first figure.
"""

import argparse
import gzip
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

VEHICLES = 750
#: 2025-10-28 00:00 in America/Sao_Paulo.
_START, _MINUTE, _DAY = 1_761_620_400_000, 60_000, 86_400_000


def bare(url: str, target: Path) -> None:
    """One call, and its answer appended to a file."""
    import requests

    body = requests.get(url, timeout=10).content
    json.loads(body)
    with target.open("ab") as out:
        out.write(gzip.compress(body))


def replay(captures: int, days: int) -> dict[str, object]:
    """Run the job once per capture."""
    import dagster as dg

    from benchmarks.cases.graph import BRT_CAPTURE
    from lakehouse.automation import CONSOLE
    from lakehouse.definitions import build_defs
    from lakehouse.sample.brt import answer
    from lakehouse.settings import load_settings

    warnings.simplefilter("ignore")
    folder = Path(os.environ["LAKEHOUSE_BRT_URL"].removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    config = {**CONSOLE, "loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    job = build_defs(load_settings()).resolve_job_def(BRT_CAPTURE.job)
    exports: list[tuple[float, float]] = []
    ticks: list[float] = []
    total = 0.0
    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(days * captures):
            at = _START + number // captures * _DAY + number % captures * _MINUTE
            path = folder / f"{at}.json"
            path.write_bytes(answer(at, vehicles=VEHICLES))  # the simulation's own time does not count
            begun, cpu = time.perf_counter(), time.process_time()
            result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=True)
            wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
            total += wall
            path.unlink()
            made = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
            if "brt_csv" in made:
                exports.append((wall, cpu))
            else:
                ticks.append(wall)
    part = max(len(exports) // 4, 1)
    first, last = exports[1 : 1 + part], exports[-part:]  # the first loads what exports load
    return {
        "seconds": total,
        "exports": len(exports),
        "export_first": statistics.median(wall for wall, _ in first),
        "export_last": statistics.median(wall for wall, _ in last),
        "export_cpu_first": statistics.median(cpu for _, cpu in first),
        "export_cpu_last": statistics.median(cpu for _, cpu in last),
        "tick": statistics.median(ticks),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.brt", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    calling = commands.add_parser("bare")
    calling.add_argument("url")
    calling.add_argument("target", type=Path)
    replaying = commands.add_parser("replay")
    replaying.add_argument("captures", type=int)
    replaying.add_argument("--days", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command == "bare":
        bare(arguments.url, arguments.target)
    else:
        print(json.dumps(replay(arguments.captures, arguments.days)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
