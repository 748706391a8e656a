"""Avro as Airbyte's destination writes it: flat records beside the envelope, every field a union with null."""

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import pytest

from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import EXTRACTED, Lake

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("nome", "string"),
        Column("valor", "decimal(9,2)"),
        Column("em", "timestamp"),
        Column("dia", "date"),
        Column("ativo", "boolean"),
        Column("detalhe", "string"),
    ),
    key=("id",),
    order=("em",),
)
SCHEMA = {
    "type": "record",
    "name": "itens",
    "fields": [
        {"name": "_airbyte_raw_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "_airbyte_extracted_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "_airbyte_generation_id", "type": "long"},
        {"name": "_airbyte_meta", "type": {"type": "record", "name": "meta", "fields": [{"name": "sync_id", "type": "long"}]}},
        {"name": "id", "type": ["null", "long"]},
        {"name": "nome", "type": ["null", "string"]},
        {"name": "valor", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "em", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "dia", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "ativo", "type": ["null", "boolean"]},
        {"name": "detalhe", "type": ["null", {"type": "record", "name": "d", "fields": [{"name": "a", "type": "long"}]}]},
    ],
}
INSTANT = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def content(numbers: range, codec: str = "null") -> bytes:
    fastavro = pytest.importorskip("fastavro")
    rows = [
        {
            "_airbyte_raw_id": f"00000000-0000-0000-0000-{n:012}",
            "_airbyte_extracted_at": EXTRACTED,
            "_airbyte_generation_id": 4,
            "_airbyte_meta": {"sync_id": 1},
            "id": n,
            "nome": "ação" if n % 2 else None,
            "valor": Decimal("1.50"),
            "em": INSTANT,
            "dia": dt.date(2026, 1, 2),
            "ativo": True,
            "detalhe": {"a": n},
        }
        for n in numbers
    ]
    out = io.BytesIO()
    fastavro.writer(out, SCHEMA, rows, codec=codec)
    return out.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_values_of_every_type_come_through(lake: Lake, codec: str) -> None:
    lake.put("itens", "2026_01_01_1767225600123_0.avro", content(range(1, 3), codec))
    lake.run(SPEC)
    one, two = lake.rows(SPEC.silver)
    assert one | {"_extracted_at": None} == {
        "id": 1,
        "nome": "ação",
        "valor": Decimal("1.50"),
        "em": INSTANT,
        "dia": dt.date(2026, 1, 2),
        "ativo": True,
        "detalhe": '{"a":1}',
        "_extracted_at": None,
    }
    assert two["nome"] is None
    (envelope, _) = lake.rows(SPEC.bronze, "_airbyte_generation_id", "_airbyte_raw_id", "_source_file")
    assert envelope["_airbyte_generation_id"] == 4 and envelope["_airbyte_raw_id"].endswith("0001")
    assert envelope["_source_file"] == "raw/itens/2026_01_01_1767225600123_0.avro"


DAMAGED = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "something else": lambda whole: b"no avro",
    "zeros at its end": lambda whole: whole[:-40] + bytes(40),
    "nothing but the magic": lambda whole: b"Obj\x01",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=list(DAMAGED))
def test_a_file_that_cannot_be_read_goes_whole_and_the_others_stay(lake: Lake, damage: Any) -> None:
    lake.put("itens", "bad.avro", damage(content(range(100, 4000))))
    lake.put("itens", "good.avro", content(range(1, 4)))
    lake.put("itens", "lines.jsonl", '{"id": 9, "em": "2026-01-01T00:00:00Z"}\n')
    lake.run(SPEC)
    assert [row["id"] for row in lake.rows(SPEC.silver)] == [1, 2, 3, 9]
    assert [(row["rules"], row["source_file"]) for row in lake.quarantined(SPEC)] == [("readable_file", "raw/itens/bad.avro")]


DECIMAL = {"logicalType": "decimal", "precision": 9, "scale": 3}
ODD = {
    "type": "record",
    "name": "odd",
    "namespace": "loja",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "em", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "local", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
        {"name": "dia", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "hora", "type": ["null", {"type": "int", "logicalType": "time-millis"}]},
        {
            "name": "valor",
            "type": {"type": "fixed", "name": "v", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 3},
        },
        {"name": "outro", "type": "v"},
        {"name": "nome", "type": ["null", "string", "double", {"type": "map", "values": {"type": "int", "logicalType": "date"}}]},
        {"name": "itens", "type": {"type": "array", "items": {"type": "long", "logicalType": "timestamp-millis"}}},
        {
            "name": "arvore",
            "type": ["null", {"type": "record", "name": "no", "fields": [{"name": "filho", "type": ["null", "no"]}]}],
        },
    ],
}


def odd(number: int, **given: Any) -> dict[str, Any]:
    empty = {"local": None, "dia": None, "hora": None, "valor": b"\x00\x00\x05\xdc", "outro": b"\xff\xff\xff\xff"}
    return {"id": number, "em": 0, **empty, "nome": None, "itens": [], "arvore": None, **given}


def test_a_value_that_no_calendar_has_costs_its_record(lake: Lake) -> None:
    fastavro = pytest.importorskip("fastavro")
    beyond = {
        2: ("em", 1 << 62),
        3: ("dia", 1 << 30),
        4: ("hora", 86_400_000),
        5: ("itens", [0, -(1 << 61)]),
        6: ("local", -(1 << 62)),
        7: ("nome", {"a": 1 << 30}),
    }
    records = [odd(1), *(odd(number, **dict([pair])) for number, pair in beyond.items())]
    records.append(odd(8, local=1, dia=-1, hora=1, nome={"a": 0}, itens=[1], arvore={"filho": {"filho": None}}))
    out = io.BytesIO()
    fastavro.writer(out, ODD, records, codec="deflate")
    lake.put("itens", "a.avro", out.getvalue())
    entry = lake.ingest(SPEC).entry
    assert entry is not None and (entry.written, entry.quarantined, entry.balanced) == (2, 6, True)
    first, last = lake.rows(SPEC.bronze, "id", "em", "local", "dia", "hora", "valor", "outro", "nome", "itens", "arvore")
    assert first == dict.fromkeys(first) | {
        **{"id": "1", "em": "1970-01-01T00:00:00+00:00", "valor": "1.500", "outro": "-0.001", "itens": "[]"}
    }
    assert (last["local"], last["dia"], last["hora"]) == ("1970-01-01T00:00:00.000001", "1969-12-31", "00:00:00.001000")
    assert (last["nome"], last["arvore"]) == ('{"a":"1970-01-01"}', '{"filho":{"filho":null}}')
    assert last["itens"] == '["1970-01-01T00:00:00.001000+00:00"]'
    found = {json.loads(row["record"])["id"]: row["reason"] for row in lake.quarantined(SPEC)}
    assert set(found) == set(beyond)
    for number, (name, _) in beyond.items():
        assert found[number].startswith(f"Record {number}: the value of {name} is none: ")
