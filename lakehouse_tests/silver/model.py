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


def history(
    records: Iterable[Row], *, key: Sequence[str], order: Sequence[str], columns: Sequence[str], tracked: Sequence[str]
) -> list[Row]:
    """The rows of the history: what the newest record up to each instant reports, where that is something else than before.

    Args:
        records: accepted records with typed values, `_extracted_at`, `_deleted` and `_instant`.
        order: as of `newest`.
        columns: all silver columns.
        tracked: the columns of which a change opens a version.
    """
    rest = [name for name in columns if name not in (*key, *order, "_extracted_at")]
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for record in records:
        by_key.setdefault(tuple(record[name] for name in key), []).append(record)
    rows: list[Row] = []
    for those in by_key.values():
        versions: list[Row] = []
        known: tuple[Any, ...] | None = None
        for instant in sorted({record["_instant"] for record in those}):
            until = [record for record in those if record["_instant"] <= instant]
            now = max(until, key=lambda r: (_rank(r, order), r["_extracted_at"], r["_deleted"], _rank(r, rest)))
            reported = None if now["_deleted"] else tuple(now[name] for name in tracked)
            if reported == known:
                continue
            if known is not None:
                versions[-1] |= {"valid_to": instant, "is_current": False}
            if reported is not None:
                interval = {"valid_from": instant, "valid_to": None, "is_current": True, "version": len(versions) + 1}
                versions.append({**{name: now[name] for name in columns}, **interval})
            known = reported
        rows += versions
    return rows
