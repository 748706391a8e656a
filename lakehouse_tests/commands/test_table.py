"""`make table`: in a copy of the project one command ends with a silver table, and one that fails leaves the copy as it was."""

import csv
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.commands import table as command
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.profile.origin import Origin
from lakehouse.settings import Settings, project_folder
from lakehouse_tests.conftest import few
from lakehouse_tests.profile import shop
from lakehouse_tests.profile.conftest import workbook

PROJECT = project_folder()
PARTS = ("lakehouse", "dbt_project", "lakehouse_tests/tables", "lakehouse_tests/golden")
FILES = ("pyproject.toml", "dagster.yaml", "workspace.yaml", "lakehouse_tests/__init__.py", "lakehouse_tests/conftest.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What of the project a table is written into."""
    target = tmp_path / "copy"
    for part in PARTS:
        shutil.copytree(PROJECT / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    for name in FILES:
        shutil.copy2(PROJECT / name, target / name)
    (target / "dagster_home").mkdir()
    shutil.copy2(PROJECT / "dagster.yaml", target / "dagster_home" / "dagster.yaml")
    return target


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a project with their content, without what runs leave there."""
    parts = [folder / name for name in ("lakehouse", "lakehouse_tests", "dbt_project/models")]
    files = [file for part in parts for file in part.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def make(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command as Make calls it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    own |= {"DAGSTER_HOME": str(copy / "dagster_home"), "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "lakehouse", "table", *words]
    return subprocess.run(line, cwd=copy, env=own, capture_output=True, text=True, check=False, input="", timeout=600)


def rows(copy: Path, layer: str, name: str) -> int:
    snapshot = open_existing(str(copy / "data" / "lake" / layer / name))
    return 0 if snapshot is None else snapshot.rows


def test_a_shops_csv_becomes_a_checked_silver_table(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "vendas.csv").write_bytes(shop.export(240))
    before = tree(copy)
    asked = make(copy, str(tmp_path / "vendas.csv"), "--name", "vendas_loja")
    assert asked.returncode == 1 and "Nothing was written." in asked.stdout and tree(copy) == before

    done = make(copy, str(tmp_path / "vendas.csv"), "--name", "vendas_loja", "--yes", "1")
    assert done.returncode == 0, done.stderr
    assert "bronze/vendas_loja: 240 rows\nsilver/vendas_loja: 240 rows\n" in done.stdout
    assert rows(copy, "silver", "vendas_loja") == 240
    written = {name for name, content in tree(copy).items() if before.get(name) != content}
    assert written == {
        "lakehouse/tables/vendas_loja.py",
        "lakehouse_tests/tables/test_vendas_loja.py",
        "lakehouse_tests/golden/asset_keys.txt",
        "dbt_project/models/staging/_sources.yml",
    }
    texts = done.stdout + done.stderr + "".join((copy / name).read_text() for name in written)
    assert [secret for secret in shop.SECRETS if secret in texts] == []

    tried = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "lakehouse_tests/tables/test_vendas_loja.py"]
    own = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(tried, cwd=copy, env=own, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout
    again = make(copy, str(tmp_path / "vendas.csv"), "--name", "vendas_loja", "--yes", "1")
    assert again.returncode == 2 and "error: The table 'vendas_loja' is declared already. Give another NAME=" in again.stderr


# --- refused before anything is written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vendas", "is declared already"),
        ("pedidos_api", "is declared already"),
        ("spec", "cannot be the name of a new module"),
        ("class", "cannot be the name of a new module"),
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str, part: str) -> None:
    with pytest.raises(DeclarationError, match=part) as refused:
        command.refuse_taken(name, Origin("a.csv", name), Settings(root=str(tmp_path)))
    assert "NAME=" in str(refused.value)


def test_what_is_left_in_the_lake_or_in_landing_is_not_mixed_with_a_new_table(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path))
    command.refuse_taken("loja", Origin("a.csv", "loja"), settings)
    (tmp_path / "landing" / "raw" / "loja").mkdir(parents=True)
    (tmp_path / "landing" / "raw" / "loja" / "a.csv").write_text("id\n1\n")
    with pytest.raises(DeclarationError, match="FROM=raw/loja"):
        command.refuse_taken("loja", Origin("a.csv", "loja"), settings)
    (tmp_path / "bronze" / "loja" / "_delta_log").mkdir(parents=True)
    with pytest.raises(DeclarationError, match="bronze/loja that nothing declares"):
        command.refuse_taken("loja", Origin("raw/loja", "loja", stream="loja"), settings)
    with pytest.raises(DeclarationError, match="raw/vendas is read by the table 'vendas'"):
        command.refuse_taken("outra", Origin("raw/vendas", "vendas", stream="vendas"), settings)


@pytest.mark.parametrize("name", ["Vendas", "2024", "a-b", "a" * 64, "x; DROP"])
def test_a_name_passes_the_allow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    monkeypatch.setattr(command, "load_settings", lambda: Settings(root=str(tmp_path / "lake")))
    with pytest.raises(DeclarationError, match="cannot be a table name"):
        command.table(str(tmp_path / "a.csv"), name=name, yes=1)


@pytest.mark.parametrize("name", ["vendas de maio (1).csv", "preço#2.csv", "100%25.csv", "a?b[c].csv", "_x.csv", "VENDAS.CSV"])
def test_a_file_lands_under_its_name_as_it_is_read(tmp_path: Path, name: str) -> None:
    from lakehouse.profile.origin import landed_here, origin_of

    (tmp_path / name).write_text("id\n1\n")
    settings = Settings(root=str(tmp_path / "lake"))
    found = origin_of(str(tmp_path / name), settings.storage)
    scratch, _, _ = landed_here(found, "loja", settings.storage, tmp_path / "scratch")
    writes = command.Writes()
    command._land(scratch, settings, "loja", writes)
    (landed,) = settings.storage.landed("loja")
    assert landed.path == f"raw/loja/{name.lstrip('_')}"
    (tmp_path / name).write_text("changed\n")  # the landed file is a copy
    assert Path(settings.landing, landed.path).read_text() == "id\n1\n"
    writes.undo()
    assert settings.storage.landed("loja") == []


# --- half-way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["run", "killed", "interrupted", "file"])
def test_a_failure_half_way_takes_back_what_was_written(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    from lakehouse.commands import declared, sync
    from lakehouse.gold import sources

    (tmp_path / "itens.csv").write_text("id,valor\n1,2.5\n2,3.5\n")
    settings = Settings(root=str(tmp_path / "lake"))
    for module in (command, declared, sync):
        monkeypatch.setattr(module, "project_folder", lambda: copy)
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    monkeypatch.setattr(sources, "sources_path", lambda: copy / "dbt_project" / "models" / "staging" / "_sources.yml")
    before = tree(copy)

    def run(*words: object, **named: object) -> "subprocess.CompletedProcess[bytes]":
        assert (copy / "lakehouse" / "tables" / "itens.py").is_file() and settings.storage.landed("itens")
        (copy / "lakehouse_tests" / "golden" / "asset_keys.txt").write_text("half")
        if how == "interrupted":
            raise KeyboardInterrupt
        return subprocess.CompletedProcess([], -9 if how == "killed" else 1)

    def broken(self: command.Writes, path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command.subprocess, "run", run)
    if how == "file":
        monkeypatch.setattr(command.Writes, "write", broken)
    with pytest.raises({"interrupted": KeyboardInterrupt, "file": OSError}.get(how, BrokenTableError)):
        command.table(str(tmp_path / "itens.csv"), yes=1)
    assert tree(copy) == before and not settings.storage.landed("itens")
    assert "taken back; make run works as before" in capsys.readouterr().err


# --- the kinds of sources, whole -------------------------------------------------------------------------------------


def _database(folder: Path) -> str:
    with sqlite3.connect(folder / "loja.db") as connection:
        connection.execute("CREATE TABLE clientes (id INTEGER PRIMARY KEY, nome TEXT, saldo NUMERIC)")
        connection.executemany("INSERT INTO clientes VALUES (?, ?, ?)", [(n, f"Ana {n}", n * 1.25) for n in range(50)])
    return f"sqlite:///{folder}/loja.db#clientes"


def _workbook(folder: Path) -> str:
    sheet = [["Código", "Peça", "Preço"], *[[n, f"peça {n}", n / 4] for n in range(1, 41)]]
    (folder / "pecas.xlsx").write_bytes(workbook({"Peças": sheet}))
    return str(folder / "pecas.xlsx")


def _asked_again(copy: Path, folder: Path, source: str) -> None:
    """The declaration asks the database, whose URL is in `.env` alone; rows that are gone go from silver."""
    module = (copy / "lakehouse" / "tables" / "minha.py").read_text()
    assert 'MINHA_DB = Database(\n    "minha_db",' in module and 'sync="overwrite"' in module
    assert 'Table("clientes", cursor=None)' in module and str(folder) not in module
    env = copy / ".env"
    assert env.read_text() == f"MINHA_DB_URL='{source.partition('#')[0]}'\n" and env.stat().st_mode & 0o077 == 0
    with sqlite3.connect(folder / "loja.db") as connection:
        connection.execute("DELETE FROM clientes WHERE id < 10")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    own |= {"DAGSTER_HOME": str(copy / "dagster_home"), "PYTHONPATH": str(copy)}
    line = [sys.executable, "-m", "lakehouse", "trigger", "minha"]
    done = subprocess.run(line, cwd=copy, env=own, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(copy, "silver", "minha") == 40
    tried = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "lakehouse_tests/tables/test_minha.py"]
    tested = subprocess.run(tried, cwd=copy, env=own, capture_output=True, text=True, check=False, timeout=120)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.stack
@pytest.mark.parametrize("kind", few(["nested", "workbook", "orders", "sqlite"], "nested", "orders"))
def test_each_kind_of_source_ends_in_a_silver_table_with_the_right_rows(
    copy: Path, tmp_path: Path, real_data: Path, kind: str
) -> None:
    if kind == "nested":
        (source,), expected = map(str, (real_data / "cases" / "07-nested").glob("*.jsonl")), 1
    elif kind == "orders":
        source = str(real_data / "pedidos" / "pedidos_db.csv")
        with Path(source).open() as content:
            expected = len({row["id"] for row in csv.DictReader(content)})
    else:
        source, expected = (_workbook(tmp_path), 40) if kind == "workbook" else (_database(tmp_path), 50)
    done = make(copy, source, "--name", "minha", "--yes", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^silver/minha: {expected:,} rows$", done.stdout, flags=re.MULTILINE)
    assert rows(copy, "silver", "minha") == expected
    assert rows(copy, "quarantine", "minha") == 0
    if kind == "sqlite":
        _asked_again(copy, tmp_path, source)
