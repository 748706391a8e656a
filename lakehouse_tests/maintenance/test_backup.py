"""Backups: copied once, proven by restoring, put back as they were; nothing of what is there is overwritten unasked."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.ledger import take_back
from lakehouse.core.names import TableRef
from lakehouse.core.store import files as stored
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.manifest import BrokenBackupError, Taken
from lakehouse_tests.conftest import Filled, Lake
from lakehouse_tests.maintenance.test_upkeep import SPEC, item


@pytest.fixture
def vault(lake: Lake) -> Vault:
    return Vault(str(lake.folder / "backup"), str(lake.folder / "scratch"))


def three_batches(lake: Lake) -> None:
    for n in range(1, 4):
        lake.land("itens", f"f{n}", [item(n, f"v{n}"), item(100, f"v{n}", day=n), {**item(n), "id": "no number"}])
        lake.run(SPEC)


@pytest.fixture
def filled(lake: Lake, fill_once: Filled) -> Lake:
    return fill_once(lake, three_batches)


def take(vault: Vault, lake: Lake, *, minute: int = 0, **given: Any) -> Taken:
    return vault.take(lake.storage, now=datetime(2026, 1, 1, 3, minute, tzinfo=UTC), **given)


def state(lake: Lake) -> dict[str, Any]:
    """Every table of a lake: version, id and rows."""
    out = {}
    for ref in lake.storage.tables():
        found = open_existing(lake.storage.uri(ref))
        assert found is not None
        out[str(ref)] = (found.version, found.id, lake.rows(ref))
    return out


def test_a_lake_that_was_deleted_comes_back_the_same_and_goes_on(
    filled: Lake, vault: Vault, make_lake: Callable[[], Lake]
) -> None:
    backup = take(vault, filled).backup
    before = state(filled)
    assert set(before) == {str(ref) for ref in backup.tables} and len(before) == 6
    proof = vault.prove(backup, session=filled.session)
    assert sorted(proof.proven) == sorted(before) and not proof.damaged and proof.bytes > 0
    shutil.rmtree(filled.folder / "lake")
    for ref in backup.tables:
        vault.restore(backup, ref, filled.storage)
    assert state(filled) == before
    alone = make_lake()
    landed = sorted((filled.folder / "landing" / "raw" / "itens").iterdir())
    for lake in (filled, alone):
        for path in landed if lake is alone else ():
            lake.put("itens", path.name, path.read_bytes())
            lake.run(SPEC)
        lake.land("itens", "f9", [item(9, "v9"), item(100, "v9", day=9)])
        refresh = lake.run(SPEC)
        assert refresh.entry is not None and refresh.entry.records_in == 2
    assert filled.rows(SPEC.silver) == alone.rows(SPEC.silver)
    assert filled.refresh(SPEC, rebuild=True).entry is not None and filled.rows(SPEC.silver) == alone.rows(SPEC.silver)


def test_of_an_unchanged_lake_no_file_is_read_or_written(filled: Lake, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    first = take(vault, filled)
    assert first.read and first.written and first.written <= first.read
    objects = {path: path.stat().st_mtime_ns for path in Path(vault.root, "objects").rglob("*") if path.is_file()}
    asked: list[str] = []
    real = stored.at_hand
    monkeypatch.setattr(stored, "at_hand", lambda uri, **given: (asked.append(uri), real(uri, **given))[1])
    second = take(vault, filled, minute=1)
    assert (second.read, second.written, asked) == (0, 0, [])
    assert {path: path.stat().st_mtime_ns for path in Path(vault.root, "objects").rglob("*") if path.is_file()} == objects
    assert second.backup.tables == first.backup.tables
    filled.land("itens", "f7", [item(7)])
    filled.run(SPEC)
    third = take(vault, filled, minute=2)
    copied = [uri for uri in asked if uri.endswith(".parquet")]
    known = {f"{filled.storage.uri(ref)}/{path}" for ref, table in first.backup.tables.items() for path in table.files}
    assert copied and not known & set(copied) and third.written < first.written


def test_what_an_earlier_backup_has_proven_is_not_restored_again(filled: Lake, vault: Vault) -> None:
    vault.prove(take(vault, filled).backup, session=filled.session)
    again = vault.prove(take(vault, filled, minute=1).backup, session=filled.session, whole=False)
    assert not again.proven and len(again.unchanged) == 6 and again.files == 0
    filled.land("itens", "f7", [item(7)])
    filled.run(SPEC)
    third = vault.prove(take(vault, filled, minute=2).backup, session=filled.session, whole=False)
    assert {"bronze/itens", "silver/itens", "ops/ledger"} <= set(third.proven) and "ops/deletes_itens" in third.unchanged


def test_one_flipped_byte_is_reported_and_the_next_backup_fixes_it(filled: Lake, vault: Vault) -> None:
    backup = take(vault, filled).backup
    assert not vault.prove(backup, session=filled.session).damaged
    table = backup.tables[SPEC.silver]
    path = next(path for path in table.files if path.endswith(".parquet"))
    location = Path(vault.location(table.files[path].sha))
    content = bytearray(location.read_bytes())
    content[len(content) // 2] ^= 1
    location.write_bytes(content)
    before = state(filled)
    with pytest.raises(BrokenBackupError, match=r"is not what was backed up.*AT="):
        vault.restore(backup, SPEC.silver, filled.storage, force=True)
    assert state(filled) == before, "what is in its place stays"
    proof = vault.prove(backup, session=filled.session)
    assert list(proof.damaged) == ["silver/itens"] and path in proof.damaged["silver/itens"]
    assert len(proof.proven) == 5
    fixed = take(vault, filled, minute=1)
    assert fixed.written == 1
    assert not vault.prove(fixed.backup, session=filled.session).damaged


def test_a_missing_object_is_reported(filled: Lake, vault: Vault) -> None:
    backup = take(vault, filled).backup
    table = backup.tables[SPEC.bronze]
    Path(vault.location(next(iter(table.files.values())).sha)).unlink()
    assert "is not there" in vault.prove(backup, session=filled.session).damaged["bronze/itens"]


def test_nothing_is_restored_over_data_without_force(filled: Lake, vault: Vault) -> None:
    backup = take(vault, filled).backup
    filled.land("itens", "f7", [item(7)])
    filled.run(SPEC)
    before = state(filled)
    with pytest.raises(RefusedWriteError, match="FORCE=1"):
        vault.restore(backup, SPEC.silver, filled.storage)
    assert state(filled) == before
    assert vault.restore(backup, SPEC.silver, filled.storage, force=True) == backup.tables[SPEC.silver].rows
    with filled.session() as session:
        now = open_existing(filled.storage.uri(SPEC.silver))
        assert now is not None
        ledger = filled.storage.uri(TableRef("ops", "ledger"))
        assert take_back(session, ledger, table=SPEC.silver, snapshot=now) == {"merge"}
        assert take_back(session, ledger, table=SPEC.silver, snapshot=now) == set(), "once"
    refresh = filled.refresh(SPEC)
    assert refresh.entry is not None and refresh.entry.records_in == 1, "it reads again what the restored version had not"
    assert filled.rows(SPEC.silver) == before["silver/itens"][2]
    assert sorted(path.name for path in Path(filled.storage.uri(SPEC.silver)).parent.iterdir()) == ["itens"]
    filled.land("itens", "f8", [item(8)])
    refresh = filled.run(SPEC)
    assert refresh.entry is not None and not refresh.stopped, "and the ledger adds up from there on"
    assert [row["version"] for row in filled.ledger() if row["layer"] == "silver"][-2:] == [refresh.version, refresh.version + 1]


def test_a_moment_is_chosen_by_its_beginning(filled: Lake, vault: Vault) -> None:
    with pytest.raises(DeclarationError, match=r"no backup in .*make backup"):
        vault.chosen()
    names = [take(vault, filled, minute=n).backup.name for n in (0, 1, 2)]
    assert vault.names() == names and vault.chosen().name == names[2]
    assert vault.chosen("2026-01-01T03:01").name == names[1] and vault.chosen("20260101").name == names[2]
    with pytest.raises(DeclarationError, match=f"no backup of '2031'.*{names[0]}"):
        vault.chosen("2031")
    with pytest.raises(DeclarationError, match="has no table silver/nada"):
        vault.restore(vault.chosen(), TableRef("silver", "nada"), filled.storage)


@pytest.mark.slow
def test_old_backups_go_with_what_only_they_have(filled: Lake, vault: Vault) -> None:
    first = take(vault, filled).backup
    assert not vault.prove(first, session=filled.session).damaged
    shutil.rmtree(filled.storage.uri(SPEC.silver))
    filled.refresh(SPEC, rebuild=True)
    later = [take(vault, filled, minute=n).backup for n in (1, 2, 3)]
    Path(vault.root, "objects", "ab").mkdir(exist_ok=True)
    Path(vault.root, "objects", "ab", "ab" * 32).write_bytes(b"of a killed backup")
    assert vault.expire(retain=2) == [later[0].name], "the newest that is proven stays, whatever its age"
    assert not vault.prove(later[2], session=filled.session).damaged
    assert vault.expire(retain=2) == [first.name]
    assert vault.names() == [later[1].name, later[2].name]
    there = {path.name for path in Path(vault.root, "objects").rglob("*") if path.is_file()}
    assert there == later[1].objects | later[2].objects
    assert {version for retained in vault.versions().values() for version in retained} == {
        table.version for backup in later[1:] for table in backup.tables.values()
    }


@pytest.mark.slow
def test_databases_are_copied_while_they_are_written(filled: Lake, vault: Vault, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE runs (id)")
    database.execute("INSERT INTO runs VALUES (1)")
    database.commit()
    database.execute("INSERT INTO runs VALUES (2)")  # under way
    backup = take(vault, filled, databases={"dagster/runs.db": path}).backup
    again = take(vault, filled, minute=1, databases={"dagster/runs.db": path})
    assert again.read == 0
    database.commit()
    changed = take(vault, filled, minute=2, databases={"dagster/runs.db": path})
    assert changed.written == 1 and "dagster/runs.db" in vault.prove(changed.backup, session=filled.session).proven
    out = tmp_path / "out"
    vault.fetch({"runs.db": backup.databases["dagster/runs.db"]}, str(out))
    assert sqlite3.connect(out / "runs.db").execute("SELECT id FROM runs").fetchall() == [(1,)]


def test_a_damaged_table_is_named_and_the_others_are_backed_up(filled: Lake, vault: Vault) -> None:
    silver = open_existing(filled.storage.uri(SPEC.silver))
    assert silver is not None
    Path(silver.uri, silver.files[0].path).unlink()
    Path(filled.storage.uri(TableRef("ops", "ledger")), "_delta_log", f"{1:020}.json").write_text("")
    backup = take(vault, filled).backup
    assert set(backup.skipped) == {"silver/itens", "ops/ledger"} and silver.files[0].path in backup.skipped["silver/itens"]
    assert len(backup.tables) == 4 and not vault.prove(backup, session=filled.session).damaged


@pytest.mark.slow
def test_a_full_disk_leaves_the_backups_as_they_were(filled: Lake, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    take(vault, filled)
    filled.land("itens", "f7", [item(7)])
    filled.run(SPEC)
    real = stored.put
    with monkeypatch.context() as patched:
        patched.setattr(
            stored, "put", lambda uri, content, **given: _no_space() if "objects" in uri else real(uri, content, **given)
        )
        with pytest.raises(OSError, match="No space left"):
            take(vault, filled, minute=1)
    assert len(vault.names()) == 1 and not vault.prove(vault.chosen(), session=filled.session).damaged
    assert not vault.prove(take(vault, filled, minute=2).backup, session=filled.session).damaged


def _no_space() -> bool:
    raise OSError(28, "No space left on device")


def test_a_manifest_that_was_cut_or_forged_is_refused(filled: Lake, vault: Vault) -> None:
    backup = take(vault, filled).backup
    table = backup.tables[SPEC.silver]
    escape = {"../../outside": next(iter(table.files.values()))}
    with pytest.raises(BrokenBackupError, match="names the file"):
        vault.fetch(escape, str(filled.folder / "scratch" / "a"))
    with pytest.raises(BrokenBackupError, match="not the name of an object"):
        vault.fetch({"a": replace(next(iter(table.files.values())), sha="../../x")}, str(filled.folder / "scratch" / "a"))
    manifest = Path(vault.root, "manifests", f"{backup.name}.json")
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(BrokenBackupError, match="cut off or garbled"):
        vault.chosen()


def test_a_killed_restore_is_done_again_by_the_same_command(filled: Lake, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = take(vault, filled).backup
    before = state(filled)
    for step in (1, 2):
        count = iter(range(1, 9))
        real = Path.rename

        def rename(self: Path, target: Any, count: Any = count, step: int = step, real: Any = real) -> Path:
            if next(count) == step:
                raise KeyboardInterrupt
            return real(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", rename)
            with pytest.raises(KeyboardInterrupt):
                vault.restore(backup, SPEC.silver, filled.storage, force=True)
        vault.restore(backup, SPEC.silver, filled.storage, force=True)
        assert state(filled) == before


def test_nothing_of_a_target_that_does_not_answer(filled: Lake) -> None:
    from lakehouse.core.errors import StoreError

    with pytest.raises((StoreError, BrokenTableError, OSError)):
        take(Vault("/proc/nowhere/backup", str(filled.folder / "scratch")), filled)


def test_a_target_that_is_not_there_is_named_and_nothing_is_lost(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made, a store that nobody serves."""
    from lakehouse.core.errors import StoreError

    before = state(filled)
    taken = filled.folder / "taken"
    taken.write_text("a file is in the place of the folder")
    with pytest.raises((OSError, StoreError)):
        take(Vault(str(taken / "backup"), str(filled.folder / "scratch")), filled)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stored, "_FIRST", timedelta(seconds=1))
    with pytest.raises(StoreError, match=r"s3://nobody-serves-this does not answer.*AWS_ENDPOINT_URL"):
        take(Vault("s3://nobody-serves-this/backup", str(filled.folder / "scratch")), filled)
    assert state(filled) == before and not filled.stray_files()
