"""Output: an answer as a table for people, or as CSV, JSON or Parquet for programs.

DuckDB writes the three itself, to a file in the connection's scratch folder, so that an answer of any size needs little memory.
"""

import shutil
import sys
from typing import BinaryIO, Literal, cast, get_args

from lakehouse.ask.connection import Answer, LakeConnection
from lakehouse.ask.statement import StatementError
from lakehouse.core.errors import DeclarationError

Format = Literal["table", "csv", "json", "parquet"]
_OPTIONS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY", "parquet": "FORMAT parquet, COMPRESSION zstd"}
#: Rows of a table that are shown; the line below it has the number of all.
_ROWS = 40
_WIDE = 200


def check_format(name: str) -> Format:
    """Return `name` if it is a format.

    Raises:
        DeclarationError: it is none.
    """
    known = get_args(Format)
    if name not in known:
        raise DeclarationError(f"There is no format {name[:40]!r}.", remedy=f"Use one of {', '.join(known)}.")
    return cast("Format", name)


def write(lake: LakeConnection, answer: Answer, form: Format, out: BinaryIO) -> None:
    """Write an answer: a table to stdout, everything else to a stream of bytes.

    Raises:
        StatementError: it cannot be computed, or Parquet was to be shown on a terminal.
    """
    if form == "table":
        answer.show(rows=_ROWS, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE)
        return
    if form == "parquet" and out.isatty():
        raise StatementError("Parquet is no text.", remedy="Redirect it: make sql Q='…' FORMAT=parquet > rows.parquet")
    file = lake.exported(answer, _OPTIONS[form])
    try:
        with file.open("rb") as content:
            shutil.copyfileobj(content, out)
        out.flush()
    finally:
        file.unlink()
