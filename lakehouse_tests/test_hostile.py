"""What is no name is refused at every entry, before it is part of a path, of SQL or of Jinja, and nothing is written.

Here: the entries. Not here: the allow-list itself (`core/test_names.py`), expressions (`core/test_expressions.py`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse import __main__
from lakehouse.commands import foreground
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_table
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import Settings, load_settings, project_folder
from lakehouse.silver.request import TableRequest
from lakehouse.tables.spec import (
    EXTRA,
    AirbyteStream,
    Column,
    TableSpec,
    accepted_values,
    expression,
    in_range,
    matches,
    not_null,
    unique,
)
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake

HOSTILE = {
    "quote": "vendas'",
    "double quote": 'vendas"',
    "second statement": "vendas; DROP TABLE x --",
    "union": "vendas' UNION SELECT 1 --",
    "parent folder": "../vendas",
    "parent folder inside": "vendas/../../x",
    "absolute path": "/etc/passwd",
    "jinja": "{{ env_var('HOME') }}",
    "jinja block": "{% raw %}vendas",
    "python": "__import__('os').system('id')",
    "s3": "s3://bucket/vendas",
    "file": "file:///etc/passwd",
    "percent": "%2e%2e%2fvendas",
    "shell": "$(id)",
    "NUL": "vendas\x00",
    "newline": "vendas\n",
    "300 characters": "v" * 300,
    "other letters": "v\u0435ndas",  # a Cyrillic e
}


def spec(**given: Any) -> TableSpec:
    base: dict[str, Any] = {"name": "itens", "source": AirbyteStream("itens"), "key": ("id",), "order": ("id",)}
    return TableSpec(**{**base, "columns": (Column("id", "bigint"), Column("nome", "string")), **given})


DECLARED: dict[str, Callable[[str], object]] = {
    "table": lambda text: spec(name=text),
    "silver table": lambda text: spec(silver_name=text),
    "stream": AirbyteStream,
    "column": lambda text: Column(text, "string"),
    "type": lambda text: Column("a", text),
    "key": lambda text: spec(key=(text,)),
    "order": lambda text: spec(order=(text,)),
    "tag": lambda text: spec(tags=(text,)),
    "transform": lambda text: spec(transform=text),
    "deletion": lambda text: spec(deleted=text),
    "calculated column": lambda text: spec(columns=(Column("id", "bigint"), Column("x", "bigint", expression=text))),
    "condition": lambda text: spec(rules=(expression("r", text),)),
    "rule": lambda text: expression(text, "id > 1", action="warn"),
    "table rule": unique,
    "column that is not null": not_null,
    "column of values": lambda text: accepted_values(text, "a"),
    "column of a range": lambda text: in_range(text, minimum=1),
    "column of a pattern": lambda text: matches(text, "a"),
    "unique column": lambda text: spec(rules=(unique(text),)),
    "layer": lambda text: TableRef(text, "vendas"),  # type: ignore[arg-type]
    "table of a layer": lambda text: TableRef("gold", text),
    "source of a request": lambda text: TableRequest(source_table=text).target(VENDAS),
    "target of a request": lambda text: TableRequest(source_table="vendas", target_table=text).target(VENDAS),
    "engine": lambda text: _environment("LAKEHOUSE_ENGINE", text),
    "environment": lambda text: _environment("LAKEHOUSE_ENV", text),
    "memory limit": lambda text: _environment("LAKEHOUSE_MEMORY_LIMIT", text),
    "log format": lambda text: _environment("LAKEHOUSE_LOG_FORMAT", text),
}


def _environment(name: str, text: str) -> Settings:
    if "\x00" in text:  # the system does not take it
        raise DeclarationError("NUL", remedy="None.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, text)
        return load_settings()


@pytest.mark.parametrize("entry", DECLARED)
def test_what_is_no_name_is_refused_where_it_is_declared(entry: str) -> None:
    for kind, text in HOSTILE.items():
        with pytest.raises(DeclarationError) as refusal:
            DECLARED[entry](text)
        assert refusal.value.remedy, kind
        assert len(str(refusal.value)) < 800, kind


def test_a_delivered_field_of_any_name_is_refused_or_stored_under_a_legal_one() -> None:
    for text in HOSTILE.values():
        try:
            stored = Column("a", "string", source=text).bronze_name
        except DeclarationError:
            continue
        assert stored == EXTRA or TableRef("bronze", stored).table == stored


@pytest.mark.parametrize(
    "location", ["s3a://bucket/lake", "s3://bucket/../other", "file:///etc", "/lake\n", "/lake#1", "/lake%2e", "/lake\\x"]
)
@pytest.mark.parametrize("variable", ["LAKEHOUSE_ROOT", "LAKEHOUSE_GOLD_ROOT"])
def test_a_location_that_is_no_folder_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, location: str) -> None:
    monkeypatch.setenv(variable, location + "x" if location.endswith("\n") else location)
    with pytest.raises(DeclarationError):
        load_settings().storage  # noqa: B018


def test_a_partition_and_a_column_of_a_write_are_names(lake: Lake) -> None:
    uri = lake.storage.uri(TableRef("ml", "scores"))
    with lake.session() as session:
        for text in HOSTILE.values():
            frame = session.table([{"day": "a"}], {"day": "string"})
            with pytest.raises(DeclarationError, match="cannot be a column name"):
                stage_write(session, uri, Write(frame=frame, columns={text: "string"}, mode="append"))
            assert not Path(uri).exists()
        open_table(uri, {"day": "string"})
        for text in HOSTILE.values():
            with pytest.raises(DeclarationError, match="is not made of text columns"):
                stage_write(session, uri, Write(frame=frame, columns={"day": "string"}, mode="partition", partition={text: "a"}))
            # A partition's value is data: compared, never a folder.
            frame = session.table([{"day": text.replace("\x00", "")}], {"day": "string"})
            value = {"day": text.replace("\x00", "")}
            write = Write(frame=frame, columns={"day": "string"}, mode="partition", partition=value)
            commit_staged(stage_write(session, uri, write))
    assert len(lake.rows(TableRef("ml", "scores"))) == len(HOSTILE)
    assert {path.name for path in Path(uri).iterdir() if path.is_dir()} == {"_delta_log"}


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "job": lambda text: ["trigger", "--", text],
    "source": lambda text: ["trigger", "bronze_to_silver", f"--source-table={text}"],
    "target": lambda text: ["trigger", "bronze_to_silver", "--source-table=vendas", f"--target-table={text}"],
    "selection": lambda text: ["materialize", "--", text],
    "selection of a key": lambda text: ["materialize", f'key:"{text}"'],
    "selection of a group": lambda text: ["materialize", f"group:{text}"],
    "rebuilt table": lambda text: ["rebuild", "--", text],
}


@pytest.mark.parametrize("entry", COMMANDS)
def test_a_command_refuses_it_in_one_sentence_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entry: str
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    definitions = foreground.build_defs(load_settings())
    monkeypatch.setattr(foreground, "build_defs", lambda _settings: definitions)
    for kind, text in HOSTILE.items():
        monkeypatch.setattr(sys, "argv", ["lakehouse", *COMMANDS[entry](text)])
        try:
            code: object = __main__.main()
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        assert (code, output.out) == (2, ""), (kind, output)
        assert output.err.startswith("error: ") and output.err.count("\n") == 1, (kind, output)
        assert "Traceback" not in output.err
    assert not (tmp_path / "lake").exists()
    assert sorted(path.name for path in home.iterdir()) == ["dagster.yaml"], "no run was begun"


#: Commands of a shell, and of Make itself.
MAKE_COMMANDS = (
    *("x'; touch {0}; '", 'x"; touch {0}; "', "x; touch {0}", "$(shell touch {0})"),
    *("$$(touch {0})", "$(touch {0})", "`touch {0}`"),
)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("environment", [False, True])
@pytest.mark.parametrize("text", MAKE_COMMANDS)
@pytest.mark.parametrize(("target", "variable"), [("redrive", "TABLE"), ("logs", "RUN"), ("stack", "PARTS")])
def test_what_is_given_to_make_is_never_a_command(
    tmp_path: Path, target: str, variable: str, text: str, environment: bool
) -> None:
    """The recipe's own command is another one here, which prints what it got."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    for name in (".base", ".dev", ".stack"):
        (tmp_path / name).touch()
    given = text.format(tmp_path / "touched")
    command = ["make", "--no-print-directory", "--old-file=setup", target, f"VENV={tmp_path}"]
    command += [] if environment else [f"{variable}={given}"]
    env = {**os.environ, variable: given} if environment else None
    done = subprocess.run(command, cwd=project_folder(), env=env, capture_output=True, text=True, check=False)
    assert not (tmp_path / "touched").exists()
    assert done.stdout.split()[-len(given.split()) :] == given.split(), done.stderr
