"""Transforms of tables that need more than casts, renames and calculated columns.

One module per table, named by its spec's `transform`, with one function:

    def transform(frame: nw.LazyFrame) -> nw.LazyFrame

It gets the cast columns, returns them with its changes, and keeps every column that begins with an underscore. Written with
Narwhals, so that every engine runs it.
"""
