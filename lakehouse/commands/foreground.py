"""Runs in the foreground, as commands start them: in this process, on the shared Dagster instance, with an exit code."""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg

from lakehouse.automation import CONSOLE, JOBS
from lakehouse.commands.instance import location
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import LAYERS
from lakehouse.definitions import build_defs
from lakehouse.runtime.dagster_private import ReconstructableJob, runs_of
from lakehouse.settings import load_settings
from lakehouse.tables import ALL, SOURCES

_TRY = 'Try group:vendas, tag:layer=silver or key:"gold/vendas_diarias".'
#: Layers that are groups: measurements, and the forecast.
_STILL_GROUPS = ("ml", "ops")


def job_named(job: str) -> dg.JobDefinition | ReconstructableJob:
    """A job of this environment's code location; one whose steps have processes of their own in a form that those can load.

    Raises:
        DeclarationError: there is no such job.
    """
    definitions = build_defs(load_settings())
    names = sorted(j.name for j in definitions.resolve_all_job_defs() if not j.name.startswith("__"))
    if job not in names:
        raise DeclarationError(f"There is no job {job!r}.", remedy=f"Use one of {', '.join(names)}.")
    if next((own.executor for own in JOBS if own.name == job), "") == "processes":
        reconstructable: Any = dg.build_reconstructable_job("lakehouse.commands.foreground", "job_of_settings", (job,))
        found: dg.JobDefinition | ReconstructableJob = reconstructable
        return found
    return definitions.resolve_job_def(job)


def job_of_settings(job: str) -> dg.JobDefinition:
    """A job of this environment's code location, for the processes of its steps."""
    return build_defs(load_settings()).resolve_job_def(job)


def landing_of(system: str) -> list[dg.AssetKey]:
    """The asset that asks a source system."""
    return [dg.AssetKey(["landing", system])]


def assets_of(job: str, *, asking: str) -> list[dg.AssetKey]:
    """The assets of a job, without those that ask other source systems than one."""
    graph = build_defs(load_settings()).resolve_asset_graph()
    [own] = [one for one in JOBS if one.name == job]
    others = {dg.AssetKey(["landing", system.name]) for system in SOURCES if system.name != asking}
    return sorted((own.selection().resolve(graph) & graph.materializable_asset_keys) - others)


def materialize(select: str) -> int:
    """Materialise an asset selection.

    Raises:
        DeclarationError: nothing is selected.
    """
    if re.search(r"[\x00-\x1f]", select):  # Dagster's grammar takes a line break for a blank
        raise DeclarationError(f"{select!r} selects nothing.", remedy=_TRY)
    definitions = build_defs(load_settings())
    try:
        selection = dg.AssetSelection.from_string(by_key(select))
        graph = definitions.resolve_asset_graph()
        keys = selection.resolve(graph) & graph.materializable_asset_keys  # not what others deliver
    except (dg.DagsterError, ValueError) as error:
        raise DeclarationError(
            f"{select!r} selects nothing: {str(error).splitlines()[0]}",
            remedy=_TRY,
        ) from error
    if not keys:
        raise DeclarationError(f"{select!r} selects no asset.", remedy=_TRY)
    return execute(definitions.resolve_implicit_global_asset_job_def(), {}, keys=sorted(keys))


def by_key(select: str) -> str:
    """A selection in which layers that were groups once are the beginnings of keys: `group:silver` is `key:"silver/*"`."""
    return re.sub(rf"\bgroup:({'|'.join(layer for layer in LAYERS if layer not in _STILL_GROUPS)})\b", r'key:"\1/*"', select)


def execute(
    job: dg.JobDefinition | ReconstructableJob,
    config: dict[str, Any],
    *,
    keys: Iterable[dg.AssetKey] | None = None,
    as_json: bool = False,
) -> int:
    """Run a job, or some of its assets, and print what failed; 1 when a step or an error-severity check did.

    Args:
        as_json: also print a JSON object about the run.
    """
    load_settings().storage.reach()  # before a run that each of its steps would wait in
    run_config = {**CONSOLE, **config}
    selected = list(keys) if keys is not None else None
    began = time.monotonic()
    with dg.DagsterInstance.get() as instance, runs_of(instance, module=location.MODULE, location=location.NAME):
        if isinstance(job, dg.JobDefinition):
            run_id, success, events = _finished(
                job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False, asset_selection=selected)
            )
        else:
            with dg.execute_job(job, instance, run_config=run_config, asset_selection=selected) as result:
                run_id, success, events = _finished(result)
    broken = [event.step_key for event in events if event.is_step_failure]
    found = [e.asset_check_evaluation_data for e in events if e.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    checks = [
        f"{check.asset_key.to_user_string()} {check.check_name}"
        for check in found
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    for step in broken:
        print(f"failed step: {step}", file=sys.stderr)
    for name in checks:
        print(f"failed check: {name}", file=sys.stderr)
    for line in warnings_of(found):
        print(f"warning: {line}", file=sys.stderr)
    good = success and not checks
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        print(
            json.dumps({"run_id": run_id, "success": good, "seconds": seconds, "failed_steps": broken, "failed_checks": checks})
        )
    return 0 if good else 1


def warnings_of(checks: Iterable[dg.AssetCheckEvaluation]) -> Iterator[str]:
    """What went on and is to be looked at: quarantined records, drift, values that are none, names that collide."""
    tables = {ref: spec.name for spec in ALL for part in spec.parts for ref in (str(part.bronze), str(spec.silver))}
    for check in checks:
        if check.passed or check.severity != dg.AssetCheckSeverity.WARN:
            continue
        figures = {name: value.value for name, value in check.metadata.items()}
        asset = check.asset_key.to_user_string()
        count = f" {figures['failed']:,} of {figures['judged']:,}" if {"failed", "judged"} <= figures.keys() else ""
        quarantined = figures.get("action") == "quarantine" and asset in tables
        command = f"make quarantine TABLE={tables[asset]}" if quarantined else "make logs"
        yield f"{asset} {check.check_name}:{count} ({command})"


def _finished(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> tuple[str, bool, Sequence[dg.DagsterEvent]]:
    return result.run_id, result.success, result.all_events
