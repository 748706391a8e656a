"""Rows that the writer of a Delta table takes back: silver follows the table, whatever is done to it; bronze has what came."""

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.rules import Release
from lakehouse.landing.readers.files.fields import WITHDRAWN
from lakehouse.tables.spec import AirbyteStream, Column, DeltaSource, Feed, Retention, TableSpec, in_range
from lakehouse_tests.conftest import few
from lakehouse_tests.foreign import Theirs, without

COLUMNS = (Column("id", "bigint"), Column("n", "bigint"), Column("nome", "string"))
SCHEMA = pa.schema([("id", pa.int64()), ("n", pa.int64()), ("nome", pa.string())])
NAMES = ("id", "n", "nome")


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "other" / "itens")


@pytest.fixture
def appended(uri):
    source = DeltaSource(uri, "itens_spark", withdrawals="delete")
    return TableSpec(name="itens", description="", source=source, columns=COLUMNS, sync="append", max_loss=1.0)


@pytest.fixture
def deduplicated(appended):
    return replace(appended, sync="dedup", key=("id",), order=("n", "nome"))


def write(uri, *rows, mode="append"):
    table = pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows], SCHEMA)
    write_deltalake(uri, table, mode=mode)


def theirs(uri) -> Counter[Any]:
    return Counter(tuple(row[name] for name in NAMES) for row in DeltaTable(uri).to_pyarrow_table().to_pylist())


def newest(rows: Counter[Any]) -> Counter[Any]:
    """The row of each id with the highest n."""
    best: dict[int, Any] = {}
    for row in rows:
        best[row[0]] = max(row, best.get(row[0], row), key=lambda one: one[1:])
    return Counter(best.values())


def silver(lake, spec) -> Counter[Any]:
    return Counter(tuple(row[name] for name in NAMES) for row in lake.rows(spec.silver, *NAMES))


def check(lake, uri, *specs):
    for spec in specs:
        refresh = lake.run(spec)
        assert not refresh.stopped and (refresh.entry is None or not refresh.entry.quarantined), refresh.findings
        now = theirs(uri)
        assert silver(lake, spec) == (newest(now) if spec.sync == "dedup" else now), spec.sync


