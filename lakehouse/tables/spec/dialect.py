"""Dialects: how the CSV files of a source are written, where that is not comma, double quote, UTF-8 and a line of names.

Here: the declaration. Not here: what reads them (`landing/readers/`).
"""

import codecs
from dataclasses import dataclass, fields

from lakehouse.core.errors import DeclarationError


@dataclass(frozen=True)
class Csv:
    """How CSV files are written. Of Excel's sheets `skip`, `footer` and `header` count too, in rows.

        Csv(delimiter=";", encoding="cp1252", skip=2, footer=1, header=("id", "nome"))

    Args:
        delimiter: one ASCII character, `\\t` for a tab.
        encoding: as Python's codecs call it; `utf-8` with or without its mark by default.
        quote: the character around texts, doubled within them; empty where quotes are part of the text.
        skip: lines before the line of names.
        footer: lines at the end that are no records, such as a total; empty ones do not count.
        header: the names, for files without a line of names.

    Raises:
        DeclarationError: no file can be written like that.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    quote: str = '"'
    skip: int = 0
    footer: int = 0
    header: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _is_mark(self.delimiter) or self.delimiter == " " or self.delimiter.isalnum():
            raise DeclarationError(
                f"{self.delimiter!r:.40} cannot be the delimiter of a CSV file.",
                remedy="Give one ASCII character that is no letter, digit, blank or line end, e.g. ';' or '\\t'.",
            )
        if self.quote and (not _is_mark(self.quote) or self.quote.isspace() or self.quote == self.delimiter):
            raise DeclarationError(
                f"{self.quote!r:.40} cannot be the quote of a CSV file with the delimiter {self.delimiter!r}.",
                remedy="Give one ASCII character, or '' where quotes are part of the text.",
            )
        if not _is_encoding(self.encoding):
            raise DeclarationError(
                f"There is no encoding {self.encoding!r:.40}.", remedy="Give one that Python knows, e.g. 'cp1252' or 'utf-16'."
            )
        if any(type(number) is not int or number < 0 for number in (self.skip, self.footer)):
            raise DeclarationError(
                f"A CSV file cannot have {self.skip!r:.40} lines before its names and {self.footer!r:.40} at its end.",
                remedy="Give skip and footer as 0 or more lines.",
            )
        header = self.header
        if not isinstance(header, tuple) or not all(isinstance(name, str) and name.strip() for name in header):
            raise DeclarationError(
                f"{header!r:.80} are not the names of a CSV file's columns.",
                remedy="Give a tuple of names, one for each column of the file: header=('id', 'nome').",
            )
        if len(set(header)) < len(header):
            raise DeclarationError("Two columns of a CSV file have the same name.", remedy="Give each name of header once.")

    def __repr__(self) -> str:
        """What is declared: code versions are made of it."""
        shown = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return f"Csv({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def plain(self) -> bool:
        """Whether the lines of a file are names and records in UTF-8, whatever the characters between them."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig", "ascii") and not (
            self.skip or self.footer or self.header
        )


def _is_mark(text: object) -> bool:
    return isinstance(text, str) and len(text) == 1 and text.isascii() and (text.isprintable() or text == "\t")


def _is_encoding(name: object) -> bool:
    """Whether it is an encoding of texts: Python's codecs have others, such as base64."""
    try:
        return isinstance(name, str) and isinstance("".encode(name), bytes)
    except (LookupError, ValueError):
        return False
