"""`make metrics`: what was measured of runs, tables, topics and services, as Prometheus text."""

from typing import Annotated

import typer

from lakehouse.core.processes import long_lived
from lakehouse.settings import load_settings

app = typer.Typer()


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="serve them instead of printing")] = 0,
    host: Annotated[str, typer.Option(help="where to listen")] = "127.0.0.1",
) -> int:
    """Print or serve what was measured of runs, tables, topics and services, as Prometheus text."""
    from lakehouse.observability.prometheus import run

    if port:
        long_lived()
    return run(load_settings().storage, host=host, port=port)
