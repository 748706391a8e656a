"""Runtime: all that joins `core/` to Dagster.

Here: the IO manager, the lake as a resource, what steps of all layers share, freshness, console logs, the production
    instance's launcher and storage, and the one module that names private parts of Dagster.
Never: knows a layer, a source or a table.
"""
