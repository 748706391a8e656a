"""Gold: marts for people, computed by dbt on DuckDB and published as Delta.

Here: one asset that runs dbt once for whichever marts are asked for, and dbt's tests as asset checks.
Comes from: silver, as it is at one moment. Goes to: reports, dashboard, warehouse, ML.
Never: publishes a mart whose error-severity tests failed on the candidate; writes into a shared database file.
Rerun: a mart whose silver tables and models are unchanged is left as it is.
"""
