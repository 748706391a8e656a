"""Prepare: of every landed file one that the engine can read, the landed file itself wherever it can.

    name ─▶ unpacked (zstd, bz2, zip) ─▶ lines of JSON (Avro, an array) or CSV (Excel, a dialect) ─▶ its form, its header

What is made is in the session's folder. Streaming: memory does not grow with a file, but for an Excel sheet.
"""

import codecs
import errno
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import duckdb

from lakehouse.core.engines.duckdb import DuckDBSession, literal, text
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.readers.files import avro, causes, excel
from lakehouse.landing.readers.files.careful import LONGEST, CsvText, Piece
from lakehouse.landing.readers.files.forms import Prepared, Reject, TooMuchError, form_of, sentence
from lakehouse.landing.readers.files.packing import Packing, inner_name, opened, packing, unpack
from lakehouse.landing.readers.files.reading import Reading
from lakehouse.landing.readers.files.refused import Refused
from lakehouse.tables.spec import Csv

ENDINGS = {
    (".jsonl", ".ndjson", ".json"): "json",
    (".csv",): "csv",
    (".parquet",): "parquet",
    (".avro",): "avro",
    excel.ENDINGS: "excel",
}
#: So many bytes of files are made before what they hold is staged.
_MADE = 4_000_000_000
#: An array of JSON may have records so long, as a line may.
_ARRAY = "read_json_objects($1, format = 'array', maximum_object_size = 32000000, compression = 'none')"

#: What Python's readers raise for what is in a file.
UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, zlib.error)


def is_files_fault(error: BaseException) -> bool:
    """Whether it is not the disk's or the mount's: read again, the file may be whole."""
    return not isinstance(error, OSError) or error.errno in (None, errno.ENOENT, errno.EISDIR)


