"""The view of a run: which version of each table its steps read.

    first read or commit of a run ─▶ every table that its assets read or write, with its version ─▶ a tag of the run
    a re-execution                ─▶ the view of the run that it repeats

Marts are viewed as they are published. The version is taken from the names in a table's log, so that a run that reads twenty
tables does not open them all first. Not here: how a table is read by a view (`core/table/inputs.py`).
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import dagster as dg

from lakehouse.core import publications
from lakehouse.core.names import Layer, TableRef
from lakehouse.core.store.storage import Storage, View, lock
from lakehouse.core.table.inputs import newest_version
from lakehouse.runtime.lake import LakeResource

#: A run's tag: the version of each table at the run's start, as JSON.
TAG = "lakehouse/view"
#: The layers that a view is of. What is made of others comes first, so that no table is older than one that was made of it.
_VIEWED: tuple[Layer, ...] = ("ml", "gold", "silver", "bronze")
#: The view of the newest run of this process.
_CURRENT: dict[str, View] = {}


class Step(Protocol):
    """What the contexts of a step, of its inputs and of its outputs have in common."""

    @property
    def run_id(self) -> str: ...
    @property
    def instance(self) -> dg.DagsterInstance: ...
    @property
    def job_def(self) -> dg.JobDefinition: ...


def viewed(context: dg.AssetExecutionContext | dg.InputContext | dg.OutputContext, lake: LakeResource) -> Storage:
    """The lake as a run reads it. The first step to ask begins the run's view."""
    step: Step = context.get_step_execution_context() if isinstance(context, dg.AssetExecutionContext) else context.step_context
    if step.run_id not in _CURRENT:
        found = begun(step, lake)
        _CURRENT.clear()
        _CURRENT[step.run_id] = found
    return replace(lake.storage, view=_CURRENT[step.run_id])


def begun(step: Step, lake: LakeResource) -> View:
    """The view that a step of the run has begun, here or in another process; else that of the run it repeats, or a new one."""
    instance = step.instance
    with lock(lake.spill):  # steps of one run may be processes
        family = list(_family(instance, step.run_id))
        tags = next((run.tags[TAG] for run in family if TAG in run.tags), None)
        versions = read_view(tags) if tags is not None else _now(lake.storage, _tables(step.job_def))
        if tags is None or TAG not in family[0].tags:
            instance.add_run_tags(step.run_id, {TAG: written_view(versions)})
    return View(versions, frozenset((step.run_id, *(run.run_id for run in family))))


def _family(instance: dg.DagsterInstance, run_id: str | None) -> Iterator[dg.DagsterRun]:
    """A run and those that it repeats, newest first; those that retention has removed are missing."""
    while run_id is not None and (found := instance.get_run_by_id(run_id)) is not None:
        yield found
        run_id = found.parent_run_id


def _tables(job: dg.JobDefinition) -> set[TableRef]:
    """What the assets of a run read and write, where it is a table; measurements of the lake itself are read as they are."""
    keys: set[dg.AssetKey] = set()
    for data in job.asset_layer.data:
        keys |= {*data.assets_def.keys, *data.assets_def.dependency_keys}
    return {TableRef(*key.path) for key in keys if len(key.path) == 2 and key.path[0] in _VIEWED}  # type: ignore[arg-type]


def _now(storage: Storage, refs: set[TableRef]) -> dict[TableRef, int]:
    """The versions now, of a mart the published one; those of the base lake where this one lacks the table."""
    named = publications.newest(storage).tables if any(ref.layer == "gold" for ref in refs) else {}
    found: dict[TableRef, int] = {}
    with ThreadPoolExecutor() as pool:  # a bucket is asked once for each table
        for layer in _VIEWED:
            tables = [ref for ref in refs if ref.layer == layer]
            found |= zip(tables, pool.map(lambda ref: newest_version(storage, ref), tables), strict=True)
    found |= {ref: min(now, named[ref].version) for ref, now in found.items() if ref in named}
    missing = {ref for ref, now in found.items() if now < 0}
    return found | (_now(storage.base, missing) if storage.base is not None and missing else {})


def written_view(versions: Mapping[TableRef, int]) -> str:
    """A view as the text of its tag."""
    return json.dumps({str(ref): version for ref, version in sorted(versions.items(), key=lambda pair: str(pair[0]))})


def read_view(text: str) -> dict[TableRef, int]:
    """The view of a tag."""
    found: Mapping[str, Any] = json.loads(text)
    return {TableRef(*name.split("/")): int(version) for name, version in found.items()}  # type: ignore[arg-type]
