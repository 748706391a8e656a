"""Files of anyone: each kind, each packing, and what a file that is not the table's is refused for."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.bronze.findings import READABLE_FILES, READABLE_RECORDS
from lakehouse.landing.readers.files import prepare
from lakehouse.settings import project_folder
from lakehouse.tables.spec import AirbyteStream, Column, Csv, PlainFiles, Source, TableSpec
from lakehouse_tests.conftest import Lake, Row
from lakehouse_tests.landing.readers.test_dialects import PACKED
from lakehouse_tests.landing.readers.workbook import cell, rows, text, workbook

COLUMNS = (Column("id", "bigint"), Column("nome", "string"), Column("valor", "decimal(12,2)"))


def table(source: Source | None = None, columns: tuple[Column, ...] = COLUMNS, **more: Any) -> TableSpec:
    source = source or PlainFiles("loja")
    return TableSpec(name="loja", source=source, columns=columns, key=("id",), order=("id",), max_loss=1.0, **more)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


KINDS: dict[str, bytes] = {
    "csv": b"id,nome,valor\n1,A\xc3\xa7\xc3\xa3o,1.10\n2,b,20\n",
    "jsonl": '{"id":1,"nome":"Ação","valor":1.10}\n{"id":2,"nome":"b","valor":20}\n'.encode(),
    "json": '[{"id":1,"nome":"Ação","valor":1.10},\n {"id":2,\r\n  "nome":"b","valor":20}]\n'.encode(),
    "parquet": parquet(id=[1, 2], nome=["Ação", "b"], valor=["1.10", "20"]),
    "xlsx": workbook(
        {
            "Vendas": rows(
                [text("A1", "id"), text("B1", "nome"), text("C1", "valor")],
                [cell("A2", "1"), text("B2", "Ação"), cell("C2", "1.1000000000000001")],
                [cell("A3", "2"), text("B3", "b"), cell("C3", "20")],
            )
        }
    ),
}
EXPECTED = [(1, "Ação", Decimal("1.10")), (2, "b", Decimal(20))]


def silver(lake: Lake, spec: TableSpec) -> list[tuple[Any, ...]]:
    refresh = lake.run(spec)
    assert refresh.entry is not None and refresh.entry.balanced
    return [tuple(row.values()) for row in lake.rows(spec.silver, *(column.name for column in spec.columns))]


def packed_as(ending: str, kind: str, content: bytes) -> tuple[str, bytes]:
    """The name and the bytes of a file in a packing; in a zip the name within says the kind."""
    if ending != ".zip":
        return f"a.{kind}{ending}", PACKED[ending](content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(f"__MACOSX/._a.{kind}", b"x")
        file.writestr(f"pasta/a.{kind.upper()}", content)
    return "a.zip", out.getvalue()


def test_every_kind_of_file_in_every_packing(lake: Lake) -> None:
    paths = set()
    for number, (kind, ending) in enumerate((kind, ending) for kind in KINDS for ending in PACKED):
        name, content = packed_as(ending, kind, KINDS[kind])
        lake.put("loja", f"{number}/{name}", content)
        paths.add(f"raw/loja/{number}/{name}")
    assert silver(lake, table()) == EXPECTED and lake.quarantined(table()) == []
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in lake.rows(table().bronze, "_source_file", "id", "nome", "valor"):
        found.setdefault(row["_source_file"], []).append((int(row["id"]), row["nome"], Decimal(row["valor"])))
    assert found == dict.fromkeys(paths, EXPECTED)


def test_an_airbyte_stream_reads_the_same(lake: Lake) -> None:
    for kind, content in KINDS.items():
        lake.put("loja", f"a.{kind}", content)
    spec = table(AirbyteStream("loja"))
    assert silver(lake, spec) == EXPECTED and len(lake.rows(spec.bronze, "id")) == 2 * len(KINDS)


def refused(lake: Lake, spec: TableSpec, name: str, content: bytes) -> str:
    """Land a file beside a good one; the reason that it is refused for, whole."""
    lake.put(spec.origin.asset, "good.jsonl", KINDS["jsonl"])
    lake.put(spec.origin.asset, name, content)
    batch = lake.ingest(spec)
    assert batch.entry is not None and batch.entry.balanced and batch.entry.written == 2
    (row,) = lake.quarantined(spec)
    assert (row["source_file"], row["record"], row["rules"]) == (f"raw/{spec.origin.asset}/{name}", None, "readable_file")
    assert next(found.failed for found in batch.findings if found.rule == READABLE_FILES) == 1
    return str(row["reason"])


def zips(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, KINDS["csv"])
    return out.getvalue()


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "zstd cut off": ("a.csv.zst", PACKED[".zst"](KINDS["csv"] * 99)[:-5], "cut off"),
    "zstd with a tail": ("a.csv.zst", PACKED[".zst"](KINDS["csv"]) + b"rubbish!", "cannot be unpacked as zstd"),
    "no zstd": ("a.csv.zst", KINDS["csv"], "cannot be unpacked as zstd"),
    "bz2 cut off": ("a.csv.bz2", PACKED[".bz2"](KINDS["csv"])[:-5], "cut off"),
    "bz2 with a tail": ("a.csv.bz2", PACKED[".bz2"](KINDS["csv"]) + b"rubbish", "cannot be unpacked as bz2"),
    "no zip": ("a.csv.zip", KINDS["csv"], "no whole zip"),
    "zip of two": ("a.zip", zips("a.csv", "b.csv"), "a zip of 2 files"),
    "zip of nothing": ("a.zip", zips(), "a zip of 0 files"),
    "zip of a zip": ("a.zip", zips("a.csv.gz"), "packed twice"),
    "zip of a text": ("a.zip", zips("a.txt"), "ends in none of"),
    "zstd by another name": ("a.csv", PACKED[".zst"](KINDS["csv"]), "Its content is zstd"),
    "workbook by another name": ("a.csv", KINDS["xlsx"], "Its content is a zip or an Excel workbook"),
    "array cut off": ("a.json", KINDS["json"][:-5], "Malformed JSON"),
    "array with a tail": ("a.json", KINDS["json"] + b"[]", "Malformed JSON"),
    "array with bad bytes": ("a.json", b'[{"id":"\xff"}]', "Malformed JSON"),
    "no workbook": ("a.xlsx", KINDS["csv"], "cannot be read as an Excel workbook"),
    "workbook cut off": ("a.xlsx", KINDS["xlsx"][:-100], "cannot be read as an Excel workbook"),
    "empty sheet": ("a.xlsx", workbook({"Um": ""}), "not a header"),
    "old workbook": ("a.xls", b"\xd0\xcf\x11\xe0", "ends in none of"),
    "gzip of a damaged parquet": ("a.parquet.gz", gzip.compress(KINDS["parquet"][:-9]), "."),
}


def test_what_is_no_whole_file_is_refused_by_name(lake: Lake) -> None:
    check_refused(lake, DAMAGED)


def check_refused(lake: Lake, files: dict[str, tuple[str, bytes, str]]) -> None:
    """Land files in one batch with a good one: each is refused whole, for its reason."""
    lake.put("loja", "good.jsonl", KINDS["jsonl"])
    for number, (name, content, _) in enumerate(files.values()):
        lake.put("loja", f"{number}/{name}", content)
    batch = lake.ingest(table())
    assert batch.entry is not None and batch.entry.balanced and batch.entry.written == 2
    reasons = {row["source_file"]: row["reason"] for row in lake.quarantined(table()) if row["record"] is None}
    assert len(reasons) == len(files) == next(found.failed for found in batch.findings if found.rule == READABLE_FILES)
    for number, (label, (name, _, sentence)) in enumerate(files.items()):
        reason = reasons[f"raw/loja/{number}/{name}"]
        assert sentence in reason and str(lake.folder) not in reason, label


def test_what_does_not_fit_is_not_unpacked(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.landing.readers.files.packing._SHARE", 1e-12)
    assert "more than there is room for" in refused(lake, table(), "a.csv.zst", PACKED[".zst"](KINDS["csv"]))


def test_what_was_made_is_gone_when_it_was_staged(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MADE", 1)
    for n in range(3):
        lake.put("loja", f"{n}.csv.zst", PACKED[".zst"](KINDS["csv"]))
    from lakehouse.bronze.ingest import stage_batch

    with lake.session() as session:
        batch = stage_batch(session, lake.storage, table(), run_id="run")
        assert batch.entry is not None and batch.entry.written == 6
        assert [path for path in Path(session.folder, "prepared").iterdir() if path.suffix != ".csv"] == []


# --- headers ---------------------------------------------------------------------------------------------------------


def test_a_header_is_read_as_people_write_it(lake: Lake) -> None:
    lake.put("loja", "a.csv", 'id , "nome", valor,,\n1,a,10,,\n2,b,20,,x\n3,c,30\n')
    assert silver(lake, table()) == [(1, "a", Decimal(10))]
    reasons = {row["record"]: row["reason"] for row in lake.quarantined(table())}
    assert reasons == {
        "2,b,20,,x": "Line 3: it has a value in a column without a name.",
        "3,c,30": "Line 4: Expected Number of Columns: 5 Found: 3.",
    }


CAUSES: dict[str, tuple[bytes, str]] = {
    "semicolon": (b"id;nome;valor\n1;a;1,5\n2;b;2,5\n", "looks like `;`-separated: declare csv=Csv(delimiter=';')"),
    "tab": (b"id\tnome\tvalor\n1\ta\t1\n2\tb\t2\n", r"declare csv=Csv(delimiter='\t')"),
    "both": ("id;nome;preço\n1;Praça;1\n2;Maçã;2\n".encode("cp1252"), "`;`-separated cp1252: declare csv=Csv(delimiter=';', enc"),
    "encoding": (
        "id,nome,observação\n1,Praça,1\n2,Maçã,2\n".encode("cp1252"),
        "looks like cp1252: declare csv=Csv(encoding='cp1252')",
    ),
    "utf-16": ("id,nome,valor\n1,a,1\n2,b,2\n".encode("utf-16"), "looks like utf_16: declare csv=Csv(encoding='utf_16')"),
    "preamble": (b"Vendas\nde ontem\nid,nome,valor\n1,a,1\n2,b,2\n", "after 2 lines: declare csv=Csv(skip=2)"),
    "no header": (b"1,a,1\n2,b,2\n3,c,3\n", "as if it had no header: declare csv=Csv(header=('id', 'nome', 'valor'))"),
    "renamed": (b"codigo,nome,valor\n1,a,1\n2,b,2\n", "none of the key: id missing; it has codigo, nome, valor."),
    "half": (b"id,Nome do Cliente,Valor R$\n1,a,1\n", "fewer than half: nome, valor missing"),
    "repeated": (b"id,nome,id\n1,a,1\n", "the same name"),
}


def test_a_file_of_another_table_is_refused_with_its_cause(lake: Lake) -> None:
    check_refused(lake, {label: ("a.csv", content, sentence) for label, (content, sentence) in CAUSES.items()})


def test_what_stands_where_names_should_is_not_shown(lake: Lake) -> None:
    assert "Maria" not in refused(lake, table(), "a.csv", b"1,Maria,1\n2,Ana,2\n3,Bia,3\n")


def test_renamed_fields_are_proposed(lake: Lake) -> None:
    reason = refused(lake, table(), "a.parquet", parquet(id=[1], nome_cliente=["a"], vlr=[1]))
    assert reason.endswith("Perhaps renamed: nome from 'nome_cliente', valor from 'vlr'; declare it with Column(…, source='…').")


def test_json_is_another_table_only_when_no_record_has_the_key(lake: Lake) -> None:
    lake.put("loja", "some.jsonl", '{"nome":"a"}\n{"id":1}\n')
    lake.put("loja", "none.jsonl", '{"codigo":1,"nome":"b"}\n{"codigo":2}\n')
    batch = lake.ingest(table())
    assert batch.entry is not None and (batch.entry.records_in, batch.entry.written) == (2, 2)
    (row,) = lake.quarantined(table())
    assert row["source_file"] == "raw/loja/none.jsonl"
    assert row["reason"] == "None of its records has the key id; they have codigo, nome."


def test_a_file_that_was_refused_is_read_once_its_dialect_is_declared(lake: Lake) -> None:
    """`make redrive` after the declaration: nothing lands again."""
    from lakehouse.bronze.ingest import redrive_files

    lake.put("loja", "a.csv", "id;nome;valor\n1;Maçã;1,10\n".encode("cp1252"))
    lake.ingest(table())
    columns = (*COLUMNS[:2], Column("valor", "decimal(12,2)", decimal=","))
    declared = table(PlainFiles("loja", csv=Csv(delimiter=";", encoding="cp1252")), columns)
    with lake.session() as session:
        assert redrive_files(session, lake.storage, declared, run_id="r") == ["raw/loja/a.csv"]
    assert silver(lake, declared) == [(1, "Maçã", Decimal("1.10"))] and lake.quarantined(declared) == []


def test_a_byte_that_is_none_in_the_encoding_costs_its_record(lake: Lake) -> None:
    lake.put("loja", "a.csv", b"id,nome,valor\n1,a,1\n2,Pra\xe7a S\xe3o Jo\xe3o,2\n")
    lake.put("loja", "b.csv", b"id,nome,valor\n3,c,3\n")
    assert [row[0] for row in silver(lake, table())] == [1, 3]
    (row,) = lake.quarantined(table())
    assert row["record"] == r"2,Pra\xe7a S\xe3o Jo\xe3o,2" and row["reason"].startswith("Line 3: Invalid unicode")
    assert row["reason"].endswith("It looks like cp1252: declare csv=Csv(encoding='cp1252').")


def test_utf_8_is_not_read_as_another_encoding(lake: Lake) -> None:
    spec = table(PlainFiles("loja", csv=Csv(encoding="cp1252")))
    assert refused(lake, spec, "a.csv", "id,nome,valor\n1,Praça,1\n".encode()).startswith("It is UTF-8, and declared as cp1252")


def test_refused_files_have_a_line_on_the_console(lake: Lake) -> None:
    for number in range(5):
        lake.put("loja", f"{number}.csv", "id;nome;valor\n1;a;2\n")
    found = next(finding for finding in lake.ingest(table()).findings if finding.rule == READABLE_FILES)
    assert found.lines[0].startswith("bronze/loja raw/loja/0.csv is refused whole: ") and "delimiter=';'" in found.lines[0]
    assert found.lines[3:] == ("bronze/loja and 2 more files are refused: the check readable_files.",)


def test_a_field_with_two_values_is_reported(lake: Lake) -> None:
    lake.put("loja", "a.jsonl", '{"id":1,"nome":"a","nome":"b"}\n{"id":2,"nome":"c"}\n')
    batch = lake.ingest(table())
    found = next(finding for finding in batch.findings if finding.rule == "field_collisions")
    assert not found.passed and found.detail["repeated"] == {"nome": 1}
    assert next(found.passed for found in batch.findings if found.rule == READABLE_RECORDS)


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_parts_of_the_path_are_fields_when_declared(lake: Lake, kind: str) -> None:
    spec = table(columns=(*COLUMNS, Column("mes", "int", source="month"), Column("loja", "string")))
    one = {
        "csv": b"id,nome,valor\n1,a,1\n",
        "jsonl": b'{"id":1,"nome":"a","valor":1}\n',
        "parquet": parquet(id=[1], nome=["a"], valor=[1]),
    }
    two = {
        "csv": b"id,nome,valor,month\n2,a,1,7\n3,a,1,\n",
        "jsonl": b'{"id":2,"nome":"a","valor":1,"month":7}\n{"id":3,"nome":"a","valor":1}\n',
        "parquet": parquet(id=[2, 3], nome=["a", "a"], valor=[1, 1], month=[7, None]),
    }
    lake.put("loja", f"month=03/loja=S%C3%A3o/outra=1/a.{kind}", one[kind])
    lake.put("loja", f"month=04/loja=__HIVE_DEFAULT_PARTITION__/a.{kind}", two[kind])
    found = {row[0]: (row[3], row[4]) for row in silver(lake, spec)}
    assert found == {1: (3, "São"), 2: (7, None), 3: (4, None)}, "what a record says of itself comes first"
    assert "outra" not in lake.rows(spec.bronze)[0]


def test_a_key_may_be_in_the_path(lake: Lake) -> None:
    lake.put("loja", "id=7/a.csv", b"nome,valor\na,1\n")
    assert silver(lake, table()) == [(7, "a", Decimal(1))]


def test_parts_of_the_path_of_a_stream_are_none(lake: Lake) -> None:
    lake.put("loja", "valor=9/a.csv", b"id,nome\n1,a\n")
    assert silver(lake, table(AirbyteStream("loja"))) == [(1, "a", None)]


# --- JSON arrays and workbooks ---------------------------------------------------------------------------------------


def test_an_array_retains_the_digits_and_costs_single_records(lake: Lake) -> None:
    texts = ["99999999999999.99", "1.10", "1e3", "-0", "12345678901234567890"]
    elements = [f'{{"id":{n},"nome":{value},"valor":{{"a":[{value}]}}}}' for n, value in enumerate(texts)]
    lake.put("loja", "a.json", f"\ufeff [{', '.join(elements)}, 7, null, [1]]")
    lake.put("loja", "b.json", '{"id":9,"nome":"x"}\n{"id":10}\n')
    lake.put("loja", "c.json", "[]")
    entry = lake.ingest(table()).entry
    assert entry is not None and (entry.written, entry.quarantined) == (7, 3)
    found = {row["id"]: (row["nome"], row["valor"]) for row in lake.rows(table().bronze, "id", "nome", "valor")}
    assert {n: found[str(n)] for n in range(5)} == {n: (value, f'{{"a":[{value}]}}') for n, value in enumerate(texts)}
    assert {row["record"] for row in lake.quarantined(table())} == {"7", "null", "[1]"}


def bronze(lake: Lake, spec: TableSpec) -> list[Row]:
    lake.ingest(spec)
    return lake.rows(spec.bronze, *(column.name for column in spec.columns))


def test_what_a_cell_of_a_workbook_becomes(lake: Lake) -> None:
    values = {
        "19.989999999999998": cell("B3", "19.989999999999998"),
        "12345678901234567": cell("B4", "12345678901234567"),
        "1E+20": cell("B5", "1E+20"),
        "true": cell("B6", "1", kind="b"),
        "#N/A": cell("B7", "#N/A", kind="e"),
        "2024-03-10": cell("B8", "45361", style=1),
        "2024-03-10T12:00:00": cell("B9", "45361.5", style=2),
        "06:00:00": cell("B10", "0.25", style=3),
        "36:00:00": cell("B11", "1.5", style=4),
        " a  b ": text("B12", " a  b "),
        'x,"y\n': text("B13", 'x,"y\n'),
        "7": cell("B14", "7", kind="str"),
    }
    shown = {"19.989999999999998": "19.99", "1E+20": "1e+20"}
    content = rows(
        [text("A2", "id"), text("B2", "nome"), text("C2", " ")],
        *([cell(f"A{n}", str(n)), value] for n, value in enumerate(values.values(), start=3)),
        [],
        first=2,
    )
    lake.put("loja", "a.xlsx", workbook({"Oculta": rows([text("A1", "x")]), "Vendas": content}, hidden=("Oculta",)))
    spec = table(columns=COLUMNS[:2])
    found = {int(row["id"]): row["nome"] for row in bronze(lake, spec)}
    assert found == {n: shown.get(value, value) for n, value in enumerate(values, start=3)}
    assert lake.quarantined(spec) == []


def test_the_layout_of_a_sheet_is_declared(lake: Lake) -> None:
    content = rows(
        [text("A1", "Relatório")],
        [],
        [cell("A3", "1"), text("B3", "a"), cell("C3", "1.5")],
        [cell("A4", "2"), text("B4", "b"), cell("C4", "2.5"), text("D4", "?")],
        [],
        [text("A6", "Total"), cell("C6", "4")],
    )
    lake.put("loja", "a.xlsx", workbook({"Um": rows([text("A1", "x")]), "R&amp;D": content}))
    source = PlainFiles("loja", sheet="R&D", csv=Csv(skip=2, footer=1, header=("id", "nome", "valor")))
    assert silver(lake, table(source)) == [(1, "a", Decimal("1.5"))]
    (row,) = lake.quarantined(table(source))
    assert row["record"] == "2,b,2.5,?" and "Expected Number of Columns: 3 Found: 4" in row["reason"]


def test_a_sheet_that_is_not_there_is_refused(lake: Lake) -> None:
    reason = refused(lake, table(PlainFiles("loja", sheet="Vendas 2024")), "a.xlsx", KINDS["xlsx"])
    assert reason == "It has no sheet 'Vendas 2024', but 'Vendas'."


# --- docs/tables.md --------------------------------------------------------------------------------------------------


def documented() -> list[tuple[str, str, str, list[Row], str]]:
    """`(declared, file, content, records, sentence of a reason)` of the table in docs/tables.md."""
    page = (project_folder() / "docs" / "tables.md").read_text()
    part = page.partition("## What is read as a file")[2].partition("\n- Also")[0]
    found = []
    for line in re.findall(r"^\| (`PlainFiles.*) \|$", part, flags=re.MULTILINE):
        declared, name, content, outcome = (cell.strip() for cell in line.split(" | "))
        records, _, reason = outcome.partition("refused: ")
        listed = [json.loads(text) for text in re.findall(r"`({.*?})`", records)]
        found.append(
            (
                declared.strip("`"),
                name.strip("`"),
                content.removeprefix("<code>").removesuffix("</code>").replace("⏎", "\n"),
                listed,
                reason.strip("`"),
            )
        )
    return found


def test_the_examples_of_the_docs_are_read_like_that(make_lake: Callable[[], Lake]) -> None:
    examples = documented()
    assert len(examples) == 16
    for declared, name, content, records, reason in examples:
        lake, source = make_lake(), eval(declared, {"PlainFiles": PlainFiles, "Csv": Csv})
        spec = table(source, COLUMNS[:2])
        lake.put("loja", name, content.encode(source.csv.encoding if source.csv else "utf-8"))
        assert bronze(lake, spec) == records, (declared, content)
        reasons = [row["reason"] for row in lake.quarantined(spec)]
        assert len(reasons) == bool(reason) and all(found.endswith(reason) for found in reasons), (declared, content, reasons)


# --- the cases -------------------------------------------------------------------------------------------------------

CASES = (
    *("05-avro", "06-envelope", "10-app_nohead", "10-app_renamed", "10-app_semi", "10-cp1252", "10-dupjson", "10-emptyhdr"),
    *("10-footer", "10-jsonarray", "10-preamble", "10-quotein", "10-semi", "10-spacehdr", "10-unclosed", "10-xlsx"),
    *("10-zip", "10-zst"),
)
#: What the README of the cases says where `expected.json` has no entry: rows and records in quarantine.
STATED = {"10-quotein": (("1", "2", "3", "5"), ('4,"unclosed,40,w',)), "10-dupjson": (("1",), ())}


@pytest.mark.parametrize("case", CASES)
def test_a_case_comes_out_as_expected(real_data: Path, tmp_path: Path, case: str, land_case: Callable[..., Lake]) -> None:
    folder = real_data / "cases"
    if not (folder / case).is_dir():
        pytest.skip(f"there are no cases in {folder}")
    given = json.loads((folder / "expected.json").read_text()).get(case, {})
    listed = given.get("columns", [["id", "bigint"], ["nome", "string"], ["valor", "decimal(12,2)"], ["obs", "string"]])
    columns = tuple(Column(name, kind, **(more[0] if more else {})) for name, kind, *more in listed)
    source = AirbyteStream("caso", csv=Csv(**given["csv"]) if "csv" in given else None)
    order: dict[str, Any] = {"sync": "append"} if given.get("sync") == "append" else {"key": ("id",), "order": ("id",)}
    spec = TableSpec(name="caso", source=source, columns=columns, max_loss=1.0, **order)
    lake = land_case(folder / case)
    refresh = lake.run(spec)
    assert refresh.entry is None or refresh.entry.balanced
    found = {str(row["id"]): row for row in lake.rows(spec.silver)}
    waiting = [row["record"] for row in lake.quarantined(spec) if row["record"] is not None]
    for number, values in given.get("rows", {}).items():
        for name, value in values.items():
            assert found[number][name] == (Decimal(value) if isinstance(found[number][name], Decimal) else value)
    if case in STATED:
        ids, records = STATED[case]
        assert (tuple(sorted(found)), tuple(waiting)) == (ids, records)
    if "count" in given:
        assert len(lake.rows(spec.silver)) == given["count"]
    if "refused" in given:
        assert len(waiting) == given["refused"]
    if case == "10-unclosed":
        assert waiting == ['10,"unclosed,10,o']


@pytest.fixture
def land_case(lake: Lake) -> Callable[[Path], Lake]:
    def land(folder: Path) -> Lake:
        for path in folder.iterdir():
            lake.put("caso", path.name, path.read_bytes())
        return lake

    return land


UNDECLARED = {
    "10-semi": "`;`-separated",
    "10-cp1252": "`;`-separated cp1252",
    "10-preamble": "Csv(skip=3)",
}


@pytest.mark.parametrize("case", UNDECLARED)
def test_a_case_without_its_dialect_is_refused_with_what_was_found(
    real_data: Path, case: str, land_case: Callable[[Path], Lake]
) -> None:
    if not (real_data / "cases" / case).is_dir():
        pytest.skip("there are no cases")
    lake, spec = land_case(real_data / "cases" / case), table(AirbyteStream("caso"))
    assert lake.run(spec).entry is not None
    (row,) = lake.quarantined(spec)
    assert row["record"] is None and UNDECLARED[case] in row["reason"] and lake.rows(spec.silver) == []
