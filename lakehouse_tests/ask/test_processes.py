"""The shell at a terminal, driven by tmux, and a notebook, driven by nbclient: what they show, and that each ends with 0."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

pytestmark = pytest.mark.slow
TIMES = range(20)


@pytest.fixture
def environment(people, tmp_path) -> dict[str, str]:
    """Of a process that asks the lake of two people, by the project's own declarations."""
    home = {"DAGSTER_HOME": str(tmp_path / "home"), "LAKEHOUSE_ROOT": people.storage.root, "TERM": "xterm"}
    return {**os.environ, **home, "PYTHONPATH": str(project_folder()), "LAKEHOUSE_MEMORY_LIMIT": "500MB"}


class Terminal:
    """A tmux session of its own server: what is typed, and what is seen."""

    def __init__(self, folder: Path, command: str, environment: dict[str, str]) -> None:
        self.tmux = ["tmux", "-S", str(folder / f"tmux-{uuid.uuid4().hex[:8]}")]
        self.environment = environment
        self._run("new-session", "-d", "-x", "120", "-y", "40", f"{command}; echo ended with $?; sleep 60")

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self.tmux, *words], env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, *keys: str) -> None:
        """Type texts and keys: one that tmux has a name for is that key."""
        for key in keys:
            named = key in ("Enter", "Tab") or key.startswith("C-")
            self._run("send-keys", *([key] if named else ["-l", "--", re.sub(";$", r"\\;", key)]))

    def seen(self, text: str, *, seconds: float = 20) -> str:
        """What is on the screen as soon as a text is."""
        deadline = time.monotonic() + seconds
        while text not in (screen := self._run("capture-pane", "-p")):
            assert time.monotonic() < deadline, f"{text!r} is not there:\n{screen}"
            time.sleep(0.05)
        return screen

    def end(self) -> None:
        subprocess.run([*self.tmux, "kill-server"], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here")
def test_the_shell_answers_completes_lists_and_has_a_history(environment, tmp_path):
    command = f"{sys.executable} -m lakehouse sql"
    terminal = Terminal(tmp_path, command, environment)
    try:
        terminal.seen("lake>")
        terminal.type(".tables silv", "Enter")
        terminal.seen("silver.pessoas")
        terminal.type("select id, cidade", "Enter")
        terminal.seen("  ...")
        terminal.type("from silver.pe", "Tab", " order by id;", "Enter")
        assert "Niterói" in terminal.seen("Niterói")
        terminal.type("drop view silver.pessoas;", "Enter")
        terminal.seen("error: DROP changes tables")
        terminal.type("C-d")
        terminal.seen("ended with 0")
        terminal.end()
        terminal = Terminal(tmp_path, command, environment)
        terminal.seen("lake>")
        terminal.type("C-r", "cidade")
        terminal.seen("select id, cidade")
        terminal.type("C-c", "C-d")
        terminal.seen("ended with 0")
    finally:
        terminal.end()
    history = tmp_path / "home" / "lakehouse" / "sql_history"
    assert "drop view" in history.read_text() and history.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here")
def test_the_shell_ends_with_0_twenty_times_of_twenty(environment, tmp_path):
    for number in TIMES:
        terminal = Terminal(tmp_path, f"{sys.executable} -m lakehouse sql", environment)
        try:
            terminal.seen("lake>")
            terminal.type(f"select count(*) + {number} from silver.pessoas, bronze.pessoas;", "Enter")
            terminal.seen(str(6 + number))
            terminal.type(".quit", "Enter")
            terminal.seen("ended with 0")
        finally:
            terminal.end()


def test_a_process_that_takes_frames_ends_with_0_twenty_times_of_twenty(environment):
    code = (
        "import lakehouse\n"
        "lake = lakehouse.connect()\n"
        "answer = lake.sql('select id, cidade from silver.pessoas order by id')\n"
        "print(answer.df().cidade.tolist(), answer.pl()['id'].to_list(), answer.arrow().num_rows, answer.relation.fetchall())"
    )
    for _ in TIMES:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "['Rio', 'Niterói'] [1, 2] 2 [(1, 'Rio'), (2, 'Niterói')]\n"


def test_a_notebook_takes_frames_and_ends_with_0_twenty_times_of_twenty(environment, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cells = [
        "import lakehouse\nlake = lakehouse.connect()",
        "lake.sql('select id, cidade from silver.pessoas order by id').df()",
        "lake.sql('select id, cidade from silver.pessoas order by id').pl()",
        "lake.sql('from silver.pessoas')",
    ]
    for _ in TIMES:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = NotebookClient(notebook, timeout=60, kernel_name="python3")
        with client.setup_kernel():  # at its end the kernel is asked to end
            kernel = client.km.provisioner.process
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
        assert kernel.returncode == 0
        shown = [str(cell.outputs) for cell in notebook.cells[1:]]
        assert all("Niterói" in text for text in shown), shown
