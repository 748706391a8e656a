"""Another name of `runtime/launcher.py`, for a `dagster.yaml` of before that module moved (docs/deployment.md)."""

from lakehouse.runtime.launcher import WatchedRunLauncher

__all__ = ["WatchedRunLauncher"]
