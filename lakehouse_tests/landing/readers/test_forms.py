"""Whatever form a stream is delivered in, bronze holds the same texts, and the landed file is as it was."""

import datetime as dt
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import EXTRACTED, FORMS, Lake, Row, file_content, touch

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("updated_at", "timestamp")),
    key=("id",),
    order=("updated_at",),
)
ROWS: list[Row] = [
    {
        "id": 1,
        "nome": 'Ação "dupla", ponto; vírgula',
        "valor": 2.5,
        "ativo": True,
        "detalhe": {"x": [1, 2], "y": "é"},
        "updated_at": "2026-01-01T00:00:00Z",
        "vazio": None,
    },
    {
        "id": 9_007_199_254_740_993,
        "nome": "linha 1\nlinha 2\ttab \\ barra 'x' 😀",
        "valor": -0.1,
        "ativo": False,
        "detalhe": {"x": [], "y": "\x01"},
        "updated_at": "2026-01-02T00:00:00.5Z",
        "vazio": None,
    },
    {"id": -3, "nome": None, "valor": None, "ativo": None, "detalhe": None, "updated_at": None, "vazio": None},
]
TEXTS = [
    {
        "id": "1",
        "nome": 'Ação "dupla", ponto; vírgula',
        "valor": "2.5",
        "ativo": "true",
        "detalhe": '{"x":[1,2],"y":"é"}',
        "updated_at": "2026-01-01T00:00:00Z",
        "vazio": None,
    },
    {
        "id": "9007199254740993",
        "nome": "linha 1\nlinha 2\ttab \\ barra 'x' 😀",
        "valor": "-0.1",
        "ativo": "false",
        "detalhe": '{"x":[],"y":"\\u0001"}',
        "updated_at": "2026-01-02T00:00:00.5Z",
        "vazio": None,
    },
    dict.fromkeys(("nome", "valor", "ativo", "detalhe", "updated_at", "vazio"), None) | {"id": "-3"},
]


def texts(lake: Lake) -> list[Row]:
    rows = lake.rows(SPEC.bronze, "_airbyte_raw_id", *TEXTS[0])
    return [{k: v for k, v in row.items() if k != "_airbyte_raw_id"} for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_texts(lake: Lake, form: str) -> None:
    path = lake.land("itens", "2026_01_01_1767225600000_0", ROWS, form)
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.records_in, entry.written, entry.quarantined) == (3, 3, 0)
    # Whitespace inside nested values is the writer's; Airbyte's own is compact.
    found = [{**row, "detalhe": row["detalhe"] and _compact(row["detalhe"])} for row in texts(lake)]
    expected = [{**row, "detalhe": row["detalhe"] and _compact(row["detalhe"])} for row in TEXTS]
    assert found == expected
    envelopes = lake.rows(SPEC.bronze, "_airbyte_raw_id", "_airbyte_extracted_at", "_source_file", "_batch_id", "_extra")
    at = dt.datetime.fromtimestamp(EXTRACTED / 1000, tz=dt.UTC)
    assert [tuple(row.values()) for row in envelopes] == [(f"raw-{n}", at, f"raw/itens/{path.name}", 1, None) for n in range(3)]
    generation = {(_compact(row["_airbyte_meta"] or "null"), row["_airbyte_generation_id"]) for row in lake.rows(SPEC.bronze)}
    assert generation == ({("null", None)} if form.startswith("v1") else {('{"sync_id":7,"changes":[]}', 3)})


