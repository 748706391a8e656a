"""A record of a table that is appended to counts once by the id that it brought; without one it counts with every delivery."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.table.snapshot import open_existing
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.silver.refresh import Refresh
from lakehouse.silver.repeats import RAW_ID
from lakehouse.tables.spec import AirbyteStream, Column, Feed, TableSpec, in_range
from lakehouse_tests.conftest import EXTRACTED, Lake, Row

SPEC = TableSpec(
    name="leituras",
    source=AirbyteStream("leituras"),
    columns=(Column("sensor", "bigint"), Column("grau", "decimal(6,1)")),
    sync="append",
)


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path, engine=getattr(request, "param", "duckdb"))


#: For what a session computes; which batches and files there are does not depend on it.
on_each_engine = pytest.mark.parametrize("lake", ["duckdb", pytest.param("spark", marks=pytest.mark.spark)], indirect=True)


def land(
    lake: Lake, name: str, records: Sequence[tuple[str | None, int]], *, stream: str = "leituras", at: int = EXTRACTED
) -> None:
    """Records by the id that they bring, if any, and their sensor."""
    lines: list[Row] = []
    for raw_id, sensor in records:
        own = {} if raw_id is None else {"_airbyte_raw_id": raw_id}
        data = {"sensor": sensor, "grau": "21.5"}
        lines.append(
            {**own, "_airbyte_extracted_at": at, "_airbyte_meta": {}, "_airbyte_generation_id": 1, "_airbyte_data": data}
        )
    lake.put(stream, f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def sensors(lake: Lake, spec: TableSpec = SPEC) -> list[int]:
    return [row["sensor"] for row in lake.rows(spec.silver, "sensor")]


def figures(refresh: Refresh) -> tuple[int, int, int, int]:
    """Records in, written, deduplicated, quarantined of a refresh that is balanced."""
    entry = refresh.entry
    assert entry is not None and entry.balanced and not refresh.stopped
    return entry.records_in, entry.written, entry.deduplicated, entry.quarantined


def same_when_rebuilt(lake: Lake, spec: TableSpec = SPEC) -> None:
    before = lake.rows(spec.silver)
    refresh = lake.refresh(spec, rebuild=True)
    assert refresh.entry is not None and refresh.entry.balanced and not refresh.stopped
    assert lake.rows(spec.silver) == before
    assert [finding.rule for finding in refresh.findings if not finding.passed] == []


@on_each_engine
def test_an_id_counts_once_within_a_file_across_files_and_across_batches(lake: Lake) -> None:
    land(lake, "a", [("x1", 1), ("x2", 2), ("x1", 1)])
    land(lake, "b", [("x2", 2), ("x3", 3)])
    assert figures(lake.run(SPEC)) == (5, 3, 2, 0)
    assert sensors(lake) == [1, 2, 3]
    land(lake, "c", [("x3", 3), ("x4", 4), ("x1", 1), ("x4", 4)], at=EXTRACTED + 86_400_000)
    assert figures(lake.run(SPEC)) == (4, 1, 3, 0)
    assert sensors(lake) == [1, 2, 3, 4]
    assert len(lake.rows(SPEC.bronze)) == 9, "bronze has what was delivered"


def other_contents(refresh: Refresh) -> tuple[int, list[str]]:
    """Ids with several contents, as the ledger's finding and the console have them."""
    found = next(finding for finding in refresh.findings if finding.rule == "ledger")
    assert found.passed
    return found.detail.get("ids_with_other_content", 0), [line.split(" (")[0] for line in found.lines]


@on_each_engine
def test_an_id_that_comes_with_another_content_is_counted_and_reported(lake: Lake) -> None:
    land(lake, "a", [("x1", 1), ("x1", 7), ("x2", 2), ("x2", 2), (None, 3), (None, 4)])
    assert other_contents(lake.run(SPEC)) == (1, ["silver/leituras: 1 ids"])
    assert sensors(lake) == [1, 2, 3, 4]
    land(lake, "b", [("x3", 5), ("x3", 5), ("x2", 2)])
    assert other_contents(lake.run(SPEC)) == (0, [])
    assert other_contents(lake.refresh(SPEC, rebuild=True)) == (1, ["silver/leituras: 1 ids"])
    same_when_rebuilt(lake)


def test_a_batch_of_nothing_but_repeats_writes_nothing_and_is_read_once(lake: Lake) -> None:
    land(lake, "a", [("x1", 1)])
    lake.run(SPEC)
    land(lake, "b", [("x1", 1)])
    strict = replace(SPEC, rules=(in_range("grau", minimum=30, action="fail"),))
    refresh = lake.run(strict)
    assert figures(refresh) == (1, 0, 1, 0), "no rule judges what is no row"
    assert lake.run(SPEC).transaction is None and sensors(lake) == [1]


