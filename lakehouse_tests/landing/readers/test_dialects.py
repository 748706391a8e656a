"""A CSV file in a declared dialect is read exactly, or refused: every record is delivered once, as a row or in quarantine."""

import bz2
import csv
import datetime as dt
import gzip
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.readers.files import careful
from lakehouse.landing.readers.files.careful import CsvText, Piece, TooManyBadQuotesError
from lakehouse.landing.readers.files.reading import Reading
from lakehouse.landing.readers.files.stage import Staged, stage
from lakehouse.tables.spec import Csv

NAMES = ("id", "nome", "obs")


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.csv", content)
    return out.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".zip": zipped,
}


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[DuckDBSession, Path]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb_session(memory_limit="500MB", spill=f"{folder}/spill", folders=[folder]) as session,
    ):
        yield session, Path(folder)


def staged(
    opened: tuple[DuckDBSession, Path], name: str, content: bytes, reading: Reading
) -> tuple[Staged, list[Any], list[Any]]:
    """What one landed file becomes: its rows by the fields `NAMES`, and the records in quarantine with their reasons."""
    session, folder = opened
    target = folder / "landing" / "raw" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    out = tempfile.mkdtemp(dir=folder)
    file = LandedFile(f"raw/{name}", len(content), "1", 0.0)
    found = stage(
        session,
        [file],
        landing=str(folder / "landing"),
        folder=out,
        batch=1,
        ingested_at=dt.datetime.now(dt.UTC),
        reading=reading,
    )
    frame = session.read([f"{out}/{file.path}" for file in found.files], dict.fromkeys(reading.order or NAMES, "string"))
    broken = [row for frame in found.broken for row in session.rows(frame.select("record", "reason"))]
    assert found.delivered == found.rows + len(broken)
    return found, session.rows(frame), broken


def written(records: list[list[str]], dialect: Csv, *, ends: str, columns: tuple[str, ...] = NAMES) -> bytes:
    out = io.StringIO()
    if dialect.quote:
        # Python 3.11 leaves a line end that is not its own without quotes.
        broken = any(end in cell for record in records for cell in record for end in "\r\n")
        options: dict[str, Any] = {"quotechar": dialect.quote, "quoting": csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL}
    else:
        options = {"quoting": csv.QUOTE_NONE, "quotechar": None, "escapechar": None}
    writer = csv.writer(out, delimiter=dialect.delimiter, lineterminator=ends, **options)
    names = [[*columns]] if not dialect.header else []
    writer.writerows([*([f"preamble {n}"] for n in range(dialect.skip)), *names, *records])
    writer.writerows([f"total {n}"] for n in range(dialect.footer))
    return out.getvalue().encode(dialect.encoding)


TEXT = st.text(st.sampled_from("abZ09 \t;,|'\"\n\r.-éãçª"), max_size=8)


@st.composite
def dialects(draw: Any) -> Csv:
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    return Csv(
        delimiter=delimiter,
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])),
        quote=draw(st.sampled_from(['"', "'", ""])),
        skip=draw(st.integers(0, 2)),
        footer=draw(st.integers(0, 2)),
        header=draw(st.sampled_from([(), NAMES])),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dialect=dialects(),
    records=st.lists(st.tuples(st.integers(0, 99).map(str), TEXT, TEXT).map(list), max_size=12),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    packed=st.sampled_from(list(PACKED)),
)
def test_what_is_written_in_a_dialect_is_read_exactly(
    opened: tuple[DuckDBSession, Path], dialect: Csv, records: list[list[str]], ends: str, packed: str
) -> None:
    if not dialect.quote:  # then a text cannot hold what ends it
        cut = str.maketrans("", "", f"{dialect.delimiter}\n\r")
        records = [[cell.translate(cut) for cell in record] for record in records]
    content = PACKED[packed](written(records, dialect, ends=ends))
    found, rows, broken = staged(opened, f"a.csv{packed}", content, Reading(csv=dialect, order=NAMES, key=frozenset(["id"])))
    assert (found.rejects, broken) == ([], [])
    key = [tuple(cell or None for cell in record) for record in records]
    assert sorted(rows, key=repr) == sorted(key, key=repr)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", "é", '"a"', '"a,b"', "1,2,3\n"]), max_size=40).map("".join),
)
def test_whatever_lands_every_line_is_delivered_once(opened: tuple[DuckDBSession, Path], text: str) -> None:
    found, rows, broken = staged(opened, "a.csv", f"id,nome,obs\n{text}".encode(), Reading())
    assert found.rejects == []
    pieces = list(CsvText(io.StringIO(f"id,nome,obs\n{text}", newline=""), Csv()))
    assert "".join(piece.raw for piece in pieces) == f"id,nome,obs\n{text}"
    records = [tuple(cell or None for cell in piece.cells) for piece in pieces if piece.kind == "record"]
    assert sorted(rows, key=repr) == sorted(records, key=repr)
    assert sorted(record for record, _ in broken) == sorted(p.raw.rstrip("\r\n") for p in pieces if p.kind == "bad")


