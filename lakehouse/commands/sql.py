"""`make sql [Q=…] [FORMAT=csv] [AT=2026-11-20] [PERSONAL=1]`: the lake in SQL, one question or a shell; `make lake-file`.

Exit code 0: answered; 2: refused, or it could not be answered; the sentence has what to do.
"""

import sys
from typing import Annotated

import typer

app = typer.Typer()
Personal = Annotated[int, typer.Option(min=0, max=1, help="1 shows personal columns, which are masked otherwise")]


@app.command()
def sql(
    query: Annotated[str, typer.Option("--query", "-q", help="one statement; else a shell, or stdin's")] = "",
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    at: Annotated[
        str, typer.Option(help="as it was then: 2026-11-20, 2026-11-20T14:30, a publication (p12), or as a run read it (3f2a9b)")
    ] = "",
    personal: Personal = 0,
) -> int:
    """Ask the lake in SQL: every table of every layer, as silver.vendas."""
    from lakehouse.ask.command import ask
    from lakehouse.commands.moments import versions_of
    from lakehouse.settings import load_settings

    versions = versions_of(load_settings().storage, at) if at else None
    return ask(query, form=form, at=at, personal=bool(personal), versions=versions)


@app.command()
def lake_file(
    layer: Annotated[str, typer.Option(help="only tables of these layers: silver,gold")] = "",
    personal: Personal = 0,
) -> int:
    """Write a DuckDB file with a view of every table, for DBeaver, Metabase and other programs that open DuckDB."""
    from lakehouse.ask.catalogue import load_catalogue
    from lakehouse.ask.lake_file import write_lake_file
    from lakehouse.core.errors import DeclarationError
    from lakehouse.core.names import DELTA_LAYERS

    layers = [name.strip() for name in layer.split(",") if name.strip()]
    if wrong := [name for name in layers if name not in DELTA_LAYERS]:
        raise DeclarationError(f"{wrong[0][:40]!r} is not a layer with tables.", remedy=f"Use {', '.join(DELTA_LAYERS)}.")
    catalogue = load_catalogue()
    written = write_lake_file(catalogue, catalogue.lake_file, layers=layers, personal=bool(personal))
    print(f"{written.file}: {len(written.versions)} tables, as silver.vendas. Open it read-only, with DuckDB 1.0 or newer.")
    for table, why in written.left_out.items():
        print(f"left out: {table}: {why}", file=sys.stderr)
    print(
        "It shows the tables as they are now. After a run, and at least once a week, write it again: make lake-file; "
        "then reconnect."
    )
    return 0