def _compact(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def test_one_stream_in_all_forms_at_once(lake: Lake) -> None:
    for number, form in enumerate(FORMS):
        lake.land("itens", f"f{number:02d}", [{**ROWS[0], "id": number}], form)
    entry = lake.ingest(SPEC).entry
    assert entry is not None and entry.written == len(FORMS)
    assert {row["id"] for row in lake.rows(SPEC.bronze, "id")} == {str(n) for n in range(len(FORMS))}
    assert (
        len({tuple(v for k, v in row.items() if k != "id") for row in lake.rows(SPEC.bronze, "id", "nome", "valor", "ativo")})
        == 1
    )


def test_a_landed_file_is_never_touched(lake: Lake) -> None:
    for form in FORMS:
        lake.land("itens", form, ROWS, form)
    broken = lake.put("itens", "b.jsonl", "{no json\n")
    lake.put("itens", "c.csv.gz", "no gzip")

    def landing() -> dict[str, tuple[int, int, bytes]]:
        files = [file for file in broken.parents[2].rglob("*") if file.is_file()]
        return {str(f): (f.stat().st_mtime_ns, f.stat().st_ino, hashlib.sha256(f.read_bytes()).digest()) for f in files}

    before = landing()
    lake.run(SPEC)
    lake.run(SPEC)
    assert landing() == before and len(before) == len(FORMS) + 2


NAMES = [
    *(
        "com espaço",
        "acentuação é ü",
        "aspas'simples",
        'aspas"duplas',
        "cerquilha#",
        "cento%20",
        "[0-9]",
        "[a",
        "a*",
        "a?",
        "{a,b}",
    ),
    *("a#1", "~til", "contra\\barra", "x^y", "<>|", "ponto.ponto", "quebra\nde linha", "a;b", "$HOME", "`x`", "a=b", "😀"),
]


@pytest.mark.parametrize("form", ["v2-jsonl", "v2-csv-flat", "v2-parquet-flat", "v2-jsonl.gz"])
def test_names_of_files_are_just_names(lake: Lake, form: str) -> None:
    """Also those that a reader would take for a pattern: each file is read once, and none for another."""
    for number, name in enumerate(NAMES):
        lake.land("itens", name, [{**ROWS[0], "id": number}], form)
    lake.land("itens", "sub [1]/pasta?/x", [{**ROWS[0], "id": 900}], form)
    lake.put("itens", "_SUCCESS", "done")
    lake.put("itens", ".hidden.jsonl", '{"id": 1}\n')
    lake.put("itens", "_temp/x.jsonl", '{"id": 1}\n')
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.written, entry.quarantined) == (len(NAMES) + 1, 0)
    found = {(row["_source_file"], row["id"]) for row in lake.rows(SPEC.bronze, "_source_file", "id")}
    suffix = form.split("-")[1]
    expected = {(f"raw/itens/{name}.{suffix}", str(number)) for number, name in enumerate(NAMES)}
    assert found == expected | {(f"raw/itens/sub [1]/pasta?/x.{suffix}", "900")}
    assert lake.ingest(SPEC).transaction is None


def test_the_lake_may_be_in_a_folder_with_such_a_name(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "pasta [1] de * teste" / "é%'")
    (tmp_path / "pasta 1 de x teste" / "é%'").mkdir(parents=True)  # what such a pattern would find
    lake.land("itens", "a", ROWS)
    lake.run(SPEC)
    lake.land("itens", "b", [{**ROWS[0], "nome": "novo", "updated_at": "2026-02-01"}])
    lake.run(SPEC)
    assert [(row["id"], row["nome"]) for row in lake.rows(SPEC.silver, "id", "nome")][:2] == [(-3, None), (1, "novo")]


def test_fields_that_cannot_be_columns_are_stored_aside(lake: Lake) -> None:
    odd = {"1x": "a", "": "b", "é": "c", "Nome": "d", "x" * 70: "e", "*": "f", "a.b": "g", "Valor Total": "h", "nulo#": None}
    lake.land("itens", "a", [{"id": 1, "nome": "n", **odd}, {"id": 2, "nome": None}])
    lake.ingest(SPEC)
    first, second = lake.rows(SPEC.bronze, "id", "nome", "a_b", "valor_total", "_extra")
    assert (first["nome"], first["a_b"], first["valor_total"]) == ("n", "g", "h")
    assert json.loads(first["_extra"]) == {"1x": "a", "": "b", "Nome": "d", "x" * 70: "e", "*": "f", "é": "c"}
    assert second == {"id": "2", "nome": None, "a_b": None, "valor_total": None, "_extra": None}


@pytest.mark.parametrize("form", ["v2-jsonl", "v2-jsonl-flat", "v2-csv-flat", "v2-parquet-flat"])
def test_fields_that_differ_in_case_only(lake: Lake, form: str) -> None:
    lake.land("itens", "a", [{"Id": "10", "id": "1", "ID": "100", "nome": "x"}], form)
    lake.ingest(SPEC)
    (row,) = lake.rows(SPEC.bronze, "id", "_extra")
    assert row["id"] == "1" and json.loads(row["_extra"]) == {"ID": "100", "Id": "10"}


