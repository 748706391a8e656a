"""Refused: the records of one file that are none, kept whole beside it until its batch is written.

Here: a Parquet file that is written row by row. Not here: who refuses what.
"""

from pathlib import Path
from types import TracebackType
from typing import Any

import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession, literal
from lakehouse.landing.readers.files.forms import TooMuchError

#: A record is kept whole up to so many characters.
LONGEST_RECORD = 1_000_000
#: So many characters of a file's refused records are kept, at a thousand beside each.
MAX_REFUSED, REFUSED_EACH = 200_000_000, 1_000
COLUMNS = ("rules", "reason", "record", "source_file")
_ROWS = 10_000
_CHARACTERS = 10_000_000


class Refused:
    """Records of a landed file that are none. `count` of them are in the Parquet file `path`, with quarantine's `COLUMNS`."""

    def __init__(self, path: Path, source_file: str) -> None:
        self.path, self.source_file = path, source_file
        self.count = self._size = self._open = 0
        self._rows: list[tuple[str, str, str, str]] = []
        self._writer: Any = None

    def __enter__(self) -> "Refused":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._rows and error is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, reason: str, record: str) -> None:
        """Keep a record.

        Raises:
            TooMuchError: there are more than can be kept.
        """
        self._size += len(record) + REFUSED_EACH
        if self._size > MAX_REFUSED:
            raise TooMuchError("More of its lines are no records than can be kept one by one.")
        if len(record) > LONGEST_RECORD:
            reason += f" Of its {len(record):,} characters or more the first {LONGEST_RECORD:,} are kept."
            record = record[:LONGEST_RECORD]
        # Bytes that are no text in the file's encoding are shown as `\xe9`.
        record = record.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self._rows.append(("readable_record", reason, record, self.source_file))
        self.count += 1
        self._open += len(record)
        if len(self._rows) >= _ROWS or self._open >= _CHARACTERS:
            self._flush()

    def frame(self, session: DuckDBSession) -> "nw.LazyFrame[Any]":
        """The records, for as long as the session's folder is there."""
        return nw.from_native(session.connection.sql("FROM read_parquet($1)", params=[literal(str(self.path))]).select(*COLUMNS))

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = zip(*self._rows, strict=True)
        batch = pa.table({name: pa.array(values, pa.string()) for name, values in zip(COLUMNS, columns, strict=True)})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, batch.schema)
        self._writer.write_table(batch)
        self._rows, self._open = [], 0
