"""`python -m lakehouse sql`, answered before the modules of the other commands are loaded: its options, by the standard library.

`commands/sql.py` declares the same options for `--help`; Typer alone takes as long to load as a small question to answer.
"""

import argparse
import sys
from collections.abc import Sequence

from lakehouse.ask.catalogue import load_catalogue
from lakehouse.ask.connection import LakeConnection
from lakehouse.ask.instant import Versions, as_of
from lakehouse.ask.output import check_format, write


def options() -> argparse.ArgumentParser:
    """The options of `sql`."""
    parser = argparse.ArgumentParser(prog="python -m lakehouse sql")
    parser.add_argument("--query", "-q", default="")
    parser.add_argument("--format", default="table")
    parser.add_argument("--at", default="")
    parser.add_argument("--personal", type=int, choices=(0, 1), default=0)
    return parser


def main(words: Sequence[str]) -> int:
    """Answer what the words of a command line ask for."""
    given = options().parse_args(words)
    return ask(given.query, form=given.format, at=given.at, personal=bool(given.personal))


def ask(query: str, *, form: str, at: str, personal: bool, versions: Versions | None = None) -> int:
    """Print the answer to one statement, or to those of a shell.

    Args:
        versions: what `at` stands for, where that is known.

    Raises:
        LakehouseError: an option, the statement or a table is wrong; the shell itself prints the latter two.
    """
    chosen, catalogue = check_format(form), load_catalogue()
    if at and versions is None:
        versions = as_of(catalogue.storage, at)
    with LakeConnection(catalogue, versions=versions, personal=personal) as lake:
        if query.strip():
            write(lake, lake.sql(query), chosen, sys.stdout.buffer)
            return 0
        from lakehouse.ask.shell import Shell

        return Shell(lake, form=chosen, at=at).run()
