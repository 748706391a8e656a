"""What a power cut leaves of the newest commits: what was not reported is set aside, and never what was.

A file is torn here as a disk does it: emptied, cut, or gone. The states of a whole job are in `faults/power/`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.core.errors import BrokenTableError, StoreError
from lakehouse.core.store import durability, files
from lakehouse.core.table import torn
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse_tests.conftest import Lake

COLUMNS = {"a": "bigint"}


@pytest.fixture(autouse=True)
def _power() -> Iterator[None]:
    before = durability._Disk.mode
    durability.use("power")
    yield
    durability.use(before)


def append(lake: Lake, uri: str, *values: int) -> Snapshot:
    table = open_table(uri, COLUMNS)
    with lake.session() as session:
        files = session.write(session.table([{"a": value} for value in values], COLUMNS), uri, columns=COLUMNS)
    commit_staged(Transaction(table=table, add=files))
    found = open_existing(uri)
    assert found is not None
    return found


def log(uri: str) -> list[str]:
    return sorted(path.name for path in Path(uri, "_delta_log").iterdir())


def commit(uri: str, version: int) -> Path:
    return Path(uri, "_delta_log", f"{version:020}.json")


@pytest.fixture
def uri(lake: Lake) -> str:
    """A table of two appends."""
    uri = f"{lake.folder}/silver/t"
    append(lake, uri, 1)
    append(lake, uri, 2)
    return uri


def unreported(uri: str) -> None:
    """The newest commit, as if the power had gone before its mark was written."""
    Path(uri, ".reported").write_bytes(b"1")


@pytest.mark.parametrize("size", [0, 40, -2])
def test_a_torn_commit_that_was_not_reported_is_set_aside(lake: Lake, uri: str, size: int) -> None:
    unreported(uri)
    content = commit(uri, 2).read_bytes()
    commit(uri, 2).write_bytes(content[:size])
    found = open_existing(uri)
    assert found is not None
    assert (found.version, found.rows) == (1, 1)
    assert [file.name for file in torn.set_aside(uri)] == [commit(uri, 2).name]
    assert append(lake, uri, 3).rows == 2


def test_one_that_was_reported_is_refused_and_stays(uri: str) -> None:
    commit(uri, 2).write_bytes(b"")
    with pytest.raises(BrokenTableError, match="is empty"):
        open_existing(uri)
    assert commit(uri, 2).exists()
    assert torn.set_aside(uri) == []


def test_what_was_written_upon_a_torn_commit_goes_with_it(lake: Lake, uri: str) -> None:
    append(lake, uri, 3)
    unreported(uri)
    commit(uri, 2).write_bytes(b"")
    found = open_existing(uri)
    assert found is not None
    assert (found.version, found.rows) == (1, 1)
    assert len(torn.set_aside(uri)) == 2


def test_a_missing_commit_below_a_reported_one_is_refused(lake: Lake, uri: str) -> None:
    append(lake, uri, 3)
    commit(uri, 2).unlink()
    with pytest.raises(BrokenTableError):
        open_existing(uri)
    assert log(uri) == [commit(uri, number).name for number in (0, 1, 3)]


@pytest.mark.parametrize("pointer", [True, False])
def test_a_torn_checkpoint_is_set_aside_where_the_commits_have_all_of_it(lake: Lake, uri: str, pointer: bool) -> None:
    for value in range(3, 14):
        last = append(lake, uri, value)
    [checkpoint] = Path(uri, "_delta_log").glob("*.checkpoint*.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    if pointer:
        Path(uri, "_delta_log", "_last_checkpoint").write_bytes(b"")
    found = open_existing(uri)
    assert found is not None
    assert (found.version, found.rows) == (last.version, 13)
    assert append(lake, uri, 14).rows == 14


def test_a_checkpoint_without_its_commit_is_set_aside(lake: Lake, uri: str) -> None:
    """Delta opens it, and can never write upon it."""
    for value in range(3, 11):
        last = append(lake, uri, value)
    assert last.version == 10
    table = DeltaTable(uri)
    table.create_checkpoint()
    Path(uri, ".reported").write_bytes(b"9")
    commit(uri, 10).unlink()
    assert DeltaTable(uri).version() == 10
    found = open_existing(uri)
    assert found is not None
    assert found.version == 9
    assert append(lake, uri, 11).rows == 10


def test_a_torn_checkpoint_that_nothing_replaces_is_refused(lake: Lake, uri: str) -> None:
    for value in range(3, 14):
        append(lake, uri, value)
    [checkpoint] = Path(uri, "_delta_log").glob("*.checkpoint*.parquet")
    checkpoint.write_bytes(b"")
    commit(uri, 0).unlink()
    with pytest.raises(BrokenTableError):
        open_existing(uri)
    assert checkpoint.exists()


def test_commits_below_a_whole_checkpoint_are_not_missed(lake: Lake, uri: str) -> None:
    """The log was cleaned up, and nobody has marked a version since: the mark is older than the oldest commit."""
    for value in range(3, 15):
        last = append(lake, uri, value)
    unreported(uri)
    for version in range(5):
        commit(uri, version).unlink()
    commit(uri, last.version).write_bytes(b"")
    found = open_existing(uri)
    assert found is not None
    assert (found.version, found.rows) == (last.version - 1, 13)


def test_a_table_of_an_earlier_release_has_no_mark_until_its_next_commit(lake: Lake, uri: str) -> None:
    Path(uri, ".reported").unlink()
    content = commit(uri, 2).read_bytes()
    commit(uri, 2).write_bytes(b"")
    with pytest.raises(BrokenTableError, match="is empty"):
        open_existing(uri)
    commit(uri, 2).write_bytes(content)
    assert torn.reported(uri) is None
    assert append(lake, uri, 3).version == torn.reported(uri)


def test_a_table_that_was_torn_when_it_was_made_is_made_again(lake: Lake) -> None:
    uri = f"{lake.folder}/silver/new"
    open_table(uri, COLUMNS)
    Path(uri, ".reported").write_bytes(b"-1")
    commit(uri, 0).write_bytes(b"")
    assert append(lake, uri, 1).rows == 1


def test_a_folder_that_may_only_be_read_is_refused_as_before(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unreported(uri)
    commit(uri, 2).write_bytes(b"")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BrokenTableError, match="is empty"):
        open_existing(uri)


def test_without_the_disk_what_was_reported_is_marked_too(lake: Lake, uri: str) -> None:
    durability.use("process")
    append(lake, uri, 3)
    commit(uri, 2).write_bytes(b"")
    with pytest.raises(BrokenTableError, match="is empty"):
        open_existing(uri)
    assert torn.reported(uri) == 3


def test_what_a_writer_has_left_is_no_version(uri: str) -> None:
    Path(uri, "_delta_log", f"{3:020}.json#1").write_bytes(b"{}")
    torn.report(uri)
    assert torn.reported(uri) == 2


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_that_leads_nowhere_is_named(tmp_path: Path, new: bool) -> None:
    (tmp_path / "landing").symlink_to(tmp_path / "unmounted")
    with pytest.raises(StoreError, match="landing is no folder"):
        files.put(f"{tmp_path}/landing/raw/a.json", b"{}", new=new)