# --- bad quotes ------------------------------------------------------------------------------------------------------


def pieces(text: str, csv: Csv | None = None) -> list[Piece]:
    return list(CsvText(io.StringIO(text, newline=""), csv or Csv()))


def kinds(text: str, csv: Csv | None = None) -> list[str]:
    return [piece.kind for piece in pieces(text, csv)]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('1,"a\nb"\n', ("1", "a\nb")),
        ('1,"a""b"\n', ("1", 'a"b')),
        ('1, "a,b" \n', ("1", "a,b")),
        ('1,a"b"c\n', ("1", 'a"b"c')),
        ('1,"a" b\n', ("1", '"a" b')),
        ('1,""\n', ("1", "")),
        ("1,a\r\n", ("1", "a")),
        ('1,a,,""\n', ("1", "a")),
        ("1,a\r", ("1", "a")),
    ],
)
def test_what_a_field_may_look_like(line: str, cells: tuple[str, ...]) -> None:
    assert [piece.cells for piece in pieces(f"id,nome\n{line}")[1:]] == [cells]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('1,"open\n', "Line 2: unterminated quote."),
        ('1,"a" "b"\n', "Line 2: text behind a closing quote."),
        ('1,"a "b" c"\n', "Line 2: text behind a closing quote."),
        ('1,"a\nb"c,d\n', "Line 2: text behind a closing quote."),
        ("1,a,b\n", "Line 2: Expected Number of Columns: 2 Found: 3."),
        ("1\n", "Line 2: Expected Number of Columns: 2 Found: 1."),
        ('1,"a\nb",c\n', "Line 2: Expected Number of Columns: 2 Found: 3."),
        ('1,a\udcff"\n', "Line 2: Invalid unicode"),
    ],
)
def test_a_bad_line_costs_itself(line: str, reason: str) -> None:
    found = pieces(f"id,nome\n{line}7,z\n")
    bad = next(piece for piece in found if piece.kind == "bad")
    assert bad.reason.startswith(reason) and bad.line == 2 and bad.raw == line.partition("\n")[0] + "\n"
    assert found[-1].cells == ("7", "z") and "".join(piece.raw for piece in found) == f"id,nome\n{line}7,z\n"


def test_lines_that_are_no_records() -> None:
    text = 'Relatório "x\n\nid,nome\n1,a\n\n2,b\nTotal "x,,\n\n'
    assert kinds(text, Csv(skip=2, footer=1)) == ["skipped", "skipped", "header", "record", "blank", "record", "footer", "footer"]
    assert kinds("1,a\n", Csv(header=("id", "nome"))) == ["record"]
    assert kinds("id\n\n1\n") == ["header", "record", "record"], "an empty line of one column is a record of it"
    assert kinds("id,nome\n1,a", Csv(footer=5)) == ["footer", "footer"]
    assert kinds("", Csv(skip=3, footer=2)) == []


def test_a_line_that_is_too_long_and_quotes_that_are_never_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(careful, "LONGEST", 1_000)
    found = pieces(f"id,nome\n1,{'x' * 5_000}\n2,b\n")
    assert [(piece.kind, piece.line) for piece in found] == [("header", 1), ("bad", 2), ("record", 3)]
    assert "Maximum line size" in found[1].reason
    monkeypatch.setattr(careful, "_AGAIN", 10_000)
    with pytest.raises(TooManyBadQuotesError, match="never closed"):
        pieces("id,nome\n" + '1,"x\n"",y\n' * 3_000)


def test_a_record_is_retained_whole_up_to_a_megabyte(opened: tuple[DuckDBSession, Path]) -> None:
    short, long = "é" * 999_000, "y" * 1_200_000
    for name, content in (
        ("a.csv", f"id,nome,obs\n1,{short}\n2,{long}\n3,a,b\n"),
        ("a.jsonl", f'{{"id":"{short}"\n{{"id":"{long}"\n{{"id":3,"nome":"a","obs":"b"}}\n'),
    ):
        _, rows, broken = staged(opened, name, content.encode(), Reading())
        (one, _), (two, reason) = sorted(broken, key=lambda pair: len(pair[0]))
        assert rows == [("3", "a", "b")] and short in one and len(two) == 1_000_000
        assert "the first 1,000,000 are kept" in reason
