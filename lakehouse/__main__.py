"""The command line: `python -m lakehouse <command>`, or `lakehouse <command>` where the package is installed. Make calls it.

Each module below declares its commands in its `app`; `--help` lists them (docs/commands.md). A command is a function that
returns its exit code. Errors are one sentence with the remedy, and exit code 2; `LAKEHOUSE_LOG_FORMAT=json` makes the logs
machine-readable.
"""

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from lakehouse.core.errors import LakehouseError
from lakehouse.core.processes import short_lived

if TYPE_CHECKING:
    import typer

    app: typer.Typer
    COMMANDS: dict[str, tuple[ModuleType, ...]]

#: The modules with an `app`, by the heading under which `--help` lists their commands.
MODULES = {
    "Set-up": ("commands.doctor", "commands.connectors"),
    "Use": ("commands.first_run", "commands.runs", "commands.sql", "dashboard.server", "commands.metrics"),
    "Tables": ("commands.table", "commands.connect", "commands.adopt", "commands.tables", "commands.compare"),
    "History": ("commands.diff", "commands.replay"),
    "Maintenance": ("commands.maintenance", "commands.backups", "commands.models"),
    "Dagster": ("commands.instance.cli",),
    "Develop": ("commands.sync", "commands.impact.command", "commands.branch"),
}
#: A question is answered in less time than Typer and the modules of all commands take to load.
ALONE = {"sql": "ask.command"}
#: They read declarations and files only.
WITHOUT_INSTANCE = ("sync", "lake-file", *ALONE)


def exit_with(code: int | None) -> None:
    """End with what a command returned."""
    import typer

    raise typer.Exit(code or 0)


@cache
def commands() -> dict[str, tuple[ModuleType, ...]]:
    """The modules of all commands, by heading."""
    return {heading: tuple(map(_module, names)) for heading, names in MODULES.items()}


@cache
def command_line() -> "typer.Typer":
    """All commands."""
    import typer

    made = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, result_callback=exit_with)
    for heading, modules in commands().items():
        for module in modules:
            for command in module.app.registered_commands:
                command.rich_help_panel = heading
            made.add_typer(module.app)
    return made


def main() -> int:
    """Entry point: own errors become a sentence on stderr and exit code 2."""
    short_lived()
    words = sys.argv[1:]
    first = words[0] if words else ""
    try:
        if first in ALONE and not {"--help", "--at"} & {*words}:  # a moment may be a run, which Dagster knows
            return int(_module(ALONE[first]).main(words[1:]))
        if words and "--help" not in words and first not in WITHOUT_INSTANCE:
            from lakehouse.settings import load_env_file

            load_env_file()
        command_line()(standalone_mode=True)
    except LakehouseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lakehouse.{name}")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """`app` and `COMMANDS`, for whoever wants all of them; loaded when asked for."""
        if name not in ("app", "COMMANDS"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return command_line() if name == "app" else commands()


if __name__ == "__main__":
    sys.exit(main())
