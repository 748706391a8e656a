"""The warm overhead of an asset: a run over assets that have nothing to do, in a process that has done it before.

The lake is prepared; the first run loads what runs load, then five more are timed and their median divided by the number of
assets. Table versions before and after prove that there was nothing to do. On a SQLite instance, in process, as `make run`.

    python -m benchmarks.warm lakehouse
    python -m benchmarks.warm trivial <assets> <checks>
"""

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from benchmarks.cases.graph import MEDALLION

if TYPE_CHECKING:
    from lakehouse.runtime.lake import LakeResource

_ROUNDS = 5


def measure(job: dg.JobDefinition, assets: int) -> float:
    """Median seconds per asset.

    Raises:
        RuntimeError: a run failed.
    """
    seconds = []
    with dg.DagsterInstance.get() as instance:
        for _ in range(_ROUNDS + 1):
            begun = time.perf_counter()
            result = job.execute_in_process(instance=instance, raise_on_error=True)
            seconds.append(time.perf_counter() - begun)
            if not result.success:
                raise RuntimeError("The run that should have had nothing to do failed.")
    return statistics.median(seconds[1:]) / assets


@dataclass(frozen=True)
class _Step:
    """What a view asks of a step."""

    run_id: str
    instance: dg.DagsterInstance
    job_def: dg.JobDefinition


def view_and_publication(job: dg.JobDefinition, lake: "LakeResource") -> float:
    """Median seconds of what a run does once: note the versions of its tables, and publish its marts."""
    from lakehouse.core import publications
    from lakehouse.runtime import view

    seconds = []
    with dg.DagsterInstance.get() as instance:
        for again in range(_ROUNDS + 1):
            step = _Step(instance.create_run_for_job(job).run_id, instance, job)
            marts = {
                ref: named._replace(version=named.version + 1) for ref, named in publications.newest(lake.storage).tables.items()
            }
            begun = time.perf_counter()
            view.begun(step, lake)
            done = publications.publish(lambda: lake.duckdb(at_most=64), lake.storage, marts, run_id=step.run_id)
            seconds.append(time.perf_counter() - begun)
            if not marts or done.run_id != step.run_id:
                raise RuntimeError(f"Nothing was published in round {again}.")
    return statistics.median(seconds[1:])


def _versions(root: str) -> dict[str, int]:
    return {str(path): len(list(path.glob("*.json"))) for path in sorted(Path(root).rglob("_delta_log"))}


def main(arguments: list[str]) -> int:
    """Print seconds per asset, and how many assets and checks there were, as JSON."""
    if arguments[0] == "trivial":
        from benchmarks.trivial import build

        assets, checks = (int(argument) for argument in arguments[1:])
        seconds = measure(build(assets=assets, checks=checks).resolve_implicit_global_asset_job_def(), assets)
        print(json.dumps({"seconds": seconds}))
        return 0
    from lakehouse.definitions import build_defs
    from lakehouse.resources import build_resources
    from lakehouse.settings import load_settings

    settings = load_settings()
    job = build_defs(settings).resolve_job_def(MEDALLION.job)
    layer = job.asset_layer
    assets, checks = len(list(layer.executable_asset_keys)), len(layer.asset_graph.asset_check_keys)
    before = _versions(settings.storage.root)
    seconds = measure(job, assets)
    if _versions(settings.storage.root) != before:
        raise RuntimeError("A table has a new version: there was something to do.")
    found = {"seconds": seconds, "assets": assets, "checks": checks}
    print(json.dumps({**found, "together": view_and_publication(job, build_resources(settings)["lake"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
