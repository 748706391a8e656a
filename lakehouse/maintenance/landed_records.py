"""Landed files without the records of one subject: rewritten in their own form, every other record as delivered.

JSON lines, a JSON array and CSV in its declared dialect; Parquet; Avro; each also packed. A line that cannot be read, and one of
a file without the subject's field, goes when it has the key as a word. A file that cannot be rewritten, such as an Excel
workbook, is refused by name. Pure.
"""

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from lakehouse.core.errors import LakehouseError, UnreadableFileError
from lakehouse.core.names import column_name
from lakehouse.landing.readers.files import avro, excel
from lakehouse.landing.readers.files.careful import LONGEST, CsvText
from lakehouse.landing.readers.files.packing import inner_name, opened, pack, packing, unpack
from lakehouse.landing.readers.files.reading import Reading

_DATA = "_airbyte_data"


@dataclass(frozen=True)
class Naming:
    """What makes a record one of the subject's: its field has this key.

    Args:
        fields: the field by its bronze name, for a record that has none of exactly the delivered name.
        exact: the delivered name.
    """

    fields: frozenset[str]
    key: str
    exact: str = ""

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Whether a delivered record names the subject, in its fields or in Airbyte's document."""
        for name, value in record.items():
            if name == _DATA:
                nested = _document(value)
                if isinstance(nested, Mapping) and self.is_in(nested):
                    return True
            elif self.is_field(name, record) and self.is_key(value):
                return True
        return False

    def is_field(self, name: str, record: Collection[str]) -> bool:
        """Whether a field of a record is the subject's."""
        return name == self.exact if self.exact in record else (column_name(name) or name) in self.fields

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


def without(source: Path, target: Path, naming: Naming, *, name: str, reading: Reading | None = None) -> int:
    """Write a landed file without the subject's records; how many these are. None of them, and nothing is written; nothing but
    them, and what is written may be empty.

    Args:
        name: the landed name, whose ending says the form.
        reading: what is declared of the files.

    Raises:
        UnreadableFileError: its form is not known, or it cannot be read or rewritten.
    """
    file = _File(source, target, naming, reading or Reading())
    try:
        return file.rewrite(name)
    except LakehouseError:
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UnreadableFileError(
            f"The landed file {name} cannot be read: {type(error).__name__}.",
            remedy="Remove it, or deliver it again whole, and run the command again.",
        ) from error


