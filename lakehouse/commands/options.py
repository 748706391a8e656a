"""Arguments and options that several commands take, each with its help."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout")]
Table = Annotated[str, typer.Argument(help="a declared table, e.g. vendas")]
AnyTable = Annotated[str, typer.Argument(help="a table: vendas (silver), or gold/vendas_diarias")]
OnlyTable = Annotated[str, typer.Argument(help="only this table")]
Version = Annotated[int, typer.Option("--version", help="which version of the table")]
Reason = Annotated[str, typer.Argument(help="why; kept in the commit")]
