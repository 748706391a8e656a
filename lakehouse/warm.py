"""What every step of a run imports, for the process that steps are forked from. Imported for nothing else."""

import dbt.cli.main  # noqa: F401
import deltalake  # noqa: F401
import duckdb  # noqa: F401
import narwhals  # noqa: F401
import sqlalchemy  # noqa: F401

import lakehouse.bronze.ingest
import lakehouse.definitions
import lakehouse.silver.refresh  # noqa: F401
