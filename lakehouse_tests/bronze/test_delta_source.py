"""A table that others write: what their commits bring is taken in, whatever they do to their files in between."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError
from lakehouse.core.names import TableRef
from lakehouse.tables.spec import Column, DeltaSource, TableSpec, not_null
from lakehouse_tests.foreign import Theirs

SILVER = TableRef("silver", "itens_processed")


@pytest.fixture
def theirs(tmp_path):
    return tmp_path / "other" / "itens"


@pytest.fixture
def spec(theirs):
    return TableSpec(
        name="itens",
        silver_name="itens_processed",
        description="Items of another flow.",
        source=DeltaSource(str(theirs), "itens_spark"),
        columns=(Column("id", "bigint"), Column("nome", "string"), Column("updated_at", "timestamp")),
        key=("id",),
        order=("updated_at",),
        rules=(not_null("nome"),),
    )


def v1(*rows, at="2026-01-01T00:00:00+00:00"):
    """Rows as Airbyte's first generation keeps them."""
    return pa.table(
        {
            "_airbyte_ab_id": [f"{at}-{row['id']}" for row in rows],
            "_airbyte_emitted_at": pa.array([datetime.fromisoformat(at)] * len(rows), pa.timestamp("us", "UTC")),
            "_airbyte_data": [json.dumps(row) for row in rows],
        }
    )


def item(number, nome="a", day=1):
    return {"id": number, "nome": nome, "updated_at": f"2026-01-{day:02}T00:00:00Z"}


def names(lake):
    return {row["id"]: row["nome"] for row in lake.rows(SILVER, "id", "nome")}


def test_what_each_commit_delivers_is_taken_in_once(lake, theirs, spec):
    write_deltalake(str(theirs), v1(item(1), item(2)))
    first = lake.run(spec)
    assert (first.entry.records_in, names(lake)) == (2, {1: "a", 2: "a"})
    assert lake.ingest(spec).transaction is None and lake.refresh(spec).transaction is None
    write_deltalake(str(theirs), v1(item(2, "b", 2), item(3), at="2026-01-02T00:00:00+00:00"), mode="append")
    assert lake.ingest(spec).entry.written == 2
    lake.refresh(spec)
    assert names(lake) == {1: "a", 2: "b", 3: "a"}
    assert {row["_airbyte_raw_id"] for row in lake.rows(spec.bronze, "_airbyte_raw_id")} >= {"2026-01-01T00:00:00+00:00-1"}


def test_files_that_were_compacted_before_they_were_read_count_and_the_compacted_one_does_not(lake, theirs, spec):
    write_deltalake(str(theirs), v1(item(1)))
    lake.run(spec)
    write_deltalake(str(theirs), v1(item(2)), mode="append")
    DeltaTable(str(theirs)).optimize.compact()
    assert lake.ingest(spec).entry.written == 1
    assert lake.ingest(spec).transaction is None
    lake.refresh(spec)
    assert names(lake) == {1: "a", 2: "a"}


def test_what_was_vacuumed_before_it_was_read_comes_with_the_compacted_file(lake, theirs, spec):
    write_deltalake(str(theirs), v1(item(1)))
    lake.run(spec)
    write_deltalake(str(theirs), v1(item(2)), mode="append")
    table = DeltaTable(str(theirs))
    table.optimize.compact()
    table.vacuum(0, enforce_retention_duration=False, dry_run=False)
    assert lake.ingest(spec).entry.written == 2  # the first item is delivered again
    lake.refresh(spec)
    assert names(lake) == {1: "a", 2: "a"}
    assert lake.ingest(spec).transaction is None


def test_a_log_that_was_cleaned_up_hides_nothing(lake, theirs, spec):
    for number in range(3):
        write_deltalake(
            str(theirs), v1(item(number)), mode="append", configuration={"delta.logRetentionDuration": "interval 0 days"}
        )
    table = DeltaTable(str(theirs))
    table.create_checkpoint()
    for commit in sorted((theirs / "_delta_log").glob("*.json"))[:-1]:
        commit.unlink()
    lake.run(spec)
    assert names(lake) == {0: "a", 1: "a", 2: "a"}


def test_a_table_without_airbytes_columns_is_read_as_it_is(lake, theirs, spec):
    rows = {"id": [1, 2], "nome": ["a", None], "updated_at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2}
    write_deltalake(str(theirs), pa.table(rows, pa.schema([("id", pa.int64()), ("nome", pa.string()),
                                                          ("updated_at", pa.timestamp("us", "UTC"))])))  # fmt: skip
    refresh = lake.run(spec)
    assert (refresh.entry.written, refresh.entry.quarantined, names(lake)) == (1, 1, {1: "a"})


def test_a_live_file_that_is_gone_and_was_never_read_is_an_error(lake, theirs, spec):
    write_deltalake(str(theirs), v1(item(1)))
    [file] = theirs.glob("*.parquet")
    file.rename(theirs / "_away")
    with pytest.raises(BrokenTableError, match=f"The data file {file} of the Delta table {theirs} is missing"):
        lake.ingest(spec)
    (theirs / "_away").rename(file)
    assert lake.ingest(spec).entry.written == 1
    file.unlink()  # it was read
    assert lake.ingest(spec).transaction is None


def test_files_with_signs_in_their_names_are_read(lake, tmp_path, spec):
    theirs = Theirs(tmp_path / "other" / "itens", {"id": "long", "nome": "string"})
    theirs.add({"id": [1], "nome": ["São João"]}, name="p=100%25 a#?/um.parquet")
    lake.run(replace(spec, columns=spec.columns[:2], order=("id",)))
    assert names(lake) == {1: "São João"}


def test_dates_of_the_old_calendar_are_not_taken_in(lake, tmp_path, spec):
    theirs = Theirs(tmp_path / "other" / "itens", {"id": "long", "dia": "date"})
    theirs.add({"id": [1], "dia": [date(1500, 2, 28)]}, footer={b"org.apache.spark.version": b"2.4.8"})
    with pytest.raises(ForeignTableError, match="has dates of the calendar before 1582"):
        lake.ingest(spec)


def test_a_table_that_is_not_there_is_named(lake, theirs, spec):
    with pytest.raises(BrokenTableError, match=f"There is no Delta table in {theirs}"):
        lake.ingest(spec)


@pytest.mark.parametrize("uri", ["itens", "./itens", ""])
def test_a_source_is_an_absolute_location(uri):
    with pytest.raises(DeclarationError, match="is not an absolute folder"):
        DeltaSource(uri, "itens")
