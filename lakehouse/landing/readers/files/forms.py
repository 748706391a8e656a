"""Forms: which prepared files one scan can read together, from a look at their bytes; and what cannot be read.

Here: Python's readers over single files. Not here: the engine (`scan.py`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Literal

from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.readers.files.careful import LONGEST, CsvText
from lakehouse.landing.readers.files.packing import MAGIC, opened
from lakehouse.tables.spec import Csv

if TYPE_CHECKING:
    from lakehouse.landing.readers.files.refused import Refused

Kind = Literal["json", "csv", "parquet"]
_GROUP = 1_000
#: The longest line that is read, in bytes: the first that holds a file's longest, else the last. DuckDB takes two buffers of
#: 16 such lines for a compressed file; with smaller buffers, and beyond a line that fills one, it loses records without a word.
_LINES = (1 << 21, 1 << 22, 1 << 23, 1 << 24, LONGEST)
_BUFFER = 16 * LONGEST
_CHUNK = 1 << 20
#: Fewer line ends than this in a chunk are long lines: DuckDB reads 2,048 at once, each several times over.
_FEW_LINES = 64
#: More are no columns: an object used as a map, or values taken for a header.
MAX_FIELDS = 2_000


@dataclass(frozen=True)
class Reject:
    """A delivered file of which nothing became a bronze row. Single records are in `Staged.broken`."""

    path: str
    rule: str
    reason: str
    record: str | None = None


@dataclass(frozen=True)
class Form:
    """What one scan can read: the same format and, for CSV and Parquet, the same columns of the same types.

    `beyond` are columns at the end that have no name.
    """

    kind: Kind
    zipped: bool = False
    line: int = _LINES[0]
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    beyond: int = 0


@dataclass(frozen=True)
class Text:
    """What a look at the bytes of a text file tells: upper bounds of its longest line, in bytes, and of its lines.

    `long` is whether many lines of a stretch of it may not fit into memory together, `mixed` whether its lines, or those within
    quotes, end in different ways.
    """

    longest: int = 0
    lines: int = 0
    size: int = 0
    long: bool = False
    mixed: bool = False


@dataclass
class Prepared:
    """A landed file as the engine can read it.

    Args:
        path: on this machine: the landed file itself, or one that was made of it and is in the session's folder.
        hive: values of its path, by column.
        records: how many our own reader has counted, where it has read the file.
        refused: those of the landed file that are none, and are not in the file at `path` any more.
    """

    file: LandedFile
    path: str
    form: Form
    text: Text
    hive: Mapping[str, str | None] = field(default_factory=dict)
    records: int | None = None
    refused: "tuple[Refused, ...]" = ()

    @property
    def most(self) -> int:
        """An upper bound of the records of a text file; 0 for others."""
        return self.text.lines - (self.form.kind == "csv") if self.records is None else self.records


class TooMuchError(Exception):
    """Files hold more than can be read from them; a file that does so alone is rejected."""


def groups(files: Iterable[Prepared]) -> Iterator[tuple[Form, list[Prepared]]]:
    """Files that one scan can read, at most so many at once."""
    by_form: dict[Form, list[Prepared]] = {}
    for file in files:
        by_form.setdefault(file.form, []).append(file)
    for form, members in by_form.items():
        for start in range(0, len(members), _GROUP):
            yield form, members[start : start + _GROUP]


def form_of(path: str, kind: Kind, *, csv: Csv, zipped: bool) -> tuple[Form, Text]:
    """The form of a file that the engine can read. One that cannot be read raises what Python's readers do."""
    if kind == "parquet":
        import pyarrow.parquet as pq

        schema = pq.read_schema(path).remove_metadata()
        return Form("parquet", names=_columns(schema.names), types=tuple(map(str, schema.types))), Text()
    text = _look(path, zipped=zipped, quote=csv.quote if kind == "csv" else "")
    if text.longest > _BUFFER:
        raise ValueError(f"A line in it is longer than {_BUFFER:,} bytes.")
    line = next((size for size in _LINES if text.longest <= size), LONGEST)
    if kind == "json":
        return Form("json", zipped, line), text
    # Only the names are read here: a bad byte further on is the matter of its record.
    with opened(path, "gzip" if zipped else "") as content:
        header = header_of(content, csv)
    # Excel writes the names of columns that hold nothing as empty ones at the end.
    filled = next((position for position in range(len(header), 0, -1) if header[position - 1]), 0)
    names = _columns(header[:filled])
    if not names:
        raise ValueError("The first line is not a header.")
    return Form("csv", zipped, line, names, delimiter=csv.delimiter, quote=csv.quote, beyond=len(header) - filled), text


def header_of(content: IO[bytes], csv: Csv) -> list[str]:
    """The names in the first line of a CSV file in UTF-8, without blanks around them.

    Raises:
        ValueError: it has none.
    """
    pieces = iter(CsvText(TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline=""), csv))
    first = next(pieces, None)
    if first is None or first.kind != "header":
        raise ValueError("The first line is not a header.")
    return [name.strip() for name in first.cells]


def _columns(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("Two of its columns have the same name.")
    if len(names) > MAX_FIELDS:
        raise ValueError(too_many(len(names)))
    return tuple(names)


def too_many(count: int) -> str:
    return f"It has {count:,} fields, more than {MAX_FIELDS:,}."


def _look(path: str, *, zipped: bool, quote: str) -> Text:
    """See a text file's bytes; a line end between quotes ends no line of a CSV file. Gives up at a line that nothing reads.

    Reads to the end, which gzip's checksum needs: DuckDB ignores it, and would take a flipped bit for data.
    """
    longest = without = lines = size = 0
    inside = long = False
    mark, last, ends_seen = quote.encode(), b"", [0, 0, 0]
    with opened(path, "gzip" if zipped else "") as content:
        chunk = content.read(_CHUNK)
        packed = next((name for magic, name in MAGIC.items() if chunk.startswith(magic)), "")
        if packed:
            within = f"It is {packed} within gzip."
            raise ValueError(within if zipped else f"Its content is {packed}, and its name does not say so.")
        while chunk and longest * _CHUNK <= _BUFFER:
            ends = _ends_line(chunk[: 1 << 16], inside, mark) or _ends_line(chunk, inside, mark) if mark else b"\n" in chunk
            without = 0 if ends else without + 1
            longest = max(longest, without)
            inside ^= bool(mark) and chunk.count(mark) % 2 == 1
            newlines, returns = chunk.count(b"\n"), chunk.count(b"\r")
            both = (chunk.count(b"\r\n") if returns else 0) + (last == b"\r" and chunk[:1] == b"\n")
            found = newlines + returns - both
            ends_seen = [ends_seen[0] + newlines - both, ends_seen[1] + returns - both, ends_seen[2] + both]
            lines += found
            long |= found < _FEW_LINES and len(chunk) == _CHUNK
            size += len(chunk)
            last, chunk = chunk[-1:], content.read(_CHUNK)
        if size and last not in (b"\n", b"\r"):
            lines += 1
    return Text((longest + 2) * _CHUNK, lines, size, long, mixed=sum(map(bool, ends_seen)) > 1)


def _ends_line(chunk: bytes, inside: bool, mark: bytes) -> bool:
    return any(b"\n" in part for number, part in enumerate(chunk.split(mark)) if (number % 2 == 1) == inside)


def sentence(error: BaseException) -> str:
    """The first line of an error, without this machine's folders."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(/[^\s\"':]+)+/", "", first)[:300]
