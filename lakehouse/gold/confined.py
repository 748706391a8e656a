"""A plugin of dbt-duckdb that closes the scratch database to all files but the lake's, before a model runs.

As a plugin, because dbt-duckdb repeats the `settings` of a profile on every cursor, which a locked configuration refuses, and
`config_options` are set before the database runs, when DuckDB refuses `allowed_directories`.
"""

from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin

from lakehouse.core.engines.duckdb import confine


class Plugin(BasePlugin):
    """Its configuration is `folders`: those that models may read, and the scratch folder."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        self.folders: list[str] = plugin_config["folders"]

    def configure_connection(self, conn: Any) -> None:
        conn.execute("SET GLOBAL TimeZone = 'UTC'")  # global: the cursors of the threads take it too
        confine(conn, self.folders)
