"""`make branch`: what a shell exports, what is refused, and its end."""

import shlex
from pathlib import Path

import pytest

from lakehouse.commands import branch
from lakehouse.core.errors import DeclarationError
from lakehouse.settings import load_settings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "dagster.yaml").write_text("")
    monkeypatch.setattr(branch, "project_folder", lambda: tmp_path / "project")
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    return tmp_path / "project"


def exported(out: str) -> dict[str, str]:
    pairs = (shlex.split(line)[1].split("=", 1) for line in out.splitlines())
    return {name: value for name, value in pairs}


def test_a_shell_in_a_branch_reads_the_lake_and_writes_nothing_outside(project, tmp_path, monkeypatch, capsys):
    assert branch.branch("teste") == 0
    found = exported(capsys.readouterr().out)
    assert found["LAKEHOUSE_BASE_ROOT"] == str(tmp_path / "lake")
    own = {name: value for name, value in found.items() if name not in ("LAKEHOUSE_BASE_ROOT", "LAKEHOUSE_ENV") and value}
    assert len(own) >= 6 and all(str(project / "data" / "branches" / "teste") in value for value in own.values())
    assert (Path(found["DAGSTER_HOME"]) / "dagster.yaml").exists()
    assert branch.branch("teste") == 0 and exported(capsys.readouterr().out) == found, "made once, printed again"
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert load_settings().storage.base is not None
    with pytest.raises(DeclarationError, match="in a branch already"):
        branch.branch("outra")
    assert branch.branch_drop("teste") == 0 and "This shell is in it" in capsys.readouterr().err
    assert not (project / "data" / "branches" / "teste").exists()


def test_names_and_branches_that_cannot_be_are_refused(project, monkeypatch, tmp_path):
    for name in ("../x", "A", "", "a/b"):
        with pytest.raises(DeclarationError, match="cannot be a name of a branch"):
            branch.branch(name)
    (project / "data" / "branches" / "nada").mkdir(parents=True)
    with pytest.raises(DeclarationError, match=r"There is no branch nada\. There are: none"):
        branch.branch_drop("nada")
    branch.branch("teste")
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "other"))
    with pytest.raises(DeclarationError, match="The branch teste is one of"):
        branch.branch("teste")
    monkeypatch.setenv("LAKEHOUSE_GOLD_ROOT", str(tmp_path / "gold"))
    with pytest.raises(DeclarationError, match="layers gold have roots of their own"):
        branch.branch("terceira")


def test_a_base_that_is_the_lake_itself_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LAKEHOUSE_BASE_ROOT", str(tmp_path / "lake"))
    with pytest.raises(DeclarationError, match="LAKEHOUSE_BASE_ROOT is the lake itself"):
        load_settings()
