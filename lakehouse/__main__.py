"""The command line: `python -m lakehouse <command>`, or `lakehouse <command>` where the package is installed. Make calls it.

Each module below declares its commands in its `app`; `--help` lists them (docs/commands.md). A command is a function that
returns its exit code. Errors are one sentence with the remedy, and exit code 2; `LAKEHOUSE_LOG_FORMAT=json` makes the logs
machine-readable.
"""

import sys

import typer

from lakehouse.commands import (
    adopt,
    backups,
    branch,
    compare,
    connect,
    connectors,
    doctor,
    maintenance,
    metrics,
    models,
    replay,
    runs,
    sync,
    table,
    tables,
)
from lakehouse.commands.impact import command as impact
from lakehouse.commands.instance import cli as instance
from lakehouse.core.errors import LakehouseError
from lakehouse.core.processes import short_lived
from lakehouse.dashboard import server as dashboard
from lakehouse.settings import load_env_file

#: The modules with an `app`, by the heading under which `--help` lists their commands.
COMMANDS = {
    "Set-up": (doctor, connectors),
    "Use": (runs, dashboard, metrics),
    "Tables": (table, connect, adopt, tables, compare, replay),
    "Maintenance": (maintenance, backups, models),
    "Dagster": (instance,),
    "Develop": (sync, impact, branch),
}
#: They read declarations and files only.
WITHOUT_INSTANCE = ("sync",)


def exit_with(code: int | None) -> None:
    """End with what a command returned."""
    raise typer.Exit(code or 0)


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, result_callback=exit_with)
for heading, modules in COMMANDS.items():
    for module in modules:
        for command in module.app.registered_commands:
            command.rich_help_panel = heading
        app.add_typer(module.app)


def main() -> int:
    """Entry point: own errors become a sentence on stderr and exit code 2."""
    short_lived()
    words = sys.argv[1:]
    try:
        if words and "--help" not in words and words[0] not in WITHOUT_INSTANCE:
            load_env_file()
        app(standalone_mode=True)
    except LakehouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
