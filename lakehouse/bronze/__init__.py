"""Bronze: every delivered record once, as the text that was delivered.

Here: one append-only Delta table per declared table, with `_source_file`, `_batch_id`, `_ingested_at` and Airbyte's columns.
Comes from: landing. Goes to: silver (by `_batch_id`), and the ledger in ops.
Never: types, drops or rewrites a record; commits a file twice.
Rerun: takes in what landed since; a run that was killed is finished by the next one.
"""
