"""Lakehouse: a Dagster asset graph from landed files to bronze, silver and gold Delta tables.

Start reading at `lakehouse.definitions` (the map), then `lakehouse.tables` (what is declared), then the layer you need.
Importing any module of this package does no I/O.
"""
