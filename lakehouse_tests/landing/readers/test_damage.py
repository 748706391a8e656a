"""What cannot be read goes to quarantine, as small as it is: a record alone, a file whole. The rest of the batch is exact.

Each kind of damage has its file in bronze/corpus.py; here are amounts, neighbours and what comes after.
"""

import errno
import gzip
import io
import json
import random
import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.bronze.findings import READABLE_FILES, READABLE_RECORDS
from lakehouse.bronze.ingest import Batch
from lakehouse.core.errors import UnreadableFileError
from lakehouse.landing.readers.files import forms
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.bronze.corpus import zeroed_parquet
from lakehouse_tests.conftest import Lake, file_content

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string")),
    key=("id",),
    order=("nome",),
)
GOOD = [{"id": n, "nome": f"n{n}"} for n in range(50)]


def found(batch: Batch, rule: str) -> tuple[bool, int]:
    finding = next(finding for finding in batch.findings if finding.rule == rule)
    return finding.passed, finding.failed


def check(lake: Lake, *, files: int, records: int, written: int) -> list[dict[str, Any]]:
    """Ingest what landed and compare all the counts there are. Returns what is in quarantine."""
    batch = lake.ingest(SPEC)
    entry = batch.entry
    assert entry is not None and entry.balanced
    assert (entry.written, entry.quarantined, entry.records_in) == (written, records, written + records)
    assert found(batch, READABLE_FILES) == (files == 0, files)
    assert found(batch, READABLE_RECORDS) == (records == 0, records)
    assert len(lake.rows(SPEC.bronze, "_source_file")) == written
    quarantined = lake.quarantined(SPEC)
    assert len(quarantined) == files + records
    assert sum(row["record"] is None for row in quarantined) == files
    assert {row["layer"] for row in quarantined} <= {"bronze"} and {row["batch_id"] for row in quarantined} <= {1}
    assert lake.ingest(SPEC).transaction is None, "what is in quarantine is not tried again"
    assert lake.quarantined(SPEC) == quarantined
    return quarantined


# --- records ---------------------------------------------------------------------------------------------------------


def test_many_bad_lines_are_counted_one_by_one(lake: Lake) -> None:
    """More than a reader's buffer, and more than one thread's part of it."""
    jsonl, csv, bad = [], [b"_airbyte_raw_id,id,nome\n"], 0
    for n in range(40_000):
        if n % 97 == 0:
            jsonl.append(b'{"_airbyte_data":{"id":%d,"a":"\xff"}}\n' % n)
            csv.append(b"r,%d,x,y\n" % n)
        elif n % 101 == 0:
            jsonl.append(b'{"id":%d\n' % n)
            csv.append(b"r,%d,\xff\n" % n)
        else:
            jsonl.append(b'{"_airbyte_raw_id":"r","_airbyte_data":{"id":%d,"nome":"%s"}}\n' % (n, b"x" * 150))
            csv.append(b'r,%d,"%s\n"\n' % (n, b"y" * 150))
            continue
        bad += 2
    lake.put("itens", "a.jsonl", b"".join(jsonl))
    lake.put("itens", "b.csv", b"".join(csv))
    rows = check(lake, files=0, records=bad, written=80_000 - bad)
    assert len({(row["source_file"], row["reason"], row["record"]) for row in rows}) == bad


@pytest.mark.parametrize("form", ["jsonl", "csv.gz"])
def test_a_line_longer_than_a_reader_takes(lake: Lake, form: str) -> None:
    """Three megabytes are read, thirty-three are not; neither costs another record."""
    fine, huge = "y" * 3_000_000, "z" * 33_000_000
    if form == "jsonl":
        lines = "".join(
            json.dumps({"_airbyte_raw_id": "r", "_airbyte_data": {"id": n, "nome": t}}) + "\n"
            for n, t in enumerate(("a", huge, fine, "b"))
        )
        lake.put("itens", "a.jsonl", lines)
    else:
        lake.put(
            "itens", "a.csv.gz", gzip.compress(f"_airbyte_raw_id,id,nome\nr,0,a\nr,1,{huge}\nr,2,{fine}\nr,3,b\n".encode(), 1)
        )
    (row,) = check(lake, files=0, records=1, written=3)
    assert "Maximum line size" in row["reason"]
    assert [len(found["nome"]) for found in lake.rows(SPEC.bronze, "id", "nome")] == [1, 3_000_000, 1]


@given(
    st.lists(st.sampled_from([b"x" * 3, b"x" * 70, b'"', b'""', b"\n", b',"a\nb",', b"\r\n"]), max_size=60),
    st.booleans(),
)
def test_the_longest_line_is_never_underrated(parts: list[bytes], quoted: bool) -> None:
    content = b"".join(parts)
    longest = start = 0
    inside = False
    for position, byte in enumerate(content):
        inside ^= quoted and byte == ord('"')
        if byte == ord("\n") and not inside:
            longest, start = max(longest, position - start), position + 1
    longest = max(longest, len(content) - start)
    with tempfile.NamedTemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.write(content)
        file.flush()
        patch.setattr(forms, "_CHUNK", 16)
        bound = forms._look(file.name, zipped=False, quote='"' if quoted else "").longest
    assert longest < bound <= longest + 4 * 16


