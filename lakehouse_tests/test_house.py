"""The shape of the house: short functions and modules, docstrings that name what is there, and pure modules, room by room.

Run it alone: `python -m pytest lakehouse_tests/test_house.py -n 0`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.settings import project_folder

PROJECT = project_folder()
LINES_OF_FUNCTION, LINES_OF_MODULE = 60, 450

#: What is longer, and why that reads better than two halves. `module` or `module::function`.
LONG: dict[str, str] = {
    "benchmarks/monitoring.py::history": "writes one made-up history from top to bottom",
}

#: The modules that join a room to Dagster: its shell. Every other module of these rooms is pure.
SHELLS = {
    "core": (),
    "tables": (),
    "settings": (),
    "ask": (),
    "landing": (
        "assets",
        "defs",
        "lag",
        "request",
        "sensor",
        "sources/airbyte_client",
    ),  # the client is a subclass of dagster-airbyte's
    "bronze": ("assets", "defs"),
    "silver": ("assets", "defs", "request"),  # the request is a resource's config
    "gold": (
        "assets",
        "defs",
        "lineage",
        "marts",
        "published_tests",
    ),  # lineage is Dagster's own record; the tests take the lake resource
    "profile": (),
    "warehouse": ("assets", "defs", "notice"),
    "ml": ("assets", "defs", "promotion", "resource", "steps"),
    "reports": ("brt", "defs", "manutencao", "modelo", "publish", "vendas"),  # each reads its figures, and has the asset
    "observability": ("assets", "defs", "eventlog", "metrics", "sensors", "watch"),  # the latter read Dagster's event log
    "maintenance": ("assets", "defs", "run_history", "sqlite_files"),
    "sample": (),
}
#: Rooms whose pure modules are given what they need by settings, and load `lakehouse.settings` themselves.
READ_SETTINGS = {"settings", "ask", "gold", "observability", "maintenance"}
#: The modules that need PySpark, which only the extra `spark` installs.
NEED_SPARK = {"lakehouse.core.engines.spark", "lakehouse.core.engines.spark_application"}


def _modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((PROJECT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def _too_long(path: Path) -> Iterator[str]:
    text = path.read_text()
    if len(text.splitlines()) > LINES_OF_MODULE:
        yield _name(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > LINES_OF_FUNCTION:
                yield f"{_name(path)}::{node.name}"


def test_functions_and_modules_are_short():
    found = {name for path in _modules("lakehouse", "benchmarks", "deploy") for name in _too_long(path)}
    assert found - set(LONG) == set(), f"over {LINES_OF_FUNCTION} or {LINES_OF_MODULE} lines: split it, or give a reason in LONG"
    assert set(LONG) - found == set(), "no longer long: take it out of LONG"


def test_a_long_function_and_a_long_module_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PROJECT", tmp_path)
    body = "".join(f"    a = {n}\n" for n in range(LINES_OF_FUNCTION))
    (tmp_path / "lakehouse").mkdir()
    (tmp_path / "lakehouse" / "long.py").write_text(f"def long():\n{body}" + "\n" * LINES_OF_MODULE)
    (tmp_path / "lakehouse" / "short.py").write_text(f"def short():\n{body[: -len('    a = 0') - 2]}")
    assert {name for path in _modules("lakehouse") for name in _too_long(path)} == {
        "lakehouse/long.py",
        "lakehouse/long.py::long",
    }


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    given = function.args
    extra = [one for one in (given.vararg, given.kwarg) if one is not None]
    return {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *extra)}


def _described(docstring: str) -> Iterator[str]:
    """The names before the colons of a docstring's section `Args:`; `a, b: ...` and `a: ...; b: ...` describe both."""
    section = re.search(r"^Args:\n((?: +.*\n?|\n)*)", docstring, flags=re.MULTILINE)
    for entry in re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:] if section else ():
        for part in re.split(r"; (?=`?\w+`?:)", entry):
            yield from re.findall(r"\w+", part.partition(":")[0])


