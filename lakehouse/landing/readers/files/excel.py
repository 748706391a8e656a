"""Excel sheets (`.xlsx`, `.xlsm`) as CSV: what calamine reads of each cell, as text.

A number is a double to Excel: it is written with the fewest digits that mean it, so 19.989999999999998 in the file is 19.99. A
day or an instant is ISO text, an error such as `#N/A` the text that Excel shows. Rows without a value are none.
"""

import csv
import datetime as dt
import re
import zipfile
from collections import deque
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from lakehouse.tables.spec import Csv

ENDINGS = (".xlsx", ".xlsm")
#: More than this a workbook may not unpack to: calamine holds a sheet in memory.
_LARGEST = 1_000_000_000
_CHUNK = 1 << 20
_EXACT = 2**53
_CELL = re.compile(rb"<(?:\w+:)?c\s([^>]*)>((?:(?!</?(?:\w+:)?c[\s>]).){0,20000}?)<(?:\w+:)?v>([^<]*)</(?:\w+:)?v>", re.DOTALL)
_POSITION = re.compile(rb'\br="([A-Z]{1,3})(\d{1,7})"')
_DIGITS = 15


def to_csv(path: str, target: Path, *, sheet: str, layout: Csv) -> None:
    """Write a sheet as a CSV file in UTF-8, with a line of names.

    Args:
        sheet: its name; the first that is shown, when empty.
        layout: its `skip`, `footer` and `header` count in rows.

    Raises:
        ValueError: it is no workbook, or has no such sheet, or is too large; the message says what to do.
    """
    found = _rows(path, sheet, layout)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        names = list(layout.header) or next(found, [])
        width = next((position for position in range(len(names), 0, -1) if names[position - 1].strip()), 0)
        writer.writerow(names[:width])
        for row in found:
            # Cells right of the names are none when they are empty; else the record has a field too many.
            beyond = row[width:] if any(row[width:]) else []
            writer.writerow([*row[:width], *[""] * (width - len(row)), *beyond])


def rows(path: str, *, sheet: str, layout: Csv) -> Iterator[dict[str, str]]:
    """The records of a sheet by the names of its columns. Raises what `to_csv` does."""
    found = _rows(path, sheet, layout)
    names = list(layout.header) or [name.strip() for name in next(found, [])]
    for row in found:
        yield dict(zip(names, row, strict=False))


def _rows(path: str, sheet: str, layout: Csv) -> Iterator[list[str]]:
    """The rows with a value, without those that are skipped and those of the footer."""
    waiting: deque[list[str]] = deque()
    for row in islice(_texts(path, sheet), layout.skip, None):
        if any(row):
            waiting.append(row)
        if len(waiting) > layout.footer:
            yield waiting.popleft()


def _texts(path: str, sheet: str) -> Iterator[list[str]]:
    from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

    try:
        with zipfile.ZipFile(path) as packed:
            if sum(info.file_size for info in packed.infolist()) > _LARGEST:
                raise ValueError(f"It unpacks to more than {_LARGEST:,} bytes: land its sheet as CSV.")
        book = CalamineWorkbook.from_path(path)
        names = book.sheet_names
        shown = [found.name for found in book.sheets_metadata if found.visible == SheetVisibleEnum.Visible]
        if sheet and sheet not in names:
            raise ValueError(f"It has no sheet {sheet!r}, but {', '.join(map(repr, names))}.")
        chosen = sheet or next(iter(shown or names), "")
        if not chosen:
            raise ValueError("It has no sheet.")
        found = book.get_sheet_by_name(chosen)
        left = (found.start or (0, 0))[1]
        given = _as_written(path, chosen)
        for number, row in enumerate(found.iter_rows(), start=1):
            yield [given.get((number, left + position)) or _text(value) for position, value in enumerate(row)]
    except (CalamineError, zipfile.BadZipFile, NotImplementedError, KeyError, RuntimeError) as error:
        raise ValueError(f"It cannot be read as an Excel workbook: {str(error) or type(error).__name__}.") from error


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
    if isinstance(value, dt.timedelta):
        seconds = value // dt.timedelta(seconds=1)
        part = f".{value.microseconds:06}" if value.microseconds else ""
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}{part}"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return str(value)


def _as_written(path: str, sheet: str) -> dict[tuple[int, int], str]:
    """Texts of the cells that calamine does not give as they are, by row (from 1) and column (from 0): errors, which it leaves
    out, and numbers with more digits than a double has."""
    given: dict[tuple[int, int], str] = {}
    with zipfile.ZipFile(path) as packed, packed.open(_part(packed, sheet)) as content:
        text = b""
        while chunk := content.read(_CHUNK):
            text += chunk
            end = text.rfind(b"</row>") + 6 if b"</row>" in text else 0
            _note(text[:end], given)
            text = text[end:]
        _note(text, given)
    return given


def _note(text: bytes, given: dict[tuple[int, int], str]) -> None:
    for attributes, _, value in _CELL.findall(text):
        error = b't="e"' in attributes
        if not error and (len(value) <= _DIGITS or (b't="' in attributes and b't="n"' not in attributes)):
            continue
        written = value.decode("utf-8", "replace")
        if not error and not _beyond_double(written):
            continue
        position = _POSITION.search(attributes)
        if position is None:
            raise ValueError(f"A cell with {written[:40]!r} does not say where it is.")
        column = 0
        for letter in position[1]:
            column = column * 26 + letter - ord("A") + 1
        given[int(position[2]), column - 1] = written


def _beyond_double(written: str) -> bool:
    """Whether a number was written by something that knows more digits than a double has."""
    try:
        number = Decimal(written)
    except InvalidOperation:
        return False
    digits = len(number.normalize().as_tuple().digits)
    whole = number == number.to_integral_value()
    return number.is_finite() and digits > (_DIGITS if whole else _DIGITS + 2) and Decimal(repr(float(written))) != number


def _part(packed: zipfile.ZipFile, sheet: str) -> str:
    """Where in the workbook a sheet is."""
    book = packed.read("xl/workbook.xml").decode("utf-8", "replace")
    links = packed.read("xl/_rels/workbook.xml.rels").decode("utf-8", "replace")
    for found in re.findall(r"<(?:\w+:)?sheet\s[^>]*>", book):
        attributes = dict(re.findall(r'([\w:]+)="([^"]*)"', found))
        if _unescaped(attributes.get("name", "")) == sheet:
            link = next((value for name, value in attributes.items() if name.endswith(":id")), "")
            for relation in re.findall(r"<(?:\w+:)?Relationship\s[^>]*>", links):
                of = dict(re.findall(r'([\w:]+)="([^"]*)"', relation))
                if of.get("Id") == link:
                    target = of.get("Target", "")
                    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    raise ValueError(f"Its sheet {sheet!r} is not where its relationships say.")


def _unescaped(text: str) -> str:
    from html import unescape

    return unescape(text)
