"""A table of another writer: each version that delivers data is taken in once, exactly, whatever features the table has."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse.bronze import ingest
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.ledger import complete_app
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Release
from lakehouse.core.store.storage import LandedFile
from lakehouse.core.table.snapshot import open_existing
from lakehouse.landing.readers import versions
from lakehouse.landing.readers.registry import Landing
from lakehouse.tables.spec import Column, DeltaSource, TableSpec
from lakehouse_tests.foreign import Theirs, without

SILVER = TableRef("silver", "itens_processed")
KINDS = {"id": "long", "Nome Completo": "string", "p": "string"}


@pytest.fixture
def theirs(tmp_path):
    return Theirs(tmp_path / "other" / "itens", KINDS, partition_by=["p"], mapped=True, features=["deletionVectors"])


@pytest.fixture
def spec(theirs):
    return TableSpec(
        name="itens",
        silver_name="itens_processed",
        description="Items of another flow.",
        source=DeltaSource(str(theirs.folder), "itens_spark"),
        columns=(Column("id", "bigint"), Column("nome_completo", "string"), Column("p", "string")),
        key=("id",),
        order=("id",),
    )


@pytest.fixture
def overwritten(spec):
    return replace(spec, sync="overwrite", key=(), order=())


def silver(lake):
    return [(row["id"], row["nome_completo"], row["p"]) for row in lake.rows(SILVER, "id", "nome_completo", "p")]


def file(theirs, *ids, name="a", partition="São João", **how):
    return theirs.file({"id": ids, "Nome Completo": [name] * len(ids)}, partition={"p": partition}, **how)


def test_the_rows_of_the_newest_version_are_taken_in(lake, theirs, spec):
    theirs.commit(file(theirs, 1, 2, 3, deleted=[1]), file(theirs, 4, partition=None), file(theirs, 5, partition="100%"))
    refresh = lake.run(spec)
    assert refresh.entry.records_in == 4
    assert silver(lake) == [(1, "a", "São João"), (3, "a", "São João"), (4, "a", None), (5, "a", "100%")]
    assert lake.ingest(spec).transaction is None
    [source] = {row["_source_file"] for row in lake.rows(spec.bronze, "_source_file")}
    assert source == f"{theirs.id}@{1:020}.parquet"


def test_a_version_that_delivers_no_data_is_not_taken_in(lake, theirs, spec):
    one, two = file(theirs, 1), file(theirs, 2)
    theirs.commit(one, two)
    lake.run(spec)
    theirs.commit(*without(one, data_change=False), *without(two, data_change=False), file(theirs, 1, 2, data_change=False))
    assert lake.ingest(spec).transaction is None
    theirs.commit(file(theirs, 3, name="b"))
    assert lake.ingest(spec).entry.written == 1
    lake.refresh(spec)
    assert [row[:2] for row in silver(lake)] == [(1, "a"), (2, "a"), (3, "b")]


def test_silver_that_is_overwritten_has_the_rows_of_the_newest_version_and_no_others(lake, theirs, overwritten):
    first = file(theirs, 1, 2, 2)
    theirs.commit(first)
    lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [1, 2, 2]
    theirs.commit(*without(first, deleted=[0]))
    theirs.commit(file(theirs, 7))
    lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [2, 2, 7]
    assert lake.ingest(overwritten).transaction is None


def test_silver_that_is_overwritten_stays_while_a_version_is_refused(lake, theirs, overwritten):
    spec = replace(overwritten, drift="quarantine")
    first = file(theirs, 1, 2)
    theirs.commit(first)
    lake.run(spec)
    theirs.columns = {**theirs.columns, "nova": "string"}
    theirs.commit(theirs.metadata())
    theirs.commit(*without(first), theirs.file({"id": [2, 3], "nova": ["x", "y"]}, partition={"p": "a"}))
    assert lake.ingest(spec).entry.written == 0
    for mode in ("increment", "rebuild"):
        assert not lake.refresh(spec, mode=mode).stopped
        assert [row[0] for row in silver(lake)] == [1, 2]
    with lake.session() as session:
        ingest.redrive_files(session, lake.storage, spec, run_id="x")
    lake.run(replace(spec, drift="evolve"))
    assert [row[0] for row in silver(lake)] == [2, 3]


def test_silver_that_is_overwritten_stays_while_a_version_has_vanished(lake, theirs, overwritten, monkeypatch):
    one, two = file(theirs, 1), file(theirs, 2)
    theirs.commit(one)
    lake.run(overwritten)
    theirs.commit(*without(one), two)
    with monkeypatch.context() as broken:
        broken.setattr(versions, "copied", lambda *args, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(overwritten)
    theirs.commit(*without(two), file(theirs, 3))
    (theirs.folder / two["add"]["path"]).unlink()
    lake.ingest(overwritten)
    assert open_existing(lake.storage.uri(overwritten.bronze)).watermark(complete_app(overwritten.bronze)) == 2
    for mode in ("increment", "rebuild"):
        assert not lake.refresh(overwritten, mode=mode).stopped
        assert [row[0] for row in silver(lake)] == [1]
    lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [3]


def test_a_planned_version_is_read_although_another_came(lake, theirs, overwritten, monkeypatch):
    theirs.commit(file(theirs, 1))
    with monkeypatch.context() as broken:
        broken.setattr(versions, "copied", lambda *args, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(overwritten)
    theirs.commit(file(theirs, 2))
    lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [1]
    lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [1, 2]
    assert lake.ingest(overwritten).transaction is None


def test_a_planned_version_that_was_vacuumed_is_given_up_for_the_next(lake, theirs, overwritten, monkeypatch):
    first = file(theirs, 1, name="um", partition="a")
    theirs.commit(first)
    with monkeypatch.context() as broken:
        broken.setattr(versions, "copied", lambda *args, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(overwritten)
    theirs.commit(*without(first), file(theirs, 2))
    for path in theirs.folder.glob("*.parquet"):
        if path.name == first["add"]["path"]:
            path.unlink()
    for _ in range(2):
        lake.run(overwritten)
    assert [row[0] for row in silver(lake)] == [2]


def test_a_table_that_was_made_again_stops_until_it_is_released(lake, theirs, spec, tmp_path):
    theirs.commit(file(theirs, 1))
    lake.run(spec)
    theirs.folder.rename(tmp_path / "before")
    again = Theirs(theirs.folder, KINDS, partition_by=["p"], mapped=True, id="another")
    again.commit(file(again, 9))
    with pytest.raises(BrokenTableError, match=r"was made again since it was read.+make release TABLE="):
        lake.ingest(spec)
    assert lake.ingest(spec, release=Release(reason="a new one")).entry.written == 1
    again.commit(file(again, 10))
    assert lake.ingest(spec).entry.written == 1
    lake.refresh(spec)
    assert [row[0] for row in silver(lake)] == [1, 9, 10]


@pytest.mark.parametrize("again", [1, 2, 3])
def test_an_older_log_that_was_put_back_and_goes_on_stops(lake, theirs, spec, again):
    for number in (1, 2, 3):
        theirs.commit(file(theirs, number))
    assert lake.ingest(spec).entry.written == 3
    for version in (2, 3):
        (theirs.folder / "_delta_log" / f"{version:020}.json").unlink()
    theirs.version = 1
    for number in range(again):
        theirs.commit(file(theirs, 20 + number))
    with pytest.raises(BrokenTableError, match=r"has lost commits: version 3 was read, (its newest is 2|and is another)"):
        lake.ingest(spec)


def test_a_commit_that_was_cleaned_up_is_not_lost(lake, theirs, spec):
    theirs.commit(file(theirs, 1))
    theirs.commit(file(theirs, 2))
    lake.run(spec)
    table = DeltaTable(str(theirs.folder))
    theirs.commit(file(theirs, 3))
    table.update_incremental()
    table.create_checkpoint()
    for version in range(3):
        (theirs.folder / "_delta_log" / f"{version:020}.json").unlink()
    lake.run(spec)
    assert [row[0] for row in silver(lake)] == [1, 2, 3]


def test_a_plain_table_can_be_overwritten_too(lake, tmp_path, overwritten):
    plain = Theirs(tmp_path / "plain", {"id": "long"})
    plain.add({"id": [1, 2]})
    plain_spec = replace(overwritten, source=DeltaSource(str(plain.folder), "plain"), columns=overwritten.columns[:1])
    lake.run(plain_spec)
    assert [row["id"] for row in lake.rows(SILVER, "id")] == [1, 2]


def test_a_variant_is_the_text_of_its_value(lake, tmp_path, spec):
    one = {"metadata": b"\x01\x01\x00\x03key", "value": b"\x02\x01\x00\x00\x02\x0c\x01"}
    kind = pa.struct({"metadata": pa.binary(), "value": pa.binary()})
    several = {"type": "array", "elementType": "variant", "containsNull": True}
    table = Theirs(tmp_path / "v", {"id": "long", "v": "variant", "l": several}, features=["variantType"])
    lists = pa.array([[one, None], None], pa.list_(kind))
    table.add(pa.table({"id": [1, 2], "v": pa.array([one, None], kind), "l": lists}))
    columns = (Column("id", "bigint"), Column("v", "string"), Column("l", "string"))
    lake.run(replace(spec, source=DeltaSource(str(table.folder), "v"), columns=columns))
    assert lake.rows(SILVER, "id", "v", "l") == [
        {"id": 1, "v": '{"key":1}', "l": '[{"key":1},null]'},
        {"id": 2, "v": None, "l": None},
    ]


# --- what is new -----------------------------------------------------------------------------------------------------


@pytest.fixture
def appended(spec):
    return replace(spec, sync="append", key=(), order=())


def delivered(lake, spec):
    """The ids and names of the newest batch."""
    batch = lake.ingest(spec)
    if batch.transaction is None or not batch.entry.written:
        return []
    rows = lake.rows(spec.bronze, "_batch_id", "id", "nome_completo")
    newest = max(row["_batch_id"] for row in rows)
    return [(row["id"], row["nome_completo"]) for row in rows if row["_batch_id"] == newest]


def test_each_commit_delivers_the_rows_that_are_new(lake, theirs, appended):
    one = file(theirs, 1, 2, 3)
    theirs.commit(one)
    assert delivered(lake, appended) == [("1", "a"), ("2", "a"), ("3", "a")]
    theirs.commit(file(theirs, 4))
    theirs.commit(file(theirs, 5, partition=None))
    assert delivered(lake, appended) == [("4", "a"), ("5", "a")]
    # UPDATE by a deletion vector in a file, then by rewriting
    theirs.commit(*without(one, deleted=[0], folder=theirs.folder), file(theirs, 1, name="b"))
    assert delivered(lake, appended) == [("1", "b")]
    two = file(theirs, 6, 7, 8)
    theirs.commit(two)
    assert delivered(lake, appended) == [("6", "a"), ("7", "a"), ("8", "a")]
    six, others = file(theirs, 6, name="c"), file(theirs, 7, 8)
    theirs.commit(*without(two), six, others)
    assert delivered(lake, appended) == [("6", "c")]
    # OPTIMIZE, DELETE: nothing is new
    compacted = file(theirs, 7, 8, data_change=False)
    theirs.commit(*without(others, data_change=False), compacted)
    assert lake.ingest(appended).transaction is None
    theirs.commit(*without(compacted), file(theirs, 8))
    assert delivered(lake, appended) == []
    lake.refresh(appended)
    assert len(silver(lake)) == 10


def test_what_was_undone_before_it_was_read_is_not_delivered(lake, theirs, appended):
    one, two = file(theirs, 1, 2), file(theirs, 1, name="b")
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 2
    theirs.commit(*without(one), two)
    theirs.commit(*without(two), one)  # RESTORE
    assert lake.ingest(appended).transaction is None


def test_rows_are_counted_as_often_as_they_are_there(lake, theirs, appended):
    one = file(theirs, 1, 1, 2)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 3
    theirs.commit(*without(one), file(theirs, 1, 1, 1, 1, 2))
    assert delivered(lake, appended) == [("1", "a"), ("1", "a")]


def test_rows_that_were_compacted_before_they_were_read_are_delivered_once(lake, theirs, appended):
    one, two = file(theirs, 1), file(theirs, 2)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 1
    theirs.commit(two)
    both = file(theirs, 1, 2, data_change=False)
    theirs.commit(*without(one, data_change=False), *without(two, data_change=False), both)
    theirs.commit(*without(both), file(theirs, 1, 2, 3))
    assert delivered(lake, appended) == [("2", "a"), ("3", "a")]


def test_a_file_that_is_added_once_more_delivers_nothing(lake, theirs, appended):
    one = file(theirs, 1)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 1
    theirs.commit(one, file(theirs, 2))
    assert delivered(lake, appended) == [("2", "a")]


def test_an_older_writers_removes_are_followed_too(lake, theirs, appended):
    one = file(theirs, 1, 2)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 2
    theirs.commit(*without(one, plain=True), file(theirs, 1, 2, 3))
    assert delivered(lake, appended) == [("3", "a")]


def test_what_cannot_be_told_is_an_error_for_appended_rows_and_delivered_anew_for_others(lake, theirs, spec, appended):
    one = file(theirs, 1, 2)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 2
    theirs.commit(*without(one), file(theirs, 1, 2, 3))
    gone = theirs.folder / one["add"]["path"]
    gone.unlink()
    with pytest.raises(BrokenTableError, match=r"What is new in the Delta table .* since version 1 cannot be known"):
        lake.ingest(appended)
    assert len(delivered(lake, spec)) == 3


@pytest.mark.parametrize("kind", ["string", {"type": "array", "elementType": "long", "containsNull": True}])
def test_whole_versions_are_compared_when_a_column_came_or_went(lake, theirs, appended, kind):
    one = file(theirs, 1, 2)
    theirs.commit(one)
    assert len(delivered(lake, appended)) == 2
    theirs.columns = {**theirs.columns, "nova": kind}
    theirs.commit(theirs.metadata())
    two = file(theirs, 1, 3)
    theirs.commit(*without(one, plain=True), two)
    assert delivered(lake, appended) == [("3", "a")]
    del theirs.columns["nova"]
    theirs.commit(theirs.metadata(), *without(two, plain=True), file(theirs, 3, 4))
    assert delivered(lake, appended) == [("4", "a")]


def test_a_column_that_has_another_type_is_the_reason(lake, plain, spec, appended_plain):
    one = plain.add(names(1))
    assert len(delivered(lake, appended_plain)) == 1
    plain.columns = {"id": "long", "nome_completo": "long"}
    plain.commit(plain.metadata(), *without(one), plain.file({"id": [1, 2], "nome_completo": [7, 8]}))
    with pytest.raises(BrokenTableError, match="its schema has changed, and nome_completo has another type now"):
        lake.ingest(appended_plain)
    dedup = replace(spec, source=appended_plain.source, columns=appended_plain.columns)
    assert len(delivered(lake, dedup)) == 2


def test_a_killed_batch_is_read_again_as_it_was_planned(lake, theirs, appended, monkeypatch):
    theirs.commit(file(theirs, 1))
    assert len(delivered(lake, appended)) == 1
    theirs.commit(file(theirs, 2))
    with monkeypatch.context() as broken:
        broken.setattr(versions, "_required", lambda *args, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(appended)
    with monkeypatch.context() as broken:
        broken.setattr(versions._Delivery, "changes", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(appended)
    theirs.commit(file(theirs, 3))
    assert [delivered(lake, appended) for _ in range(3)] == [[("2", "a")], [("3", "a")], []]


def test_rows_of_a_version_that_was_refused_whole_come_with_the_next(lake, theirs, appended):
    spec = replace(appended, drift="quarantine")
    theirs.commit(file(theirs, 1))
    assert len(delivered(lake, spec)) == 1
    theirs.columns = {**theirs.columns, "nova": "string"}
    theirs.commit(theirs.metadata())
    theirs.commit(theirs.file({"id": [2], "nova": ["x"]}, partition={"p": "a"}))
    lake.ingest(spec)
    assert len(lake.rows(spec.bronze)) == 1 and len(lake.rows(spec.quarantine)) == 1
    released = replace(spec, drift="evolve")
    theirs.commit(theirs.file({"id": [3]}, partition={"p": "a"}))
    assert [row[0] for row in delivered(lake, released)] == ["2", "3"]


def followed(source, storage):
    """The landing of earlier releases: data files by their paths."""
    folder = Path(source.uri)
    files = [LandedFile(path.name, path.stat().st_size, "as committed", 1.0) for path in sorted(folder.glob("*.parquet"))]
    return Landing(
        name=source.uri, storage=replace(storage, landing=source.uri), location=source.uri, description="", fixed=True,
        kinds=frozenset(), landed=lambda known: files,
    )  # fmt: skip


@pytest.mark.parametrize("sync", ["dedup", "append"])
def test_a_lake_that_followed_data_files_goes_on_with_what_is_new(lake, tmp_path, spec, appended, monkeypatch, sync):
    plain = Theirs(tmp_path / "plain", {"id": "long", "nome_completo": "string"})
    one = plain.file({"id": [1], "nome_completo": ["a"]})
    plain.commit(one)
    plain.add({"id": [2], "nome_completo": ["a"]})
    mine = spec if sync == "dedup" else appended
    mine = replace(mine, source=DeltaSource(str(plain.folder), "plain"), columns=mine.columns[:2])
    with monkeypatch.context() as earlier:
        earlier.setattr(ingest, "landing", followed)
        assert len(delivered(lake, mine)) == 2
    assert lake.ingest(mine).transaction is None
    plain.commit(*without(one), plain.file({"id": [1, 3], "nome_completo": ["a", "a"]}))
    assert delivered(lake, mine) == [("3", "a")]
    plain.add({"id": [4], "nome_completo": ["a"]})
    assert delivered(lake, mine) == [("4", "a")]
    lake.refresh(mine)
    assert [row["id"] for row in lake.rows(SILVER, "id")] == [1, 2, 3, 4]


@pytest.fixture
def plain(tmp_path):
    return Theirs(tmp_path / "plain", {"id": "long", "nome_completo": "string"})


@pytest.fixture
def appended_plain(plain, appended):
    return replace(appended, source=DeltaSource(str(plain.folder), "plain"), columns=appended.columns[:2])


def names(*ids):
    return {"id": ids, "nome_completo": ["a"] * len(ids)}


@pytest.fixture
def with_a_refused_file(lake, plain, appended_plain, monkeypatch):
    """A lake of an earlier release that read two data files, and refused the one between them."""
    spec = replace(appended_plain, drift="quarantine")
    plain.add(names(1))
    with monkeypatch.context() as earlier:
        earlier.setattr(ingest, "landing", followed)
        assert delivered(lake, spec) == [("1", "a")]
        plain.columns = {**plain.columns, "nova": "string"}
        plain.commit(plain.metadata())
        plain.add({**names(2), "nova": ["x"]}, name="z2.parquet")
        read = plain.add(names(3), name="z3.parquet")
        assert delivered(lake, spec) == [("3", "a")]
    assert len(lake.rows(spec.quarantine)) == 1
    assert lake.ingest(spec).transaction is None
    return replace(spec, drift="evolve"), read


def test_a_data_file_that_an_earlier_release_refused_is_read_when_it_is_redriven(lake, plain, with_a_refused_file):
    spec, _ = with_a_refused_file
    with lake.session() as session:
        assert ingest.redrive_files(session, lake.storage, spec, run_id="x") == ["z2.parquet"]
    assert [delivered(lake, spec) for _ in range(2)] == [[("2", "a")], []]
    plain.add(names(4))
    assert delivered(lake, spec) == [("4", "a")]
    assert lake.rows(spec.quarantine) == []


def test_a_data_file_that_an_earlier_release_refused_comes_with_the_next_version(lake, plain, with_a_refused_file):
    spec, read = with_a_refused_file
    plain.commit(*without(read), plain.file(names(3, 4)))
    assert sorted(delivered(lake, spec)) == [("2", "a"), ("4", "a")]
    assert lake.ingest(spec).transaction is None


def test_a_lake_that_followed_a_file_of_optimize_goes_on_with_what_is_new(lake, plain, appended_plain, monkeypatch):
    one = plain.add(names(1))
    with monkeypatch.context() as earlier:
        earlier.setattr(ingest, "landing", followed)
        assert len(delivered(lake, appended_plain)) == 1
        two = plain.add(names(2))
        both = plain.file(names(1, 2), data_change=False)
        plain.commit(*without(one, data_change=False), *without(two, data_change=False), both)
        for gone in (one, two):
            (plain.folder / gone["add"]["path"]).unlink()
        assert len(delivered(lake, appended_plain)) == 2
    assert lake.ingest(appended_plain).transaction is None
    plain.add(names(3))
    assert [delivered(lake, appended_plain) for _ in range(2)] == [[("3", "a")], []]
