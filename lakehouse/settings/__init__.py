"""Settings: the only reader of the environment; what an environment decides; how often a step is tried again.

The settings and the declarations behind them are loaded when one of their names is first asked for.
"""

from typing import TYPE_CHECKING

from lakehouse.settings.light import derived_folder, process_environment, project_folder, settings_file

if TYPE_CHECKING:
    from lakehouse.settings.settings import (
        Settings,
        dagster_home,
        listed,
        load_env_file,
        load_settings,
        shipped,
    )

__all__ = [
    "Settings",
    "dagster_home",
    "derived_folder",
    "listed",
    "load_env_file",
    "load_settings",
    "process_environment",
    "project_folder",
    "settings_file",
    "shipped",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lakehouse.settings import settings

        return getattr(settings, name)
