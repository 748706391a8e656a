"""Another name of `runtime/postgres.py`, for a `dagster.yaml` of before that module moved (docs/deployment.md)."""

from lakehouse.runtime.postgres import PostgresStorage

__all__ = ["PostgresStorage"]
