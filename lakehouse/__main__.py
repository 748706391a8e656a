"""Commands that Make calls: `python -m lakehouse <command>`, or `lakehouse <command>` where the package is installed.

    trigger JOB           run a job here and now; exit code 1 when a step or an error-severity check fails
    materialize SELECT    the same for an asset selection
    rebuild TABLE         compute a silver table again from all of bronze
    quarantine TABLE      what was delivered and is not in the tables, with rule, reason and payload
    redrive TABLE         judge that again, after a rule, a type or a file was mended
    release TABLE REASON  take in the batch that a rule with action `fail` stops
    compare TABLE URI     whether another Delta table says the same, by key and column
    pin TABLE REASON      keep a version of a table readable; `unpin TABLE` lets it go
    vacuum [TABLE]        what the next maintenance would remove, and what it keeps and why
    retention [TABLE]     what has expired and would go with the next maintenance
    forget TABLE KEY REASON  erase all that is kept of one subject
    backup                back up every table and database, and prove it; `prove` does the latter for all of a backup
    restore TABLE         put a table back as it was in a backup; `restore-all` all of them
    rollback TABLE REASON let a table be what it was at a version
    rollback-model        let the champion before this one forecast again
    summary               what is in the lake
    metrics               runs, tables, topics, services as Prometheus text; --port serves them
    connector NAME PKG    install one of Airbyte's connectors in a virtual environment of its own
    doctor                whether the places that the settings name are there and safe to write
    start, stop           Dagster's webserver and daemon in the background
    status                what runs here, schedules with their next and last runs, runs that wait or are under way
    health                whether all is well: places, services, daemons, schedules, last runs, age of the tables
    init                  switch on the schedules and sensors of this environment
    schedules [NAME]      list them, or switch one with --on 1 or --on 0
    logs [RUN]            what a run's event log says, and what its steps printed
    dashboard             pages for people, on 127.0.0.1
    impact                what a change does to the graph, and what it breaks

Errors are one sentence with the remedy, and exit code 2; `LAKEHOUSE_LOG_FORMAT=json` makes the logs machine-readable.
"""

import gc
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse.core.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.core.rules import Release

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_OWN_GC = gc.get_threshold()
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout")]


