"""A session sees the folders that it was given and no other file, fetches nothing, and cannot be talked out of it.

Not here: dbt's scratch database (`lakehouse_tests/gold/`), names that never reach SQL (`core/test_names.py`).
"""

from pathlib import Path

import duckdb
import pytest

from lakehouse.core.engines.duckdb import DuckDBSession, confine, literal
from lakehouse.core.engines.session import duckdb_session
from lakehouse.runtime.lake import LakeResource
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake

SPEC = TableSpec(name="itens", source=AirbyteStream("itens"), columns=(Column("id", "bigint"),), key=("id",), order=("id",))
CSV = "a\n1\n"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "x.csv").write_text(CSV)
    return folder


@pytest.fixture
def confined(tmp_path: Path, inside: Path) -> DuckDBSession:
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside_too").mkdir()
    for name in ("outside/x.csv", "inside_too/x.csv"):
        (tmp_path / name).write_text(CSV)
    (inside / "linked.csv").symlink_to(tmp_path / "outside" / "x.csv")
    (inside / "linked").symlink_to(tmp_path / "outside")
    with duckdb_session(memory_limit="200MB", spill=str(tmp_path / "spill"), folders=[str(inside)]) as session:
        yield session  # type: ignore[misc]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd', sep = ':', header = false)",
        "FROM read_text('/etc/passwd')",
        "FROM read_blob('/etc/pass*')",
        "FROM glob('/etc/*')",
        "FROM '/etc/passwd'",
        "CREATE TABLE t AS FROM read_csv('{outside}/x.csv')",
        "CREATE TABLE IF NOT EXISTS t (a INT); COPY t FROM '{outside}/x.csv'",
        "FROM read_csv('{inside}/../outside/x.csv')",
        "FROM read_csv('{inside}_too/x.csv')",
        "FROM read_csv('{inside}/linked.csv')",
        "FROM read_csv('{inside}/linked/x.csv')",
        "FROM read_csv('file://{outside}/x.csv')",
        "COPY (SELECT 1 AS a) TO '{outside}/y.parquet'",
        "COPY (SELECT 1 AS a) TO '{inside}/../outside/y.parquet'",
        "EXPORT DATABASE '{outside}/export'",
        "ATTACH '{outside}/y.duckdb' AS y",
        "FROM read_csv('http://127.0.0.1:1/x.csv')",
        "FROM read_parquet('s3://bucket/x.parquet')",
        "INSTALL httpfs",
        "INSTALL json FROM community",
        "LOAD httpfs",
        "LOAD '{outside}/x.duckdb_extension'",
    ],
)
def test_what_is_outside_is_closed(confined: DuckDBSession, tmp_path: Path, sql: str) -> None:
    before = sorted(path.name for path in (tmp_path / "outside").iterdir())
    text = sql.format(inside=tmp_path / "inside", outside=tmp_path / "outside")
    for connection in (confined.connection, confined.connection.cursor()):
        with pytest.raises(duckdb.Error, match=r"Permission|disabled|configuration|does not exist"):
            connection.execute(text)
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "SET GLOBAL lock_configuration = false",
        "RESET lock_configuration",
        "SET allowed_directories = ['/']",
        "SET allowed_paths = ['/etc/passwd']",
        "SET temp_directory = '/tmp'",
        "SET memory_limit = '100GB'",
        "SET extension_directory = '/tmp'",
        "SET autoinstall_known_extensions = true",
        "SET autoload_known_extensions = true",
        "SET TimeZone = 'America/Sao_Paulo'",
        "PRAGMA memory_limit = '100GB'",
    ],
)
def test_no_setting_can_be_changed(confined: DuckDBSession, sql: str) -> None:
    for connection in (confined.connection, confined.connection.cursor()):
        with pytest.raises(duckdb.Error, match=r"locked|[Cc]annot"):
            connection.execute(sql)


def test_what_is_inside_is_read_and_written(confined: DuckDBSession, inside: Path, tmp_path: Path) -> None:
    connection = confined.connection
    assert connection.execute("FROM read_csv($1)", [str(inside / "x.csv")]).fetchall() == [(1,)]
    connection.execute("COPY (SELECT 2 AS a) TO $1 (FORMAT parquet)", [str(inside / "y.parquet")])
    assert connection.execute("FROM read_parquet($1)", [str(inside / "y.parquet")]).fetchall() == [(2,)]
    connection.execute(f"ATTACH '{inside}/z.duckdb' AS z")
    connection.execute("CREATE TABLE z.t AS SELECT 3 AS a")
    assert connection.execute("FROM z.t").fetchall() == [(3,)]


@pytest.mark.parametrize("name", ["it's", "a [1] * ?", "é%41", "a#b"])
def test_the_folder_may_have_any_name_or_be_a_link(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "x.csv").write_text(CSV)
    (tmp_path / "link").symlink_to(folder)
    for given in (folder, tmp_path / "link"):
        with duckdb.connect() as connection:
            confine(connection, [str(given)])
            for path in (folder / "x.csv", tmp_path / "link" / "x.csv"):
                assert connection.execute("FROM read_csv($1)", [literal(str(path))]).fetchall() == [(1,)]


def test_links_below_landing_are_followed_by_whoever_reads_landed_files_and_by_nobody_else(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "base" / "lake")
    elsewhere = Lake(tmp_path / "elsewhere")
    first = elsewhere.land("itens", "a", [{"id": 1}])
    second = elsewhere.land("outros", "b", [{"id": 2}])
    lake.land("itens", "c", [{"id": 3}])
    (lake.folder / "landing" / "raw" / "itens" / "folder").symlink_to(first.parent)
    (lake.folder / "landing" / "raw" / "itens" / "one.jsonl").symlink_to(second)
    resource = LakeResource(
        root=lake.storage.root, landing=lake.storage.landing, layers={}, engine="duckdb",
        memory_limit="500MB", spill=str(tmp_path / "spill"), environment="dev",
    )  # fmt: skip
    from lakehouse.bronze.ingest import stage_batch

    with resource.duckdb(landing=lake.storage) as session:
        batch = stage_batch(session, lake.storage, SPEC, run_id="run")
        assert batch.entry is not None and (batch.entry.written, batch.entry.quarantined) == (3, 0)
    with resource.session() as session, pytest.raises(duckdb.PermissionException):
        session.read([str(first)], {"id": "string"})


def test_layers_with_a_root_of_their_own_are_open_too(tmp_path: Path) -> None:
    resource = LakeResource(
        root=str(tmp_path / "lake"), landing=str(tmp_path / "landing"), layers={"gold": str(tmp_path / "fast")},
        engine="duckdb", memory_limit="500MB", spill=str(tmp_path / "spill"), environment="dev",
    )  # fmt: skip
    with resource.session() as session:
        for folder in ("lake/bronze/x", "landing/x", "fast/x"):
            assert len(session.write(session.table([{"a": 1}], {"a": "int"}), str(tmp_path / folder), columns={"a": "int"})) == 1
        with pytest.raises(duckdb.PermissionException):
            session.write(session.table([{"a": 1}], {"a": "int"}), str(tmp_path / "slow" / "x"), columns={"a": "int"})