def test_which_files_are_read_together_does_not_change_a_record(make_lake: Callable[[], Lake]) -> None:
    """A stream that changes the case of a field over time; each record says the same whoever else is in its batch."""
    rows = [{"Id": 1, "nome": "a"}, {"id": 2, "Nome": "b"}, {"ID": 3, "Nome": "c", "nome": "d"}, {"id": None, "Id": 4, "ID": 5}]
    results = []
    chance = random.Random(3)
    for rounds in ([range(4)], [[0], [1], [2], [3]], [chance.sample(range(4), 4)[:2], range(4)]):
        lake = make_lake()
        for chosen in rounds:
            for n in chosen:
                lake.put("itens", f"{n}.jsonl", file_content([rows[n]], first=n))
            lake.run(SPEC)
        results.append([(row["id"], row["nome"]) for row in lake.rows(SPEC.silver, "id", "nome")])
        bronze = lake.rows(SPEC.bronze, "_airbyte_raw_id", "id", "nome", "_extra")
        texts = [{value for name, value in row.items() if value and name in ("id", "nome")} for row in bronze]
        texts = [found | {*json.loads(row["_extra"] or "{}").values()} for found, row in zip(texts, bronze, strict=True)]
        assert texts == [{"1", "a"}, {"2", "b"}, {"3", "c", "d"}, {"4", "5"}]
    assert results == [[(1, "a"), (2, "b"), (3, "d"), (5, None)]] * 3


def test_a_delivered_field_may_be_called_like_one_of_ours(lake: Lake) -> None:
    ours = {
        "_opened": "a",
        "_source_file": "b",
        "_fallback": "c",
        "_document": "d",
        "filename": "e",
        "_batch_id": "f",
        "_line": "g",
    }
    for form in ("v2-jsonl-flat", "v2-csv-flat", "v2-parquet-flat", "v2-jsonl"):
        lake.land("itens", form, [{"id": 1, "nome": "n", **ours}], form)
    lake.ingest(SPEC)
    names = ("opened", "source_file", "fallback", "document", "filename", "batch_id", "line")
    assert [tuple(row.values()) for row in lake.rows(SPEC.bronze, *names)] == [tuple("abcdefg")] * 4
    assert {row["_batch_id"] for row in lake.rows(SPEC.bronze, "_batch_id")} == {1}


def test_what_airbyte_adds_beside_its_envelope_is_stored(lake: Lake) -> None:
    rows = [{"id": 1, "nome": "n", "_airbyte_additional_properties": '{"x": 1}', "_ab_cdc_lsn": 5}]
    for form in ("v2-jsonl-flat", "v2-csv-flat", "v2-parquet-flat"):
        lake.land("itens", form, rows, form)
    lake.ingest(SPEC)
    found = lake.rows(SPEC.bronze, "airbyte_additional_properties", "ab_cdc_lsn")
    assert [tuple(row.values()) for row in found] == [('{"x": 1}', "5")] * 3


def test_a_record_without_an_envelope_gets_an_id_and_the_instant_of_its_file(lake: Lake) -> None:
    lake.put("itens", "2026_01_02_1767312000000_0.jsonl", '{"id": 1}\n{"id": 2}\n')
    lake.put("itens", "2026_01_02_1767312000000_1.csv", "id,nome\n1,a\n")
    lake.ingest(SPEC)
    rows = lake.rows(SPEC.bronze, "_airbyte_raw_id", "_airbyte_extracted_at", "id")
    assert len({row["_airbyte_raw_id"] for row in rows}) == 3
    assert {row["_airbyte_extracted_at"].astimezone(dt.UTC) for row in rows} == {dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}


