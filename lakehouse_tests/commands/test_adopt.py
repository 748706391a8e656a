"""`make adopt`: what is listed of another lake, what is chosen, that it ends in silver, and that nothing is written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.commands import adopt as command
from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError, UnreadableFileError
from lakehouse.core.table.foreign_lake import Found, look, tables_below
from lakehouse.settings import Settings
from lakehouse_tests.commands.test_table import copy, rows, tree
from lakehouse_tests.foreign import Theirs

__all__ = ["copy"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Another lake: one table as it comes, one with deleted rows and mapped names, one refused, one empty, one of our name."""
    folder = tmp_path / "old"
    plain = Theirs(folder / "gold" / "resumo", {"uf": "string", "total": "double"})
    plain.add({"uf": ["SP", "SP", "RJ"], "total": [1.5, 1.5, 2.0]})
    mapped = Theirs(
        folder / "silver" / "Clientes Antigos", {"id": "long", "Nome": "string", "foto": "binary"}, mapped=True,
        features=["deletionVectors"],
    )  # fmt: skip
    mapped.add({"id": range(120), "Nome": [f"n{n}" for n in range(120)], "foto": [b"\xff"] * 120}, deleted=[3, 4])
    Theirs(folder / "silver" / "nova", {"id": "long"}, features=["fromTheFuture"])
    Theirs(folder / "silver" / "vazia", {"id": "long"})
    Theirs(folder / "silver" / "vendas", {"id": "long"}).add({"id": [1]})
    return folder