def changed_at_random(uri, dice: random.Random) -> str:
    """One commit of another writer, or several."""
    table = DeltaTable(uri)
    what = dice.choice(["insert", "insert", "update", "delete", "overwrite", "restore", "merge", "optimize", "same"])
    some = [(dice.randrange(6), dice.randrange(4), dice.choice(["a", "b", "c"])) for _ in range(dice.randrange(1, 5))]
    if what == "insert":
        write(uri, *some)
    elif what == "update":
        table.update(predicate=f"id = {some[0][0]}", updates={"n": str(some[0][1])})
    elif what == "same":
        table.update(predicate=f"id = {some[0][0]}", updates={"nome": "nome"})
    elif what == "delete":
        table.delete(predicate=f"id = {some[0][0]} AND n >= {some[0][1]}")
    elif what == "overwrite":
        write(uri, *some, mode="overwrite")
    elif what == "restore" and table.version():
        table.restore(dice.randrange(table.version()))
    elif what == "optimize":
        table.optimize.compact()
    elif what == "merge":
        source = pa.Table.from_pylist(
            [dict(zip(NAMES, row, strict=True)) for row in {one[0]: one for one in some}.values()], SCHEMA
        )
        merge = table.merge(source, predicate="t.id = s.id", source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
    return what


@pytest.mark.parametrize("seed", few(range(10), 0))
def test_silver_has_what_the_table_has_after_each_change(lake, uri, appended, deduplicated, seed):
    dice, done = random.Random(seed), []
    specs = [replace(appended, name="soma", silver_name="soma"), deduplicated]
    write(uri, (1, 1, "a"), (1, 1, "a"), (2, 1, "b"))
    for _ in range(10):
        check(lake, uri, *specs)
        done.append([changed_at_random(uri, dice) for _ in range(dice.randrange(1, 3))])
    check(lake, uri, *specs)
    for spec in specs:
        before = lake.rows(spec.silver)
        assert lake.refresh(spec).transaction is None
        assert not lake.refresh(spec, rebuild=True).stopped
        assert lake.rows(spec.silver) == before, done


@pytest.mark.parametrize(
    "engine_name", [pytest.param("duckdb", marks=pytest.mark.slow), pytest.param("spark", marks=pytest.mark.spark)], indirect=True
)
def test_both_engines_follow_alike(make_lake, engine_name, uri, appended, deduplicated):
    lake = make_lake(engine=engine_name)
    elements = (Column("id", "bigint", parent=True), Column("posicao", "int", position=True), Column("v", "string", path="$"))
    exploded = replace(deduplicated, explode="nome", columns=elements, key=("id", "posicao"), order=("id",))
    specs = [replace(spec, name=name, silver_name=name) for name, spec in (("soma", appended), ("um", deduplicated))]
    exploded = replace(exploded, name="parte", silver_name="parte")
    write(uri, (1, 1, '["a", "b"]'), (1, 1, '["a", "b"]'), (2, 1, '["c"]'), (3, 1, "[]"))

    def run():
        check(lake, uri, *specs)
        assert not lake.run(exploded).stopped
        parts = {(row[0], number, part) for row in newest(theirs(uri)) for number, part in enumerate(json.loads(row[2]))}
        assert {(row["id"], row["posicao"], row["v"]) for row in lake.rows(exploded.silver)} == parts

    run()
    for rows in ("id = 2", "id = 1"):
        DeltaTable(uri).delete(rows)
        run()
    write(uri, (1, 0, '["z"]'), (4, 1, '["c"]'))
    run()
    DeltaTable(uri).update(predicate="id = 1", updates={"nome": "'[]'"})
    run()
    for spec in (*specs, exploded):
        before = lake.rows(spec.silver)
        lake.refresh(spec, rebuild=True)
        assert lake.rows(spec.silver) == before


def test_a_key_that_is_gone_leaves_and_is_live_again_when_it_comes_back(lake, uri, deduplicated):
    write(uri, (1, 9, "a"), (2, 1, "b"))
    check(lake, uri, deduplicated)
    DeltaTable(uri).delete("id = 1")
    refresh = lake.run(deduplicated)
    assert (refresh.entry.records_in, refresh.entry.deleted, refresh.entry.written) == (1, 1, 0)
    assert refresh.transaction.provenance.operation == "merge", "the rows of other keys are not computed again"
    assert silver(lake, deduplicated) == {(2, 1, "b"): 1}
    write(uri, (1, 3, "c"))
    check(lake, uri, deduplicated)
    assert lake.rows(deduplicated.bronze, "id", "_airbyte_meta")[0] == {"id": "1", "_airbyte_meta": WITHDRAWN}


def test_a_version_that_was_replaced_in_silver_is_there_again_when_the_newer_one_is_gone(lake, uri, deduplicated):
    write(uri, (1, 1, "old"), (1, 2, "new"))
    check(lake, uri, deduplicated)
    DeltaTable(uri).delete("n = 2")
    check(lake, uri, deduplicated)
    assert silver(lake, deduplicated) == {(1, 1, "old"): 1}
    DeltaTable(uri).update(predicate="id = 1", updates={"n": "0"})  # a lower order than before
    check(lake, uri, deduplicated)


def test_a_delete_that_is_taken_back_deletes_nothing_later(lake, uri, deduplicated):
    spec = replace(deduplicated, deleted="nome = 'gone'")
    write(uri, (1, 1, "a"), (1, 5, "gone"))
    lake.run(spec)
    assert not silver(lake, spec)
    DeltaTable(uri).delete("n = 5")
    lake.run(spec)
    assert silver(lake, spec) == {(1, 1, "a"): 1}
    write(uri, (1, 2, "b"))
    lake.run(spec)
    assert silver(lake, spec) == {(1, 2, "b"): 1}


def test_a_refused_record_that_is_gone_is_not_taken_in_later(lake, uri, appended, deduplicated):
    for declared in (replace(appended, name="soma", silver_name="soma"), deduplicated):
        shutil.rmtree(uri, ignore_errors=True)
        spec = replace(declared, rules=(in_range("n", minimum=0),))
        write(uri, (1, -1, "a"), (2, 1, "b"))
        assert lake.run(spec).entry.quarantined == 1
        DeltaTable(uri).delete("id = 1")
        assert not lake.run(spec).stopped
        relaxed = replace(spec, rules=())
        assert not lake.refresh(relaxed, mode="redrive").stopped
        assert silver(lake, relaxed) == {(2, 1, "b"): 1}


def test_a_table_that_was_made_again_is_instead_of_the_old_one_when_it_is_released(lake, uri, appended, deduplicated):
    specs = [replace(appended, name="soma", silver_name="soma"), deduplicated]
    write(uri, (1, 1, "a"), (2, 1, "b"))
    check(lake, uri, *specs)
    shutil.rmtree(uri)
    write(uri, (2, 0, "c"))
    for spec in specs:
        with pytest.raises(BrokenTableError, match=r"made again.*instead of those that are there"):
            lake.ingest(spec)
        lake.ingest(spec, release=Release("a new table"))
    check(lake, uri, *specs)
    DeltaTable(uri).delete()
    check(lake, uri, *specs)
    assert not silver(lake, deduplicated)


def test_a_table_that_was_replaced_is_followed_as_its_log_goes_on(lake, tmp_path, appended):
    table = Theirs(tmp_path / "a", {"id": "long"})
    first = table.file({"id": [1, 2]})
    table.commit(first)
    spec = replace(appended, source=replace(appended.source, uri=str(table.folder)), columns=COLUMNS[:1])
    lake.run(spec)
    table.id = "99999999-2222-3333-4444-555555555555"  # CREATE OR REPLACE TABLE
    table.commit(table.metadata(), *without(first), table.file({"id": [2, 2]}))
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [2, 2]
    table.add({"id": [3]})
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [2, 2, 3]


def test_an_empty_table_that_was_made_again_empties_silver(lake, uri, appended):
    write(uri, (1, 1, "a"))
    check(lake, uri, appended)
    shutil.rmtree(uri)
    write(uri)
    lake.ingest(appended, release=Release("a new table"))
    check(lake, uri, appended)
    assert lake.refresh(appended, rebuild=True).entry.records_in == 1 and not silver(lake, appended)


def test_silver_begins_anew_where_what_is_gone_cannot_be_known(lake, uri, appended, deduplicated):
    specs = [replace(appended, name="soma", silver_name="soma"), deduplicated]
    write(uri, (1, 1, "a"), (2, 1, "b"))
    check(lake, uri, *specs)
    table = DeltaTable(uri)
    table.update(predicate="id = 1", updates={"n": "7"})
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    check(lake, uri, *specs)
    write(uri, (1, 8, "z"))
    DeltaTable(uri).delete("id = 2")
    check(lake, uri, *specs)


def test_other_columns_and_types_are_followed(lake, uri, appended):
    write(uri, (1, 1, "a"), (2, 1, "b"))
    check(lake, uri, appended)
    other = pa.table({"id": pa.array([1, 1], pa.int32()), "nome": ["a", "x"], "nova": [1.5, None]})
    write_deltalake(uri, other, mode="overwrite", schema_mode="overwrite")
    lake.run(appended)
    assert silver(lake, appended) == {(1, None, "a"): 1, (1, None, "x"): 1}
    DeltaTable(uri).delete("nova = 1.5")
    lake.run(appended)
    assert silver(lake, appended) == {(1, None, "x"): 1}


def test_a_lake_that_retained_rows_follows_from_the_version_that_is_there(lake, uri, appended):
    retained = replace(appended, source=replace(appended.source, withdrawals=None), on_change="rebuild")
    write(uri, (1, 1, "a"), (2, 1, "b"))
    lake.run(retained)
    DeltaTable(uri).delete("id = 1")
    write(uri, (3, 1, "c"))
    lake.run(retained)
    assert len(lake.rows(retained.silver)) == 3
    follows = replace(retained, source=appended.source)
    check(lake, uri, follows)
    DeltaTable(uri).delete("id = 2")
    check(lake, uri, follows)
    write(uri, (4, 1, "d"))
    again = replace(retained, source=replace(appended.source, withdrawals="keep"))
    lake.run(again)
    assert silver(lake, again) == {(2, 1, "b"): 1, (3, 1, "c"): 1, (4, 1, "d"): 1}, "from where it was followed"
    DeltaTable(uri).delete("id = 3")
    write(uri, (5, 1, "e"))
    lake.run(again)
    assert len(silver(lake, again)) == 4
    assert not lake.refresh(again, rebuild=True).stopped and len(silver(lake, again)) == 4


def test_a_generation_is_not_there_twice_when_withdrawals_are_declared_later(lake, uri, appended):
    spec = replace(appended, sync="overwrite", source=replace(appended.source, withdrawals=None))
    write(uri, (1, 1, "a"))
    lake.run(spec)
    spec = replace(spec, source=appended.source)
    check(lake, uri, spec)
    DeltaTable(uri).delete()
    write(uri, (2, 1, "b"))
    check(lake, uri, spec)


def test_rows_that_stay_without_being_declared_to_are_warned_of_once(lake, uri, appended, deduplicated):
    for declared in (replace(appended, name="soma", silver_name="soma"), deduplicated):
        shutil.rmtree(uri, ignore_errors=True)
        spec = replace(declared, source=replace(declared.source, withdrawals=None))
        write(uri, (1, 1, "a"), (2, 1, "b"), (3, 1, "c"))
        found = [lake.ingest(spec)]
        for step in ("id = 1", "id = 2"):
            DeltaTable(uri).delete(step)
            found.append(lake.ingest(spec))
        lines = [[line for finding in batch.findings for line in finding.lines] for batch in found]
        assert not lines[0] and not lines[2] and len(lines[1]) == 1
        assert f"bronze/{spec.name}: 1 rows have left the Delta table {uri}" in lines[1][0]
        assert "withdrawals='delete'" in lines[1][0]
        details = [{finding.rule: finding.detail for finding in batch.findings}["ledger"] for batch in found]
        assert [detail.get("withdrawn") for detail in details] == [None, 1, 1]
    retained = replace(appended, name="ficam", silver_name="ficam", source=replace(appended.source, withdrawals="keep"))
    lake.ingest(retained)
    DeltaTable(uri).delete()
    assert not any(finding.lines for finding in lake.ingest(retained).findings)


def test_mapped_partitioned_rows_without_deletion_vectors_and_with_ids_of_airbyte(lake, tmp_path, appended):
    kinds = {"_airbyte_raw_id": "string", "_airbyte_meta": "string", "id": "long", "p": "string"}
    table = Theirs(tmp_path / "a", kinds, partition_by=["p"], mapped=True, features=["deletionVectors"])
    rows = {"_airbyte_raw_id": ["r1", "r2", "r3"], "_airbyte_meta": ['{"changes":[]}'] * 3, "id": [1, 1, 2]}
    first = table.file(rows, partition={"p": "São João"})
    table.commit(first)
    columns = (Column("id", "bigint"), Column("p", "string"))
    spec = replace(appended, source=replace(appended.source, uri=str(table.folder)), columns=columns)
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 3
    table.commit(*without(first, deleted=[0, 2]))
    assert not lake.run(spec).stopped
    assert lake.rows(spec.silver, "id", "p") == [{"id": 1, "p": "São João"}]
    table.commit(table.file({**rows, "id": [5, 6, 7]}, partition={"p": "x"}))  # ids that came before count again
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 4


def test_feeds_of_which_one_is_followed(lake, uri, deduplicated):
    files = Feed("de_arquivos", AirbyteStream("arquivos"))
    spec = replace(deduplicated, source=None, feeds=(Feed("de_spark", deduplicated.source), files))
    lake.land("arquivos", "a", [{"id": 1, "n": 5, "nome": "file"}, {"id": 3, "n": 1, "nome": "file"}])
    write(uri, (1, 7, "a"), (2, 1, "b"))

    def run():
        for part in spec.parts:
            lake.ingest(part)
        assert not lake.refresh(spec).stopped
        return {row["id"]: row["nome"] for row in lake.rows(spec.silver)}

    assert run() == {1: "a", 2: "b", 3: "file"}
    DeltaTable(uri).delete()
    assert run() == {1: "file", 3: "file"}


def test_what_cannot_be_followed_exactly_is_refused(appended, deduplicated):
    with pytest.raises(DeclarationError, match="withdrawals"):
        DeltaSource("/x", "x", withdrawals="drop")  # type: ignore[arg-type]
    observed = (*COLUMNS, Column("vezes", "bigint", observed="count"))
    with pytest.raises(DeclarationError, match="counts observations"):
        replace(deduplicated, columns=observed)
    with pytest.raises(DeclarationError, match="Retention"):
        day = (*COLUMNS, Column("dia", "date"))
        retained = Retention(event="dia", silver=timedelta(days=9), bronze=timedelta(days=5))
        replace(deduplicated, columns=day, retention=retained)
