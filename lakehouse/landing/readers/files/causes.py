"""Causes: why a file is not one of its table's, as a sentence that ends with what to declare.

The guesses are charset-normalizer's and those of DuckDB's sniffer. Nothing is read by them.
"""

import codecs
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb

from lakehouse.core.engines.duckdb import literal
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import column_name
from lakehouse.landing.readers.files.packing import opened
from lakehouse.landing.readers.files.reading import Reading, columns
from lakehouse.tables.spec import Csv

_SAMPLE = 1 << 16
#: Tried before all others: short texts look like many encodings.
_COMMON = ["utf_8", "utf_16", "utf_32", "cp1252"]
_SHOWN = 10


def encoding_of(content: bytes) -> str:
    """The encoding that some bytes look like; empty for UTF-8, and where nobody can tell."""
    from charset_normalizer import from_bytes

    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(content) - 3:
            best = from_bytes(content, cp_isolation=_COMMON).best() or from_bytes(content).best()
            return "" if best is None or best.encoding == "utf_8" else best.encoding
    return "utf_16" if content.count(b"\x00") > len(content) // 4 else ""


def of_encoding(line: bytes, *, declared: Csv) -> str:
    """A sentence on the encoding of a line that is no UTF-8; empty when nobody can tell."""
    found = encoding_of(line)
    return f" It looks like {found}: declare csv={replace(declared, encoding=found)!r}." if found else ""


def is_other_than(path: str, encoding: str, *, zipped: bool) -> bool:
    """Whether a file that is declared in another encoding is UTF-8: it has letters beyond ASCII, and all are whole."""
    if codecs.lookup(encoding).name.startswith("utf"):
        return False
    decoder, beyond = codecs.getincrementaldecoder("utf-8")(), False
    with opened(path, "gzip" if zipped else "") as content:
        try:
            while chunk := content.read(_SAMPLE):
                beyond |= not chunk.isascii()
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return beyond


def of_header(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    names: Sequence[str],
    missing: Sequence[str],
    *,
    reading: Reading,
    zipped: bool = False,
    folder: str = "",
) -> str:
    """Why a header is not the table's: what is missing of the declared fields, and what the file looks like.

    Args:
        folder: for a sample of a CSV file; empty when it is none.
    """
    there = columns(names)
    which = "none of the key" if reading.key and not reading.key & there else "fewer than half"
    shown = ", ".join(name[:40] for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    guess, headless = of_dialect(connection, path, reading, zipped=zipped, folder=folder) if folder else ("", False)
    # What stands in the place of names may be somebody's data.
    reason = (
        f"Of the declared fields its header has {which}: {', '.join(missing)} missing{'' if headless else f'; it has {shown}'}."
    )
    return reason + (guess or _renamed(names, missing, reading))


def of_dialect(
    connection: duckdb.DuckDBPyConnection, path: str, reading: Reading, *, zipped: bool, folder: str
) -> tuple[str, bool]:
    """What a CSV file looks like, where that is not what is declared; and whether it has no header."""
    with opened(path, "gzip" if zipped else "") as content:
        sample = content.read(_SAMPLE)
    encoding = encoding_of(sample)
    text = sample.decode(encoding or "utf-8-sig", "replace")
    target = Path(folder, "sniffed.csv")
    target.write_text(text if len(sample) < _SAMPLE else text.rpartition("\n")[0], encoding="utf-8", newline="")
    found = _sniffed(connection, target)
    changes: dict[str, Any] = {"encoding": encoding} if encoding else {}
    looks, as_if = [encoding] if encoding else [], ""
    delimiter = str(found.get("Delimiter", ""))
    sniffed = [str(column["name"]) for column in found.get("Columns") or []]
    if delimiter != reading.csv.delimiter and len(sniffed) > 1:
        changes, looks = {"delimiter": delimiter, **changes}, [f"`{delimiter}`-separated", *looks]
    if found.get("SkipRows"):
        changes["skip"] = int(found["SkipRows"])
        as_if = f"as if its header came after {changes['skip']} lines"
    headless = found.get("HasHeader") is False and not reading.fields & columns(sniffed)
    if headless:
        complete = len(sniffed) == len(reading.order)
        changes["header"] = reading.order if complete else (*reading.order, "…")
        as_if = "as if it had no header"
    if not changes:
        return "", False
    sentence = f" It looks {'like ' if looks else ''}{' '.join(looks)}{' and ' if looks and as_if else ''}{as_if}"
    with suppress(DeclarationError):  # a delimiter that nothing can be declared with
        sentence += f": declare csv={replace(reading.csv, **changes)!r}"
    return sentence + (", with the names as the file has them in order." if headless else "."), headless


def _sniffed(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, Any]:
    """What DuckDB's sniffer says of a CSV file; nothing when it cannot tell."""
    try:
        found = connection.sql("FROM sniff_csv($1)", params=[literal(str(path))])
        names, rows = found.columns, found.fetchall()
    except duckdb.Error:
        return {}
    return dict(zip(names, rows[0], strict=True)) if rows else {}


def _renamed(names: Sequence[str], missing: Sequence[str], reading: Reading) -> str:
    """Which of the names may be those that are missing."""
    unknown = {column_name(name) or name: name for name in names if column_name(name) not in reading.fields}
    pairs = []
    for field in missing:
        close = [name for name in unknown if field in name.split("_")] or get_close_matches(field, unknown, n=1, cutoff=0.5)
        if close:
            pairs.append(f"{field} from {unknown.pop(close[0])!r}")
    return f" Perhaps renamed: {', '.join(pairs)}; declare it with Column(…, source='…')." if pairs else ""
