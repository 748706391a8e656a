"""Landed files without the records of one subject: rewritten in their own form, every other record byte for byte as delivered.

JSON lines and CSV, plain or gzip; Parquet; Avro. A line that cannot be read goes when it has the key as a word. Pure.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lakehouse.core.errors import UnreadableFileError
from lakehouse.core.names import column_name

_DATA = "_airbyte_data"


@dataclass(frozen=True)
class Naming:
    """What makes a record one of the subject's: one of these delivered fields (by their bronze names) has this key."""

    fields: frozenset[str]
    key: str

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Whether a delivered record names the subject, in its fields or in Airbyte's document."""
        for name, value in record.items():
            if name == _DATA:
                nested = _document(value)
                if isinstance(nested, Mapping) and self.is_in(nested):
                    return True
            elif (column_name(name) or name) in self.fields and self.is_key(value):
                return True
        return False

    def is_key(self, value: Any) -> bool:
        """Whether a delivered value is the key; 7.0 is 7."""
        text = "" if value is None else str(value).strip()
        return text == self.key or (self.key.isdigit() and re.fullmatch(rf"\+?0*{self.key}(\.0*)?", text) is not None)

    @property
    def word(self) -> str:
        """A regular expression that finds the key as a word."""
        return rf"(^|[^0-9A-Za-z_]){re.escape(self.key)}([^0-9A-Za-z_]|$)"

    def in_text(self, text: str) -> bool:
        """Whether a text that is no record has the key."""
        return re.search(self.word, text) is not None


def without(source: Path, target: Path, naming: Naming, *, name: str) -> int:
    """Write a landed file without the subject's records; how many these are. None of them, and nothing is written.

    Args:
        name: the landed name, whose ending says the form.

    Raises:
        UnreadableFileError: its form is not known, or it cannot be read.
    """
    ending = name.lower()
    try:
        if ending.endswith(".parquet"):
            return _parquet(source, target, naming)
        if ending.endswith(".avro"):
            return _avro(source, target, naming)
        split = _csv if re.search(r"\.csv(\.gz)?$", ending) else _lines
        with _opened(source, ending) as content:
            count = sum(1 for _, mine in split(content, naming) if mine)
        if count:
            with _opened(source, ending) as content, _made(target, ending) as out:
                out.writelines(raw for raw, mine in split(content, naming) if not mine)
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise UnreadableFileError(
            f"The landed file {name} cannot be read: {type(error).__name__}.",
            remedy="Remove it, or deliver it again whole, and run the command again.",
        ) from error
    return count


def _opened(path: Path, ending: str) -> IO[bytes]:
    return gzip.open(path, "rb") if ending.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _made(path: Path, ending: str) -> IO[bytes]:
    return gzip.open(path, "wb") if ending.endswith(".gz") else path.open("wb")  # type: ignore[return-value]


def _lines(content: IO[bytes], naming: Naming) -> Iterator[tuple[bytes, bool]]:
    for line in content:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        mine = naming.is_in(record) if isinstance(record, dict) else naming.in_text(line.decode("utf-8", "replace"))
        yield line, mine


def _csv(content: IO[bytes], naming: Naming) -> Iterator[tuple[bytes, bool]]:
    header: list[str] | None = None
    for raw in _csv_records(content):
        text = raw.decode("utf-8-sig" if header is None else "utf-8", "surrogateescape")
        cells = next(csv.reader(io.StringIO(text, newline="")), [])
        if header is None:
            header = cells
            yield raw, False
        elif len(cells) == len(header):
            yield raw, naming.is_in(dict(zip(header, cells, strict=True)))
        else:
            yield raw, naming.in_text(text)


def _csv_records(content: IO[bytes]) -> Iterator[bytes]:
    """Records of a CSV file; a line break within quotes does not end one."""
    lines: list[bytes] = []
    quotes = 0
    for line in content:
        lines.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield b"".join(lines)
            lines = []
    if lines:
        yield b"".join(lines)


def _parquet(source: Path, target: Path, naming: Naming) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    wanted = [name for name in file.schema_arrow.names if name == _DATA or (column_name(name) or name) in naming.fields]
    keep = [not naming.is_in(row) for batch in file.iter_batches(columns=wanted) for row in batch.to_pylist()]
    if not wanted or all(keep):
        return 0
    begin = 0
    with pq.ParquetWriter(target, file.schema_arrow) as out:
        for batch in file.iter_batches():
            out.write_batch(batch.filter(pa.array(keep[begin : begin + batch.num_rows])))
            begin += batch.num_rows
    return keep.count(False)


def _avro(source: Path, target: Path, naming: Naming) -> int:
    import fastavro

    with source.open("rb") as content:
        count = sum(1 for record in fastavro.reader(content) if isinstance(record, dict) and naming.is_in(record))
    if count:
        with source.open("rb") as content, target.open("wb") as out:
            reader = fastavro.reader(content)
            rest = (record for record in reader if not (isinstance(record, dict) and naming.is_in(record)))
            fastavro.writer(out, reader.writer_schema, rest, codec=str(reader.codec))
    return count


def _document(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return None
    return value
