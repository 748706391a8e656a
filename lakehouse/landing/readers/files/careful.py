"""Careful: the records of a CSV text one by one, exact where the engine refuses a line.

    lines ─▶ skipped, names, records and what is none, footer: each with its text as delivered

A quoted field may span lines. A quote is bad when the text ends before it is closed, when something but the delimiter follows
the closing one, or when the record has the wrong number of fields. Then its first line is no record, and reading goes on with
the next line. Blanks between a quote and the delimiter do not count, nor do empty fields behind the last, as for DuckDB. Pure.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import IO, Literal, NamedTuple

from lakehouse.tables.spec import Csv

#: The longest record that is read, in characters: as many as the engine takes in bytes.
LONGEST = 32_000_000
#: What may be read a second time because of bad quotes, in characters, before a file is given up.
_AGAIN = 50 * LONGEST


class Piece(NamedTuple):
    """A part of a CSV text.

    Args:
        raw: as delivered, with its line end; of a line that is too long its beginning.
        line: the number of its first line.
        kind: `bad` is a line that is no record, for this `reason`; `blank` and `skipped` are none either.
    """

    raw: str
    line: int
    kind: Literal["skipped", "header", "record", "bad", "blank", "footer"]
    cells: tuple[str, ...] = ()
    reason: str = ""


class TooManyBadQuotesError(ValueError):
    """Reading on after each of them would take too long."""


class _BadError(Exception):
    """What is read is no record."""


class CsvText:
    """The pieces of a text, which together are all of it.

    Args:
        content: opened with `newline=""`.
        columns: how many fields a record has; as many as the header, when None.
    """

    def __init__(self, content: IO[str], csv: Csv, *, columns: int | None = None) -> None:
        self._lines = _Lines(content, csv.footer)
        self._csv, self._quote = csv, csv.quote
        self.columns = len(csv.header) or columns
        mark, quote = re.escape(csv.delimiter), re.escape(csv.quote)
        self._plain = re.compile(rf"[^{mark}\r\n]*")
        self._open = re.compile(rf" *{quote}")
        self._within = re.compile(rf"(?:[^{quote}]++|{quote}{quote})*+") if quote else None
        self._after = re.compile(rf" *(?:({mark})|\r?\n|\r|\Z)")

    def __iter__(self) -> Iterator[Piece]:
        """The pieces in order.

        Raises:
            TooManyBadQuotesError: see there.
            UnicodeError: it is not written in the declared encoding at all.
        """
        for _ in range(self._csv.skip):
            raw, number = self._lines.take()
            if raw:
                yield Piece(raw, number, "skipped")
        if not self._csv.header:
            header = self._piece("header")
            if header is not None:
                self.columns = self.columns or len(header.cells)
                yield header
        while (piece := self._piece("record")) is not None:
            yield piece
        yield from (Piece(raw, number, "footer") for raw, number in self._lines.footer())

    def _piece(self, kind: Literal["header", "record"]) -> Piece | None:
        raw, number = self._lines.take()
        if not raw:
            return None
        if kind == "record" and not raw.rstrip("\r\n") and self.columns != 1:
            return Piece(raw, number, "blank")
        used = [raw]
        try:
            cells = self._cells(used)
            if self.columns is not None and not any(cells[self.columns :]):  # the engine reads them so too
                cells = cells[: self.columns]
            if kind == "record" and self.columns != len(cells):
                raise _BadError(f"Expected Number of Columns: {self.columns} Found: {len(cells)}.")  # noqa: TRY301
        except _BadError as error:
            self._lines.give_back(used[1:])
            return Piece(raw, number, "bad", reason=f"Line {number}: {error}")
        text = "".join(used)
        try:
            text.encode()
        except UnicodeEncodeError:
            reason = "Invalid unicode: it has bytes that are none in this encoding."
            return Piece(text, number, "bad", reason=f"Line {number}: {reason}")
        return Piece(text, number, kind, tuple(cells))

    def _cells(self, used: list[str]) -> list[str]:
        line = used[0]
        if len(line) >= LONGEST:
            self._lines.skip_rest(line)
            raise _BadError(f"Maximum line size of {LONGEST:,} bytes exceeded.")
        if not self._quote or self._quote not in line:
            return line.rstrip("\r\n").split(self._csv.delimiter)
        return self._fields(used)

    def _fields(self, used: list[str]) -> list[str]:
        """The fields of the record that begins with the line in `used`, which gets the others that it has."""
        cells, position = [], 0
        while True:
            opened = self._open.match(used[-1], position)
            if opened is None:
                line = used[-1]
                found = self._plain.match(line, position)
                assert found is not None
                cell, end = found.group(), found.end()
            else:
                first = len(used)
                cell, end = self._quoted(used, opened.end())
                line = used[-1]
                if self._after.match(line, end) is None:
                    cell, end = self._literal(line, position) if first == len(used) else ("", -1)
            after = self._after.match(line, end) if end >= 0 else None
            if after is None:
                raise _BadError("text behind a closing quote.")
            cells.append(cell)
            if not after.group(1):
                return cells
            if self.columns is not None and len(used) > 1 and any(cells[self.columns :]):
                raise _BadError(f"Expected Number of Columns: {self.columns} Found: more, over several lines.")
            position = after.end()

    def _quoted(self, used: list[str], position: int) -> tuple[str, int]:
        """A quoted field from behind its first quote, and the position behind its last one."""
        assert self._within is not None
        parts: list[str] = []
        size = 0
        while True:
            line = used[-1]
            found = self._within.match(line, position)
            assert found is not None
            parts.append(found.group())
            if found.end() < len(line):
                return "".join(parts).replace(self._quote * 2, self._quote), found.end() + 1
            size += len(line)
            following, _ = self._lines.take() if size < LONGEST else ("", 0)
            if not following:
                raise _BadError("unterminated quote.")
            used.append(following)
            position = 0

    def _literal(self, line: str, position: int) -> tuple[str, int]:
        """A field that begins with a quote and goes on behind the closing one, without a delimiter in between: its writer
        does not quote, so it is the text as it stands."""
        found = self._plain.match(line, position)
        assert found is not None
        text = found.group()
        if text.count(self._quote) % 2 or text.rstrip().endswith(self._quote):
            return "", -1
        return text, found.end()


class _Lines:
    """Lines that can be given back, without those of the footer."""

    def __init__(self, content: IO[str], footer: int) -> None:
        self._content, self._footer = content, footer
        self._ahead: deque[str] = deque()
        self._waiting: deque[str] = deque()
        self._filled = self._number = self._again = 0

    def take(self) -> tuple[str, int]:
        """The next line with its number; `""` at the end."""
        line = self._ahead.popleft() if self._ahead else self._read()
        self._number += bool(line)
        return line, self._number

    def _read(self) -> str:
        if not self._footer:
            return self._content.readline(LONGEST)
        while self._filled <= self._footer:
            line = self._content.readline(LONGEST)
            if not line:
                return ""
            self._waiting.append(line)
            self._filled += bool(line.strip())
        line = self._waiting.popleft()
        self._filled -= bool(line.strip())
        return line

    def give_back(self, lines: list[str]) -> None:
        self._again += sum(map(len, lines))
        if self._again > _AGAIN:
            raise TooManyBadQuotesError("Too many of its quotes are never closed.")
        self._number -= len(lines)
        self._ahead.extendleft(reversed(lines))

    def skip_rest(self, line: str) -> None:
        """Pass over the rest of a line of which this was read."""
        while line and not line.endswith(("\n", "\r")):
            line = self._ahead.popleft() if self._ahead else self._read()

    def footer(self) -> list[tuple[str, int]]:
        return [(line, self._number + position) for position, line in enumerate(self._waiting, start=1)]
