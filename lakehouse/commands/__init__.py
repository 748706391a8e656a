"""Commands: all that a person types (docs/commands.md). `__main__.py` collects the `app` of each module.

Here: a function per command, with its arguments, what it prints, and the exit code that it returns.
Never: mechanics that an asset needs too; those are in the layers.
A module with an `app` imports Dagster and engines inside its functions, so `--help` and `stop` load neither.
"""
