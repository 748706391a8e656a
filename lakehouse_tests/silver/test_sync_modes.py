"""What a sync's records are: versions of rows, rows that are added, or the whole table; and changes of a database's log."""

from dataclasses import replace
from typing import Any

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range
from lakehouse_tests.conftest import EXTRACTED, Lake, Row, file_content

COLUMNS = (Column("id", "bigint"), Column("nome", "string"), Column("valor", "int"))
APPENDED = TableSpec(name="itens", source=AirbyteStream("itens"), columns=COLUMNS, sync="append")
WHOLE = TableSpec(name="itens", source=AirbyteStream("itens"), columns=COLUMNS, sync="overwrite", max_loss=1.0)
KEYED = replace(WHOLE, key=("id",), order=("valor",))
CDC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("nome", "string"),
        Column("lsn", "bigint", source="_ab_cdc_lsn"),
        Column("apagado_em", "timestamp", source="_ab_cdc_deleted_at"),
    ),
    key=("id",),
    order=("lsn",),
    deleted="apagado_em IS NOT NULL",
)


def item(number: int, nome: str = "a", valor: int = 1) -> Row:
    return {"id": number, "nome": nome, "valor": valor}


def land(lake: Lake, name: str, rows: list[Row], generation: int) -> None:
    """Records of one generation, as Airbyte's S3 destination writes them."""
    import json

    lines = [
        {
            "_airbyte_raw_id": f"{name}-{n}",
            "_airbyte_extracted_at": EXTRACTED + n,
            "_airbyte_generation_id": generation,
            "_airbyte_meta": {"sync_id": 1, "changes": []},
            "_airbyte_data": row,
        }
        for n, row in enumerate(rows)
    ]
    lake.put("itens", f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def names(lake: Lake, spec: TableSpec = WHOLE) -> list[tuple[Any, ...]]:
    return [(row["id"], row["nome"]) for row in lake.rows(spec.silver)]


# --- append ------------------------------------------------------------------------------------------------------------


def test_every_record_that_is_appended_is_a_row(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(1), item(2)])
    lake.run(APPENDED)
    lake.put("itens", "b.jsonl", file_content([item(1)], first=3))  # a record of its own, with an id of its own
    found = lake.run(APPENDED)
    assert names(lake) == [(1, "a"), (1, "a"), (1, "a"), (2, "a")]
    assert found.entry is not None and found.entry.balanced and (found.entry.records_in, found.entry.written) == (1, 1)
    before = lake.rows(APPENDED.silver)
    lake.refresh(APPENDED, rebuild=True)
    assert lake.rows(APPENDED.silver) == before


def test_what_is_validated_again_is_appended_once(lake: Lake) -> None:
    strict = replace(APPENDED, rules=(in_range("valor", maximum=5),))
    lake.land("itens", "a", [item(1), item(2, valor=9), item(2, valor=9)])
    lake.run(strict)
    assert names(lake) == [(1, "a")]
    lake.refresh(APPENDED, mode="redrive")
    assert names(lake) == [(1, "a"), (2, "a"), (2, "a")] and lake.quarantined(APPENDED) == []
    assert lake.run(APPENDED).transaction is None


# --- full refresh, overwrite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [WHOLE, KEYED], ids=["without a key", "with a key"])
def test_a_refresh_replaces_the_table_once_it_is_whole(lake: Lake, spec: TableSpec) -> None:
    land(lake, "a", [item(1), item(2)], 1)
    lake.run(spec)
    assert names(lake) == []  # nobody has said that this is all
    lake.storage.complete("itens", 1)
    lake.run(spec)
    assert names(lake) == [(1, "a"), (2, "a")]
    land(lake, "b", [item(2, "b")], 2)
    lake.run(spec)
    assert names(lake) == [(1, "a"), (2, "a")]  # a refresh that was cut off changes nothing
    land(lake, "c", [item(3, "b")], 2)
    lake.storage.complete("itens", 2)
    found = lake.run(spec)
    assert names(lake) == [(2, "b"), (3, "b")]  # 1 is gone at the source
    assert found.entry is not None and found.entry.balanced
    assert (found.entry.records_in, found.entry.written, found.entry.deduplicated) == (4, 2, 2)
    assert lake.run(spec).transaction is None
    lake.refresh(spec, rebuild=True)
    assert names(lake) == [(2, "b"), (3, "b")]


def test_a_refresh_that_was_given_up_is_never_shown(lake: Lake) -> None:
    land(lake, "a", [item(1)], 1)
    lake.storage.complete("itens", 1)
    lake.run(WHOLE)
    land(lake, "b", [item(9)], 2)
    land(lake, "c", [item(2)], 3)
    lake.storage.complete("itens", 3)
    lake.run(WHOLE)
    assert names(lake) == [(2, "a")]


def test_an_empty_source_is_an_empty_table(lake: Lake) -> None:
    land(lake, "a", [item(1)], 1)
    lake.storage.complete("itens", 1)
    lake.run(WHOLE)
    lake.storage.complete("itens", 2)
    lake.run(WHOLE)
    assert names(lake) == []


