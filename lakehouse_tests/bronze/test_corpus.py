"""The hostile landing as a whole: every file has its stated outcome, and no neighbour loses a record to it."""

import gzip
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.bronze.findings import READABLE_FILES, READABLE_RECORDS
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import ConflictError
from lakehouse.core.names import TableRef
from lakehouse.landing.readers.files import scan
from lakehouse.landing.readers.files.prepare import Preparation
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.bronze import corpus
from lakehouse_tests.conftest import Lake, file_content

SPEC = TableSpec(
    name=corpus.STREAM,
    source=AirbyteStream(corpus.STREAM),
    columns=(Column("id", "bigint"), Column("nome", "string")),
    key=("id",),
    order=("nome",),
)


def test_every_file_of_the_corpus_has_its_stated_outcome(lake: Lake) -> None:
    deliveries = corpus.corpus()
    corpus.write(lake.folder / "landing", deliveries)
    batch = lake.ingest(SPEC)
    entry = batch.entry
    written, quarantined = lake.rows(SPEC.bronze), lake.quarantined(SPEC)
    assert entry is not None and entry.balanced
    landed = {delivery.name: delivery for delivery in deliveries}
    assert len(landed) == len(deliveries)
    found = {name: Counter[str]() for name in landed}
    for row in written:
        found[row["_source_file"].removeprefix("raw/itens/")][row["_airbyte_raw_id"]] += 1
    assert found == {name: Counter(delivery.ids) for name, delivery in landed.items()}
    assert (len(written), entry.written) == (sum(len(d.ids) for d in deliveries),) * 2

    refused: dict[str, list[tuple[str | None, str]]] = {name: [] for name in landed}
    for row in quarantined:
        refused[row["source_file"].removeprefix("raw/itens/")].append((row["record"], row["reason"]))
        assert row["rules"] == (corpus.READABLE_FILE if row["record"] is None else corpus.READABLE_RECORD)
        assert row["reason"] and str(lake.folder) not in row["reason"]
    assert not {name: refused[name] for name, delivery in landed.items() if corpus.missed(delivery, refused[name])}
    assert {name for name, rows in refused.items() if None in dict(rows)} == {d.name for d in deliveries if d.reason}
    whole, records = sum(d.reason is not None for d in deliveries), sum(len(d.records) for d in deliveries)
    assert (entry.quarantined, entry.records_in) == (records, entry.written + records)

    values = {row["_airbyte_raw_id"]: row for row in written}
    for raw_id, fields in (pair for delivery in deliveries for pair in delivery.fields):
        assert {name: values[raw_id][name] for name in fields} == fields
    counts = {finding.rule: finding.failed for finding in batch.findings}
    assert (counts[READABLE_FILES], counts[READABLE_RECORDS]) == (whole, records)
    assert lake.ingest(SPEC).transaction is None, "neither what was read nor what is in quarantine is tried again"
    assert lake.quarantined(SPEC) == quarantined


# --- memory ----------------------------------------------------------------------------------------------------------


#: Ingests and prints the peak of its own memory: ru_maxrss of a child begins at its parent's.
CHILD = """
import json, re, sys
from pathlib import Path
from lakehouse.bronze.ingest import stage_batch
from lakehouse.core.table.transaction import commit_staged
from lakehouse_tests.bronze.test_corpus import SPEC
from lakehouse_tests.conftest import Lake
lake = Lake(Path(sys.argv[1]))
with lake.session("512MB") as session:
    batch = stage_batch(session, lake.storage, SPEC, run_id="run")
    commit_staged(batch.transaction)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"peak": int(peak[1]) * 1024, **vars(batch.entry)}))
"""


