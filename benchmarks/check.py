"""`python -m benchmarks --check`: do the cases still fit the graph? Nothing is run or measured; `make check` asks it.

A case that selects assets whose inputs nobody makes fails only when it is measured, which is once in a while: here each
selection is resolved, and what it reads must be made by it, by the job before it, or be given by the case.
"""

import importlib.util
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg

from benchmarks.bare_job import GOLD
from benchmarks.cases.graph import MARTS, RUNS, GraphRun

_MODULE = re.compile(r'"-m",\s*"([\w.]+)"')


def problems(runs: Sequence[GraphRun] = RUNS) -> list[str]:
    """What is wrong with the cases, each as a line that names the case's run and the table or module."""
    from lakehouse.definitions import build_defs
    from lakehouse.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        definitions = build_defs(Settings(root=f"{folder}/lake"))
        return [*_modules(), *_marts(), *(line for run in runs for line in _unmade(definitions, run))]


def _modules() -> Iterator[str]:
    """Programs that a case starts and that do not exist."""
    for file in sorted((Path(__file__).parent / "cases").glob("*.py")):
        for name in _MODULE.findall(file.read_text()):
            if importlib.util.find_spec(name) is None:
                yield f"benchmarks/cases/{file.name} starts the module {name}, which does not exist."


def _marts() -> Iterator[str]:
    """Marts that one side of the case `gold` makes and the other does not."""
    for name in sorted(set(MARTS) ^ set(GOLD)):
        yield f"Only one side of the case gold makes the mart {name}: add it to MARTS and to GOLD of bare_job."


def _unmade(definitions: dg.Definitions, run: GraphRun) -> Iterator[str]:
    """Tables that a run reads and that nobody makes."""
    what = f"The job {run.job}" if run.job else f"The selection {run.select}"
    graph = definitions.resolve_asset_graph()
    try:
        keys = _keys(definitions, run)
        made = keys | (_keys(definitions, GraphRun(job=run.after)) if run.after else set())
    except (dg.DagsterError, ValueError) as error:
        yield f"{what} does not resolve: {str(error).splitlines()[0]}"
        return
    if not keys:
        yield f"{what} has no asset."
    given = {dg.AssetKey.from_user_string(name) for name in run.given}
    for unknown in sorted(given - graph.materializable_asset_keys):
        yield f"{what} is given {unknown.to_user_string()}, which is not one of the graph's tables."
    read = {parent for key in keys for parent in graph.get(key).parent_keys} & graph.materializable_asset_keys
    for missing in sorted(read - made - given):
        yield f"{what} reads {missing.to_user_string()}, which the case does not make."


def _keys(definitions: dg.Definitions, run: GraphRun) -> set[dg.AssetKey]:
    if run.job:
        return set(definitions.resolve_job_def(run.job).asset_layer.executable_asset_keys)
    graph = definitions.resolve_asset_graph()
    return set(dg.AssetSelection.from_string(run.select).resolve(graph)) & graph.materializable_asset_keys
