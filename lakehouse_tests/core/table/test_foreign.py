"""A table of another writer is read as its protocol says, or refused in one sentence; its folder stays as it is."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from lakehouse.core.errors import BrokenTableError, ForeignTableError
from lakehouse.core.table.foreign import located, open_foreign, require_foreign
from lakehouse.core.table.foreign_changes import changes
from lakehouse_tests.foreign import Theirs, deletion_vector, without

LEGACY = {b"org.apache.spark.version": b"3.5.0", b"org.apache.spark.legacyDateTime": b""}


def rows(folder, *columns, **how):
    """The rows, sorted by the first column."""
    with require_foreign(str(folder), remedy="", **how).reading(columns or None) as stream:
        found = stream.read_all().to_pylist()
    return sorted(found, key=lambda row: next(iter(row.values())))


def refusal(folder, error=ForeignTableError, **how):
    with pytest.raises(error) as caught:
        rows(folder, **how)
    assert "\n" not in str(caught.value) and "error:" not in str(caught.value).lower()
    return str(caught.value)


def test_deleted_rows_of_a_file_are_left_out(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"}, features=["deletionVectors"])
    added = theirs.file({"id": range(100)})
    theirs.commit(added)
    theirs.commit(*without(added, deleted=range(0, 100, 10)))
    assert [row["id"] for row in rows(tmp_path)] == [number for number in range(100) if number % 10]
    assert len(rows(tmp_path, version=1)) == 100
    assert require_foreign(str(tmp_path), remedy="").features == ("deletionVectors",)


def test_columns_have_the_names_of_the_schema(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long", "Valor Total": "double", "b": "string"}, mapped=True)
    theirs.add({"id": [1], "Valor Total": [1.5], "b": ["x"]})
    theirs.add({"id": [2]})
    assert rows(tmp_path) == [{"id": 1, "Valor Total": 1.5, "b": "x"}, {"id": 2, "Valor Total": None, "b": None}]
    assert rows(tmp_path, "id", "Valor Total")[0] == {"id": 1, "Valor Total": 1.5}


@pytest.mark.parametrize("value", [None, "", "a/b", "100%", "%20", "São João", "x=y&z#?"])
def test_partition_values_are_those_of_the_log(tmp_path, value):
    theirs = Theirs(tmp_path, {"id": "long", "p": "string", "n": "integer"}, partition_by=["p", "n"])
    theirs.add({"id": [1]}, partition={"p": value, "n": "7"}, name="p=100%25/part #1?.parquet")
    assert rows(tmp_path) == [{"id": 1, "p": value, "n": 7}]


def test_every_type_comes_as_itself(tmp_path):
    array = {"type": "array", "elementType": "integer", "containsNull": True}
    mapping = {"type": "map", "keyType": "string", "valueType": "integer", "valueContainsNull": True}
    of = {"name": "a", "type": "integer", "nullable": True, "metadata": {}}
    kinds = {"by": "byte", "sh": "short", "fl": "float", "bi": "binary", "de": "decimal(38,10)", "nt": "timestamp_ntz"}
    nested = {"ar": array, "ma": mapping, "st": {"type": "struct", "fields": [of]}, "vo": "void"}
    theirs = Theirs(tmp_path, {**kinds, **nested}, features=["timestampNtz"])
    row = {
        "by": -128, "sh": 300, "fl": 0.5, "bi": b"\x01\xff", "de": Decimal("12345678901234567890.1234567890"),
        "nt": datetime(2020, 1, 1, 10, 0, 0, 123456), "ar": [1, None], "ma": [("a", 1), ("b", None)], "st": {"a": 1},
    }  # fmt: skip
    schema = pa.schema({
        "by": pa.int8(), "sh": pa.int16(), "fl": pa.float32(), "bi": pa.binary(), "de": pa.decimal128(38, 10),
        "nt": pa.timestamp("us"), "ar": pa.list_(pa.int32()), "ma": pa.map_(pa.string(), pa.int32()),
        "st": pa.struct({"a": pa.int32()}),
    })  # fmt: skip
    theirs.add(pa.Table.from_pylist([row], schema))
    assert rows(tmp_path) == [{**row, "vo": None}]


def test_files_of_another_folder_are_read(tmp_path):
    theirs = Theirs(tmp_path / "clone", {"id": "long"})
    theirs.add({"id": range(100)}, outside=tmp_path / "São 100%", name="a b.parquet")
    theirs.add({"id": range(100, 110)})
    assert len(rows(tmp_path / "clone")) == 110


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.parquet", "s3://lake/t/a/b.parquet"),
        ("p=100%2525/b.parquet", "s3://lake/t/p=100%25/b.parquet"),
        ("/abs/b%20c", "/abs/b c"),
        ("file:/abs/b", "/abs/b"),
        ("file:///abs/b", "/abs/b"),
        ("s3a://other/b", "s3://other/b"),
        ("gs://other/b", "gs://other/b"),
    ],
)
def test_a_path_of_the_log_is_a_location(path, expected):
    assert located("s3://lake/t", path) == expected


def test_a_live_file_that_is_gone_is_named(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"})
    theirs.add({"id": [1]}, name="p=%20/um.parquet")
    (tmp_path / "p=%20/um.parquet").unlink()
    assert f"The data file {tmp_path}/p=%20/um.parquet of the Delta table {tmp_path} is missing." in refusal(
        tmp_path, BrokenTableError
    )


def test_a_damaged_file_is_named(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"})
    theirs.add({"id": list(range(1000))}, name="um.parquet")
    (tmp_path / "um.parquet").write_bytes(b"PAR1" + b"\0" * 500)
    assert "um.parquet" in refusal(tmp_path, BrokenTableError)


@pytest.mark.parametrize("feature", ["vacuumProtocolCheck", "oneOfTomorrow"])
def test_a_feature_that_is_not_read_is_refused_by_name(tmp_path, feature):
    Theirs(tmp_path, {"id": "long"}, features=[feature]).add({"id": [1]})
    message = refusal(tmp_path)
    assert f"has the feature {feature}, which is not read here." in message and "DROP FEATURE" in message


def test_commits_that_a_catalog_manages_are_refused(tmp_path):
    Theirs(tmp_path, {"id": "long"}, features=["catalogManaged"]).add({"id": [1]})
    assert "are managed by a catalog (catalogManaged)" in refusal(tmp_path)


def test_a_type_that_is_not_read_is_refused_by_name(tmp_path):
    Theirs(tmp_path, {"id": "long", "g": "geometry(OGC:CRS84)"})
    assert "a column of the type geometry(OGC:CRS84)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("date", date(1500, 2, 28), date(1582, 10, 15)),
        ("timestamp", datetime(1899, 12, 31, tzinfo=UTC), datetime(1900, 1, 1, tzinfo=UTC)),
    ],
)
def test_values_of_the_old_calendar_are_refused_and_others_of_the_same_writer_read(tmp_path, kind, old, new):
    theirs = Theirs(tmp_path, {"id": "long", "at": kind})
    theirs.add({"id": [1], "at": [new]}, footer=LEGACY)
    theirs.add({"id": [2], "at": [old]})
    assert [row["at"] for row in rows(tmp_path)] == [new, old]
    theirs.add({"id": [3], "at": [old]}, footer=LEGACY, name="velho.parquet")
    assert "has dates of the calendar before 1582 (legacy rebase mode): at of" in refusal(tmp_path)


def test_nested_values_of_the_old_calendar_are_found(tmp_path):
    theirs = Theirs(tmp_path, {"ar": {"type": "array", "elementType": "date", "containsNull": True}})
    theirs.add({"ar": [[None, date(1500, 1, 1)], None]}, footer={b"org.apache.spark.version": b"2.4.8"})
    assert "ar of" in refusal(tmp_path)


def test_an_instant_of_a_partition_has_the_zone_that_is_declared(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long", "at": "timestamp"}, partition_by=["at"])
    theirs.add({"id": [1]}, partition={"at": "2021-09-08 11:11:11"})
    theirs.add({"id": [2]}, partition={"at": None})
    assert "whose value '2021-09-08 11:11:11' has no time zone" in refusal(tmp_path)
    assert rows(tmp_path, timezone="America/Los_Angeles")[0]["at"] == datetime(2021, 9, 8, 18, 11, 11, tzinfo=UTC)
    assert rows(tmp_path, timezone="UTC")[0]["at"] == datetime(2021, 9, 8, 11, 11, 11, tzinfo=UTC)
    theirs.add({"id": [3]}, partition={"at": "2021-09-08T11:11:11.000000Z"})
    assert "some of its values have a time zone, some none" in refusal(tmp_path, timezone="America/Los_Angeles")
    assert [row["id"] for row in rows(tmp_path, timezone="UTC")] == [1, 2, 3]


@pytest.mark.parametrize("zone", ["", "UTC", "America/Sao_Paulo"])
def test_an_instant_of_a_partition_that_is_null_is_written_as_nothing(tmp_path, zone):
    theirs = Theirs(tmp_path, {"id": "long", "at": "timestamp"}, partition_by=["at"])
    theirs.add({"id": [1]}, partition={"at": ""})
    theirs.add({"id": [2]}, partition={"at": "2024-01-01T00:00:00.000000Z"})
    assert [row["at"] for row in rows(tmp_path, timezone=zone)] == [None, datetime(2024, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("9999-12-31 23:59:59", "America/Sao_Paulo"),
        ("0001-01-01 00:00:00", "Asia/Tokyo"),
        ("+12024-01-01 00:00:00", "UTC"),
    ],
)
def test_an_instant_of_a_partition_that_is_out_of_range_is_refused(tmp_path, text, zone):
    theirs = Theirs(tmp_path, {"id": "long", "at": "timestamp"}, partition_by=["at"])
    theirs.add({"id": [1]}, partition={"at": text})
    assert f"whose value '{text}' is no instant of the years 1 to 9999 in the zone {zone}" in refusal(tmp_path, timezone=zone)


def test_a_file_is_no_table(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"})
    theirs.add({"id": [1]}, name="um.parquet")
    assert "um.parquet is a file, and a Delta table is a folder" in refusal(tmp_path / "um.parquet", BrokenTableError)


@pytest.mark.parametrize("action", [{"remove": {"path": None}}, {"add": {}}, {"add": [1]}])
def test_a_commit_that_names_no_file_is_named(tmp_path, action):
    theirs = Theirs(tmp_path, {"id": "long"})
    theirs.commit(action)
    with pytest.raises(BrokenTableError, match=rf"{1:020}\.json has an action {next(iter(action))} that names no file\."):
        changes(str(tmp_path), 0, 1)


def test_a_log_without_a_schema_is_refused(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"})
    metadata = theirs.metadata()
    del metadata["metaData"]["schemaString"]
    theirs.commit(metadata)
    assert "has no schema, so nobody can read it" in refusal(tmp_path, BrokenTableError)


def test_a_lost_commit_and_a_version_that_is_not_there_are_named(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"})
    theirs.add({"id": [1]})
    theirs.add({"id": [2]})
    assert "cannot be read at version 9: its newest is 2" in refusal(tmp_path, BrokenTableError, version=9)
    (tmp_path / "_delta_log" / f"{1:020}.json").unlink()
    assert f"{1:020}.json is missing" in refusal(tmp_path, BrokenTableError)


def test_what_fails_while_the_stream_is_read_is_raised_as_what_it_is(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"}, features=["deletionVectors"])
    added = theirs.file({"id": [1, 2]})
    lost = {**deletion_vector([0]), "storageType": "p", "pathOrInlineDv": f"file://{tmp_path}/lost.bin", "offset": 1}
    theirs.commit({"add": {**added["add"], "deletionVector": lost}})
    assert "lost.bin" in refusal(tmp_path, BrokenTableError)


def test_nothing_is_written_there(tmp_path):
    theirs = Theirs(tmp_path, {"id": "long"}, features=["deletionVectors"])
    theirs.add({"id": [1, 2]}, deleted=[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert rows(tmp_path) == [{"id": 2}]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_without_a_log_is_no_table(tmp_path):
    assert open_foreign(str(tmp_path)) is None
    with pytest.raises(BrokenTableError, match="There is no Delta table in"):
        require_foreign(str(tmp_path), remedy="Look.")
