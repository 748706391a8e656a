"""Dialect: how the CSV files and sheets of a source are written, from a look at one of them.

charset-normalizer says which encoding bytes are in, DuckDB's sniffer what is between the fields and where the names are. Here:
what is asked of them, and what of a header neither can know. Not here: reading (`landing/readers/files/`).
"""

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import duckdb

from lakehouse.core.engines.duckdb import DuckDBSession, literal
from lakehouse.core.errors import DeclarationError, UnreadableFileError
from lakehouse.landing.readers.files import excel
from lakehouse.landing.readers.files.causes import encoding_of
from lakehouse.landing.readers.files.packing import inner_name, opened, packing, unpack
from lakehouse.profile.personal import looks_personal
from lakehouse.tables.spec import Csv

_SAMPLE = 1 << 20
_AROUND = 1 << 12
_TAIL = 1 << 14
#: Rows of a sheet in which its names are looked for.
_TOP = 50


@dataclass(frozen=True)
class Dialect:
    """How files are written: None where that is as `Csv()`; `evidence` has a line for each guess."""

    kind: Literal["csv", "excel", ""] = ""
    csv: Csv | None = None
    sheet: str = ""
    evidence: tuple[str, ...] = field(default=())


def dialect_of(session: DuckDBSession, path: Path, *, sheet: str = "") -> Dialect:
    """What a file is written like, by its name and content.

    Args:
        sheet: of an Excel file; the first that has rows by default.

    Raises:
        UnreadableFileError: it cannot be unpacked, or no workbook is in it.
    """
    name, packed = packing(path.name)
    try:
        if packed == "zip":
            name = packing(inner_name(str(path)))[0]
        if packed and not (packed == "gzip" and name.endswith(".csv")):
            target = Path(session.folder, f"profiled-{Path(name).name}")
            unpack(str(path), packed, target)
            path, packed = target, ""
        if name.endswith(excel.ENDINGS):
            return _sheet(path, sheet)
        if name.endswith(".csv"):
            return _csv(session, path, zipped=packed == "gzip")
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFileError(f"{path.name} cannot be read: {error}", remedy="Give a file that is whole.") from error
    return Dialect()


def _csv(session: DuckDBSession, path: Path, *, zipped: bool) -> Dialect:
    with opened(str(path), "gzip" if zipped else "") as content:
        encoding, why, tail = _encoding(content)
    with opened(str(path), "gzip" if zipped else "") as content:
        sample = content.read(_SAMPLE)
    text = codecs.getincrementaldecoder(encoding or "utf-8-sig")("replace").decode(sample)
    text = text if len(sample) < _SAMPLE else text.rpartition("\n")[0]
    found = _sniffed(session, text)
    evidence = [why] if why else []
    csv = Csv(encoding=encoding or "utf-8")
    csv, notes = _separated(csv, found)
    evidence += notes
    lines = text.splitlines()
    skip = int(found.get("SkipRows") or 0)
    csv = replace(csv, skip=skip)
    if skip:
        evidence.append(f"the names are in line {skip + 1}: DuckDB's sniffer passes over {skip}")
    rows = [line.split(csv.delimiter) for line in lines[skip : skip + 1000]]
    width = len(found.get("Columns") or []) or (len(rows[0]) if rows else 0)
    if rows and not _is_header([cell.strip(f" {csv.quote}") for cell in rows[0]], rows[1:], found):
        csv = replace(csv, header=tuple(f"coluna_{number}" for number in range(1, width + 1)))
        evidence.append("the first line is a record, so the columns have no names yet: give them yours in header and columns")
    last = next((line for line in reversed(tail.decode(encoding or "utf-8", "replace").splitlines()) if line.strip()), "")
    if re.match(r"[\"';,\t| ]*(total|soma|subtotal)\b", last, re.IGNORECASE) and len(lines) > 2:
        csv = replace(csv, footer=1)
        evidence.append("the last line begins with a total")
    return Dialect("csv", csv if csv != Csv() else None, evidence=tuple(evidence))


