"""The hostile landing: files as no writer should deliver them, each with its stated outcome.

    write(folder) ─▶ files below raw/itens/ ─▶ one batch: what is readable is written, the rest is in quarantine, by name

Here: content of moderate size. Not here: names of files and forms of Airbyte (landing/readers/test_forms.py), what happens
between two runs (test_ingest.py). What is too large for one process's memory is made by `large`, to be read in a child.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_tests.conftest import file_content

STREAM = "itens"
READABLE_FILE, READABLE_RECORD = "readable_file", "readable_record"


@dataclass(frozen=True)
class Delivery:
    """A landed file and its outcome.

    Args:
        ids: the raw ids of the records that are written.
        records: the single records that go to quarantine: as they were delivered (None where that is no text), and what is
            found in the reason.
        reason: the file goes to quarantine whole, for a reason that this pattern finds.
        fields: of records that are written, by raw id: what bronze holds.
    """

    name: str
    content: bytes
    ids: tuple[str, ...] = ()
    records: tuple[tuple[str | None, str], ...] = ()
    reason: str | None = None
    fields: tuple[tuple[str, dict[str, str | None]], ...] = ()


def line(raw_id: str, **fields: Any) -> bytes:
    """A record of a JSONL file."""
    return json.dumps({"_airbyte_raw_id": raw_id, "_airbyte_extracted_at": 0, "_airbyte_data": fields}).encode() + b"\n"


def good() -> list[Delivery]:
    """One readable file of each form; they are in the same scans as their damaged neighbours."""
    out = []
    for form in ("v2-jsonl", "v2-jsonl.gz", "v2-csv-flat", "v2-csv.gz-flat", "v2-parquet-flat"):
        first = 1_000 * (len(out) + 1)
        rows = [{"id": n, "nome": f"n{n}"} for n in range(50)]
        ids = tuple(f"raw-{first + n}" for n in range(50))
        out.append(Delivery(f"good.{form.split('-')[1]}", file_content(rows, form, first=first), ids))
    return out


def _many(form: str) -> bytes:
    return file_content([{"id": n, "nome": "x" * 40 + str(n)} for n in range(3000)], form)


def _flipped(content: bytes) -> bytes:
    out = bytearray(content)
    out[len(out) // 2] ^= 0x10
    return bytes(out)


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def zeroed_parquet() -> bytes:
    """Whole at both ends, without its pages."""
    whole = _many("v2-parquet-flat")
    return whole[:8] + b"\x00" * (len(whole) // 2) + whole[8 + len(whole) // 2 :]


def _not_utf8() -> bytes:
    """A text column that holds bytes which are no text."""
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")]
    )
    return _parquet({"_airbyte_raw_id": ["p"], "id": [1], "nome": texts})


def damaged_files() -> list[Delivery]:
    """Files that go to quarantine whole."""
    zipped, parquet = _many("v2-jsonl.gz"), _many("v2-parquet-flat")
    no_gzip, ended = "Not a gzipped file", "end-of-stream|Compressed file ended"
    wide = [f"c{n}" for n in range(2001)]
    whole = [
        ("truncated.jsonl.gz", zipped[: len(zipped) // 2], ended),
        ("without_its_end.jsonl.gz", zipped[:-6], ended),
        ("truncated.csv.gz", gzip.compress(b"id,nome\n1,a\n")[:-9], ended),
        ("header_of_gzip.jsonl.gz", zipped[:10], ended),
        ("bit_flipped.jsonl.gz", _flipped(zipped), "CRC|decompressing"),
        ("other_checksum.jsonl.gz", zipped[:-8] + b"\x00" * 4 + zipped[-4:], "CRC"),
        ("other_length.jsonl.gz", zipped[:-4] + b"\x01\x00\x00\x00", "length"),
        ("rubbish_behind.jsonl.gz", zipped + b"rubbish", no_gzip),
        ("padded.jsonl.gz", zipped + b"\x00" * 512, "not a GZIP stream"),
        ("no_gzip.jsonl.gz", _many("v2-jsonl"), no_gzip),
        ("no_gzip.csv.gz", b"id,nome\n1,a\n", no_gzip),
        ("gzip_by_another_name.jsonl", zipped, "its name does not say so"),
        ("gzip_by_another_name.csv", gzip.compress(b"id,nome\n1,a\n"), "its name does not say so"),
        ("gzip_within.jsonl.gz", gzip.compress(zipped), "gzip within gzip"),
        ("truncated.parquet", parquet[:-200], "magic bytes"),
        ("only_its_magic.parquet", b"PAR1", "too small|magic|smaller"),
        ("text.parquet", b"id,nome\n1,a\n", "magic bytes"),
        ("gzip.parquet", gzip.compress(parquet), "magic bytes"),
        ("pages_of_zeros.parquet", zeroed_parquet(), "."),
        ("not_utf8.parquet", _not_utf8(), "."),
        ("no_columns.parquet", _parquet({}), "."),
        ("text.txt", b"hello", "ends in none of"),
        ("without_a_suffix", b"{}", "ends in none of"),
        ("names_twice.csv", b"id,nome,id\n1,a,2\n", "same name"),
        ("bad_header.csv", b"id,\xff\n1,a\n", "not a header"),
        ("no_header.csv.gz", gzip.compress(b""), "not a header"),
        ("too_wide.csv", ",".join(wide).encode() + b"\n" + b"," * 2000 + b"\n", "2,001 fields"),
        ("too_wide.jsonl", json.dumps(dict.fromkeys(wide, 1)).encode(), "2,001 fields"),
        ("too_wide.parquet", _parquet({name: [1] for name in wide}), "2,001 fields"),
    ]
    return [Delivery(name, content, reason=reason) for name, content, reason in whole]


_NO_OBJECT = "not a JSON object"
#: Lines that are no records, and are kept in quarantine as they were.
_NO_RECORDS = [
    b"{",
    b'{"_airbyte_raw_id":"r","_airbyte_data":{"id":1}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":{"id":1}}}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":{"id":1}} {}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":{"id":"\\ud800"}}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":null}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":[{"id":1}]}',
    b'{"_airbyte_raw_id":"r","_airbyte_data":"text"}',
    b"[]",
    b'[{"id":1},{"id":2}]',
    b'"text"',
    b"null",
    b"7",
    b"rubbish",
    b"<html>",
    b"{'id': 1}",
    b'{"id": "a\x01b"}',
    b'{"id": ' + b"[" * 50_000 + b"1" + b"]" * 50_000 + b"x}",
]


def damaged_records() -> list[Delivery]:
    """Files of which single records go to quarantine."""
    between = b"".join(line(f"no-{n}", id=n) + bad + b"\n" for n, bad in enumerate(_NO_RECORDS))
    not_utf8 = [b'{"id": "\xff"}', b"\xff\xfe\x00", b'{"a": "\xc3"}']
    csv = b'_airbyte_raw_id,id,nome\n%(i)s1,1,x\nr,2,y,z\nr,3\nr,4,\xff\n%(i)s5,5,"a\nb"\n%(i)s6,6,"q""q"\n'
    rows = (
        ("r,2,y,z", "Line 3: Expected Number of Columns"),
        ("r,3", "Line 4: Expected Number of Columns"),
        (None, "Line 5: .*unicode"),
    )
    pretty, cut = json.dumps({"id": 1}, indent=1), line("cut-1", id=2)[:-20]
    return [
        Delivery(
            "lines.jsonl",
            between,
            tuple(f"no-{n}" for n in range(len(_NO_RECORDS))),
            tuple((bad.decode(), _NO_OBJECT) for bad in _NO_RECORDS),
        ),
        Delivery(
            "not_utf8.jsonl",
            b"".join(line(f"utf-{n}") + bad + b"\n" for n, bad in enumerate(not_utf8)),
            ("utf-0", "utf-1", "utf-2"),
            tuple((None, f"Line {number}: .*unicode") for number in (2, 4, 6)),
        ),
        Delivery("last_line_cut.jsonl", line("cut-0", id=1) + cut, ("cut-0",), ((cut.decode(), _NO_OBJECT),)),
        Delivery("pretty.jsonl", pretty.encode(), records=tuple((part, _NO_OBJECT) for part in pretty.splitlines())),
        Delivery("fields.csv", csv % {b"i": b"csv-"}, ("csv-1", "csv-5", "csv-6"), rows),
        Delivery("fields.csv.gz", gzip.compress(csv % {b"i": b"gz-"}), ("gz-1", "gz-5", "gz-6"), rows),
        Delivery(
            "open_quote.csv",
            b'_airbyte_raw_id,id,nome\nq-1,1,x\nr,2,"open\nq-3,3,y\n',
            ("q-1", "q-3"),
            (('r,2,"open', "Line 3: unterminated quote"),),
        ),
        Delivery(
            "return_behind_newline.csv",
            b'_airbyte_raw_id,id,nome\nr,1,"a"b"\n\rrn-3,3,y\n',
            ("rn-3",),
            (('r,1,"a"b"', "text behind a closing quote"),),
        ),
        Delivery(
            "documents.csv",
            b'_airbyte_raw_id,_airbyte_data\ndoc-1,"{""id"":1}"\nr2,\nr3,[1]\ndoc-4,{}\n',
            ("doc-1", "doc-4"),
            (("", _NO_OBJECT), ("[1]", _NO_OBJECT)),
        ),
        Delivery(
            "bad_byte_beside.csv",
            b'_airbyte_raw_id,_airbyte_meta,_airbyte_data\nbb-1,{},"{""id"":1}"\n\xff,{},{}\nbb-3,\xff,{}\nbb-4,{},{}\n',
            ("bb-1", "bb-4"),
            ((None, "Line 3: .*unicode"), (None, "Line 4: .*unicode")),
        ),
        Delivery(
            "nul_within.jsonl",
            line("nul-0", id=1) + b'{"id": "a\x00b"}\n' + line("nul-1", id=2),
            ("nul-0", "nul-1"),
            (('{"id": "a\x00b"}', _NO_OBJECT),),
        ),
        Delivery("nul_behind.jsonl", line("nul-2", id=1) + b"\x00" * 4096, ("nul-2",), (("\x00" * 4096, _NO_OBJECT),)),
    ]


def odd() -> list[Delivery]:
    """Files that look wrong, and of which every record is written."""
    typed = [
        ("t-0", "abc", "abc"),
        ("t-1", {"a": [1]}, '{"a":[1]}'),
        ("t-2", [], "[]"),
        ("t-3", True, "true"),
        ("t-4", 1.5, "1.5"),
    ]
    nested = {
        "_airbyte_raw_id": ["ps-0"],
        "id": [[1, 2]],
        "preco": pa.array([1], pa.decimal128(20, 2)),
        "dia": pa.array([0], pa.date32()),
    }
    return [
        Delivery("empty.jsonl", b""),
        Delivery("empty.jsonl.gz", gzip.compress(b"")),
        Delivery("blank.jsonl", b"\n \n\r\n\n"),
        Delivery("two_members.jsonl.gz", gzip.compress(line("m-0", id=1)) + gzip.compress(line("m-1", id=2)), ("m-0", "m-1")),
        Delivery("nan.jsonl", b'{"_airbyte_raw_id":"nan-0","id":NaN}\n', ("nan-0",), fields=(("nan-0", {"id": "NaN"}),)),
        Delivery("UPPER.JSONL", line("up-0", id=1), ("up-0",)),
        Delivery(
            "types.jsonl",
            b"".join(line(raw_id, id=value) for raw_id, value, _ in typed),
            tuple(raw_id for raw_id, _, _ in typed),
            fields=tuple((raw_id, {"id": text}) for raw_id, _, text in typed),
        ),
        Delivery(
            "missing_and_extra.jsonl",
            line("mx-0") + line("mx-1", id=1, outro="x") + line("mx-2", nome=None),
            ("mx-0", "mx-1", "mx-2"),
            fields=(
                ("mx-0", {"id": None, "outro": None}),
                ("mx-1", {"id": "1", "nome": None, "outro": "x"}),
                ("mx-2", {"nome": None}),
            ),
        ),
        Delivery("same_id.jsonl", line("same", id=1) + line("same", id=1), ("same", "same")),
        Delivery("key_twice.jsonl", b'{"_airbyte_raw_id":"kt-0","id":1,"id":2}\n', ("kt-0",), fields=(("kt-0", {"id": "1"}),)),
        Delivery("deep.jsonl", b'{"_airbyte_raw_id":"deep-0","id":' + b"[" * 500 + b"]" * 500 + b"}\n", ("deep-0",)),
        Delivery(
            "other_schema.parquet",
            _parquet(nested),
            ("ps-0",),
            fields=(("ps-0", {"id": "[1,2]", "preco": "1.00", "dia": "1970-01-01"}),),
        ),
        Delivery("bytes.parquet", _parquet({"_airbyte_raw_id": ["pb-0"], "id": [1], "nome": [b"\xff\x00"]}), ("pb-0",)),
        Delivery("no_rows.parquet", _parquet({"_airbyte_raw_id": pa.array([], pa.string())})),
        Delivery("nul.csv", b"_airbyte_raw_id,id,nome\nnc-0,1,a\x00b\n", ("nc-0",)),
    ]


def corpus() -> list[Delivery]:
    """Everything that lands in one batch."""
    return [*good(), *damaged_files(), *damaged_records(), *odd()]


def write(folder: Path, deliveries: list[Delivery]) -> None:
    """Land the files below `<folder>/raw/itens`."""
    target = folder / "raw" / STREAM
    target.mkdir(parents=True, exist_ok=True)
    for delivery in deliveries:
        (target / delivery.name).write_bytes(delivery.content)


def missed(delivery: Delivery, quarantined: list[tuple[str | None, str]]) -> list[Any]:
    """What of a file's quarantine, (record, reason), was not stated, and what was stated and is not there."""
    stated = [*delivery.records, *([(None, delivery.reason)] if delivery.reason else [])]
    unstated = list(quarantined)
    absent: list[Any] = []
    for text, pattern in stated:
        found = [pair for pair in unstated if text in (None, pair[0]) and re.search(pattern, pair[1])]
        if found:
            unstated.remove(found[0])
        else:
            absent.append((text, pattern))
    return unstated + absent