class Preparation:
    """The landed files of a batch, one after the other."""

    def __init__(
        self,
        session: DuckDBSession,
        reading: Reading,
        landing: str,
        rejects: list[Reject],
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self.session, self.reading, self.rejects = session, reading, rejects
        self.landing, self.instead = landing.rstrip("/"), instead or {}
        self.folder = Path(session.folder, "prepared")

    def batches(self, files: Sequence[LandedFile]) -> Iterator[list[Prepared]]:
        """Files that can be read, as many at once as there is room for what is made of them. The others are `rejects`."""
        ready: list[Prepared] = []
        size = 0
        for file in files:
            found = self._tried(file)
            if found is None:
                continue
            ready.append(found)
            if self.folder in Path(found.path).parents:
                size += Path(found.path).stat().st_size
            if size > _MADE:
                yield ready
                self.clear(ready)
                ready, size = [], 0
        if ready:
            yield ready
            self.clear(ready)

    def clear(self, files: Sequence[Prepared]) -> None:
        """Remove what was made of these files."""
        for file in files:
            if self.folder in Path(file.path).parents:
                Path(file.path).unlink(missing_ok=True)

    def _tried(self, file: LandedFile) -> Prepared | None:
        try:
            return self._prepared(file)
        except duckdb.Error as error:
            if not isinstance(error, duckdb.InvalidInputException):
                raise
            self.rejects.append(Reject(file.path, "readable_file", sentence(error)))
        except (*UNREADABLE, TooMuchError) as error:
            if not is_files_fault(error):
                raise
            self.rejects.append(Reject(file.path, "readable_file", sentence(error)))
        return None

    def _prepared(self, file: LandedFile) -> Prepared:
        path = self.instead.get(file.path, f"{self.landing}/{file.path}")
        name, packed = packing(file.path)
        kind = _kind(name)
        if packed == "zip":
            inner, again = packing(inner_name(path))
            if again:
                raise ValueError("It is packed twice: land it packed once.")
            kind, name = (_kind(inner), inner) if _kind(inner) else (kind, name)
        if kind is None:
            endings = ", ".join(ending for listed in ENDINGS for ending in listed)
            raise ValueError(f"Its name ends in none of {endings}, each with or without .gz, .zst, .bz2 or .zip.")
        if packed and not (packed == "gzip" and kind in ("csv", "json")):
            target = self._target()
            unpack(path, packed, target)
            path, packed = str(target), ""
        if kind == "parquet":
            return self._checked(Prepared(file, path, *form_of(path, "parquet", csv=Csv(), zipped=False)))
        if kind == "csv":
            return self._csv(file, path, packed)
        apart: tuple[Refused, ...] = ()
        source, target = path, self._target()
        if kind == "excel":
            excel.to_csv(path, target, sheet=self.reading.sheet, layout=self.reading.csv)
            path, kind = str(target), "csv"
        elif kind == "avro":
            with Refused(self._target(), file.path) as refused:
                avro.to_json_lines(path, target, refused)
            apart = (refused,)
            path = str(target)
        elif name.endswith(".json") and _is_array(path, packed):
            path, packed = self._array(path, packed, target), ""
        self._drop(source, unless=path)
        form, looks = form_of(path, "csv" if kind == "csv" else "json", csv=Csv(), zipped=packed == "gzip")
        found = Prepared(file, path, form, looks, hive=self.reading.parts(file.path), refused=apart)
        if form.beyond or looks.mixed:
            found = self.careful(found)
        return self._checked(found) if kind == "csv" else found

    def _csv(self, file: LandedFile, path: str, packed: Packing) -> Prepared:
        csv, zipped = self.reading.csv, packed == "gzip"
        if not csv.plain:
            made = self._checked(self._rewritten(file, path, csv, zipped=zipped), path, packed)
            self._drop(path, unless=made.path)
            return made
        try:
            form, looks = form_of(path, "csv", csv=csv, zipped=zipped)
            if any("\udc80" <= letter <= "\udcff" for letter in "".join(form.names)):
                raise ValueError("The first line is not a header.")  # noqa: TRY301
        except ValueError as error:
            self.folder.mkdir(parents=True, exist_ok=True)
            cause, _ = causes.of_dialect(self.session.connection, path, self.reading, zipped=zipped, folder=str(self.folder))
            raise ValueError(f"{error}{cause}") from error
        found = Prepared(file, path, form, looks, hive=self.reading.parts(file.path))
        self._checked(found, path, packed)
        return self.careful(found) if form.beyond or looks.mixed else found

    def _checked(self, file: Prepared, path: str = "", packed: Packing = "") -> Prepared:
        """The file, when its header is one of the table's.

        Args:
            path: the file as it landed, for a guess what it looks like; none for what has no dialect.
        """
        missing = self.reading.missing(file.form.names, file.file.path)
        if missing:
            folder = str(self.folder) if path else ""
            if folder:
                self.folder.mkdir(parents=True, exist_ok=True)
            reason = causes.of_header(
                self.session.connection,
                path or file.path,
                file.form.names,
                missing,
                reading=self.reading,
                zipped=packed == "gzip",
                folder=folder,
            )
            raise ValueError(reason)
        file.hive = self.reading.parts(file.file.path)
        return file

    # --- our own readers ---------------------------------------------------------------------------------------------

    def careful(self, file: Prepared) -> Prepared:
        """The same file with what is no record set aside, its records counted, and its lines ended in one way.

        Raises:
            TooMuchError: more of it is no records than can be kept.
        """
        if file.form.kind == "json":
            made = self._json(file)
        else:
            csv = Csv(delimiter=file.form.delimiter, quote=file.form.quote)
            made = self._rewritten(file.file, file.path, csv, zipped=file.form.zipped)
        return replace(made, hive=file.hive, refused=(*file.refused, *made.refused))

    def _rewritten(self, file: LandedFile, path: str, csv: Csv, *, zipped: bool) -> Prepared:
        """A CSV file in UTF-8 with a line of names, of a file in this dialect."""
        target = self._target()
        count = 0
        encoding = "utf-8-sig" if codecs.lookup(csv.encoding).name in ("utf-8", "ascii") else csv.encoding
        if causes.is_other_than(path, encoding, zipped=zipped):
            raise ValueError(f"It is UTF-8, and declared as {csv.encoding}: land it in one encoding, or leave encoding out.")
        with (
            Refused(self._target(), file.path) as refused,
            opened(path, "gzip" if zipped else "") as content,
            target.open("w", encoding="utf-8", newline="") as out,
        ):
            pieces = CsvText(TextIOWrapper(content, encoding, errors="surrogateescape", newline=""), csv)
            writer = _Writer(out, csv)
            if csv.header:
                writer.names(csv.header)
            for piece in pieces:
                if piece.kind == "header":
                    writer.names(piece.cells)
                elif not writer.width and piece.kind == "bad":
                    raise ValueError(f"The first line is not a header. {piece.reason}")
                elif piece.kind == "bad":
                    cause = ""
                    if "unicode" in piece.reason and encoding == "utf-8-sig":
                        line = piece.raw.encode("utf-8", "surrogateescape")
                        cause = causes.of_encoding(line, declared=self.reading.csv)
                    refused.add(piece.reason + cause, piece.raw.rstrip("\r\n"))
                elif piece.kind == "record" and not writer.record(piece):
                    refused.add(f"Line {piece.line}: it has a value in a column without a name.", piece.raw.rstrip("\r\n"))
                elif piece.kind == "record":
                    count += 1
        if not writer.width:
            raise ValueError("The first line is not a header.")
        form, looks = form_of(str(target), "csv", csv=Csv(delimiter=csv.delimiter, quote=csv.quote), zipped=False)
        return Prepared(file, str(target), form, looks, records=count, refused=(refused,))

    def _json(self, file: Prepared) -> Prepared:
        """JSON lines without those that are no text."""
        target = self._target()
        count = number = 0
        with (
            Refused(self._target(), file.file.path) as refused,
            opened(file.path, "gzip" if file.form.zipped else "") as content,
            target.open("wb") as out,
        ):
            while line := content.readline(LONGEST + 1):
                number += 1
                problem = _no_text(line)
                if problem:
                    refused.add(f"Line {number}: {problem}", line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))
                else:
                    out.write(line)
                    count += sum(bool(part.strip(b" ")) for part in line.rstrip(b"\r\n").split(b"\r"))
                while len(line) > LONGEST and not line.endswith(b"\n") and (rest := content.readline(LONGEST)):
                    line = line[:LONGEST] + rest[-1:]
        form, looks = form_of(str(target), "json", csv=Csv(), zipped=False)
        return Prepared(file.file, str(target), form, looks, records=count, refused=(refused,))

    def _array(self, path: str, packed: Packing, target: Path) -> str:
        """The elements of a JSON array as lines, each with its text as delivered but for line ends between its parts."""
        if packed:
            plain = self._target()
            unpack(path, packed, plain)
            path = str(plain)
        made = text(str(target))
        # A line end within a text of JSON is written as two other characters.
        line = "translate(json, chr(10) || chr(13), '  ') AS line"
        rows = self.session.connection.sql(f"SELECT {line} FROM {_ARRAY}", params=[[literal(path)]])  # nosec B608 # no values
        rows.create_view("array_lines")
        options = "FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x1f'"
        self.session.connection.execute(f"COPY (FROM array_lines) TO {made} ({options})")
        self.session.connection.execute("DROP VIEW array_lines")
        return str(target)

    def _target(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / uuid.uuid4().hex

    def _drop(self, path: str, *, unless: str) -> None:
        if path != unless and self.folder in Path(path).parents:
            Path(path).unlink()


class _Writer:
    """Records of a CSV file, without the columns at the end that have no name."""

    def __init__(self, out: IO[str], csv: Csv) -> None:
        self.out, self.csv, self.width, self.columns = out, csv, 0, 0

    def names(self, cells: Sequence[str]) -> None:
        self.columns = len(cells)
        self.width = next((position for position in range(len(cells), 0, -1) if cells[position - 1].strip()), 0)
        self._write([cell.strip() for cell in cells[: self.width]])

    def record(self, piece: Piece) -> bool:
        """Write a record; whether it is one."""
        if any(piece.cells[self.width :]):
            return False
        if self.width == self.columns and not (self.csv.quote and self.csv.quote in piece.raw) and piece.raw.strip("\r\n"):
            self.out.write(piece.raw.rstrip("\r\n") + "\n")
        else:
            self._write(piece.cells[: self.width])
        return True

    def _write(self, cells: Sequence[str]) -> None:
        quote = self.csv.quote
        special = (self.csv.delimiter, quote, "\n", "\r", " ")
        if quote and (len(cells) == 1 or any(mark in cell for cell in cells for mark in special)):
            cells = [f"{quote}{cell.replace(quote, quote * 2)}{quote}" for cell in cells]
        self.out.write(self.csv.delimiter.join(cells) + "\n")


def _kind(name: str) -> str | None:
    return next((kind for endings, kind in ENDINGS.items() if name.endswith(endings)), None)


def _is_array(path: str, packed: Packing) -> bool:
    """Whether a JSON file is one array; of lines each is an object."""
    with opened(path, packed) as content:
        return content.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _no_text(line: bytes) -> str:
    """Why a line of JSON is no text; empty when it is."""
    if len(line) > LONGEST:
        return f"Maximum line size of {LONGEST:,} bytes exceeded."
    if b"\x1f" in line:
        return "it has a control character."
    try:
        line.decode()
    except UnicodeDecodeError:
        return "Invalid unicode: it has bytes that are none in UTF-8."
    return ""
