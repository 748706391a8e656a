"""Profile: what anyone's file looks like, and the declaration that its table would have.

    file ─▶ dialect ─▶ trial (a lake of its own, read as bronze reads) ─▶ columns, key, order, rules ─▶ module and test as text

Here: guesses, each with its evidence, and the texts that are made of them. Whether a type fits is asked of the columns' own
casts (`Session.cast`); encodings and separators of charset-normalizer and of DuckDB's sniffer.
Never: Dagster, or a write outside of the folder that it is given. `commands/table.py` asks, writes and runs.
"""