# --- large -----------------------------------------------------------------------------------------------------------


def _zipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _members(size: int) -> Iterator[bytes]:
    """One line of so many bytes in many gzip members, of which one is made."""
    yield gzip.compress(b'{"id":1,"nome":"')
    yield from [gzip.compress(b"x" * 1_000_000)] * (size // 1_000_000)
    yield gzip.compress(b'"}\n')


def _one_line(size: int) -> Iterator[bytes]:
    yield b'{"_airbyte_raw_id":"r","id":1,"nome":"'
    yield from (b"x" * 1_000_000 for _ in range(size // 1_000_000))
    yield b'"}\n'


def _long_lines(count: int) -> Iterator[bytes]:
    yield from (b'{"id":%d,"nome":"%s"}\n' % (n, b"x" * 1_000_000) for n in range(count))


def _lines(text: bytes, count: int) -> Iterator[bytes]:
    yield from (text * 10_000 for _ in range(count // 10_000))


def _rows(text: bytes, count: int) -> Iterator[bytes]:
    yield b"id,nome\n"
    yield from _lines(text, count)


@dataclass(frozen=True)
class Large:
    """A large file, made piece by piece so that the process that writes it stays small, and its outcome under 512 MB."""

    name: str
    parts: Callable[[], Iterator[bytes]]
    written: int = 0
    records: int = 0
    reason: str | None = None


LARGE = [
    Large(
        "line_of_100_mb.jsonl", lambda: iter([line("before"), *_one_line(100_000_000), line("after")]), 2, 1, "Maximum line size"
    ),
    Large("line_of_100_mb.jsonl.gz", lambda: _zipped(_one_line(100_000_000)), reason="too long for the engine's memory"),
    Large("bomb_of_one_line.jsonl.gz", lambda: _members(4_000_000_000), reason="longer than 512,000,000 bytes"),
    Large("bomb_of_long_lines.jsonl.gz", lambda: _zipped(_long_lines(200)), reason="too long for the engine's memory"),
    Large("bomb_of_no_records.jsonl.gz", lambda: _zipped(_lines(b"{bad\n", 300_000)), records=300_000, reason=_NO_OBJECT),
    Large("bomb_of_bad_bytes.jsonl.gz", lambda: _zipped(_lines(b"{\xff\n", 2_000_000)), reason="More of its lines"),
    Large("bomb_of_bad_rows.csv.gz", lambda: _zipped(_rows(b"1,2,3\n", 2_000_000)), reason="More of its lines"),
]
#: These take minutes.
LARGEST = [
    Large("bomb_of_lines.jsonl.gz", lambda: _zipped(_lines(line("r", nome="x" * 200), 8_000_000)), 8_000_000),
    Large("bomb_of_no_records.jsonl.gz", lambda: _zipped(_lines(b"{bad\n", 20_000_000)), records=20_000_000, reason=_NO_OBJECT),
]


def write_large(folder: Path, files: list[Large]) -> None:
    """Land large files below `<folder>/raw/itens`."""
    target = folder / "raw" / STREAM
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        with (target / file.name).open("wb") as out:
            out.writelines(file.parts())