# --- files -----------------------------------------------------------------------------------------------------------


def test_several_damaged_files_of_one_form_among_many(lake: Lake) -> None:
    bad = zeroed_parquet()
    for n in range(30):
        lake.put(
            "itens",
            f"f{n:02d}.parquet",
            bad if n in (0, 13, 14, 29) else file_content([{"id": n, "nome": "a"}], "v2-parquet-flat"),
        )
    rows = check(lake, files=4, records=0, written=26)
    assert [row["source_file"] for row in rows] == [f"raw/itens/f{n:02d}.parquet" for n in (0, 13, 14, 29)]


def test_only_bad_files(lake: Lake) -> None:
    lake.put("itens", "a.jsonl.gz", b"no")
    lake.put("itens", "b.parquet", b"no")
    check(lake, files=2, records=0, written=0)
    refresh = lake.refresh(SPEC)
    assert refresh.transaction is not None and not refresh.stopped and lake.rows(SPEC.silver) == []
    lake.land("itens", "c", GOOD)
    lake.run(SPEC)
    assert len(lake.rows(SPEC.silver)) == 50


def test_damaged_parquet_never_stops_a_batch(lake: Lake) -> None:
    """A hundred random injuries: the file is read or rejected, and the one beside it is always whole."""
    chance = random.Random(7)
    table = pa.table(
        {"_airbyte_raw_id": [f"r{n}" for n in range(500)], "id": list(range(500)), "x": [{"y": [n]} for n in range(500)]}
    )
    for n in range(100):
        out = io.BytesIO()
        pq.write_table(
            table,
            out,
            compression=chance.choice(["none", "snappy", "gzip", "zstd"]),
            data_page_version=chance.choice(["1.0", "2.0"]),
        )
        content = bytearray(out.getvalue())
        for _ in range(chance.choice([1, 1, 8, 60])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        lake.put("itens", f"{n:03d}.parquet", bytes(content[: chance.choice([None, None, -1, len(content) // 2])]))
    good = io.BytesIO()
    pq.write_table(table, good)
    lake.put("itens", "good.parquet", good.getvalue())
    entry = lake.ingest(SPEC).entry
    assert entry is not None and entry.balanced
    rows = lake.rows(SPEC.bronze, "_source_file", "id")
    assert sum(row["_source_file"] == "raw/itens/good.parquet" for row in rows) == 500
    whole, rejected = {row["_source_file"] for row in rows}, {row["source_file"] for row in lake.quarantined(SPEC)}
    assert len(whole) + len(rejected) == 101 and not whole & rejected


def test_a_file_of_no_bytes_waits_for_its_content(lake: Lake) -> None:
    path = lake.put("itens", "a.jsonl", b"")
    assert lake.ingest(SPEC).transaction is None and lake.quarantined(SPEC) == []
    path.write_bytes(file_content(GOOD))
    check(lake, files=0, records=0, written=50)


def test_a_name_that_no_table_can_contain_is_named(lake: Lake) -> None:
    folder = lake.put("itens", "a.jsonl", file_content(GOOD)).parent
    (folder / "bad\udcff.jsonl").write_bytes(b"{}\n")
    with pytest.raises(UnreadableFileError, match="is not UTF-8"):
        lake.ingest(SPEC)


# --- drift -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["v2-jsonl", "v2-csv.gz-flat", "v2-parquet-flat"])
def test_the_file_with_a_new_field_goes_to_quarantine_and_no_other(lake: Lake, form: str) -> None:
    frozen = TableSpec(
        name="itens", source=AirbyteStream("itens"), columns=SPEC.columns, key=("id",), order=("nome",), drift="quarantine"
    )
    lake.land("itens", "a", GOOD, form)
    lake.land("itens", "b", [{"id": 1, "nome": "x", "Novo Campo": 2}], form)
    batch = lake.ingest(frozen)
    assert batch.entry is not None and (batch.entry.records_in, batch.entry.written) == (50, 50)
    (row,) = lake.quarantined(SPEC)
    assert (row["rules"], row["record"]) == ("schema_drift", None) and "Novo Campo" in row["reason"]
    assert row["source_file"].startswith("raw/itens/b.")
    assert "novo_campo" not in lake.rows(SPEC.bronze)[0]


def test_evolve_adds_the_column_and_reports_it(lake: Lake) -> None:
    lake.land("itens", "a", GOOD)
    lake.ingest(SPEC)
    lake.land("itens", "b", [{"id": 100, "nome": "x", "Novo Campo": 2}])
    batch = lake.ingest(SPEC)
    drift = next(finding for finding in batch.findings if finding.rule == "schema_drift")
    assert not drift.passed and drift.action == "warn" and drift.detail["new_columns"] == ["novo_campo"]
    assert [row["novo_campo"] for row in lake.rows(SPEC.bronze, "novo_campo") if row["novo_campo"]] == ["2"]


def test_a_disk_that_fails_once_makes_no_bad_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.land("itens", "a", GOOD)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(forms, "_look", fails)
        lake.ingest(SPEC)
    assert lake.quarantined(SPEC) == []
    lake.ingest(SPEC)
    assert len(lake.rows(SPEC.bronze)) == 50 and lake.quarantined(SPEC) == []
