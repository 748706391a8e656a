"""Retries of steps that have a promise of their own, and are no table's of a source with a job (`tables/spec/job.py`)."""

from lakehouse.tables.spec import Retry

#: Checks of the warehouse, loads into it, and the notice that it was loaded.
VALIDATE, LOAD, NOTIFY = Retry(1, 30), Retry(3, 60), Retry(2, 30)
