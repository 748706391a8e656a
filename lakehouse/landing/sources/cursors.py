"""Cursors: how far complete extractions of a stream came, as the names of its landed files have it.

    <newest>_<digest>[_until_<cursor>].parquet     both instants (20240131T093000000000), or both whole numbers (n1042)

A file's name tells which records it may contain, so that an extraction looks for records that landed before in few files. A
name of another kind, or of another writer, tells nothing: such a file may contain any record.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, overload

from lakehouse.core.engines.duckdb import bounded, quoted
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.sources.catalogue import CursorKind
from lakehouse.landing.sources.window import Point

_INSTANT = "%Y%m%dT%H%M%S%f"
_POINT = r"\d{8}T\d{12}|n-?\d{1,38}"
_NAME = re.compile(rf"(?P<newest>{_POINT})_[0-9a-f]{{32}}(_until_(?P<until>{_POINT}))?\.parquet")
#: In a name: the file contains a record without a readable instant or number, which is delivered every time.
UNDATED = datetime(9999, 12, 31, tzinfo=UTC)


@overload
def cursor(landed: Iterable[LandedFile]) -> datetime | None: ...
@overload
def cursor(landed: Iterable[LandedFile], kind: CursorKind) -> Point | None: ...
def cursor(landed: Iterable[LandedFile], kind: CursorKind = "instant") -> Point | None:
    """How far complete extractions have come: the newest instant or number of the cursor field; None before the first."""
    found = [until for file in landed if (until := _points(file)[1]) is not None and _is(kind, until)]
    return max(found, default=None)


def with_points_from(landed: Sequence[LandedFile], oldest: Point | None) -> list[LandedFile]:
    """The landed files that may have a record of that instant or number or a later one, or of none."""
    return [file for file in landed if oldest is None or _may_reach(_points(file)[0], oldest)]


def point_sql(kind: CursorKind, field: str, names: Sequence[str]) -> str:
    """SQL of a record's instant or number; null where it has none that can be read."""
    if field not in names:
        return f"CAST(NULL AS {'TIMESTAMPTZ' if kind == 'instant' else 'HUGEINT'})"
    if kind == "number":  # DuckDB rounds where the text is not whole
        return f"CASE WHEN regexp_full_match({quoted(field)}, '-?[0-9]{{1,38}}') THEN TRY_CAST({quoted(field)} AS HUGEINT) END"
    return bounded(f"TRY_CAST({quoted(field)} AS TIMESTAMPTZ)", "timestamp")


def aggregate_sql(kind: CursorKind, function: str, point: str) -> str:
    """SQL of the first or last of those, as `read_point` takes it."""
    return f"epoch_us({function}({point}))" if kind == "instant" else f"{function}({point})"


def read_point(kind: CursorKind, value: Any) -> Point | None:
    """What that SQL returned."""
    if value is None:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) if kind == "instant" else int(value)


def stamp(point: Point) -> str:
    """An instant or a number as names have it."""
    if isinstance(point, int):
        return f"n{point}"
    found = point.astimezone(UTC)
    return f"{found.year:04}{found:%m%dT%H%M%S%f}"  # %Y leaves out leading zeros


def _points(file: LandedFile) -> tuple[Point | None, Point | None]:
    """Newest record of a landed file, and the cursor that it carries; None where its name does not tell."""
    found = _NAME.fullmatch(Path(file.path).name)
    newest, until = (_parsed(text) if text else None for text in found.group("newest", "until")) if found else (None, None)
    return newest, until


def _parsed(text: str) -> Point:
    return int(text[1:]) if text.startswith("n") else datetime.strptime(text, _INSTANT).replace(tzinfo=UTC)


def _is(kind: CursorKind, point: Point) -> bool:
    return isinstance(point, int) == (kind == "number")


def _may_reach(newest: Point | None, oldest: Point) -> bool:
    return newest is None or isinstance(newest, int) != isinstance(oldest, int) or newest >= oldest  # type: ignore[operator]
