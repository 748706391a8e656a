"""The commands of docs/quick-start.md, typed as they stand there, in a clean copy of the project: ten minutes and a network."""

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

pytestmark = pytest.mark.slow
PROJECT = project_folder()
PAGE = (PROJECT / "docs" / "quick-start.md").read_text()
SHOWN = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def copy(tmp_path) -> Path:
    """What git has of the project, and nothing else."""
    target = tmp_path / "lakehouse"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, target / name)
    return target


def test_every_command_of_the_quick_start_works_in_a_clean_copy(copy):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_", "VIRTUAL_ENV"))}
    assert SHOWN[:2] == ["make run", "make dev"]
    for command in SHOWN:
        if command == "make dev":
            _answers(copy, own)
            continue
        done = subprocess.run(["bash", "-c", command], cwd=copy, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        if command == "make run":
            (report,) = re.findall(r"^report: (\S+/reports/vendas/\S+)$", done.stdout, flags=re.MULTILINE)
            assert Path(report).is_file()
    assert (copy / "data" / "lake" / "gold" / "vendas_diarias" / "_delta_log").is_dir()


def _answers(copy: Path, own: dict[str, str]) -> None:
    """`make dev` until its UI answers, then Ctrl+C."""
    server = subprocess.Popen(
        ["make", "dev"], cwd=copy, env=own, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen("http://127.0.0.1:3000/server_info", timeout=2) as answer:
                    assert answer.status == 200
                    assert server.poll() is None, "another server has port 3000"
                    return
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, "make dev has ended"
                time.sleep(0.5)
        pytest.fail("make dev does not answer")
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
