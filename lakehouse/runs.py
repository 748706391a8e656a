"""Runs in the foreground, as the commands start them: in this process, on the shared Dagster instance, with an exit code.

0 is success; 1 means that a step or an error-severity check failed, and names it; the run is in the UI's history either way.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob

from lakehouse.automation import CONSOLE, JOBS, SINGLE_TABLE_JOB
from lakehouse.core import files
from lakehouse.core.delta import open_existing
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.definitions import build_defs
from lakehouse.resources import TableRequest
from lakehouse.settings import load_settings
from lakehouse.tables import ALL, parts

_LAYERS = ("bronze", "silver", "gold", "ops")


def trigger(job: str, *, source_table: str = "", target_table: str = "", times: int = 1, as_json: bool = False) -> int:
    """Run a job by name, so many times one after the other; the first that fails is the last.

    Args:
        as_json: print a JSON object per run.
    """
    definitions = build_defs(load_settings())
    names = sorted(j.name for j in definitions.resolve_all_job_defs() if not j.name.startswith("__"))
    if job not in names:
        raise DeclarationError(f"There is no job {job!r}.", remedy=f"Use one of {', '.join(names)}.")
    request = TableRequest(source_table=source_table, target_table=target_table)
    for spec in ALL:
        request.target(spec)  # refuses what it cannot be
    chosen = {name: table for name, table in request.model_dump().items() if table}
    if chosen and job != SINGLE_TABLE_JOB:
        raise DeclarationError(f"{job} runs for all tables.", remedy=f"Use {SINGLE_TABLE_JOB} for one of them.")
    config = {"resources": {"request": {"config": chosen}}} if chosen else {}
    if next((own.executor for own in JOBS if own.name == job), "") == "processes":
        found: Any = dg.build_reconstructable_job("lakehouse.runs", "job_of_settings", (job,))
    else:
        found = definitions.resolve_job_def(job)
    return next((code for _ in range(times) if (code := _execute(found, config, as_json=as_json))), 0)


def job_of_settings(job: str) -> dg.JobDefinition:
    """A job of this environment's code location, for the processes of its steps."""
    return build_defs(load_settings()).resolve_job_def(job)


def materialize(select: str) -> int:
    """Materialise an asset selection."""
    definitions = build_defs(load_settings())
    try:
        selection = dg.AssetSelection.from_string(select)
        graph = definitions.resolve_asset_graph()
        keys = selection.resolve(graph) & graph.materializable_asset_keys  # not what others deliver
    except (dg.DagsterError, ValueError) as error:
        raise DeclarationError(
            f"{select!r} selects nothing: {str(error).splitlines()[0]}",
            remedy='Try group:silver or key:"gold/vendas_diarias".',
        ) from error
    if not keys:
        raise DeclarationError(f"{select!r} selects no asset.", remedy='Try group:silver or key:"gold/vendas_diarias".')
    return _execute(definitions.resolve_implicit_global_asset_job_def(), {}, keys=sorted(keys))


def summary() -> int:
    """Print the tables of the lake and the newest report."""
    settings = load_settings()
    storage = settings.storage
    refs = [*[part.bronze for part in parts()], *[spec.silver for spec in ALL]]
    refs += [TableRef("gold", key.path[-1]) for key in _gold_keys(settings)]
    refs += [TableRef("ops", "ledger"), *[part.quarantine for part in parts()]]
    print(f"{'table':34}{'version':>9}{'rows':>13}{'MB':>9}")
    for ref in refs:
        snapshot = open_existing(storage.uri(ref))
        if snapshot is not None and (snapshot.rows or ref.layer != "quarantine"):
            print(f"{ref!s:34}{snapshot.version:>9}{snapshot.rows:>13,}{snapshot.bytes / 1e6:>9.1f}")
    print()
    for name in ("vendas", "brt"):
        report = newest_report(storage.uri(TableRef("reports", name)))
        print(f"report: {report or f'none of {name} yet'}")
    print("UI: make dev, then http://127.0.0.1:3000")
    return 0


def newest_report(folder: str) -> str | None:
    """The newest dated page below a report's folder."""
    pages = sorted(path for path in files.listing(folder, below=True) if path.endswith("/index.html"))
    return f"{folder}/{pages[-1]}" if pages else None


def _gold_keys(settings: Any) -> Sequence[dg.AssetKey]:
    graph = build_defs(settings).resolve_asset_graph()
    return sorted(key for key in graph.materializable_asset_keys if key.path[0] == "gold")


def _execute(
    job: dg.JobDefinition | ReconstructableJob,
    config: dict[str, Any],
    *,
    keys: Iterable[dg.AssetKey] | None = None,
    as_json: bool = False,
) -> int:
    load_settings().storage.reach()  # before a run that each of its steps would wait in
    run_config = {**CONSOLE, **config}
    selected = list(keys) if keys is not None else None
    began = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        if isinstance(job, dg.JobDefinition):
            run_id, success, events = _finished(
                job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False, asset_selection=selected)
            )
        else:
            with dg.execute_job(job, instance, run_config=run_config) as result:
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
    good = success and not checks
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        print(
            json.dumps({"run_id": run_id, "success": good, "seconds": seconds, "failed_steps": broken, "failed_checks": checks})
        )
    return 0 if good else 1


def _finished(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> tuple[str, bool, Sequence[dg.DagsterEvent]]:
    return result.run_id, result.success, result.all_events
