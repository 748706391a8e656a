"""A damaged table is refused by name: which file, what is wrong with it, what to type. Never other rows, never a bare library
error; and what the message says to type, fixes it.

Damage of a table's files at rest. Not here: landed files (`landing/readers/test_damage.py`), processes that are killed
(`faults/test_kills.py`).
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.table import torn
from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake, Row, few

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    max_loss=1.0,
)
BATCHES = 4
#: The rows of silver when everything is as it should be; the second batch changes a row of the first.
EXPECTED = {1: "a", 2: "b2", 3: "c", 4: "d", 5: "e" * 40}


def item(number: int, nome: str, day: int) -> Row:
    return {"id": number, "nome": nome, "em": f"2026-01-{day:02d}T00:00:00Z"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of four batches. Nobody changes it."""
    lake = Lake(tmp_path_factory.mktemp("built"))
    batches = [[item(1, "a", 1), item(2, "b", 1)], [item(2, "b2", 2), item(3, "c", 2)], [item(4, "d", 3)], [item(5, "e" * 40, 4)]]
    for number, rows in enumerate(batches):
        lake.land("itens", f"f{number}", rows)
        lake.run(SPEC)
    assert silver(lake) == EXPECTED
    return lake


@pytest.fixture
def lake(built: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(built.folder, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path)


def silver(lake: Lake) -> dict[int, str]:
    return {row["id"]: row["nome"] for row in lake.rows(SPEC.silver, "id", "nome")}


def ref(layer: str) -> TableRef:
    return SPEC.bronze if layer == "bronze" else SPEC.silver


def table_path(lake: Lake, layer: str) -> Path:
    return Path(lake.storage.uri(ref(layer)))


def commit_file(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020}.json"


def newest(table: Path) -> Path:
    return max((table / "_delta_log").glob("*.json"))


def middle(table: Path) -> Path:
    """The first commit that added rows; others came after it."""
    return next(path for path in sorted((table / "_delta_log").glob("*.json")) if '{"add"' in path.read_text())


def pointer(table: Path) -> Path:
    return table / "_delta_log" / "_last_checkpoint"


def checkpoint(table: Path) -> Path:
    (found,) = (table / "_delta_log").glob("*.checkpoint.parquet")
    return found


def data_file(table: Path) -> Path:
    """The newest file that is in the table."""
    found = open_existing(str(table))
    assert found is not None
    return max((table / file.path for file in found.files), key=lambda path: (path.stat().st_size, path.name))


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def lines(path: Path, *, first: int) -> Path:
    path.write_text("\n".join(path.read_text().splitlines()[:first]))
    return path


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def removed(path: Path) -> Path:
    path.unlink()
    return path


def replaced(path: Path) -> Path:
    """Another Parquet file, whole, in the place of this one: its rows would be read as this one's."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, 0), path)
    return path


#: What happens to a table whose log has no checkpoint; each returns the file that the message has to name.
DAMAGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "data file missing": (lambda t: removed(data_file(t)), "is missing"),
    "data file cut": (lambda t: cut(data_file(t)), "bytes instead of"),
    "data file empty": (lambda t: written(data_file(t), ""), "has 0 bytes instead of"),
    "data file replaced": (lambda t: replaced(data_file(t)), "bytes instead of"),
    "newest commit empty": (lambda t: written(newest(t), ""), "is empty"),
    "newest commit cut": (lambda t: cut(newest(t)), "is cut off or garbled"),
    "newest commit cut between lines": (lambda t: lines(newest(t), first=1), "is cut off: it holds 0 of"),
    "newest commit without its last line": (
        lambda t: lines(newest(t), first=len(newest(t).read_text().splitlines()) - 1),
        "of kind txn",
    ),
    "newest commit garbage": (lambda t: written(newest(t), "{rubbish"), "is cut off or garbled"),
    "newest commit of other JSON": (lambda t: written(newest(t), "[1, 2]"), "is cut off or garbled"),
    "middle commit empty": (lambda t: written(middle(t), ""), "is empty"),
    "middle commit cut": (lambda t: cut(middle(t)), "is cut off or garbled"),
    "middle commit cut between lines": (lambda t: lines(middle(t), first=1), "is cut off: it holds 0 of"),
    "middle commit missing": (lambda t: removed(middle(t)), "is missing"),
    "first commit missing": (lambda t: removed(commit_file(t, 0)), "is missing"),
    "log empty": (lambda t: [removed(p) for p in (t / "_delta_log").glob("*")] and t, "no commit in its _delta_log"),
    "log missing": (lambda t: shutil.rmtree(t / "_delta_log") or t, "no commit in its _delta_log"),
}
IN_DATA = [name for name in DAMAGE if "data file" in name]
#: One of each kind, for what is the same whatever it is.
KINDS = [
    "data file missing",
    "data file cut",
    "newest commit cut between lines",
    "middle commit missing",
    "log empty",
    "log missing",
]


def refused(work: Callable[[], object]) -> BrokenTableError:
    with pytest.raises(BrokenTableError) as refusal:
        work()
    output = str(refusal.value)
    assert "\n" not in output, "a sentence, not a backtrace"
    assert refusal.value.remedy
    assert not refusal.value.retryable
    return refusal.value


def typed(error: BrokenTableError) -> str:
    """The command in a message."""
    return error.remedy.partition(": ")[2]


def execute(command: str) -> None:
    """What somebody types who does as the message says, but for the make target, which `rebuild=True` stands for."""
    shell, _, make = command.partition(" && ")
    assert make in ("", "make rebuild TABLE=itens")
    subprocess.run(shlex.split(shell), check=True)


# --- refused by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", few(DAMAGE, *KINDS))
@pytest.mark.parametrize("layer", ["silver", pytest.param("bronze", marks=pytest.mark.slow)])
def test_a_damaged_table_is_refused_by_name_and_stays_as_it_is(lake: Lake, layer: str, damage: str) -> None:
    table = table_path(lake, layer)
    harm, expected = DAMAGE[damage]
    harmed = harm(table)

    def read() -> object:
        found = open_existing(str(table))
        assert found is not None
        return found.paths()

    error = refused(read)
    assert harmed.name in str(error) and expected in str(error)
    assert (" make rebuild TABLE=itens" in str(error)) == (layer == "silver"), "what would harm bronze is not told of it"
    # Something lands that changes every row: neither layer may go on over the damage.
    lake.land("itens", "next", [item(number, "z", 9) for number in range(1, 10)])
    before = sorted(path.name for path in table.rglob("*.parquet"))

    def go_on() -> None:
        lake.ingest(SPEC)
        lake.refresh(SPEC)

    error = refused(go_on)
    assert harmed.name in str(error) and expected in str(error)
    assert sorted(path.name for path in table.rglob("*.parquet")) == before, "nothing that was staged stays"


# --- fixed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", few(KINDS, "data file cut", "middle commit missing", "log missing"))
def test_what_the_message_tells_to_type_restores_silver(lake: Lake, damage: str) -> None:
    table = table_path(lake, "silver")
    DAMAGE[damage][0](table)

    def read() -> object:
        found = open_existing(str(table))
        assert found is not None
        return found.paths()

    command = typed(refused(read))
    if damage in IN_DATA:  # a rebuild looks at the log and at no data file
        assert command == "make rebuild TABLE=itens"
    else:
        execute(command)
    lake.refresh(SPEC, rebuild=True)
    assert silver(lake) == EXPECTED
    lake.land("itens", "next", [item(1, "z", 9)])
    lake.run(SPEC)
    assert silver(lake) == {**EXPECTED, 1: "z"}


@pytest.mark.parametrize("damage", ["data file cut", "middle commit missing", "log missing"])
def test_bronze_comes_back_with_the_backup_of_the_table(lake: Lake, built: Lake, damage: str) -> None:
    table = table_path(lake, "bronze")
    DAMAGE[damage][0](table)
    shutil.copytree(table_path(built, "bronze"), table, dirs_exist_ok=True)
    lake.land("itens", "next", [item(1, "z", 9)])
    lake.run(SPEC)
    assert silver(lake) == {**EXPECTED, 1: "z"}


def test_without_a_backup_everything_that_landed_is_taken_in_again(lake: Lake) -> None:
    """Bronze, silver, ops and quarantine belong together: moved away together, they come back from what is still landed."""
    newest(table_path(lake, "bronze")).write_text("")
    for layer in ("bronze", "silver", "ops", "quarantine"):
        folder = lake.folder / "lake" / layer
        if folder.is_dir():
            folder.rename(folder.with_name(f"{layer}.broken"))
    lake.run(SPEC)
    assert silver(lake) == EXPECTED
    assert len(lake.rows(SPEC.bronze, "id")) == 6


def test_bronze_alone_moved_away_is_refused(lake: Lake) -> None:
    shutil.rmtree(table_path(lake, "bronze"))
    assert "restore both from the same backup" in str(refused(lambda: lake.ingest(SPEC)))
    assert "make rebuild TABLE=itens" in str(refused(lambda: lake.refresh(SPEC)))


@pytest.mark.parametrize("damage", few(IN_DATA, "data file missing"))
def test_where_nothing_else_is_left_the_rows_of_one_file_are_given_up(lake: Lake, damage: str) -> None:
    """`DeltaTable.repair` lets go of files that are not there; one that is damaged is moved away before."""
    table = table_path(lake, "bronze")
    lost = data_file(table)
    rows = next(file.rows for file in open_existing(str(table)).files if file.path == lost.name)  # type: ignore[union-attr]
    DAMAGE[damage][0](table)
    assert f"; {rows:,} rows of the table were in it." in str(refused(lambda: lake.refresh(SPEC, rebuild=True)))
    lost.unlink(missing_ok=True)
    DeltaTable(str(table)).repair()
    lake.land("itens", "next", [item(6, "f", 9)])
    lake.ingest(SPEC)
    lake.refresh(SPEC, rebuild=True)
    assert len(lake.rows(SPEC.bronze, "id")) == 7 - rows
    assert silver(lake).items() < {**EXPECTED, 6: "f"}.items() or rows == 0


# --- the newest commit is gone, and nothing in the table says so -------------------------------------------------------


def test_bronze_without_its_newest_commit_takes_the_batch_in_again(lake: Lake) -> None:
    """The list of planned files knows of it, and what landed is still there."""
    newest(table_path(lake, "bronze")).unlink()
    assert len(lake.rows(SPEC.bronze, "id")) == 5
    lake.run(SPEC)
    assert len(lake.rows(SPEC.bronze, "id")) == 6
    lake.refresh(SPEC, rebuild=True)
    assert silver(lake) == EXPECTED


def test_bronze_without_two_commits_is_refused(lake: Lake) -> None:
    for _ in range(2):
        newest(table_path(lake, "bronze")).unlink()
    assert "has taken in 2 batches, but ops/landing_files has planned 4" in str(refused(lambda: lake.ingest(SPEC)))


def test_silver_without_its_newest_commits_is_stopped_by_the_ledger_until_it_is_rebuilt(lake: Lake) -> None:
    for _ in range(2):
        newest(table_path(lake, "silver")).unlink()
    left = silver(lake)
    assert left != EXPECTED
    refresh = lake.refresh(SPEC)  # the ledger has read more than the table
    assert refresh.stopped and [f.rule for f in refresh.findings if f.stops] == ["complete"]
    assert silver(lake) == left
    lake.refresh(SPEC, rebuild=True)
    assert silver(lake) == EXPECTED


# --- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_with_checkpoints(built: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Both tables with a checkpoint and a commit after it. Nobody changes it."""
    lake = Lake(tmp_path_factory.mktemp("checkpoints"))
    shutil.copytree(built.folder, lake.folder, dirs_exist_ok=True)
    for layer in ("bronze", "silver"):
        DeltaTable(str(table_path(lake, layer))).create_checkpoint()
    lake.land("itens", "f4", [item(6, "f", 5)])
    lake.run(SPEC)
    return lake


@pytest.fixture
def checkpointed(built_with_checkpoints: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(built_with_checkpoints.folder, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path)


SIX = {**EXPECTED, 6: "f"}
HARMLESS: dict[str, Callable[[Path], object]] = {
    "pointer garbage": lambda t: pointer(t).write_text("{rubbish"),
    "pointer empty": lambda t: pointer(t).write_text(""),
    "pointer of other JSON": lambda t: pointer(t).write_text("[]"),
    "pointer missing": lambda t: pointer(t).unlink(),
    "pointer to an older version": lambda t: pointer(t).write_text('{"version": 1, "size": 3}'),
    "commits before the checkpoint missing": lambda t: [removed(commit_file(t, n)) for n in (0, 1)],
}
REMOVABLE: dict[str, Callable[[Path], Path]] = {
    "pointer to a later version": lambda t: written(pointer(t), json.dumps({"version": 77, "size": 3})),
    "checkpoint cut": lambda t: cut(checkpoint(t)),
    "checkpoint empty": lambda t: written(checkpoint(t), ""),
    "checkpoint garbage": lambda t: written(checkpoint(t), "x" * 5_000),
    "checkpoint missing": lambda t: removed(checkpoint(t)) and pointer(t),
}


def commits_before(table: Path) -> list[Path]:
    base = int(next((table / "_delta_log").glob("*.checkpoint.parquet")).name[:20])
    return [commit_file(table, number) for number in range(base + 1)]


@pytest.mark.parametrize("harm", few(HARMLESS, "pointer garbage", "pointer to an older version"))
def test_damage_that_costs_nothing_is_not_noticed(checkpointed: Lake, harm: str) -> None:
    for layer in ("bronze", "silver"):
        HARMLESS[harm](table_path(checkpointed, layer))
    checkpointed.land("itens", "next", [item(1, "z", 9)])
    checkpointed.run(SPEC)
    assert silver(checkpointed) == {**SIX, 1: "z"}
    assert len(checkpointed.rows(SPEC.bronze, "id")) == 8


@pytest.mark.parametrize("harm", few(REMOVABLE, "pointer to a later version", "checkpoint cut"))
def test_a_checkpoint_whose_commits_are_there_is_set_aside(checkpointed: Lake, harm: str) -> None:
    for layer, go_on in (("bronze", checkpointed.ingest), ("silver", checkpointed.refresh)):
        table = table_path(checkpointed, layer)
        harmed = REMOVABLE[harm](table)
        go_on(SPEC)
        assert harmed.name in [file.name for file in torn.set_aside(str(table))]
    checkpointed.land("itens", "next", [item(1, "z", 9)])
    checkpointed.run(SPEC)
    assert silver(checkpointed) == {**SIX, 1: "z"}
    assert len(checkpointed.rows(SPEC.bronze, "id")) == 8


@pytest.mark.parametrize("harm", REMOVABLE)
def test_where_nothing_may_be_set_aside_the_message_tells_what_to_remove(
    checkpointed: Lake, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_path(checkpointed, "silver")
    harmed = REMOVABLE[harm](table)
    with monkeypatch.context() as patched:
        patched.setattr(torn, "put_back", lambda uri: False)  # as of a folder that may only be read
        error = refused(lambda: open_existing(str(table)))
    assert harmed.name in str(error)
    execute(typed(error))
    checkpointed.run(SPEC)
    assert silver(checkpointed) == SIX


@pytest.mark.parametrize("harm", ["checkpoint cut", "checkpoint missing"])
def test_a_checkpoint_that_alone_has_the_rows_is_not_to_be_removed(checkpointed: Lake, harm: str) -> None:
    table = table_path(checkpointed, "silver")
    for path in commits_before(table):
        path.unlink()
    REMOVABLE[harm](table)
    error = refused(lambda: open_existing(str(table)))
    assert "Put it back from a backup" in error.remedy
    execute(typed(error))
    checkpointed.refresh(SPEC, rebuild=True)
    assert silver(checkpointed) == SIX


def test_a_commit_that_only_tells_of_the_past_is_named_where_it_is_asked_for(checkpointed: Lake) -> None:
    table = table_path(checkpointed, "silver")
    past = cut(commit_file(table, 1))
    found = open_existing(str(table))
    assert found is not None and found.paths()
    assert past.name in str(refused(found.commits))
    past.unlink()
    assert found.commits()


# --- what stands beside the tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", few(["ops/ledger", "ops/deletes_itens", "quarantine/itens"], "ops/ledger"))
def test_what_is_derived_comes_back_when_it_is_moved_away(lake: Lake, table: str) -> None:
    """The ledger from the commits of the tables; tombstones and silver's quarantine with a rebuild."""
    lake.land("itens", "refused", [{"id": "x", "nome": "no number", "em": "2026-01-05T00:00:00Z"}])
    lake.run(SPEC)
    before = lake.ledger()
    assert len(before) == 10 and [row["layer"] for row in lake.quarantined(SPEC)] == ["silver"]
    folder = lake.folder / "lake" / table
    harmed = newest(folder)
    harmed.write_text("")
    lake.land("itens", "next", [item(1, "z", 9), {"id": "y", "nome": "no number", "em": "2026-01-06T00:00:00Z"}])
    error = refused(lambda: lake.run(SPEC))
    assert str(harmed) in str(error) and "see docs/operations.md" in error.remedy
    folder.rename(folder.with_name(f"{folder.name}.broken"))
    lake.ingest(SPEC)
    lake.refresh(SPEC, rebuild=True)
    assert silver(lake) == {**EXPECTED, 1: "z"}
    assert len(lake.quarantined(SPEC)) == 2
    found = lake.ledger()
    assert all(row in found for row in before)
