"""Ask: the lake's tables in SQL, at one consistent view, for reading only.

    statement ─▶ which tables it names ─▶ each opened at its version, a view over its files ─▶ DuckDB ─▶ frames, text, files

In: a statement, and what the declarations say of personal columns. Out: rows. Nothing here writes a table, and a statement
that would write, load or open anything else is refused before it runs.
Run it alone: `make sql Q='select count(*) from silver.vendas'`.
"""
