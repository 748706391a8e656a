"""Texts: the module declares the very table that was proposed, and both files are as ruff wants them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.profile.render import call, quoted, spec_of
from lakehouse.settings import project_folder
from lakehouse_tests.profile import shop
from lakehouse_tests.profile.conftest import Profile

PROJECT = project_folder()
#: Names, values and texts that are long, or have marks of Python in them.
AWKWARD = "id;nome da coluna que é muito comprida e não cabe;x\\y;tipo\n" + "".join(
    f'{n};valor \u2013 {n};a"b;{("sim, claro", chr(39) + "não" + chr(34), "talvez" * 6)[n % 3]}\n' for n in range(1, 61)
)


def ruff(folder: Path, texts: dict[str, str]) -> str:
    """What ruff has to say of files, under the project's rules."""
    shutil.copy2(PROJECT / "pyproject.toml", folder)
    for name, text in {"lakehouse_tests/conftest.py": "", "lakehouse/tables/spec/__init__.py": "", **texts}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    program, out = str(Path(sys.executable).with_name("ruff")), ""
    for words in (["format", "--diff"], ["check"]):
        done = subprocess.run([program, *words, "--no-cache", "."], cwd=folder, capture_output=True, text=True, check=False)
        out += done.stdout if done.returncode else ""
    return out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vendas.csv", shop.export(60)),
        ("um_nome_de_arquivo_bastante_comprido_para_uma_tabela_de_vendas_da_loja.csv", AWKWARD),
        ("notas.jsonl", '{"id": 1, "a": {"b": {"c": "x"}}}\n'),
    ],
)
def test_the_module_declares_what_was_proposed_and_is_formatted(
    profile: Profile, tmp_path: Path, name: str, content: bytes | str
) -> None:
    found = profile(name, content)
    scope: dict[str, object] = {}
    exec(found.module, scope)
    assert scope["TABLES"] == (spec_of(found.declaration),)
    folder = tmp_path / "texts"
    folder.mkdir()
    own = found.declaration.name
    files = {f"lakehouse/tables/{own}.py": found.module, f"lakehouse_tests/tables/test_{own}.py": found.test}
    assert ruff(folder, files) == ""


def test_a_call_is_broken_as_ruff_does() -> None:
    assert call("Column", ['"a"', '"b"'], 8) == ['Column("a", "b"),']
    assert call("Column", [f'"{"a" * 115}"'], 8) == ["Column(", f'    "{"a" * 115}"', "),"]
    assert call("f", ['"' + "a" * 70 + '"', '"' + "b" * 70 + '"'], 4)[1] == '    "' + "a" * 70 + '",'
    assert (quoted("a"), quoted("d'água"), quoted('"x"'), quoted("a\\b")) == ('"a"', '"d\'água"', "'\"x\"'", '"a\\\\b"')
