"""Delta's statistics of a staged file's columns: what an engine found in the Parquet footer, as the log may hold it."""

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.table.snapshot import DataFile, stats_json

_TEXT_STAT = 32
#: The first and last millisecond, since 1970, that Delta's readers can hold: of the years 1 and 9999.
MILLIS = (-62_135_596_800_000, 253_402_300_799_999)
LAST_CODE_POINT = "\U0010ffff"


def data_file(partition: Mapping[str, str], *, size: int, rows: int, statistics: Mapping[str, Mapping[str, Any]]) -> DataFile:
    """A file as the log will know it, with a name that no other has. `statistics` is `{column: column_statistic(...)}`.

    Args:
        partition: column and value; a day, in which nothing needs another spelling in a path. Empty in a table without.
    """
    below = "".join(f"{column}={value}/" for column, value in partition.items())
    name = f"{below}part-{uuid.uuid4()}.zstd.parquet"
    nulls = {column: stat["nulls"] for column, stat in statistics.items() if stat["nulls"] is not None}
    low, high = ({c: s[end] for c, s in statistics.items() if s.get(end) is not None} for end in ("low", "high"))
    return DataFile(name, size, rows, low, high, stats_json(rows, statistics), nulls, dict(partition) or None)


def parts(values: Sequence[Any], *, folder: str, partition: str) -> dict[Any, dict[str, str]]:
    """`{value: {column: text}}` of the values of a partition column.

    Raises:
        RefusedWriteError: one is null: its rows would be in no partition.
    """
    if None in values:
        raise RefusedWriteError(
            f"Rows for {folder} have no {partition!r}, by which the table is partitioned.",
            remedy="Let a rule of the table, or a condition of the mart, keep them out.",
        )
    return {value: {partition: str(value)} for value in values}


def column_statistic(
    kind: str, low: Any, high: Any, *, nulls: int | None, empty: bool = False, exact: bool = True
) -> dict[str, Any]:
    """`min`, `max`, `nulls` for the log, and `low`, `high` as Python values. Absent where Delta allows no bound.

    Args:
        low, high: the bounds as Python values of the spec type; None where the footer has none, or one that is of no use.
        empty: every value is null.
        exact: `high` is the greatest value, not cut off.
    """
    bounds: dict[str, Any] = {"min": low, "max": high, "low": low, "high": high}
    if low is None or high is None:
        # No bounds are kept of long texts, and deltalake's pyarrow dataset finds no row by a column without bounds.
        bounds = {"min": "", "max": LAST_CODE_POINT} if kind == "string" and not empty else {}
    elif kind == "double":
        # JSON has no infinity. -0.0 and 0.0 are equal, but not to a reader that prunes by total order.
        low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
        finite = math.isfinite(low) and math.isfinite(high)
        bounds = {"min": low, "max": high, "low": low, "high": high} if finite else {}
    elif kind == "boolean":
        bounds = {"min": low, "max": high}
    elif kind == "timestamp":
        # Rounded up; the last millisecond that there is cannot be (readers that follow the protocol add one).
        last = high if high.year == dt.MAXYEAR else high + dt.timedelta(microseconds=999)
        bounds |= {"min": _millis(low), "max": _millis(last)}
    elif kind == "date":
        bounds |= {"min": low.isoformat(), "max": high.isoformat()}
    elif kind == "string":
        low = low[:_TEXT_STAT]
        high = high if exact and len(high) <= _TEXT_STAT else high[:_TEXT_STAT] + LAST_CODE_POINT
        bounds = {"min": low, "max": high, "low": low, "high": high}
    return {"nulls": nulls, **bounds}


def _millis(instant: dt.datetime) -> str:
    return instant.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