class _File:
    """One landed file, and where what is left of it goes."""

    def __init__(self, source: Path, target: Path, naming: Naming, reading: Reading) -> None:
        self.source, self.target, self.naming, self.reading = source, target, naming, reading

    def rewrite(self, name: str) -> int:
        ending, packed = packing(name)
        member = inner_name(str(self.source)) if packed == "zip" else ""
        if any(column in self.naming.fields and self.naming.is_key(value) for column, value in self.reading.parts(name).items()):
            self.target.write_bytes(b"")  # its path names the subject: all of it goes
            return 1
        path, rest = self.source, self.target
        if packed:
            path, rest = (self.target.with_name(f"{self.target.name}.{part}") for part in ("plain", "rest"))
        try:
            if packed:
                unpack(str(self.source), packed, path)
            count = self._split(name, member.lower() or ending, path)(str(path), rest)
            if packed and count and rest.stat().st_size:
                pack(rest, packed, self.target, member=member)
            elif packed and count:
                self.target.write_bytes(b"")
        finally:
            for made in (path, rest) if packed else ():
                made.unlink(missing_ok=True)
        return count

    def _split(self, name: str, ending: str, path: Path) -> Callable[[str, Path], int]:
        """What writes a file of this form without the subject's records."""
        if ending.endswith(excel.ENDINGS):
            return lambda source, _: self._workbook(name, source)
        if ending.endswith(".json"):
            with path.open("rb") as content:
                head = content.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()
            return self._array if head.startswith(b"[") else self._lines
        forms = {".csv": self._csv, ".parquet": self._parquet, ".avro": self._avro}
        return forms.get(Path(ending).suffix, self._lines)

    def _workbook(self, name: str, path: str) -> int:
        """Whether a workbook names the subject: no other program than Excel rewrites one as it was."""
        for row in excel.rows(path, sheet=self.reading.sheet, layout=self.reading.csv):
            if self.naming.is_in(row) or (not self._has(row) and self.naming.in_text(" ".join(row.values()))):
                raise UnreadableFileError(
                    f"The landed file {name} is an Excel workbook with records of the subject, and is not rewritten here.",
                    remedy="Remove these rows in Excel, or remove the file, and run the command again.",
                )
        return 0

    def _has(self, names: Mapping[str, Any]) -> bool:
        """Whether records with these fields say whom they are about."""
        return any(name == _DATA or self.naming.is_field(name, names) for name in names)

    def _lines(self, source: str, target: Path) -> int:
        with Path(source).open("rb") as content:
            known = any(isinstance(record, dict) and self._names_one(record) for record in map(_json, content))
        return self._filtered(source, target, lambda content: self._marked_lines(content, known=known))

    def _names_one(self, record: Mapping[str, Any]) -> bool:
        nested = _document(record.get(_DATA))
        return self._has({name: None for name in record if name != _DATA}) or (isinstance(nested, Mapping) and self._has(nested))

    def _marked_lines(self, content: IO[bytes], *, known: bool) -> Iterator[tuple[bytes, bool]]:
        for line in content:
            record = _json(line)
            readable = isinstance(record, dict) and known
            yield line, self.naming.is_in(record) if readable else self.naming.in_text(line.decode("utf-8", "replace"))

    def _csv(self, source: str, target: Path) -> int:
        return self._filtered(source, target, self._marked_records)

    def _marked_records(self, content: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
        csv, names = self.reading.csv, list(self.reading.csv.header)
        marked = content.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        content.seek(0)
        encoding = "utf-8-sig" if marked else csv.encoding
        encoder = codecs.getincrementalencoder(encoding)("surrogateescape")
        for piece in CsvText(TextIOWrapper(content, encoding, errors="surrogateescape", newline=""), csv):
            if len(piece.raw) >= LONGEST:
                raise ValueError("It has a line that is too long.")
            raw, mine = encoder.encode(piece.raw), False
            if piece.kind == "header":
                names = [name.strip() for name in piece.cells]
            elif piece.kind == "record" and self._has(dict.fromkeys(names)):
                mine = self.naming.is_in(dict(zip(names, piece.cells, strict=True)))
            elif piece.kind in ("record", "bad"):
                mine = self.naming.in_text(piece.raw)
            elif not self.naming.key.isdigit() and self.naming.in_text(piece.raw):
                raise ValueError("A line before or after its records names the subject.")
            yield raw, mine

    def _filtered(self, source: str, target: Path, split: Callable[[IO[bytes]], Iterator[tuple[bytes, bool]]]) -> int:
        with opened(source, "") as content:
            count = sum(1 for _, mine in split(content) if mine)
        if count:
            with opened(source, "") as content, target.open("wb") as out:
                out.writelines(raw for raw, mine in split(content) if not mine)
        return count

    def _array(self, source: str, target: Path) -> int:
        text = Path(source).read_text(encoding="utf-8-sig")
        elements = list(_elements(text))
        known = any(isinstance(value, dict) and self._names_one(value) for _, value in elements)
        others = []
        for raw, value in elements:
            readable = isinstance(value, dict) and known
            if not (self.naming.is_in(value) if readable else self.naming.in_text(raw)):
                others.append(raw)
        if len(others) < len(elements):
            lines = ",\n".join(others)
            target.write_text(f"[{lines}]\n" if others else "", encoding="utf-8", newline="")
        return len(elements) - len(others)

    def _parquet(self, source: str, target: Path) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            wanted = [name for name in names if name == _DATA or self.naming.is_field(name, names)]
            mask = []
            for batch in file.iter_batches(columns=wanted or None):
                if wanted:
                    mask += [not self.naming.is_in(row) for row in batch.to_pylist()]
                else:
                    mask += [not self.naming.in_text(" ".join(map(str, row.values()))) for row in batch.to_pylist()]
            if all(mask):
                return 0
            begin = 0
            with pq.ParquetWriter(target, file.schema_arrow) as out:
                for batch in file.iter_batches():
                    out.write_batch(batch.filter(pa.array(mask[begin : begin + batch.num_rows])))
                    begin += batch.num_rows
        return mask.count(False)

    def _avro(self, source: str, target: Path) -> int:
        import fastavro

        count = sum(1 for record, convert in avro.records(source) if self._is_mine(record, convert))
        if count:
            with Path(source).open("rb") as content:
                reader: Any = fastavro.block_reader(content)
                schema, codec = reader.writer_schema, str(reader.codec)
            rest = (record for record, convert in avro.records(source) if not self._is_mine(record, convert))
            with target.open("wb") as out:
                fastavro.writer(out, schema, rest, codec=codec)
        return count

    def _is_mine(self, record: Any, convert: Callable[[Any], Any]) -> bool:
        with suppress(avro.NoValueError):  # it is in quarantine, and is looked at as it is stored
            record = convert(record)
        return isinstance(record, dict) and self.naming.is_in(record)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _elements(text: str) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON array, each with its text."""
    decoder, blank = json.JSONDecoder(), re.compile(r"[ \t\r\n]*")

    def behind(position: int) -> int:
        found = blank.match(text, position)
        assert found is not None
        return found.end()

    position = behind(text.index("[") + 1)
    while text[position : position + 1] != "]":
        value, end = decoder.raw_decode(text, position)
        yield text[position:end], value
        position = behind(end)
        if text[position : position + 1] == ",":
            position = behind(position + 1)
        elif text[position : position + 1] != "]":
            raise ValueError("It is no whole JSON array.")


def _document(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return None
    return value
