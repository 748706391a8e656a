"""`lakehouse impact` over a git repository of its own: what a branch that renames a silver column breaks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.commands.impact.command import _fork
from lakehouse.settings import project_folder

PROJECT = project_folder()


def _git(repository: Path, *words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(repository), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path) -> Path:
    """The project as one commit on main."""
    copy = tmp_path / "project"
    copy.mkdir()
    leave = shutil.ignore_patterns("__pycache__", "target", "logs")
    for folder in ("lakehouse", "dbt_project"):
        shutil.copytree(PROJECT / folder, copy / folder, ignore=leave)
    shutil.copy(PROJECT / "pyproject.toml", copy)
    (copy / ".gitignore").write_text("__pycache__/\ntarget/\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(copy)], check=True)
    _git(copy, "add", ".")
    _git(copy, "commit", "--quiet", "--message", "base")
    return copy


def _edit(repository: Path, path: str, old: str, new: str) -> None:
    file = repository / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def _impact(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lakehouse", "impact", *words]
    environment = {**os.environ, "DAGSTER_HOME": str(repository.parent)}  # as make setup writes it to .env
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def _rename(repository: Path) -> None:
    """silver/vendas.total becomes valor_total, and nothing else is done about it: no make sync, no change of dbt."""
    _edit(repository, "lakehouse/tables/vendas.py", 'Column("total",', 'Column("valor_total",')


@pytest.mark.slow
def test_a_renamed_silver_column_names_the_marts_columns_and_checks_that_it_breaks(repository):
    _git(repository, "checkout", "--quiet", "-b", "rename")
    _rename(repository)
    _git(repository, "commit", "--quiet", "--all", "--message", "rename")
    done = _impact(repository, "--head", "rename", "--json", "--fail-on-breaking")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["breaking"] is True
    assert found["errors"] == []
    (renamed,) = [change for change in found["changes"] if change["how"] == "renamed"]
    assert renamed["name"] == "silver/vendas.total"
    assert renamed["detail"] == "valor_total (decimal(18,4))"
    assert "gold/vendas_diarias.receita" in renamed["columns"]
    breaks = {one["name"]: one for one in found["breaks"]}
    assert {"gold/vendas_diarias", "gold/vendas_mensais", "gold/vendas_por_pais", "gold/clientes_rfm"} <= set(breaks)
    assert "gold/pedidos_por_canal" not in breaks
    daily = breaks["gold/vendas_diarias"]
    assert "total" in daily["reason"]
    assert daily["columns"] == ["receita"]
    assert {"vendas_diarias_equals_silver", "unique_vendas_diarias_data", "sales_gap_over_two_weeks"} <= set(daily["checks"])
    assert {"warehouse/vendas_diarias", "reports/vendas"} <= set(daily["assets"])


@pytest.mark.slow
def test_so_it_does_when_the_dbt_project_does_not_parse_and_the_change_is_not_committed(repository):
    _rename(repository)
    (repository / "dbt_project" / "models" / "marts" / "vendas_diarias.yml").write_text("models: [")
    done = _impact(repository, "--markdown")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert page.startswith("## Impact of the working tree on main (")
    assert "### Does not load" in page
    assert "`gold/vendas_diarias` cannot be built" in page
    assert "columns: `receita`" in page
    assert "`vendas_diarias_equals_silver`" in page
    assert "- **~** `silver/vendas.total` is now `` valor_total (decimal(18,4)) ``" in page
    assert "removed" not in page.split("### Columns")[0]  # what did not load is not said to be gone


def test_a_branch_that_is_its_own_base_is_reported(repository):
    assert _fork(repository, "main", "")[1].endswith(", where HEAD is)")
    _git(repository, "checkout", "--quiet", "-b", "other")
    _rename(repository)
    _git(repository, "commit", "--quiet", "--all", "--message", "rename")
    assert "HEAD" not in _fork(repository, "main", "")[1]
    assert "HEAD" not in _fork(repository, "main", "other")[1]


def test_a_ref_that_is_not_there_is_one_sentence(repository):
    done = _impact(repository, "--base", "no-such-branch")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no git ref 'no-such-branch'")
    assert len(done.stderr.splitlines()) == 1