def test_records_without_an_id_count_with_every_delivery(lake: Lake) -> None:
    land(lake, "a", [(None, 1), (None, 1), ("", 5), ("", 5)])
    assert figures(lake.run(SPEC)) == (4, 4, 0, 0)
    land(lake, "b", [(None, 1), ("y", 1), ("", 5)])
    assert figures(lake.run(SPEC)) == (3, 3, 0, 0)
    assert sensors(lake) == [1, 1, 1, 1, 5, 5, 5]
    same_when_rebuilt(lake)


def test_an_id_of_the_form_that_bronze_makes_is_one_when_it_was_delivered(lake: Lake) -> None:
    one = uuid.UUID(int=7).hex
    land(lake, "a", [(one, 1), (one, 1), (None, 2)])
    lake.run(SPEC)
    land(lake, "b", [(one, 1)])
    lake.run(SPEC)
    assert sensors(lake) == [1, 2]
    same_when_rebuilt(lake)


def test_the_first_delivery_counts_whatever_the_second_reports(lake: Lake) -> None:
    land(lake, "b", [("x", 2)])
    lake.run(SPEC)
    land(lake, "a", [("x", 1)])
    lake.run(SPEC)
    assert sensors(lake) == [2]
    same_when_rebuilt(lake)


@on_each_engine
def test_a_refused_record_is_refused_once(lake: Lake) -> None:
    strict = replace(SPEC, rules=(in_range("sensor", maximum=9),))
    land(lake, "a", [("x", 10), ("y", 1)])
    assert figures(lake.run(strict)) == (2, 1, 0, 1)
    land(lake, "b", [("x", 10)])
    assert figures(lake.run(strict)) == (1, 0, 1, 0)
    assert len(lake.quarantined(strict)) == 1
    lake.refresh(SPEC, mode="redrive")
    assert sensors(lake) == [1, 10] and lake.quarantined(SPEC) == []
    same_when_rebuilt(lake)


@pytest.mark.parametrize("order", ["increments", "at once"])
def test_any_sequence_of_increments_gives_the_table_of_a_rebuild(lake: Lake, order: str) -> None:
    for number, records in enumerate([[("p", 1), ("q", 2)], [("q", 2), (None, 3)], [("p", 1), (None, 3), ("r", 4)]]):
        land(lake, f"f{number}", records)
        lake.ingest(SPEC)
        if order == "increments":
            lake.refresh(SPEC)
    lake.refresh(SPEC)
    assert sensors(lake) == [1, 2, 3, 3, 4]
    same_when_rebuilt(lake)


@on_each_engine
def test_an_id_is_one_of_its_bronze_table(lake: Lake) -> None:
    feeds = (Feed("leituras_norte", AirbyteStream("norte")), Feed("leituras_sul", AirbyteStream("sul")))
    spec = replace(SPEC, source=None, feeds=feeds)
    for name in ("a", "b"):
        for stream in ("norte", "sul"):
            land(lake, name, [("x", 1)], stream=stream)
        for part in spec.parts:
            lake.ingest(part)
        lake.refresh(spec)
    assert sensors(lake, spec) == [1, 1]
    same_when_rebuilt(lake, spec)


def test_tables_with_a_key_know_their_records_by_it(lake: Lake) -> None:
    spec = replace(SPEC, sync="dedup", key=("sensor",), order=("grau",))
    land(lake, "a", [("x", 1), ("x", 2)])
    assert figures(lake.run(spec)) == (2, 2, 0, 0)


def test_an_empty_lake(lake: Lake) -> None:
    assert lake.ingest(SPEC).transaction is None
    assert lake.refresh(SPEC).transaction is None and sensors(lake) == []
    land(lake, "a", [("x", 1), ("x", 1)])
    assert figures(lake.run(SPEC)) == (2, 1, 1, 0)


# --- a lake of an earlier commit -----------------------------------------------------------------------------------------


def as_before(lake: Lake, spec: TableSpec = SPEC) -> None:
    """Bronze as it was made before it noted which ids were delivered."""
    import pyarrow.parquet as pq

    table = DeltaTable(lake.storage.uri(spec.bronze))
    rows = table.to_pyarrow_table().drop_columns(["_raw_id_delivered"])
    before = table.version()
    write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite")
    table = DeltaTable(lake.storage.uri(spec.bronze))
    assert table.version() > before and all("_raw_id_delivered" not in pq.read_schema(path).names for path in table.file_uris())


