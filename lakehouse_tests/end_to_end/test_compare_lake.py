"""`make compare WITH=<lake>`: table by table, one report as text, JSON and a page; tables without a key by their content."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from lakehouse.commands.compare import compare
from lakehouse.commands.parity.lake import pairs
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.reports.paridade_page import render
from lakehouse.settings import Settings
from lakehouse.tables.spec import Column, DeltaSource, TableSpec
from lakehouse_tests.foreign import Theirs

KEYED = TableSpec(
    name="contas",
    source=DeltaSource("/old/silver/contas", "contas"),
    columns=(
        Column("id", "bigint"),
        Column("saldo_r", "decimal(9,2)", source="Saldo (R$)"),
        Column("cpf", "string", personal=True),
    ),
    key=("id",),
    order=("id",),
)
ADDED = replace(
    KEYED,
    name="eventos",
    silver_name="eventos",
    columns=(Column("tipo", "string"), Column("valor", "int")),
    sync="append",
    key=(),
    order=(),
)


@pytest.fixture
def old(lake):
    return lake.folder / "old"


@pytest.fixture
def here(lake, old, monkeypatch):
    """Two tables here, each made of one there."""
    monkeypatch.setenv("LAKEHOUSE_ROOT", lake.storage.root)
    accounts = Theirs(old / "gold" / "Contas", {"id": "long", "Saldo (R$)": "double", "cpf": "string"}, mapped=True)
    accounts.add({"id": [1, 2, 3], "Saldo (R$)": [1.5, 2.0, 3.25], "cpf": ["a", "b", "c"]})
    events = Theirs(old / "silver" / "eventos", {"tipo": "string", "valor": "long"})
    events.add({"tipo": ["a", "a", None, ""], "valor": [1, 1, 2, None]})
    specs = (
        replace(KEYED, source=DeltaSource(str(accounts.folder), "contas")),
        replace(ADDED, source=DeltaSource(str(events.folder), "eventos")),
    )
    monkeypatch.setattr(Settings, "tables", specs)
    for spec in specs:
        lake.run(spec)
    return {"accounts": accounts, "events": events, "specs": specs}


def test_a_lake_is_the_same_as_the_one_that_was_made_of_it(here, old, capsys):
    assert compare(str(old)) == 0
    output = capsys.readouterr().out
    assert "silver/contas and gold/Contas, which it is made of\n" in output
    assert "    3 rows are in both; 2 columns were compared, and nothing differs\n" in output
    assert "    4 rows are in both; 2 columns were compared, and nothing differs\n" in output
    assert output.endswith("2 tables were compared: 2 equal, 0 differ, 0 cannot be compared; 0 are only there, 0 only here\n")


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ({"tipo": ["a"], "valor": [1]}, ["1 rows are only there", "a, 1"]),
        ({"tipo": [""], "valor": [2]}, ["1 rows are only there", ", 2"]),
        ({"tipo": [None], "valor": [None]}, ["1 rows are only there", "None, None"]),
        ({"tipo": ["a"], "valor": [2**40]}, ["1 rows are only there", "a, None"]),  # no value of our type
    ],
)
def test_rows_without_a_key_count_as_often_as_they_are_there(here, capsys, rows, lines):
    here["events"].add({"tipo": pa.array(rows["tipo"], pa.string()), "valor": pa.array(rows["valor"], pa.int64())})
    assert compare("eventos", str(here["events"].folder)) == 1
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        *("only here: column _extracted_at", *lines, "4 rows are in both; 2 columns were compared"),
    ]


def test_a_row_without_a_key_that_is_gone_there_is_only_here(here, capsys):
    events = here["events"]
    events.commit({"remove": {"path": events.add({"tipo": ["x"], "valor": [9]})["add"]["path"], "dataChange": True}})
    first = [line for line in (events.folder / "_delta_log" / f"{1:020}.json").read_text().splitlines() if '"add"' in line]
    events.commit({"remove": {"path": json.loads(first[0])["add"]["path"], "dataChange": True}})
    assert compare("eventos", str(events.folder)) == 1
    assert "4 rows are only here\n    None, 2\n    , None\n    a, 1\n0 rows are in both" in capsys.readouterr().out


def test_what_differs_what_is_only_on_one_side_and_what_is_refused_are_in_one_report(here, old, lake, tmp_path, capsys):
    here["accounts"].add({"id": [4], "Saldo (R$)": [9.0], "cpf": ["segredo"]})
    here["accounts"].add({"id": [1], "Saldo (R$)": [7.5], "cpf": ["outro segredo"]})
    Theirs(old / "silver" / "extra", {"id": "long"}).add({"id": [1]})
    Theirs(old / "bronze" / "contas", {"id": "long"})  # of the same name, and not what ours is made of
    (
        here["events"].folder / json.loads((here["events"].folder / "_delta_log" / f"{1:020}.json").read_text())["add"]["path"]
    ).unlink()
    target = tmp_path / "out"
    assert compare(str(old), json_path=str(target / "p.json"), html=str(target / "p.html")) == 1
    output = capsys.readouterr().out
    assert (
        "    1 rows are only there\n        4\n" in output
        and "    1 rows differ in saldo_r\n        1: 1.50 here, 7.5 there\n" in output
    )
    assert "    1 rows differ in cpf\n        1: *** here, *** there\n" in output
    assert "    cannot be compared: The data file " in output
    assert "only there: bronze/contas (silver/contas is compared with gold/Contas)\nonly there: silver/extra\n" in output
    assert output.endswith("2 tables were compared: 0 equal, 1 differ, 1 cannot be compared; 2 are only there, 0 only here\n")

    document = json.loads((target / "p.json").read_text())
    assert document["counts"] == {"equal": 0, "differs": 1, "refused": 1}
    accounts, events = sorted(document["tables"], key=lambda entry: entry["table"])
    assert (accounts["outcome"], accounts["by"], accounts["comparison"]["both"]) == ("differs", "source", 4)
    assert (events["outcome"], events["comparison"]) == ("refused", None) and "is missing" in events["refusal"]
    assert [entry["path"] for entry in document["only_there"]] == ["bronze/contas", "silver/extra"]

    page = (target / "p.html").read_text()
    assert page == render(document) and "<script" not in page and "://" not in page
    for text in ("Paridade dos dois lakes", "coluna saldo_r", "silver/contas é comparada com gold/Contas", "não comparada"):
        assert text in page, text
    assert "segredo" not in output + page + json.dumps(document)


def test_one_table_has_the_same_report(here, old, tmp_path):
    assert compare("contas", f"{old}/gold/Contas", json_path=str(tmp_path / "p.json"), html=str(tmp_path / "p.html")) == 0
    assert json.loads((tmp_path / "p.json").read_text())["counts"]["equal"] == 1
    assert "Tabela por tabela" in (tmp_path / "p.html").read_text()


def test_where_nothing_differs_a_table_that_cannot_be_compared_is_exit_code_2(here, old, lake):
    (here["accounts"].folder / "_delta_log" / f"{2:020}.json").write_text("{")
    assert compare(str(old)) == 2


def test_a_table_of_ours_that_is_not_there_is_no_difference(here, old, capsys):
    assert compare(f"{old}/gold") == 0
    assert "only here: silver/eventos\n" in capsys.readouterr().out


def test_a_report_is_never_written_into_the_lake_that_is_compared(here, old):
    with pytest.raises(DeclarationError, match="is in the lake that is compared"):
        compare(str(old), html=f"{old}/p.html")
    with pytest.raises(DeclarationError, match="JSON=1 names no file"):
        compare(str(old), json_path="1")
    with pytest.raises(BrokenTableError, match="There is no Delta table in"):
        compare(f"{old}/nothing")


def test_names_lead_to_our_tables_where_nothing_is_made_of_theirs():
    specs = (replace(KEYED, silver_name="contas_prontas"), ADDED)
    uris = ["/x/bronze/eventos", "/x/silver/eventos", "/x/silver/contas_prontas", "/x/silver/outra"]
    found = [(pair.path, pair.spec.name if pair.spec else "", pair.why) for pair in pairs(uris, specs, location="/x")]
    assert found == [
        ("bronze/eventos", "", "silver/eventos is compared with silver/eventos"),
        ("silver/eventos", "eventos", ""),
        ("silver/contas_prontas", "contas", ""),
        ("silver/outra", "", ""),
    ]
    several = [pair.why for pair in pairs(["/x/a/eventos", "/x/b/eventos"], specs, location="/x")]
    assert several == ["several are called like silver/eventos"] * 2
    made = [*pairs(["/old/silver/contas", "/old/silver/contas_prontas"], specs, location="/old")]
    assert [(pair.by, pair.why) for pair in made] == [
        ("source", ""),
        ("name", "silver/contas_prontas is compared with silver/contas"),
    ]


def test_a_page_is_one_file_whatever_names_and_values_are():
    difference = {
        "what": "rows differ in <b>",
        "rows": 1,
        "column": "<b>",
        "examples": [{"row": "<i>\x00", "here": None, "there": ""}],
    }
    side = {"uri": "s3://x/<u>", "version": 1, "rows": 1234567}
    comparison = {
        **{"here": side, "there": side, "key": [], "columns": 1, "both": 1, "only_here": ["<s>"], "only_there": []},
        "differences": [difference],
    }
    entry = {"table": "silver/a", "path": "<em>", "by": "name", "outcome": "differs", "refusal": "", "comparison": comparison}
    counts = {"equal": 0, "differs": 1, "refused": 0}
    page = render(
        {"at": "2026-01-01T12:00:00+00:00", "here": "/a", "there": "/b", "counts": counts, "tables": [entry],
         "only_here": [], "only_there": []}
    )  # fmt: skip
    assert all(f"<{tag}>" not in page for tag in ("b", "i", "u", "s", "em"))
    assert "01/01/2026 09:00" in page and "1.234.567" in page and "nulo" in page and "(texto vazio)" in page
