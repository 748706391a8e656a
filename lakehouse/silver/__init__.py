"""Silver: one row per key, typed, validated, deletes applied.

Here: one Delta table per declared table with its columns and `_extracted_at` (and of elements `_record_digest`), from bronze;
and beside it, where its record declares `history`, one with every version of its keys.
Comes from: bronze batches above the watermark in silver's own commit. Goes to: gold, ML, whoever queries.
Never: makes a row visible that violates a rule; brings a deleted row back; depends on the order of arrival.
Rerun: reads what is new; `make rebuild TABLE=<name>` computes everything again and gives the same table.
"""