def ingested_in_a_child(lake: Lake) -> dict[str, int]:
    child = subprocess.run([sys.executable, "-c", CHILD, str(lake.folder)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    result: dict[str, int] = json.loads(child.stdout)
    return result


def counted(lake: Lake, ref: TableRef, *columns: str) -> Counter[tuple[Any, ...]]:
    """Rows of a table by the values of columns, counted by the engine: there are millions."""
    from lakehouse.core.table.snapshot import open_existing

    snapshot = open_existing(lake.storage.uri(ref))
    assert snapshot is not None
    if not snapshot.files:
        return Counter()
    with lake.session() as session:
        relation = session.connection.read_parquet(snapshot.paths())
        found = relation.aggregate(", ".join([*columns, "count(*)"])).fetchall()
    return Counter({tuple(row[:-1]): row[-1] for row in found})


def check_large(lake: Lake, files: list[corpus.Large]) -> None:
    corpus.write_large(lake.folder / "landing", files)
    corpus.write(lake.folder / "landing", corpus.good())
    found = ingested_in_a_child(lake)
    assert found["peak"] < 1_200_000_000
    written = counted(lake, SPEC.bronze, "_source_file")
    stated = {file.name: file.written for file in files} | {delivery.name: len(delivery.ids) for delivery in corpus.good()}
    assert written == {(f"raw/itens/{name}",): count for name, count in stated.items() if count}
    reasons = counted(lake, SPEC.quarantine, "source_file", "record IS NULL", "reason")
    for file in files:
        refused = [(whole, count, reason) for (path, whole, reason), count in reasons.items() if path == f"raw/itens/{file.name}"]
        if file.reason is None:
            assert not refused
            continue
        ((whole, count, reason),) = refused
        assert (whole, count) == (not file.records, file.records or 1) and re.search(file.reason, reason), (file.name, reason)
    records = sum(file.records for file in files)
    assert (found["written"], found["quarantined"], found["records_in"]) == (
        written.total(),
        records,
        written.total() + records,
    )
    assert lake.ingest(SPEC).transaction is None


@pytest.mark.stack
def test_large_lines_and_bombs_are_ingested_in_little_memory(lake: Lake) -> None:
    check_large(lake, corpus.LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("file", corpus.LARGEST, ids=lambda file: file.name)
def test_the_largest_bombs_are_ingested_in_little_memory(lake: Lake, file: corpus.Large) -> None:
    check_large(lake, [file])


@pytest.mark.stack
def test_ten_thousand_tiny_files_are_one_batch(lake: Lake) -> None:
    """Every thousandth has one line that is no record, and every next but that is no gzip."""
    ids: Counter[tuple[str]] = Counter()
    for n in range(10_000):
        content = corpus.line(f"{n}-0", id=n) + corpus.line(f"{n}-1", id=n)
        if n % 1_000 == 1:
            lake.put("itens", f"{n}.jsonl.gz", content)
            continue
        lake.put("itens", f"{n}.jsonl", content + (b"{\n" if n % 1_000 == 0 else b""))
        ids.update([(f"{n}-0",), (f"{n}-1",)])
    batch = lake.ingest(SPEC)
    assert batch.entry is not None and batch.files == 10_000
    assert (batch.entry.written, batch.entry.quarantined, batch.entry.balanced) == (19_980, 10, True)
    assert counted(lake, SPEC.bronze, "_airbyte_raw_id") == ids
    assert counted(lake, SPEC.quarantine, "record IS NULL") == {(True,): 10, (False,): 10}
    assert lake.ingest(SPEC).transaction is None


def test_a_record_that_the_reader_loses_without_a_word_is_missed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's reader does so beyond its buffer. The lines are counted independently of it."""
    lake.put("itens", "a.jsonl", b"".join(corpus.line(f"a-{n}", id=n) for n in range(3)))
    lake.put("itens", "b.jsonl", b"\n".join([corpus.line("b-0", id=0), b" ", corpus.line("b-1", id=1)]))
    read = scan.Part._read_csv

    def lossy(self: scan.Part, *args: Any, **kwargs: Any) -> Any:
        return read(self, *args, **kwargs).filter("line NOT LIKE '%a-1%'")

    monkeypatch.setattr(scan.Part, "_read_csv", lossy)
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.written, entry.quarantined) == (2, 0)
    (row,) = lake.quarantined(SPEC)
    assert (row["source_file"], row["record"], row["reason"]) == ("raw/itens/a.jsonl", None, "Of its 3 lines 2 were read.")


# --- change ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_that_grows_between_two_looks_at_it(lake: Lake, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """It was counted when it was smaller, and written, or looked at, when it was larger."""
    path = lake.put("itens", "a.jsonl", corpus.line("a", id=1))
    lake.put("itens", "b.jsonl", corpus.line("b", id=2))
    write, before = DuckDBSession.write, path.stat().st_size

    def meanwhile(self: DuckDBSession, frame: Any, folder: str, **kwargs: Any) -> Any:
        if folder != lake.storage.uri(SPEC.bronze) or path.stat().st_size > before:
            return write(self, frame, folder, **kwargs)
        if moment == "after":
            files = write(self, frame, folder, **kwargs)
        with path.open("ab") as growing:
            growing.write(corpus.line("c", id=3)[:-9])
        return write(self, frame, folder, **kwargs) if moment == "before" else files

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBSession, "write", meanwhile)
        with pytest.raises(ConflictError, match="changed while it was read"):
            lake.ingest(SPEC)
    assert lake.rows(SPEC.bronze) == [] and lake.quarantined(SPEC) == [] and lake.stray_files() == []
    with path.open("ab") as growing:
        growing.write(corpus.line("c", id=3)[-9:])
    for _ in range(2):
        lake.ingest(SPEC)
    assert [row["_airbyte_raw_id"] for row in lake.rows(SPEC.bronze, "_airbyte_raw_id")] == ["a", "b", "c"]
    assert lake.quarantined(SPEC) == [] and lake.ingest(SPEC).transaction is None


def test_a_file_that_vanishes_before_its_lines_are_counted_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lake.put("itens", "a.jsonl", b" \n" + corpus.line("a", id=1))
    lake.put("itens", "b.jsonl", corpus.line("b", id=2))
    careful = Preparation.careful

    def meanwhile(self: Preparation, file: Any) -> Any:
        path.unlink(missing_ok=True)
        return careful(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Preparation, "careful", meanwhile)
        with pytest.raises(ConflictError, match="changed while it was read"):
            lake.ingest(SPEC)
    assert lake.rows(SPEC.bronze) == [] and lake.stray_files() == []
    lake.ingest(SPEC)
    assert [row["_airbyte_raw_id"] for row in lake.rows(SPEC.bronze, "_airbyte_raw_id")] == ["b"]


@pytest.mark.parametrize("long", [False, True])
def test_memory_is_the_fault_of_long_lines_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """A limit that is too low for any file must not empty the landing into quarantine."""
    lake.put("itens", "a.jsonl", corpus.line("a", nome="x" * 2_000_000) if long else corpus.line("a", id=1) * 100_000)

    def exhausted(*_: object, **__: object) -> None:
        raise duckdb.OutOfMemoryException("Out of Memory Error")

    monkeypatch.setattr(scan.Part, "open", exhausted)
    if not long:
        with pytest.raises(duckdb.OutOfMemoryException):
            lake.ingest(SPEC)
        return
    lake.ingest(SPEC)
    (row,) = lake.quarantined(SPEC)
    assert (row["record"], row["reason"]) == (None, "Its lines are too long for the engine's memory limit.")


# --- chance ----------------------------------------------------------------------------------------------------------


FORMS = ("v2-jsonl", "v2-jsonl.gz", "v2-jsonl-flat", "v2-csv", "v2-csv-flat", "v2-csv.gz-flat", "v2-parquet", "v2-parquet-flat")
ROWS = [{"id": n, "nome": f"nome {n}, é"} for n in range(20)]
SOUND = {form: file_content(ROWS, form) for form in FORMS}
#: Bytes that mean something to a reader, beside any.
BYTES = st.one_of(
    st.binary(min_size=1, max_size=4), st.sampled_from([b"\n", b"\r", b'"', b",", b"{", b"}", b"\x00", b"\x1f", b"\xff", b"\\"])
)


@st.composite
def injured(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with some bytes replaced, inserted, removed or given twice, or cut off."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(out) - 1, 0)))
        kind = draw(st.sampled_from(["replace", "insert", "remove", "twice", "cut"]))
        if kind == "replace":
            new = draw(BYTES)
            out[at : at + len(new)] = new
        elif kind == "insert":
            out[at:at] = draw(BYTES)
        elif kind == "remove":
            del out[at : at + draw(st.integers(1, 40))]
        elif kind == "twice":
            out[at:at] = out[at : at + draw(st.integers(1, 200))]
        elif draw(st.integers(0, 3)) == 0:
            del out[at:]
    return bytes(out)


def text_of(content: bytes, form: str) -> bytes | None:
    """What is in a text file as Python reads it; None when that is nothing."""
    try:
        return gzip.decompress(content) if ".gz" in form else content
    except (OSError, EOFError, ValueError, zlib.error):
        return None


@settings(max_examples=8, deadline=None)
@given(st.fixed_dictionaries({form: injured(content) for form, content in SOUND.items()}))
def test_injuries_at_random_lose_nothing_and_count_nothing_twice(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        names = {form: f"{form}.{form.split('-')[1]}" for form in FORMS}
        for form, content in files.items():
            lake.put("itens", names[form], content)
            lake.put("itens", f"sound-{names[form]}", SOUND[form])
        entry = lake.ingest(SPEC).entry
        assert entry is not None and entry.balanced
        rows = lake.rows(SPEC.bronze, "_source_file", "_airbyte_raw_id")
        quarantined = lake.quarantined(SPEC)
        written = Counter(row["_source_file"].removeprefix("raw/itens/") for row in rows)
        broken = Counter(r["source_file"].removeprefix("raw/itens/") for r in quarantined if r["record"] is not None)
        whole = [row["source_file"].removeprefix("raw/itens/") for row in quarantined if row["record"] is None]
        assert (entry.written, entry.quarantined) == (written.total(), broken.total())
        assert len(whole) == len(set(whole)) and not set(whole) & (set(written) | set(broken))
        sound = Counter((row["_source_file"], row["_airbyte_raw_id"]) for row in rows if "/sound-" in row["_source_file"])
        assert sound == {(f"raw/itens/sound-{name}", f"raw-{n}"): 1 for name in names.values() for n in range(20)}
        for form, content in files.items():
            name, text = names[form], text_of(content, form)
            if name in whole or not content:
                assert written[name] + broken[name] == 0
            elif "parquet" in form:
                assert written[name] == 20
            else:
                assert text is not None, "gzip that Python refuses is no file"
                lines = [part for part in re.split(rb"\r\n|\n|\r", text) if part.strip(b" ")]
                if "jsonl" in form:
                    assert written[name] + broken[name] == len(lines)
                else:
                    assert written[name] + broken[name] <= len(lines)
        assert lake.ingest(SPEC).transaction is None
        assert lake.quarantined(SPEC) == quarantined
