"""Files that changed in place: what of a landed file is new, when its name was read before with other content.

    a table that is appended to   the old bytes are its beginning ─▶ its tail is read
                                  they are not, or nobody can know ─▶ it is refused, with what to do
    every other table             it is read again whole: silver knows the versions of a key, and the generations

What is cut off follows from `ops/landing_files` and the file alone, so a run that goes on after a kill cuts the same.
Here: bytes. Not here: what the records are (`landing/readers/`). Pure: no dagster.
"""

import codecs
import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lakehouse.core.ledger import PlannedFile
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.readers.files.forms import Reject
from lakehouse.tables.spec import Csv

_CHUNK = 1 << 20
#: Only of lines of text the end of what was read is the beginning of what is new.
_TEXT = (".jsonl", ".ndjson", ".json", ".csv")
_PACKED = (".gz", ".zst", ".bz2", ".zip")
_BEFORE = "It was read before with other content"
_READ = "was read before with other content"
_ANEW = "Nothing of it was taken in. Land what is new in it as a file of another name."


@dataclass
class Changed:
    """What becomes of files that were read before with other content.

    Args:
        tails: where on this machine the rest of a file is, by its landed path.
        done: landed paths that bring nothing new: their rest is a line end.
        refused: files of which nothing is taken in.
        notes: what was done, a sentence for each file.
    """

    tails: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    refused: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_read(self, files: Iterable[LandedFile]) -> list[LandedFile]:
        """Those of the files that hold something to read."""
        gone = self.done | {reject.path for reject in self.refused}
        return [file for file in files if file.path not in gone]


@dataclass(frozen=True)
class _Seen:
    """The first bytes of a file: their SHA-256, the last one of them, and whether they end between quotes."""

    digest: str
    last: bytes
    quoted: bool


class _RefusedError(Exception):
    """Why nothing of a file is taken in."""


def again(files: Iterable[LandedFile], earlier: Mapping[str, Sequence[PlannedFile]]) -> Changed:
    """Files that are read again whole, where they were read before."""
    return Changed(notes=[f"{file.path} {_READ}: it is read again whole" for file in files if file.path in earlier])


def tails(
    files: Iterable[LandedFile], earlier: Mapping[str, Sequence[PlannedFile]], *, landing: str, folder: str, layout: Csv
) -> Changed:
    """Cut off of each file what was taken in before.

    Args:
        earlier: by path, the contents of that path that were taken in.
        landing: absolute root that the files' paths are relative to.
        folder: where the tails are put, as files of the same form; it must be this run's own.
        layout: the declared dialect of CSV files.
    """
    out = Changed()
    for number, file in enumerate(file for file in files if file.path in earlier):
        source, target = Path(landing, file.path), Path(folder, f"{number}{Path(file.path).suffix.lower()}")
        try:
            begin = _cut(source, target, earlier[file.path], layout)
        except FileNotFoundError:  # whoever looks whether files changed meanwhile will find it gone
            out.done.add(file.path)
            continue
        except _RefusedError as error:
            out.refused.append(Reject(file.path, "readable_file", str(error)))
            out.notes.append(f"{file.path} {_READ}: it is refused")
            continue
        rest = file.size - begin
        out.notes.append(f"{file.path} has grown: of its {file.size:,} bytes the last {rest:,} are taken in")
        if rest:
            out.tails[file.path] = str(target)
        else:
            out.done.add(file.path)
    return out


def _cut(source: Path, target: Path, earlier: Sequence[PlannedFile], layout: Csv) -> int:
    """Write what a file has gained, a CSV's header before it; where in the file that begins.

    Raises:
        _RefusedError: nobody can know what it has gained.
    """
    name = source.name.lower()
    if name.endswith(_PACKED):
        raise _RefusedError(f"{_BEFORE}, and what a compressed file has gained cannot be known. {_ANEW}")
    if not name.endswith(_TEXT):
        raise _RefusedError(f"{_BEFORE}, and only of JSON lines and CSV what they have gained can be known. {_ANEW}")
    is_csv = name.endswith(".csv")
    if is_csv and not _may_grow(layout):
        raise _RefusedError(f"{_BEFORE}, and what a file with this Csv(...) has gained cannot be known. {_ANEW}")
    size = source.stat().st_size
    beginnings = _beginnings(source, sorted({file.size for file in earlier if file.size < size}))
    found = [file.size for file in earlier if file.size in beginnings and beginnings[file.size].digest == file.checksum]
    if not found:
        raise _RefusedError(f"{_BEFORE}, which is not the beginning of what it holds now. {_ANEW}")
    begin = max(found)
    if is_csv and beginnings[begin].quoted:
        raise _RefusedError(f"{_BEFORE}, which ended between quotes: its last record was not complete. {_ANEW}")
    with source.open("rb") as content:
        content.seek(begin)
        begin += _line_end(beginnings[begin].last, content.read(2))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            if is_csv:
                content.seek(0)
                out.write(_header(content))
            content.seek(begin)
            shutil.copyfileobj(content, out, _CHUNK)
    return begin


def _may_grow(layout: Csv) -> bool:
    """Whether the lines behind the end of what was read are records, below the names of the first line."""
    wide = codecs.lookup(layout.encoding).name.startswith(("utf-16", "utf-32"))  # a line end is more than a byte
    return layout.quote == '"' and not (layout.skip or layout.footer or layout.header or wide)


def _beginnings(source: Path, sizes: Sequence[int]) -> dict[int, _Seen]:
    """What the first so many bytes of a file are, for each size, in one reading."""
    found: dict[int, _Seen] = {}
    digest, last, quotes, at = hashlib.sha256(), b"", 0, 0
    with source.open("rb") as content:
        for size in sizes:
            while at < size and (chunk := content.read(min(_CHUNK, size - at))):
                digest.update(chunk)
                last, quotes, at = chunk[-1:], quotes + chunk.count(b'"'), at + len(chunk)
            if at == size:
                found[size] = _Seen(digest.copy().hexdigest(), last, quotes % 2 == 1)
    return found


def _line_end(last: bytes, after: bytes) -> int:
    """How many of the bytes `after` those that were read end their last line.

    Raises:
        _RefusedError: that line goes on.
    """
    if last == b"\r" and after[:1] == b"\n":
        return 1
    if last in (b"\n", b"\r"):
        return 0
    if after == b"\r\n":
        return 2
    if after[:1] in (b"\n", b"\r"):
        return 1
    raise _RefusedError(f"{_BEFORE}, which ended within a line: its last record was read before it was complete. {_ANEW}")


def _header(content: IO[bytes]) -> bytes:
    """A CSV's first record with its line end; one between quotes does not end it."""
    head, quoted = bytearray(), False
    while byte := content.read(1):
        head += byte
        quoted ^= byte == b'"'
        if byte in (b"\r", b"\n") and not quoted:
            break
    if head.endswith(b"\r") and content.read(1) == b"\n":
        head += b"\n"
    return bytes(head)