def test_a_table_that_is_no_longer_overwritten_reads_what_it_had_passed_over(lake: Lake) -> None:
    land(lake, "a", [item(1), item(2)], 1)
    lake.storage.complete("itens", 1)
    lake.run(KEYED)
    land(lake, "b", [item(3)], 2)
    lake.storage.complete("itens", 2)
    lake.run(KEYED)
    assert names(lake) == [(3, "a")]
    newest = replace(KEYED, sync="dedup")
    land(lake, "c", [item(4)], 2)
    with pytest.raises(BrokenTableError, match="changed since: sync"):
        lake.run(newest)
    lake.refresh(replace(newest, on_change="rebuild"))
    assert names(lake) == [(1, "a"), (2, "a"), (3, "a"), (4, "a")]
    land(lake, "d", [item(5)], 2)
    refresh = lake.run(newest)
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "merge"


def test_a_complete_generation_takes_nothing_from_what_bronze_reported(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    batch = lake.ingest(WHOLE)
    assert batch.entry is not None
    lake.storage.complete("itens", 3)
    lake.ingest(WHOLE)
    bronze = open_existing(lake.storage.uri(WHOLE.bronze))
    assert bronze is not None and bronze.watermark("complete:bronze/itens") == 3
    assert bronze.provenance.figures == batch.entry


def test_a_key_is_unique_within_a_generation(lake: Lake) -> None:
    land(lake, "a", [item(1, "old", 1), item(1, "new", 2)], 1)
    lake.storage.complete("itens", 1)
    lake.run(KEYED)
    assert names(lake) == [(1, "new")]


def test_refused_records_of_a_generation_go_with_it(lake: Lake) -> None:
    strict = replace(WHOLE, rules=(in_range("valor", maximum=5),))
    land(lake, "a", [item(1), item(2, valor=9)], 1)
    lake.storage.complete("itens", 1)
    lake.run(strict)
    assert names(lake) == [(1, "a")] and len(lake.quarantined(strict)) == 1
    lake.refresh(WHOLE, mode="redrive")
    assert names(lake) == [(1, "a"), (2, "a")] and lake.quarantined(strict) == []
    land(lake, "b", [item(3)], 2)
    lake.storage.complete("itens", 2)
    lake.run(strict)
    assert names(lake) == [(3, "a")]


# --- change data capture ---------------------------------------------------------------------------------------------------


def change(number: int, lsn: int, nome: str | None = "a", deleted: str | None = None) -> Row:
    return {"id": number, "nome": nome, "_ab_cdc_lsn": lsn, "_ab_cdc_deleted_at": deleted}


def test_changes_of_a_database_are_ordered_by_its_log_and_deletes_stay(lake: Lake) -> None:
    lake.land("itens", "a", [change(1, 10), change(2, 11), change(1, 12, "b")])
    lake.run(CDC)
    lake.land("itens", "b", [change(2, 14, None, "2026-01-01T00:00:00Z"), change(1, 11, "late")])
    lake.run(CDC)
    lake.land("itens", "c", [change(2, 13, "before its deletion")])
    lake.run(CDC)
    assert names(lake, CDC) == [(1, "b")]
    lake.land("itens", "d", [change(2, 15, "again")])
    lake.run(CDC)
    assert names(lake, CDC) == [(1, "b"), (2, "again")]


# --- what Airbyte changed, and where files are -----------------------------------------------------------------------------


def test_values_that_airbyte_changed_are_counted(lake: Lake) -> None:
    changed = {"sync_id": 1, "changes": [{"field": "valor", "change": "NULLED", "reason": "DESTINATION_FIELD_SIZE_LIMITATION"}]}
    rows = [{**item(n), "_airbyte_meta": changed if n == 1 else {"sync_id": 1, "changes": []}} for n in (1, 2)]
    lake.put("itens", "a.jsonl", "".join(__import__("json").dumps(row) + "\n" for row in rows))
    (found,) = [f for f in lake.ingest(APPENDED).findings if f.rule == "changed_by_airbyte"]
    assert (found.passed, found.failed, found.validated, found.action) == (False, 1, 2, "warn")


def test_a_stream_may_be_below_its_namespace(lake: Lake) -> None:
    spec = replace(APPENDED, source=AirbyteStream("itens", folder="public/itens"))
    for name in ("2026/01/2026_01_01_1767225600123_0.jsonl", "2026/01/2026_01_01_1767225600123_0-1.jsonl", "3f1c-uuid.jsonl"):
        lake.put("public/itens", name, f'{{"id": {len(name)}, "nome": "a", "valor": 1}}\n')
    lake.put("outra/itens", "a.jsonl", '{"id": 9, "nome": "b", "valor": 1}\n')
    lake.run(spec)
    assert len(lake.rows(spec.silver)) == 3
    for folder in ("../itens", "public/", "/itens", "a//b", "a b"):
        with pytest.raises(DeclarationError):
            AirbyteStream("itens", folder=folder)


@pytest.mark.parametrize(
    "given",
    [
        {"sync": "append", "key": ("id",), "order": ("valor",)},
        {"sync": "append", "deleted": "valor = 0"},
        {"sync": "overwrite", "deleted": "valor = 0"},
        {"sync": "overwrite", "key": ("id",)},
        {"sync": "dedup"},
        {"sync": "merge"},
    ],
)
def test_modes_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        replace(APPENDED, **given)
