"""Settings: the only reader of the environment; what an environment decides; how often a step is tried again."""

from lakehouse.settings.settings import (
    Settings,
    dagster_home,
    derived_folder,
    listed,
    load_env_file,
    load_settings,
    process_environment,
    project_folder,
    settings_file,
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
