"""Tables are opened when they are named, at one instant, read-only, with what is personal masked, below the lake alone."""

import time
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from lakehouse.ask.instant import instant, versions_at
from lakehouse.ask.lake_file import write_lake_file
from lakehouse.ask.statement import StatementError
from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse_tests.ask.conftest import PESSOAS, WIDER

SILVER = TableRef("silver", "pessoas")


def test_a_table_is_opened_when_a_statement_names_it(connect, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "lakehouse.ask.connection.open_existing", lambda uri, **given: opened.append(uri) or open_existing(uri, **given)
    )
    lake = connect()
    assert not opened
    assert lake.sql("select id, cidade from silver.pessoas order by id").fetchall() == [(1, "Rio"), (2, "Niterói")]
    lake.sql("select count(*) from silver.pessoas").fetchall()
    assert len(opened) == 1 and opened[0].endswith("silver/pessoas")


def test_every_table_of_the_lake_can_be_named(connect, people):
    lake = connect()
    shown = lake.sql("select table_schema, table_name from information_schema.tables").fetchall()
    assert sorted(shown) == sorted((ref.layer, ref.table) for ref in people.storage.tables())
    assert {"bronze", "silver", "quarantine", "ops"} <= {layer for layer, _ in shown}
    for layer, table in shown:
        assert lake.sql(f'from {layer}."{table}"').columns


def test_personal_columns_are_masked_in_every_layer_unless_asked_for(connect):
    masked, plain = connect(), connect(personal=True)
    question = "select nome, idade from silver.pessoas order by id"
    assert masked.sql(question).fetchall() == [("***", None), (None, None)]
    assert plain.sql(question).fetchall() == [("Ana", 30), (None, None)]
    assert masked.sql("select id from silver.pessoas where nome = 'Ana'").fetchall() == []
    assert str(masked.sql("describe silver.pessoas").fetchall()) == str(plain.sql("describe silver.pessoas").fetchall())
    for layer, column in (("bronze", "nome"), ("bronze", "idade"), ("quarantine", "record")):
        question = f"select distinct {column} from {layer}.pessoas where {column} is not null"
        assert masked.sql(question).fetchall() == [("***",)], layer
        assert "***" not in str(plain.sql(question).fetchall())


def test_a_column_of_a_mart_is_masked_by_its_name(catalogue):
    assert catalogue.personal_columns(TableRef("gold", "pessoas_por_cidade")) == {"nome", "idade"}
    assert catalogue.personal_columns(SILVER) == {"nome", "idade"}


def test_all_tables_are_those_of_one_instant_until_it_is_refreshed(connect, people):
    lake, count = connect(), "select count(*) from silver.pessoas"
    people.land("pessoas", "b", [{"id": 3, "em": "2026-01-02T00:00:00Z"}])
    people.run(PESSOAS)
    assert lake.sql(count).fetchall() == [(2,)]
    assert lake.sql("select count(*) from bronze.pessoas").fetchall() == [(3,)]
    lake.refresh()
    assert lake.sql(count).fetchall() == [(3,)]
    assert lake.sql("select count(*) from bronze.pessoas").fetchall() == [(4,)]


def test_a_table_is_what_it_was_at_an_instant(connect, people):
    found = open_existing(people.storage.uri(SILVER))
    assert found is not None
    before, newest, first, columns = datetime.now(UTC), found, found.version, len(found.columns)
    for number in range(5):
        time.sleep(0.002)  # instants of commits are in milliseconds
        newest = newest.add_columns({f"column_{number}": "string"})
    assert newest.version == first + 5
    for version in range(1, newest.version + 1):
        at = newest.committed_at(version)
        assert at is not None
        assert versions_at(people.storage, at)(SILVER, newest) == version
        assert versions_at(people.storage, at - timedelta(milliseconds=1))(SILVER, newest) == version - 1
    assert len(connect(versions=versions_at(people.storage, before)).sql("from silver.pessoas").columns) == columns
    assert len(connect().sql("from silver.pessoas").columns) == columns + 5
    with pytest.raises(BrokenTableError, match="did not exist at 2020-01-01"):
        connect(versions=versions_at(people.storage, instant("2020-01-01"))).sql("from silver.pessoas")


def test_an_instant_is_a_day_to_its_end_or_a_moment():
    assert instant("2026-11-20") == datetime(2026, 11, 20, 23, 59, 59, 999_999, tzinfo=UTC)
    assert instant("2026-11-20T14:30") == datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
    assert instant("2026-11-20T14:30-03:00") == datetime(2026, 11, 20, 17, 30, tzinfo=UTC)
    with pytest.raises(DeclarationError, match="is no instant"):
        instant("yesterday")


