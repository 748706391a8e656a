"""What a silver table must hold, computed in plain Python from the delivered records, with none of the code under test."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def _rank(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Values in the order of columns; null comes before everything."""
    return tuple((row[name] is not None, row[name] if row[name] is not None else 0) for name in names)


def newest(records: Iterable[Row], *, key: Sequence[str], order: Sequence[str], columns: Sequence[str]) -> list[Row]:
    """The rows of the table: per key the newest record, unless that is a deletion.

    Args:
        records: accepted records with typed values, `_extracted_at` and `_deleted`.
        order: declared order; extraction time, deletes over upserts, and the content follow.
        columns: all silver columns.
    """
    rest = [name for name in columns if name not in (*key, *order, "_extracted_at")]
    best: dict[tuple[Any, ...], tuple[Any, Row]] = {}
    for record in records:
        rank = (_rank(record, order), record["_extracted_at"], record["_deleted"], _rank(record, rest))
        at = tuple(record[name] for name in key)
        if at not in best or rank > best[at][0]:
            best[at] = (rank, record)
    alive = [record for _, record in best.values() if not record["_deleted"]]
    return sorted(({name: row[name] for name in columns} for row in alive), key=lambda row: _rank(row, columns))
