"""`make sql`: formats, the statements of stdin, its options; what it takes from the declarations, and what it does not load."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import duckdb
import pytest
import typer

from lakehouse.__main__ import ALONE, app
from lakehouse.ask import command
from lakehouse.ask.catalogue import Catalogue, load_catalogue
from lakehouse.ask.output import check_format, write
from lakehouse.ask.shell import Shell
from lakehouse.ask.statement import StatementError
from lakehouse.core.errors import DeclarationError
from lakehouse.settings import light, project_folder

QUESTION = "select id, cidade from silver.pessoas order by id"


def written(lake, form: str, question: str = QUESTION) -> bytes:
    out = io.BytesIO()
    write(lake, lake.sql(question), check_format(form), out)
    return out.getvalue()


def test_an_answer_is_csv_json_or_parquet(connect, tmp_path):
    lake = connect()
    assert written(lake, "csv").decode() == "id,cidade\n1,Rio\n2,Niterói\n"
    assert json.loads(written(lake, "json")) == [{"id": 1, "cidade": "Rio"}, {"id": 2, "cidade": "Niterói"}]
    file = tmp_path / "rows.parquet"
    file.write_bytes(written(lake, "parquet"))
    assert duckdb.sql("from read_parquet($1)", params=[str(file)]).fetchall() == [(1, "Rio"), (2, "Niterói")]
    assert json.loads(written(lake, "json", "select 1 where false")) == []
    with pytest.raises(DeclarationError, match="no format 'xml'"):
        check_format("xml")


def test_a_table_is_for_people(connect, capsys):
    written(connect(), "table")
    written(connect(), "table", f"explain {QUESTION}")
    shown = capsys.readouterr().out
    assert "Niterói" in shown and "Read Parquet" in shown and "\\n" not in shown


def test_without_a_terminal_the_statements_of_stdin_are_answered_until_one_is_wrong(connect, monkeypatch, capsysbinary):
    lake = connect()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION};\nselect count(*) as n from silver.pessoas;"))
    assert Shell(lake, form="csv").run() == 0
    assert capsysbinary.readouterr().out.decode() == "id,cidade\n1,Rio\n2,Niterói\nn\n2\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("copy silver.pessoas to 'x'; select 1"))
    with pytest.raises(StatementError, match="COPY"):
        Shell(lake, form="csv").run()


def test_words_are_completed_by_tables_columns_and_sql(connect):
    lake = connect()
    lake.sql("from silver.pessoas")
    shell = Shell(lake)

    def completed(word: str) -> list[str]:
        found = []
        while (one := shell.complete(word, len(found))) is not None:
            found.append(one)
        return found

    assert completed("silver.p") == ["silver.pessoas"]
    assert completed("cid") == ["cidade"]
    assert completed("SEL") == ["SELECT"] and completed("sel") == ["select"]
    assert completed("si") == ["silver.", "silver.pessoas"]
    assert ".tables" in completed(".")


def test_the_options_are_those_that_help_lists():
    declared = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in ALONE:
        listed = {option for parameter in declared[name].params for option in parameter.opts} - {"--help"}
        known = {option for action in command.options()._actions for option in action.option_strings} - {"-h", "--help"}
        assert listed == known


def test_what_follows_from_settings_and_declarations_is_read_from_a_file_until_one_of_them_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("LAKEHOUSE_LANDING", raising=False)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    made, file = load_catalogue(), tmp_path / "lakehouse" / "ask.json"
    assert made.root == str(tmp_path / "lake") and file.is_file()
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "memory_limit": "1MB"}))
    assert load_catalogue() == replace(made, memory_limit="1MB")
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "other"))
    assert load_catalogue() == replace(made, **others(made, tmp_path / "other"))
    file.write_text("{")
    assert load_catalogue().root == str(tmp_path / "other")


def others(made: Catalogue, root) -> dict[str, str]:
    return {"root": str(root), "landing": f"{root}/landing", "spill": f"{root}/.spill", "memory_limit": made.memory_limit}


def test_the_stamp_is_another_when_a_declaration_or_the_env_file_is(monkeypatch, tmp_path):
    monkeypatch.setattr(light, "settings_file", lambda: tmp_path / ".env")
    before = light.stamp()
    assert light.stamp() == before
    (tmp_path / ".env").write_text("LAKEHOUSE_ROOT=elsewhere\n")
    with_env = light.stamp()
    assert with_env != before
    tables = project_folder() / "lakehouse" / "tables"
    seen = light._seen
    monkeypatch.setattr(light, "_seen", lambda file: "changed" if file == tables / "vendas.py" else seen(file))
    assert light.stamp() != with_env


def test_a_question_loads_neither_settings_nor_declarations_nor_the_other_commands(tmp_path):
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "LAKEHOUSE_ROOT": str(tmp_path / "lake")}
    heavy = ("pydantic", "sqlglot", "typer", "dagster", "narwhals", "pyarrow", "pandas", "lakehouse.tables")
    code = (
        "import sys; sys.argv = ['lakehouse', 'sql', '-q', 'select 42 as a', '--format', 'csv']\n"
        "from lakehouse.__main__ import main; code = main()\n"
        f"print([name for name in {heavy!r} if name in sys.modules], code)"
    )
    ends = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert ends[1].splitlines() == ["a", "42", "[] 0"]
    assert "pydantic" in ends[0]  # the first time there is no file