def test_a_column_that_no_file_has_is_null(connect, people):
    found = open_existing(people.storage.uri(SILVER))
    assert found is not None
    found.add_columns({"bairro": "string"})
    lake = connect()
    assert lake.sql("select id, bairro from silver.pessoas where id = 1").fetchall() == [(1, None)]
    people.land("pessoas", "b", [{"id": 3, "bairro": "Centro", "em": "2026-01-02T00:00:00Z"}])
    people.run(WIDER)
    lake.refresh()
    assert lake.sql("select bairro from silver.pessoas order by id").fetchall() == [(None,), (None,), ("Centro",)]


def test_a_table_that_does_not_exist_is_refused_with_one_that_does(connect):
    with pytest.raises(BrokenTableError, match=r"gold/pessoas does not exist\. Use bronze\.pessoas, silver\.pessoas"):
        connect().sql("from gold.pessoas")
    with pytest.raises(StatementError, match="Referenced column"):
        connect().sql("select nom from silver.pessoas")


def test_a_table_whose_files_are_not_its_rows_is_refused(connect, people, monkeypatch):
    lake = connect()
    found = open_existing(people.storage.uri(SILVER))
    assert found is not None
    features = type("Protocol", (), {"min_reader_version": 3, "reader_features": ["deletionVectors"]})
    monkeypatch.setattr(type(found.table), "protocol", lambda _: features)
    with pytest.raises(ForeignTableError, match=r"deletionVectors\. Adopt it first"):
        lake.sql("from silver.pessoas")


def test_the_engine_itself_is_closed_to_everything_but_the_tables(connect, people, tmp_path):
    """Where a statement would get past the parser."""
    landed, outside = next((people.folder / "landing").rglob("*.jsonl")), tmp_path / "x.txt"
    outside.write_text("secret")
    engine = connect().cursor()
    for file in (landed, outside, "/etc/passwd"):
        with pytest.raises(duckdb.PermissionException):
            engine.execute("SELECT * FROM read_text($1)", [str(file)]).fetchall()
    for statement in ("COPY (SELECT 1) TO '/tmp/x.csv'", "ATTACH '/tmp/x.duckdb'", "INSTALL httpfs", "SET threads = 1"):
        with pytest.raises(duckdb.Error):
            engine.execute(statement)


@pytest.mark.slow  # loads four libraries of frames
def test_frames_of_duckdb_pandas_polars_and_arrow_are_equal(connect):
    answer = connect().sql("select id, cidade from silver.pessoas order by id")
    rows = [{"id": 1, "cidade": "Rio"}, {"id": 2, "cidade": "Niterói"}]
    assert answer.df().to_dict("records") == answer.pl().to_dicts() == answer.arrow().to_pylist() == rows
    assert answer.relation.aggregate("count(*)").fetchall() == [(2,)]
    assert "Niterói" in repr(answer)


def test_a_connection_leaves_nothing_behind(connect, catalogue, people):
    lake = connect()
    lake.sql("from silver.pessoas").fetchall()
    lake.close()
    assert [*(people.folder / "lake" / ".spill").iterdir()] == []
    assert people.stray_files() == []


def test_the_lake_file_has_every_table_for_whoever_opens_it(catalogue, people):
    written = write_lake_file(catalogue, catalogue.lake_file)
    assert set(written.versions) == set(people.storage.tables()) and not written.left_out
    with duckdb.connect(str(written.file), read_only=True) as other:  # another program: no session, no bounds
        assert other.execute("select id, nome from silver.pessoas order by id").fetchall() == [(1, "***"), (2, None)]
        assert other.execute("select tags from duckdb_databases() where database_name = 'lake'").fetchall()
    people.land("pessoas", "b", [{"id": 3, "em": "2026-01-02T00:00:00Z"}])
    people.run(PESSOAS)
    again = write_lake_file(catalogue, catalogue.lake_file, layers=["silver"], personal=True)
    with duckdb.connect(str(again.file), read_only=True) as other:
        assert other.execute("select nome from silver.pessoas order by id").fetchall() == [("Ana",), (None,), (None,)]
        assert other.execute("select distinct table_schema from information_schema.tables").fetchall() == [("silver",)]
    assert [path.name for path in again.file.parent.iterdir() if "duckdb" in path.name] == ["lake.duckdb"]