def _stale(path: Path) -> Iterator[str]:
    """Names that the docstrings of a module describe as arguments of functions, or fields of classes, that do not have them."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                known = _parameters(node)
            case ast.ClassDef():
                known = {
                    part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                }
                made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
                known |= {name for part in made for name in _parameters(part)}
            case _:
                continue
        for name in _described(ast.get_docstring(node) or ""):
            if name not in known:
                yield f"{_name(path)}:{node.lineno} {node.name} has no {name}"


def test_every_argument_that_a_docstring_describes_is_there():
    found = [one for path in _modules("lakehouse", "lakehouse_tests", "benchmarks", "deploy") for one in _stale(path)]
    assert not found, "\n".join(found)


def test_an_argument_that_is_no_longer_there_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PROJECT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(
        "class Known:\n"
        '    """A record.\n\n    Args:\n        size: in bytes; more.\n            name: no entry.\n        age: gone.\n    """\n'
        "    size: int\n\n\n"
        "def work(a, *, b, **rest):\n"
        '    """Do it.\n\n    Args:\n        a, c: two.\n        b: one; `d`: another.\n        rest: all.\n\n'
        '    Returns:\n        e: f.\n    """\n'
    )
    assert [one.split(" ", 1)[1] for one in _stale(path)] == ["Known has no age", "work has no c", "work has no d"]


def _pure(room: str) -> list[str]:
    """The modules of a room that import without Dagster, by their dotted names."""
    folder = PROJECT / "lakehouse" / room
    paths = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py")) if path.stem != "__main__"]
    shells = SHELLS[room]
    pure = [path for path in paths if not any(str(path) == shell or str(path.parent) == shell for shell in shells)]
    pure += [path for path in paths if path.name == "__init__" and path not in pure]  # a folder's own file has its contract only
    return sorted(".".join(("lakehouse", room, *(part for part in path.parts if part != "__init__"))) for path in pure)


def _import_in_a_process(names: list[str], *, refused: list[str], absent: list[str], folder: Path) -> None:
    """Fails with the first module that does not import, or that loads what is refused; `absent` cannot be imported at all."""
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({absent}))\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    assert not (loaded := {{*{refused}}} & {{*sys.modules}}), f'{{name}} loads {{loaded}}'\n"
        "print(len(sys.argv) - 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, cwd=folder, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(len(names))]


@pytest.mark.parametrize("reads_settings", [True, False])
def test_pure_modules_import_without_dagster(reads_settings, tmp_path):
    """One process imports each module, and names the first that loads Dagster, or settings where it must not."""
    refused = ["dagster", *([] if reads_settings else ["lakehouse.settings"])]
    rooms = {room: _pure(room) for room in SHELLS if (room in READ_SETTINGS) == reads_settings}
    assert all(rooms.values())
    names = [name for pure in rooms.values() for name in pure if name not in NEED_SPARK]
    _import_in_a_process(names, refused=refused, absent=["pyspark"], folder=tmp_path)


def test_the_suite_is_collected_where_there_is_no_fuse():
    """Its client loads the system's library when it is imported: only the process that mounts may do so."""
    names = ["lakehouse_tests.faults.power.test_power"]
    _import_in_a_process(names, refused=[], absent=["mfusepy"], folder=PROJECT)


@pytest.mark.spark
def test_the_modules_of_spark_import_without_dagster(tmp_path):
    assert set(_pure("core")) >= NEED_SPARK
    _import_in_a_process(sorted(NEED_SPARK), refused=["dagster", "lakehouse.settings"], absent=[], folder=tmp_path)


@pytest.mark.parametrize("room", SHELLS)
def test_the_list_of_shells_names_what_exists(room):
    for shell in SHELLS[room]:
        path = PROJECT / "lakehouse" / room / shell
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{room}/{shell} does not exist: take it out of SHELLS"


def test_every_room_is_pure_but_for_its_shells_or_is_joined_to_dagster_throughout():
    rooms = {path.parent.name for path in (PROJECT / "lakehouse").glob("*/__init__.py")}
    assert rooms - set(SHELLS) == {"runtime", "commands", "dashboard", "examples"}
