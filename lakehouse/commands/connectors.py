"""`make connector`: one of Airbyte's connectors in a virtual environment of its own (docs/airbyte.md)."""

import sys
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def connector(
    name: Annotated[str, typer.Argument(help="as the connector is declared in lakehouse/tables/")],
    package: Annotated[str, typer.Argument(help="its package, e.g. airbyte-source-faker==7.0.2")],
    python: Annotated[str, typer.Option(help="a Python that the package works with, where this one is too new")] = sys.executable,
) -> int:
    """Install one of Airbyte's connectors in a virtual environment of its own."""
    from lakehouse.landing.assets.connectors import install

    return install(name, package, python=python)
