"""Commands that Make calls: `python -m lakehouse <command>`.

    trigger JOB           run a job here and now; exit code 1 when a step or an error-severity check fails
    materialize SELECT    the same for an asset selection
    rebuild TABLE         compute a silver table again from all of bronze
    summary               what is in the lake

Errors are one sentence with the remedy; `LAKEHOUSE_LOG_FORMAT=json` makes the logs machine-readable.
"""

import sys
from typing import Annotated

import typer

from lakehouse.core.errors import LakehouseError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def trigger(
    job: Annotated[str, typer.Argument(help="job name, e.g. medallion_etl")],
    source_table: Annotated[str, typer.Option(help="bronze_to_silver: only this table")] = "",
    target_table: Annotated[str, typer.Option(help="bronze_to_silver: into this silver table")] = "",
) -> None:
    """Run a job in the foreground."""
    from lakehouse import runs

    raise typer.Exit(runs.trigger(job, source_table=source_table, target_table=target_table))


@app.command()
def materialize(select: Annotated[str, typer.Argument(help='asset selection, e.g. key:"gold/vendas_diarias"')]) -> None:
    """Materialise a selection of assets in the foreground."""
    from lakehouse import runs

    raise typer.Exit(runs.materialize(select))


@app.command()
def rebuild(table: Annotated[str, typer.Argument(help="a declared table, e.g. vendas")]) -> None:
    """Compute a silver table again from all of bronze."""
    from lakehouse import runs

    raise typer.Exit(runs.rebuild(table))


@app.command()
def summary() -> None:
    """Print every table with its version, rows and size, and where the report is."""
    from lakehouse import runs

    raise typer.Exit(runs.summary())


def main() -> int:
    """Entry point: own errors become a sentence on stderr and exit code 2."""
    from lakehouse.settings import load_env_file

    try:
        load_env_file()
        app(standalone_mode=True)
    except LakehouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
