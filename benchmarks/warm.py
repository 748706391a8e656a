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
from pathlib import Path

import dagster as dg

from benchmarks.cases.graph import MEDALLION

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
    from lakehouse.settings import load_settings

    settings = load_settings()
    job = build_defs(settings).resolve_job_def(MEDALLION.job)
    layer = job.asset_layer
    assets, checks = len(list(layer.executable_asset_keys)), len(layer.asset_graph.asset_check_keys)
    before = _versions(settings.storage.root)
    seconds = measure(job, assets)
    if _versions(settings.storage.root) != before:
        raise RuntimeError("A table has a new version: there was something to do.")
    print(json.dumps({"seconds": seconds, "assets": assets, "checks": checks}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