def found(old: Path) -> list[Found]:
    return [look(uri, location=str(old)) for uri in tables_below(str(old))]


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder with its times and content."""
    stats = {str(path): (path.stat(), path) for path in [folder, *folder.rglob("*")]}
    return {
        name: (stat.st_mtime_ns, stat.st_ino, path.read_bytes() if path.is_file() else b"")
        for name, (stat, path) in stats.items()
    }


def adopt(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command as Make calls it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    own |= {"DAGSTER_HOME": str(copy / "dagster_home"), "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "lakehouse", "adopt", *words]
    return subprocess.run(line, cwd=copy, env=own, capture_output=True, text=True, check=False, input="", timeout=600)


# --- what is listed --------------------------------------------------------------------------------------------------


def test_without_a_table_it_only_reports(old: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "load_settings", lambda: Settings(root=str(tmp_path / "lake")))
    before = state(tmp_path)
    assert command.adopt(str(old)) == 0
    assert state(tmp_path) == before
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"gold/resumo: version 1, 3 rows, 7\d\d bytes: read exactly", lines[0])
    assert re.fullmatch(
        r"silver/Clientes Antigos: version 1, rows not counted, .* kB, with deletionVectors, columnMapping: read exactly",
        lines[1],
    )
    assert lines[2] == r"    foto is binary: a text here, with \xFF for bytes that are no letters"
    assert lines[3].startswith("silver/nova: refused (fromTheFuture). The Delta table ") and "DROP FEATURE" in lines[3]
    assert "5 Delta tables: 4 are read exactly, 1 are refused." in lines


def test_where_no_table_is_the_exit_code_is_1(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "load_settings", lambda: Settings(root=str(tmp_path / "lake")))
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "nothing"):
        assert command.adopt(str(folder)) == command.adopt(str(folder), table="vendas") == 1
        assert f"There is no Delta table in {folder} or below it." in capsys.readouterr().out


def test_this_lake_is_no_other_lake(tmp_path: Path, monkeypatch) -> None:
    layers = {"gold": str(tmp_path / "gold")}
    monkeypatch.setattr(command, "load_settings", lambda: Settings(root=str(tmp_path / "lake"), layer_roots=layers))
    for own in ("lake", "lake/silver", "gold/x"):
        with pytest.raises(DeclarationError, match="is this lake itself"):
            command.adopt(str(tmp_path / own))


# --- what is chosen --------------------------------------------------------------------------------------------------


def test_a_table_is_named_by_its_path_or_by_a_name_that_only_it_has(old: Path) -> None:
    Theirs(old / "bronze" / "resumo", {"id": "long"}).add({"id": [1]})
    named = [*command._named(str(old), "clientes_antigos, gold/resumo,gold/resumo")]
    assert named == [f"{old}/silver/Clientes Antigos", f"{old}/gold/resumo"]
    assert [*command._named(f"{old}/gold/resumo", "resumo")] == [f"{old}/gold/resumo"]
    with pytest.raises(
        DeclarationError, match=r"2 tables are called 'resumo': bronze/resumo, gold/resumo\. Give TABLE= its path"
    ):
        [*command._named(str(old), "resumo")]
    with pytest.raises(DeclarationError, match=r"There is no Delta table 'x' there\. Give TABLE= one of bronze/resumo"):
        [*command._named(str(old), "x")]


def test_all_leaves_out_what_cannot_be_adopted_each_with_a_sentence(old: Path, tmp_path: Path) -> None:
    Theirs(old / "bronze" / "resumo", {"id": "long"}).add({"id": [1]})
    chosen, left = command.chosen_of(found(old), every=True, name="", settings=Settings(root=str(tmp_path / "lake")))
    assert {name: one.path for name, one in chosen.items()} == {"clientes_antigos": "silver/Clientes Antigos"}
    assert [re.sub(r" is left out: (.{30}).*", r": \1", line.replace(str(old), "")) for line in left] == [
        "bronze/resumo: Two tables would be called 're",
        "gold/resumo: Two tables would be called 're",
        "silver/nova: The Delta table /silver/nova h",
        "silver/vazia: The Delta table /silver/vazia ",
        "silver/vendas: The table 'vendas' is declared",
    ]


@pytest.mark.parametrize(
    ("path", "name", "error", "part"),
    [
        ("silver/vendas", "", DeclarationError, r"The table 'vendas' is declared already\. Give another NAME=\.$"),
        ("gold/resumo", "Resumo", DeclarationError, "cannot be a table name"),
        ("gold/resumo", "spec", DeclarationError, "cannot be the name of a new module"),
        ("silver/nova", "", ForeignTableError, "has the feature fromTheFuture"),
        ("silver/vazia", "", UnreadableFileError, "has no rows, and a declaration is made of rows"),
        ("silver/lost", "", BrokenTableError, "is missing"),
    ],
)
def test_one_that_cannot_be_adopted_is_an_error(
    old: Path, tmp_path: Path, path: str, name: str, error: type[Exception], part: str
) -> None:
    lost = Theirs(old / "silver" / "lost", {"id": "long"})
    (old / "silver" / "lost" / lost.add({"id": [1]})["add"]["path"]).unlink()
    some = [one for one in found(old) if one.path == path]
    with pytest.raises(error, match=part):
        command.chosen_of(some, every=False, name=name, settings=Settings(root=str(tmp_path / "lake")))


def test_a_name_is_of_one_table(old: Path, tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "lake"))
    with pytest.raises(DeclarationError, match="NAME=x names one table, and there are 5"):
        command.chosen_of(found(old), every=False, name="x", settings=settings)
    (one,) = [one for one in found(old) if one.path == "silver/vendas"]
    assert [*command.chosen_of([one], every=False, name="vendas_antigas", settings=settings)[0]] == ["vendas_antigas"]


# --- what is made of it ----------------------------------------------------------------------------------------------


def test_chosen_tables_end_in_silver_and_a_read_only_lake_stays_as_it_is(copy: Path, old: Path) -> None:
    for path in old.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    lake, project = state(old), tree(copy)
    asked = adopt(copy, str(old), "--table", "gold/resumo")
    assert asked.returncode == 1 and "Nothing was written." in asked.stdout and tree(copy) == project

    done = adopt(copy, str(old), "--table", "*", "--yes", "1")
    assert done.returncode == 1, done.stderr  # three are left out
    assert "there: 118 rows at version 1; bronze: 118; silver: 118" in done.stdout
    assert "there: 3 rows at version 1; bronze: 3; silver: 3" in done.stdout
    assert {name: rows(copy, "silver", name) for name in ("clientes_antigos", "resumo")} == {"clientes_antigos": 118, "resumo": 3}
    assert len([line for line in done.stderr.splitlines() if " is left out: " in line]) == 3
    module = (copy / "lakehouse" / "tables" / "clientes_antigos.py").read_text()
    assert 'withdrawals="delete"' in module
    assert f'"{old}/silver/Clientes Antigos"' in module and 'name="clientes_antigos"' in module
    assert 'Column("id", "bigint")' in module and 'key=("id",)' in module

    tests = [f"lakehouse_tests/tables/test_{name}.py" for name in ("clientes_antigos", "resumo")]
    own = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    tried = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(tried, cwd=copy, env=own, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "2 passed" in ran.stdout, ran.stdout

    again = adopt(copy, str(old), "--table", "*", "--yes", "1")
    assert "adopted as resumo" in again.stdout and "resumo is left out" not in again.stderr and "--- " not in again.stdout
    assert state(old) == lake
