"""Calendars: dates and instants that Spark wrote in the calendar that was used before 1582, and would be read as others.

Spark says so in a Parquet file's footer (https://github.com/apache/spark, DataSourceUtils: `org.apache.spark.legacyDateTime`,
`org.apache.spark.legacyINT96`); versions before 3.0 wrote so always, for INT96 before 3.1. The calendars agree on dates since
1582-10-15, and Spark changes no instant since 1900: so a file that says so is read all the same where it has none before.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.store import files as stored

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_DATE = date(1582, 10, 15)
_FIRST_INSTANT = datetime(1900, 1, 1, tzinfo=UTC)
_VERSION, _ROW = b"org.apache.spark.version", b"org.apache.spark.sql.parquet.row.metadata"
_LEGACY = {False: (b"org.apache.spark.legacyDateTime", (3, 0)), True: (b"org.apache.spark.legacyINT96", (3, 1))}
_AT_ONCE = 8


def old_value(uris: Sequence[str], *, dated: bool) -> str:
    """A value that would be read as another, as `column of file`; empty where no file has one.

    Args:
        dated: whether the table has dates or instants at all; without, no file is opened.

    Raises:
        BrokenTableError: a file is no Parquet.
        FileNotFoundError: a file is gone.
    """
    if not dated or not uris:
        return ""
    with ThreadPoolExecutor(min(_AT_ONCE, len(uris))) as pool:
        return next((found for found in pool.map(_old_value, uris) if found), "")


def _old_value(uri: str) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with stored.opened(uri) as content:
        try:
            file = pq.ParquetFile(content, coerce_int96_timestamp_unit="us")
            legacy = _legacy(file.metadata.metadata or {})
            leaves = [file.metadata.schema.column(position) for position in range(file.metadata.num_columns)] if legacy else []
            old_forms = {leaf.path.partition(".")[0] for leaf in leaves if (leaf.physical_type == "INT96") in legacy}
            for field in file.schema_arrow:
                if field.name in old_forms and _dated(field.type):
                    for batch in file.iter_batches(columns=[field.name]):
                        if any(_before(values) for values in _leaves(batch.column(0))):
                            return f"{field.name} of {uri}"
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise BrokenTableError(
                f"The data file {uri} is no Parquet file, or damaged.", remedy="Have its writer put it right."
            ) from error
    return ""


def _legacy(footer: Mapping[bytes, bytes]) -> set[bool]:
    """Whether INT96 (True) and other dates and instants (False) of a file are of the old calendar, each if it is in the set."""
    written = re.match(r"(\d+)\.(\d+)", footer.get(_VERSION, b"").decode("utf-8", "replace"))
    version = (int(written[1]), int(written[2])) if written else ((2, 0) if _ROW in footer else None)
    return {int96 for int96, (key, since) in _LEGACY.items() if key in footer or (version is not None and version < since)}


def _dated(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return True
    return any(_dated(kind.field(position).type) for position in range(kind.num_fields))


def _leaves(values: Any) -> "Iterator[pa.Array]":
    """The dates and instants within a column."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        yield values
    elif pa.types.is_map(kind):
        yield from _leaves(values.keys)
        yield from _leaves(values.items)
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            yield from _leaves(part)
    elif _dated(kind):
        yield from _leaves(values.values)


def _before(values: "pa.Array") -> bool:
    """Whether a value is before the calendars agree."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date(values.type):
        bound = pa.scalar(_FIRST_DATE, values.type)
    else:
        bound = pa.scalar(_FIRST_INSTANT if values.type.tz else _FIRST_INSTANT.replace(tzinfo=None), values.type)
    return bool(pc.any(pc.less(values, bound)).as_py())
