"""docs/first-hour.md: every command typed as it stands there, in a clean clone, with what it is to show; in Portuguese the same.

`make run` itself is run by `test_quick_start.py`, over all of the sample; here a small sample takes its place.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

PROJECT = project_folder()
PAGES = (PROJECT / "docs" / "first-hour.md", PROJECT / "docs" / "pt" / "primeira-hora.md")
#: By the beginning of a command, in the order in which they are typed: what it shows.
SHOWS = (
    ("make summary", "silver/vendas"),
    ("make sql Q='select mes", "2017-12"),
    ("make sql Q='describe silver.vendas'", "valor_unitario"),
    ("make trigger", "1 quarantined"),
    ("make quarantine", "not_null_pedido_id"),
    ("make sql Q='select count", "0"),
    ("make trigger", "silver/vendas version"),
    ("make sql Q='select id", "P900001"),
    ("make table", "silver/lojas: 3 rows"),
    ("make sql Q='select cidade", "Niterói"),
    ("make impact", "Nothing breaks"),
    ("make materialize", "dbt: "),
    ("make sql Q='select segmento", "Sem cadastro"),
)


def typed(page: Path) -> list[str]:
    """The commands of a page, without comments."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_both_languages_have_the_same_steps_and_commands():
    english, portuguese = PAGES
    assert typed(english) == typed(portuguese)
    headings = [re.findall(r"^#+ (?:\d\.)?", page.read_text(), flags=re.MULTILINE) for page in PAGES]
    assert headings[0] == headings[1] and len(headings[0]) == 9


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of what is committed, on a branch main, with this environment's packages."""
    target = tmp_path / "lakehouse"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(target)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "-B", "main"], cwd=target, check=True)
    (target / ".venv").symlink_to(Path(sys.executable).parents[1])
    for name in ("requirements.lock", "pyproject.toml"):  # older than the environment: nothing is to be installed
        os.utime(target / name, (0, 0))
    return target


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_every_step_of_the_first_hour_shows_what_it_is_to_show(clone):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    own |= {"PYTHONPATH": str(clone), "XDG_CACHE_HOME": str(clone.parent / "cache")}
    small = f"make setup && {sys.executable} -m lakehouse.sample --lines 5000 && make trigger JOB=medallion_etl"
    expected = list(SHOWS)
    for command in typed(PAGES[0]):
        line = small if command == "make run" else command
        done = subprocess.run(["bash", "-c", line], cwd=clone, env=own, capture_output=True, text=True, check=False)
        shown = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}: {shown[-3000:]}"
        if expected and command.startswith(expected[0][0]):
            assert expected.pop(0)[1] in shown, f"{command}: {shown[-3000:]}"
    assert not expected
    assert (clone / "lojas_silver.csv").read_text().startswith("loja,cidade,abertura")
