"""`trigger` and `materialize` run a job or a selection of assets in the foreground; `summary` lists the tables.

0 is success; 1 means that a step or an error-severity check failed, and names it; the run is in the UI's history either way.
"""

from typing import Annotated, Any

import typer

from lakehouse.commands.options import Json
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.table.snapshot import open_existing
from lakehouse.landing.sources.window import window
from lakehouse.settings import load_settings
from lakehouse.tables import ALL, JOBS, SOURCES, parts
from lakehouse.tables.spec import CapturedFeed, with_histories

app = typer.Typer()


@app.command()
def trigger(
    job: Annotated[str, typer.Argument(help="job name, e.g. medallion_etl")],
    *,
    source_table: Annotated[str, typer.Option(help="bronze_to_silver: only this table")] = "",
    target_table: Annotated[str, typer.Option(help="bronze_to_silver: into this silver table")] = "",
    full: Annotated[int, typer.Option(min=0, max=1, help="1 asks the job's source systems for everything they have")] = 0,
    since: Annotated[str, typer.Option(help="ask them from this date or instant on")] = "",
    until: Annotated[str, typer.Option(help="take what is before this date or instant")] = "",
    times: Annotated[int, typer.Option(min=1, help="so often, one run after the other, those after a failed one too")] = 1,
    as_json: Json = False,
) -> int:
    """Run a job in the foreground; exit code 1 when a step or an error-severity check fails."""
    from lakehouse.automation import SINGLE_TABLE_JOB
    from lakehouse.commands import foreground
    from lakehouse.silver.request import TableRequest

    found = foreground.job_named(job)
    request = TableRequest(source_table=source_table, target_table=target_table)
    for spec in ALL:
        request.target(spec)  # refuses what it cannot be
    chosen = {name: table for name, table in request.model_dump().items() if table}
    if chosen and job != SINGLE_TABLE_JOB:
        raise DeclarationError(f"{job} runs for all tables.", remedy=f"Use {SINGLE_TABLE_JOB} for one of them.")
    resources = {"request": {"config": chosen}} if chosen else {}
    if asked := _asked(job, full=bool(full), since=since, until=until):
        resources["extraction"] = {"config": asked}
    config = {"resources": resources} if resources else {}
    return max(foreground.execute(found, config, as_json=as_json) for _ in range(times))


def _asked(job: str, *, full: bool, since: str, until: str) -> dict[str, Any]:
    """The run config of the window that source systems are asked for.

    Raises:
        DeclarationError: it cannot be one, or the job asks no source system.
    """
    asked = {name: value for name, value in {"full": full, "since": since, "until": until}.items() if value}
    if not window(full=full, since=since, until=until):
        return {}
    asking = {tag for system in SOURCES if not isinstance(system, CapturedFeed) for tag in system.tags}
    able = sorted(declared.name for declared in JOBS if declared.tag in asking)
    if job not in able:
        raise DeclarationError(
            f"{job} asks no source system, so FULL, FROM and UNTIL mean nothing to it.", remedy=f"Use {', '.join(able)}."
        )
    return asked


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