def test_a_lake_of_an_earlier_commit_goes_on_and_loses_no_record(lake: Lake) -> None:
    land(lake, "a", [("x", 1), (None, 2), (None, 2), ("y", 3)])
    lake.run(SPEC)
    as_before(lake)
    land(lake, "b", [("x", 1), (None, 2), ("z", 4), ("z", 4)])
    assert figures(lake.run(SPEC)) == (4, 2, 2, 0)
    assert sensors(lake) == [1, 2, 2, 2, 3, 4]
    table = open_existing(lake.storage.uri(SPEC.bronze))
    assert table is not None and table.columns["_raw_id_delivered"] == "boolean"
    same_when_rebuilt(lake)


def test_what_an_earlier_commit_counted_twice_counts_once_after_a_rebuild(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.silver import refresh

    with monkeypatch.context() as patch:
        patch.setattr(refresh, "repeats", lambda *_: (None, 0))
        for name in ("a", "b"):
            land(lake, name, [("x", 1)])
            lake.run(SPEC)
    assert sensors(lake) == [1, 1]
    rebuilt = lake.refresh(SPEC, rebuild=True)
    assert figures(rebuilt) == (2, 1, 1, 0) and sensors(lake) == [1]


# --- what it costs -------------------------------------------------------------------------------------------------------


def ids_read(lake: Lake, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> int:
    """Rows of bronze files that are read for their ids alone, by a piece of work."""
    counts = []
    read = DuckDBSession.read

    def counted(self: DuckDBSession, paths: Sequence[str], columns: Any, **named: Any) -> Any:
        frame = read(self, paths, columns, **named)
        if list(columns) == [RAW_ID, "_batch_id"]:
            counts.append(self.count(frame))
        return frame

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBSession, "read", counted)
        work()
    return sum(counts)


def test_only_files_that_may_contain_an_id_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    for batch in range(4):
        land(lake, f"f{batch}", [(f"0190-{batch}-{n:03d}", n) for n in range(50)])
        lake.run(SPEC)
    land(lake, "new", [("0190-4-000", 0)])
    assert ids_read(lake, monkeypatch, lambda: lake.run(SPEC)) == 0, "ids that rise with time are in no older file"
    land(lake, "late", [("0190-2-007", 7)])
    assert ids_read(lake, monkeypatch, lambda: lake.run(SPEC)) == 50
    assert len(sensors(lake)) == 201
    land(lake, "none", [(None, 1)])
    assert ids_read(lake, monkeypatch, lambda: lake.run(SPEC)) == 0, "records without one ask nothing"


def test_bronze_notes_which_ids_were_delivered_in_every_form(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    spec = replace(SPEC, columns=(Column("id", "bigint"),))
    for number, form in enumerate(("v1-jsonl", "v2-csv", "v2-parquet-flat")):
        lake.land("leituras", f"d{number}", [{"id": 1}], form)
    lake.put("leituras", "e.csv", 'id,_airbyte_raw_id\n1,\n2,""\n3,q\n')
    lake.put("leituras", "f.jsonl", '{"id": 1}\n{"id": 2, "_airbyte_raw_id": null}\n')
    lake.ingest(spec)
    found = [(row["_source_file"].rpartition("/")[2], row["_raw_id_delivered"]) for row in lake.rows(spec.bronze)]
    assert sorted(found) == [
        *[(f"d{number}.{ending}", True) for number, ending in enumerate(("jsonl", "csv", "parquet"))],
        *[("e.csv", False), ("e.csv", False), ("e.csv", True), ("f.jsonl", False), ("f.jsonl", False)],
    ]
    assert "_raw_id_delivered" in ENVELOPE


# --- the inputs that others have made ------------------------------------------------------------------------------------


def test_the_same_record_in_two_landed_files(lake: Lake, real_data: Path) -> None:
    case = real_data / "cases" / "11-appraw"
    wanted = json.loads((case.parent / "expected.json").read_text())[case.name]
    spec = TableSpec(
        name="caso",
        source=AirbyteStream("caso"),
        columns=tuple(Column(name, kind) for name, kind in wanted["columns"]),
        sync=wanted["sync"],
    )
    for path in sorted(case.iterdir()):
        lake.put("caso", path.name, path.read_bytes())
        lake.run(spec)
    assert len(lake.rows(spec.silver)) == wanted["count"]
    found = [(row["id"], row["nome"], str(row["valor"])) for row in lake.rows(spec.silver)]
    assert found == [(1, "Ana", "10.00"), (2, "Bia", "20.00")]
    same_when_rebuilt(lake, spec)
