"""`trigger` and `materialize` run a job or a selection of assets in the foreground; `summary` lists the tables.

0 is success; 1 means that a step or an error-severity check failed, and names it; the run is in the UI's history either way.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.commands.options import Json
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.table.snapshot import open_existing
from lakehouse.settings import load_settings
from lakehouse.tables import ALL, JOBS, SOURCES, parts
from lakehouse.tables.spec import CapturedFeed, SourceSystem, with_histories

if TYPE_CHECKING:
    from dagster import AssetKey

app = typer.Typer()


@app.command()
def trigger(
    job: Annotated[str, typer.Argument(help="job name, e.g. medallion_etl")],
    *,
    source_table: Annotated[
        str, typer.Option(help="bronze_to_silver: only this table; jobs that ask source systems: another table, path or topic")
    ] = "",
    target_table: Annotated[
        str, typer.Option(help="bronze_to_silver: into this silver table; jobs that ask source systems: below raw/ of landing")
    ] = "",
    stream: Annotated[str, typer.Option(help="the stream that another source or target is for: pedidos_db/pedidos")] = "",
    full: Annotated[int, typer.Option(min=0, max=1, help="1 asks the job's source systems for everything they have")] = 0,
    since: Annotated[str, typer.Option(help="ask them from this date or instant on")] = "",
    until: Annotated[str, typer.Option(help="take what is before this date or instant")] = "",
    times: Annotated[int, typer.Option(min=1, help="so often, one run after the other, those after a failed one too")] = 1,
    as_json: Json = False,
) -> int:
    """Run a job in the foreground; exit code 1 when a step or an error-severity check fails."""
    from lakehouse.commands import foreground

    found = foreground.job_named(job)
    given: dict[str, Any] = {"full": bool(full), "since": since, "until": until, "stream": stream}
    request: dict[str, Any] = {}
    if job in _asking():
        given.update(source=source_table, target=target_table)
    else:
        request = _of_one_table(job, source=source_table, target=target_table)
    asked, keys = _asked(job, given)
    resources = {name: {"config": given} for name, given in (("request", request), ("extraction", asked)) if given}
    config = {"resources": resources} if resources else {}
    return max(foreground.execute(found, config, keys=keys, as_json=as_json) for _ in range(times))


def _of_one_table(job: str, *, source: str, target: str) -> dict[str, Any]:
    """The run config of a run for one table; empty for all of them.

    Raises:
        DeclarationError: it cannot be for that, or the job never is for one table.
    """
    from lakehouse.automation import SINGLE_TABLE_JOB
    from lakehouse.silver.request import TableRequest

    request = TableRequest(source_table=source, target_table=target)
    for spec in ALL:
        request.target(spec)  # refuses what it cannot be
    chosen = {name: table for name, table in request.model_dump().items() if table}
    if chosen and job != SINGLE_TABLE_JOB:
        raise DeclarationError(f"{job} runs for all tables.", remedy=f"Use {SINGLE_TABLE_JOB} for one of them.")
    return chosen


def _asked(job: str, given: dict[str, Any]) -> "tuple[dict[str, Any], list[AssetKey] | None]":
    """The run config of what source systems are asked for, and the assets of that run; None for all of the job's.

    Raises:
        DeclarationError: it cannot be asked, or the job asks no source system.
    """
    asked = {name: value for name, value in given.items() if value}
    if not asked:
        return {}, None
    asking = _asking()
    if job not in asking:
        raise DeclarationError(
            f"{job} asks no source system, so FULL, FROM, UNTIL and TABLE mean nothing to it.",
            remedy=f"Use {', '.join(sorted(asking))}.",
        )
    from lakehouse.commands import foreground
    from lakehouse.landing.request import ExtractionRequest

    own = [f"{system.name}/{stream.name}" for system in asking[job] for stream in system.streams]
    if (asked.get("source") or asked.get("target")) and "stream" not in asked and len(own) == 1:
        asked["stream"] = own[0]
    request = ExtractionRequest(**asked)
    window, override = request.window, request.override
    if override is None:
        return (asked if window else {}), None
    if override.name not in own:
        raise DeclarationError(f"{job} does not ask {override.name}.", remedy=f"Name one of {', '.join(own)} in TABLE.")
    if override.target:
        return asked, foreground.landing_of(override.system.name)
    return asked, foreground.assets_of(job, asking=override.system.name)


def _asking() -> dict[str, list[SourceSystem]]:
    """The systems that a job asks, of each job that asks one."""
    systems = [system for system in SOURCES if not isinstance(system, CapturedFeed)]
    found = {job.name: [system for system in systems if job.tag in system.tags] for job in JOBS}
    return {name: own for name, own in found.items() if own}


@app.command()
def materialize(select: Annotated[str, typer.Argument(help='asset selection, e.g. key:"gold/vendas_diarias"')]) -> int:
    """Materialise a selection of assets in the foreground; exit codes as of trigger."""
    from lakehouse.commands import foreground

    return foreground.materialize(select)


@app.command()
def summary() -> int:
    """Print every table with its version, rows and size, and where the reports are."""
    storage = load_settings().storage
    refs = [*[part.bronze for part in parts()], *[spec.silver for spec in with_histories(*ALL)]]
    refs += [ref for ref in storage.tables() if ref.layer == "gold"]
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
