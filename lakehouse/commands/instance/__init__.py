"""Manage: the commands that start, stop and look at a running lakehouse (docs/commands.md).

Here: Dagster's webserver and daemon as background processes, schedules and sensors, what ran, whether all is well, logs.
Comes from: Dagster's instance (SQLite or PostgreSQL alike), the definitions, the services that settings name.
Goes to: the terminal, or JSON for other programs. Never: computes or changes a table; prints a secret.
Rerun: a second `start` is refused, a second `init` or `stop` changes nothing.
"""
