"""The command line: what starting it loads, that every command is collected once, and that what it returns is the exit code."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

import lakehouse.commands
from lakehouse import __main__
from lakehouse.commands import runs

HEAVY = ("dagster", "deltalake", "duckdb", "pyarrow", "narwhals", "pandas", "requests", "streamlit", "obstore", "dbt")


def _modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(lakehouse.commands.__path__, "lakehouse.commands.")
    return [importlib.import_module(module.name) for module in found]


@pytest.mark.parametrize("words", [["--help"], ["stop"]])
def test_help_and_stop_load_neither_dagster_nor_an_engine(words, tmp_path):
    """Dagster alone takes seconds: whoever asks for help, or stops, does not wait for it."""
    program = f"""
import sys
from lakehouse.__main__ import main
sys.argv = ["lakehouse", *{words}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded", [name for name in {HEAVY} if name in sys.modules])
"""
    env = {"DAGSTER_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert loaded == ("loaded []" if words == ["--help"] else "loaded ['requests']")


def test_every_module_with_commands_is_collected_and_no_name_is_taken_twice():
    declared = [module for module in _modules() if isinstance(getattr(module, "app", None), typer.Typer)]
    collected = [module for modules in __main__.COMMANDS.values() for module in modules]
    assert {module.__name__ for module in declared} == {
        module.__name__ for module in collected if module.__name__.startswith("lakehouse.commands.")
    }
    names = [
        command.name or command.callback.__name__.replace("_", "-")
        for module in collected
        for command in module.app.registered_commands
        if command.callback is not None
    ]
    assert len(names) > 25 and sorted(names) == sorted(set(names))
    assert set(names) == set(typer.main.get_command(__main__.app).commands)  # type: ignore[attr-defined]


def test_what_a_command_returns_is_the_exit_code(monkeypatch):
    from lakehouse.commands import foreground

    for code in (0, 1):
        monkeypatch.setattr(foreground, "materialize", lambda select, code=code: code)
        assert runs.materialize("group:gold") == code
        assert CliRunner().invoke(__main__.app, ["materialize", "group:gold"]).exit_code == code


def test_what_only_reads_declarations_needs_no_instance(monkeypatch, capsys):
    from lakehouse.commands import sync

    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(sync, "derived", dict)
    monkeypatch.setattr(sys, "argv", ["lakehouse", "sync", "--check"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert (end.value.code, capsys.readouterr().err) == (0, "")