@pytest.mark.parametrize("value", [99999999999999999999, 9223372036854775, "infinity", "rubbish", "", None, -5, {"a": 1}, True])
def test_an_extraction_time_that_is_none_is_that_of_the_file(lake: Lake, value: object) -> None:
    envelope = {"_airbyte_raw_id": "r", "_airbyte_extracted_at": value, "_airbyte_data": {"id": 1}}
    lake.put("itens", "2026_01_02_1767312000000_0.jsonl", json.dumps(envelope) + "\n" + file_content(ROWS).decode())
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.written, entry.quarantined) == (4, 0)
    odd = [row for row in lake.rows(SPEC.bronze, "_airbyte_raw_id", "_airbyte_extracted_at") if row["_airbyte_raw_id"] == "r"]
    assert odd[0]["_airbyte_extracted_at"].astimezone(dt.UTC) == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def test_extraction_times_as_text_and_numbers_of_json_stay_exact(lake: Lake) -> None:
    at = '"2026-01-01T00:00:00.123456Z"'
    numbers = '"id":1,"a":18446744073709551616,"b":1e400,"c":-0,"d":0.1,"e":1e3,"f":9223372036854775808'
    lake.put("itens", "a.jsonl", f'{{"_airbyte_raw_id":"r","_airbyte_extracted_at":{at},"_airbyte_data":{{{numbers}}}}}\n')
    lake.ingest(SPEC)
    (row,) = lake.rows(SPEC.bronze, "_airbyte_extracted_at", "a", "b", "c", "d", "e", "f")
    assert row.pop("_airbyte_extracted_at").astimezone(dt.UTC).isoformat() == "2026-01-01T00:00:00.123456+00:00"
    assert row == {
        "a": "18446744073709551616",
        "b": "1e400",
        "c": "-0",
        "d": "0.1",
        "e": "1e3",
        "f": "9223372036854775808",
    }


def test_data_as_text_is_opened(lake: Lake) -> None:
    lake.put("itens", "a.jsonl", json.dumps({"_airbyte_raw_id": "r", "_airbyte_data": json.dumps(ROWS[0])}) + "\n")
    lake.ingest(SPEC)
    assert texts(lake) == [TEXTS[0]]


def test_very_long_values(lake: Lake) -> None:
    long = {"id": 1, "nome": "é" * 3_000_000}
    for form in ("v2-jsonl", "v2-csv-flat", "v2-parquet-flat"):
        lake.land("itens", form, [long], form)
    lake.run(SPEC)
    assert [len(row["nome"]) for row in lake.rows(SPEC.bronze, "nome")] == [3_000_000] * 3
    assert [len(row["nome"]) for row in lake.rows(SPEC.silver, "nome")] == [3_000_000]


def test_records_without_fields_and_files_without_records(lake: Lake) -> None:
    lake.put("itens", "a.jsonl", '{"_airbyte_raw_id":"r","_airbyte_data":{}}\n{}\n\n  \n')
    lake.put("itens", "b.csv", "_airbyte_raw_id,id,nome\n")
    lake.put("itens", "c.csv", "_airbyte_raw_id\nr1\n")
    lake.put("itens", "d.parquet", _no_rows())
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.records_in, entry.written, entry.quarantined) == (3, 2, 1)
    (row,) = lake.quarantined(SPEC)
    assert (row["source_file"], row["record"]) == ("raw/itens/c.csv", '{"_airbyte_raw_id":"r1"}')
    assert row["reason"] == "It has Airbyte's envelope and no field of its own."


def _no_rows() -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(
        pa.table(
            {"_airbyte_raw_id": pa.array([], pa.string()), "id": pa.array([], pa.int64()), "nome": pa.array([], pa.string())}
        ),
        out,
    )
    return out.getvalue()


def test_byte_order_marks_and_windows_line_ends(lake: Lake) -> None:
    lake.put("itens", "a.csv", b"\xef\xbb\xbf" + file_content(ROWS[2:], "v2-csv-flat").replace(b"\n", b"\r\n"))
    lake.put("itens", "b.jsonl", b"\xef\xbb\xbf" + file_content(ROWS[2:]).replace(b"\n", b"\r\n"))
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.written, entry.quarantined) == (2, 0)
    assert texts(lake) == [TEXTS[2]] * 2
    assert "airbyte_raw_id" not in lake.rows(SPEC.bronze)[0]


def test_a_touched_file_has_another_version_and_the_same_path(lake: Lake) -> None:
    path = lake.land("itens", "a", ROWS)
    (before,) = lake.storage.landed("itens")
    touch(path)
    (after,) = lake.storage.landed("itens")
    assert before.version != after.version and (before.path, before.size) == (after.path, after.size)