@app.command()
def trigger(
    job: Annotated[str, typer.Argument(help="job name, e.g. medallion_etl")],
    source_table: Annotated[str, typer.Option(help="bronze_to_silver: only this table")] = "",
    target_table: Annotated[str, typer.Option(help="bronze_to_silver: into this silver table")] = "",
    times: Annotated[int, typer.Option(min=1, help="so often, one run after the other")] = 1,
    as_json: Json = False,
) -> None:
    """Run a job in the foreground."""
    from lakehouse import runs

    code = runs.trigger(job, source_table=source_table, target_table=target_table, times=times, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def materialize(select: Annotated[str, typer.Argument(help='asset selection, e.g. key:"gold/vendas_diarias"')]) -> None:
    """Materialise a selection of assets in the foreground."""
    from lakehouse import runs

    raise typer.Exit(runs.materialize(select))


Table = Annotated[str, typer.Argument(help="a declared table, e.g. vendas")]
Accept = Annotated[str, typer.Option(help="quarantine: put offenders there; accept: take in all of it")]


@app.command()
def rebuild(
    table: Table,
    reason: Annotated[str, typer.Option(help="why it may pass the rules with action fail; without it they hold")] = "",
    action: Accept = "quarantine",
) -> None:
    """Compute a silver table again from all of bronze."""
    from lakehouse import repair

    raise typer.Exit(repair.rebuild(table, permission=_permission(reason, action) if reason else None))


@app.command()
def quarantine(
    table: Table,
    limit: Annotated[int, typer.Option(min=0, help="how many records")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per record")] = False,
) -> None:
    """List what is in quarantine. Personal columns are masked."""
    from lakehouse import repair

    raise typer.Exit(repair.show(table, limit=limit, as_json=as_json))


@app.command()
def redrive(table: Table) -> None:
    """Judge again what is in quarantine."""
    from lakehouse import repair

    raise typer.Exit(repair.redrive(table))


@app.command()
def release(
    table: Table, reason: Annotated[str, typer.Argument(help="why; kept in the commit")], action: Accept = "quarantine"
) -> None:
    """Take in the batch that a rule with action fail stops."""
    from lakehouse import repair

    raise typer.Exit(repair.release(table, _permission(reason, action)))


def _permission(reason: str, action: str) -> "Release":
    from lakehouse.core.errors import DeclarationError
    from lakehouse.core.rules import Release

    if action not in ("quarantine", "accept"):
        raise DeclarationError(f"There is no action {action[:40]!r}.", remedy="Use ACTION=quarantine or ACTION=accept.")
    return Release(reason, accept=action == "accept")


@app.command()
def compare(table: Table, place: Annotated[str, typer.Argument(help="another Delta table: a folder, or s3://...")]) -> None:
    """Compare a silver table with another Delta table, by key and column."""
    from lakehouse.compare import compare as run

    raise typer.Exit(run(table, place))


AnyTable = Annotated[str, typer.Argument(help="a table: vendas (silver), or gold/vendas_diarias")]
OfTable = Annotated[int, typer.Option("--version", help="which version of the table")]
At = Annotated[str, typer.Option(help="which backup: the beginning of its time, e.g. 20261121; the newest without it")]
Force = Annotated[int, typer.Option("--force", min=0, max=1, help="1 replaces what is there")]


@app.command()
def pin(table: AnyTable, reason: Annotated[str, typer.Argument(help="why it is kept")], version: OfTable = -1) -> None:
    """Keep a version of a table readable."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.pin(table, version, reason))


@app.command()
def unpin(table: AnyTable, version: OfTable = -1) -> None:
    """Let go of a pinned version."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.unpin(table, version))


@app.command()
def vacuum(table: Annotated[str, typer.Argument(help="only this table")] = "") -> None:
    """Print what the next maintenance would remove, and what it keeps and why."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.show_vacuum(table))


@app.command()
def retention(table: Annotated[str, typer.Argument(help="only this table")] = "") -> None:
    """Print what is older than its table declares, and would go with the next maintenance."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.show_retention(table))


@app.command()
def forget(
    table: Table,
    key: Annotated[str, typer.Argument(help="the subject's key")],
    reason: Annotated[str, typer.Argument(help="why; kept in ops/audit, without the key")],
) -> None:
    """Erase all that the lake, landing and backups say of one subject, and search for what is left."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.forget(table, key, reason))


@app.command()
def backup() -> None:
    """Back up every table and database, and prove it by restoring it to a scratch folder."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.backup())


@app.command()
def prove(at: At = "") -> None:
    """Restore all of a backup to a scratch folder, and compare."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.prove(at))


@app.command()
def restore(table: AnyTable, at: At = "", force: Force = 0) -> None:
    """Put a table back as it was in a backup."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.restore(table, at=at, force=bool(force)))


@app.command()
def restore_all(at: At = "", force: Force = 0) -> None:
    """Put every table of a backup back, and the databases that are not there."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.restore_all(at=at, force=bool(force)))


@app.command()
def rollback(
    table: AnyTable, reason: Annotated[str, typer.Argument(help="why; kept in the commit")], version: OfTable = -1
) -> None:
    """Let a silver or gold table be what it was at a version."""
    from lakehouse.maintenance import commands

    raise typer.Exit(commands.rollback(table, version, reason))


@app.command()
def rollback_model() -> None:
    """Let the former champion be the champion again, and score with it."""
    from lakehouse.rollback import rollback_model as run

    raise typer.Exit(run())


@app.command()
def summary() -> None:
    """Print every table with its version, rows and size, and where the report is."""
    from lakehouse import runs

    raise typer.Exit(runs.summary())


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="serve them instead of printing")] = 0,
    host: Annotated[str, typer.Option(help="where to listen")] = "127.0.0.1",
) -> None:
    """Print or serve what was measured, as Prometheus text."""
    from lakehouse.observability.prometheus import run
    from lakehouse.settings import load_settings

    if port:
        _long_lived()
    raise typer.Exit(run(load_settings().storage, host=host, port=port))


@app.command()
def doctor() -> None:
    """Look whether what the settings name is there and keeps what the lake relies on."""
    from lakehouse.doctor import examine

    raise typer.Exit(examine())


@app.command()
def start(
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the UI, on 127.0.0.1")] = 3000, as_json: Json = False
) -> None:
    """Start Dagster's webserver and daemon in the background, and return when they work."""
    from lakehouse.manage import processes

    raise typer.Exit(processes.start(port=port, as_json=as_json))


@app.command()
def stop(as_json: Json = False) -> None:
    """Stop what start has started, and its children."""
    from lakehouse.manage import processes

    raise typer.Exit(processes.stop(as_json=as_json))


@app.command()
def status(as_json: Json = False) -> None:
    """Print what runs here, the schedules with their next and last runs, and the runs that wait or are under way."""
    from lakehouse.manage.status import status as run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def health(as_json: Json = False) -> None:
    """Look whether all is well; exit code 1 when it is not."""
    from lakehouse.manage.health import health as run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def init(as_json: Json = False) -> None:
    """Switch on the schedules and sensors of this environment."""
    from lakehouse.manage import automation

    raise typer.Exit(automation.init(as_json=as_json))


@app.command()
def schedules(
    name: Annotated[str, typer.Argument(help="only this schedule or sensor")] = "",
    on: Annotated[int | None, typer.Option(min=0, max=1, help="1 switches it on, 0 off")] = None,
    as_json: Json = False,
) -> None:
    """List schedules and sensors, or switch one on or off."""
    from lakehouse.manage import automation

    raise typer.Exit(automation.schedules(name, on=None if on is None else bool(on), as_json=as_json))


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="a run's id, or how it begins; the newest run without it")] = "",
    as_json: Json = False,
) -> None:
    """Print what a run's event log says, and what its steps printed."""
    from lakehouse.manage import runlog

    raise typer.Exit(runlog.logs(run, as_json=as_json))


