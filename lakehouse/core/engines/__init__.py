"""Engines: what computes. `session.py` is the seam; `duckdb.py` and `spark.py` are the two that implement it."""
