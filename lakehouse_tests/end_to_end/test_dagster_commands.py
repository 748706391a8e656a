"""Dagster's own commands and `dg`, as docs/commands.md shows them, over a small lake: each ends with 0."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

pytestmark = pytest.mark.slow
PROJECT = project_folder()
_BLOCKS = re.findall(r"```console\n(.*?)```", (PROJECT / "docs" / "commands.md").read_text(), flags=re.DOTALL)
SHOWN = [
    line.partition("  #")[0] for block in _BLOCKS for line in block.splitlines() if re.match(r"\.venv/bin/(dagster|dg) ", line)
]
#: It asks the city's feed, and every other source system.
OUTSIDE = "--select '*'"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Of a lake with a small sample, and a Dagster instance."""
    folder: Path = tmp_path_factory.mktemp("commands")
    (folder / "dagster").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", folder / "dagster")
    own = {"DAGSTER_HOME": str(folder / "dagster"), "LAKEHOUSE_ROOT": str(folder / "lake"), "PYTHONPATH": str(PROJECT)}
    made = {**os.environ, **own, "LAKEHOUSE_LANDING": str(folder / "landing")}
    for words in (["lakehouse.sample", str(folder / "landing"), "--lines", "5000"], ["lakehouse", "trigger", "medallion_etl"]):
        subprocess.run([sys.executable, "-m", *words], env=made, cwd=PROJECT, capture_output=True, check=True)
    return made


def test_the_docs_show_the_commands_that_people_of_dagster_type():
    shown = {tuple(shlex.split(line)[1:3]) for line in SHOWN}
    assert {("check", "defs"), ("list", "defs"), ("launch", "--assets"), ("job", "execute"), ("asset", "materialize")} <= shown


@pytest.mark.parametrize("line", [line for line in SHOWN if OUTSIDE not in line])
def test_a_command_of_dagster_ends_with_0(environment, line):
    program, *words = shlex.split(line)
    program = str(Path(sys.executable).with_name(Path(program).name))
    done = subprocess.run([program, *words], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if "--json" in words:
        found = json.loads(done.stdout)
        assert {asset["group"] if "group" in asset else asset["group_name"] for asset in found["assets"]} >= {"vendas", "ml"}
    if "launch" in words or "materialize" in words:
        assert "gold/vendas_diarias is current." in done.stdout + done.stderr