@app.command()
def dashboard(port: Annotated[int, typer.Option(min=1, max=65535, help="on 127.0.0.1")] = 8501) -> None:
    """Serve pages for people: what ran, quality, tables, sales, buses, models, alerts."""
    from lakehouse.dashboard.server import serve

    _long_lived()
    serve(port)


@app.command()
def impact(
    base: Annotated[str, typer.Option(metavar="REF", help="what is there")] = "main",
    head: Annotated[str, typer.Option(metavar="REF", help="what is to come; the working tree without it")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="for a pull request")] = False,
    as_json: Json = False,
    fail_on_breaking: Annotated[bool, typer.Option("--fail-on-breaking", help="exit code 1 when something breaks")] = False,
) -> None:
    """Compare two git refs: what of the graph is added, removed or changed, what is downstream of that, and what breaks."""
    from lakehouse.impact.command import impact as run

    code = run(base=base, head=head, markdown=markdown, as_json=as_json, fail_on_breaking=fail_on_breaking)
    raise typer.Exit(code)


@app.command()
def connector(
    name: Annotated[str, typer.Argument(help="as the connector is declared in lakehouse/tables/")],
    package: Annotated[str, typer.Argument(help="its package, e.g. airbyte-source-faker==7.0.2")],
    python: Annotated[str, typer.Option(help="a Python that the package works with, where this one is too new")] = sys.executable,
) -> None:
    """Install one of Airbyte's connectors."""
    from lakehouse.landing.connectors import install

    raise typer.Exit(install(name, package, python=python))


def _long_lived() -> None:
    """Python's own garbage collection again: what suits a short command would let a server grow."""
    gc.set_threshold(*_OWN_GC)


def main() -> int:
    """Entry point: own errors become a sentence on stderr and exit code 2."""
    from lakehouse.settings import load_env_file

    # Imports make hundreds of thousands of objects that stay: looking for garbage among them is a tenth of a short run.
    gc.set_threshold(100_000, 50, 100)
    try:
        if len(sys.argv) > 1 and "--help" not in sys.argv:
            load_env_file()
        app(standalone_mode=True)
    except LakehouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