def _encoding(content: IO[bytes]) -> tuple[str, str, bytes]:
    """The encoding of all of a file's bytes, empty for UTF-8; the evidence; and the last bytes."""
    decoder, read, tail = codecs.getincrementaldecoder("utf-8")(), 0, b""
    first = b""
    while chunk := content.read(_SAMPLE):
        first = first or chunk
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            begin = max(error.start - _AROUND, 0)
            sample = (tail + chunk)[begin : begin + len(tail) + 2 * _AROUND] if read else chunk[: 1 << 16]
            found = encoding_of(sample) or encoding_of(chunk)
            while rest := content.read(_SAMPLE):
                chunk = rest
            name = codecs.lookup(found).name if found else ""
            return name, f"its bytes are {name} to charset-normalizer" if name else "", (tail + chunk)[-_TAIL:]
        read += len(chunk)
        tail = (tail + chunk)[-_TAIL:]
    found = encoding_of(first[: 1 << 16])
    return (codecs.lookup(found).name, f"its bytes are {found} to charset-normalizer", tail) if found else ("", "", tail)


def _sniffed(session: DuckDBSession, text: str) -> dict[str, Any]:
    target = Path(session.folder, "sniffed.csv")
    target.write_text(text, encoding="utf-8", newline="")
    try:
        relation = session.connection.sql("FROM sniff_csv($1)", params=[literal(str(target))])
        rows = relation.fetchall()
    except duckdb.Error:
        return {}
    return dict(zip(relation.columns, rows[0], strict=True)) if rows else {}


def _separated(csv: Csv, found: dict[str, Any]) -> tuple[Csv, list[str]]:
    """The dialect with the sniffer's separator and quote, where something can be declared with them."""
    delimiter, quote = str(found.get("Delimiter") or ""), str(found.get("Quote") or "")
    evidence = []
    if len(found.get("Columns") or []) > 1 and delimiter != csv.delimiter:
        try:
            csv = replace(csv, delimiter=delimiter)
            evidence.append(f"{len(found['Columns'])} columns between `{delimiter}`, after DuckDB's sniffer")
        except DeclarationError:
            pass
    if quote == "'":
        csv = replace(csv, quote=quote)
        evidence.append("its texts are in single quotes")
    return csv, evidence


def _is_header(cells: Sequence[str], below: Sequence[Sequence[str]], found: dict[str, Any]) -> bool:
    """Whether cells are names: the sniffer compares types, which tells nothing where all columns are texts."""
    named = [cell for cell in cells if cell]
    if not named or len({*named}) < len(named) or looks_personal(named):
        return False
    if any(re.fullmatch(r"[-+\d.,/: ]+", cell) and not re.fullmatch(r"(19|20)\d\d", cell) for cell in named):
        return False  # a year may be a name, another number is a value
    if found.get("HasHeader"):
        return True
    again = Counter(cell.strip(' "') for row in below for cell in row)
    return not any(again[cell] for cell in named)


def _sheet(path: Path, wanted: str) -> Dialect:
    """The sheet that has rows, and in which of them the names are."""
    from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

    try:
        book = CalamineWorkbook.from_path(str(path))
        visible = [one.name for one in book.sheets_metadata if one.visible == SheetVisibleEnum.Visible]
        names = [wanted] if wanted else visible or book.sheet_names
        if wanted and wanted not in book.sheet_names:
            listed = ", ".join(map(repr, book.sheet_names))
            raise UnreadableFileError(f"{path.name} has no sheet {wanted!r}.", remedy=f"Give SHEET= as one of {listed}.")
        tops = {name: list(islice(book.get_sheet_by_name(name).iter_rows(), _TOP)) for name in names}
    except CalamineError as error:
        raise ValueError(str(error)) from error
    chosen = next((name for name in names if sum(_filled(row) > 0 for row in tops[name]) > 1), names[0] if names else "")
    rows = tops.get(chosen, [])
    widest = max(map(_filled, rows), default=0)
    skip = next((position for position, row in enumerate(rows) if _filled(row) >= max(0.8 * widest, 1)), 0)
    evidence = [f"its first row with {_filled(rows[skip])} of {widest} cells filled is row {skip + 1}"] if skip else []
    others = [name for name in visible if name != chosen]
    if others:
        evidence.append(f"of its sheets {chosen!r} has rows; not read: {', '.join(map(repr, others))}")
    named = chosen if wanted or (names and chosen != names[0]) else ""
    return Dialect("excel", Csv(skip=skip) if skip else None, sheet=named, evidence=tuple(evidence))


def _filled(row: Sequence[Any]) -> int:
    return sum(cell not in (None, "") for cell in row)
