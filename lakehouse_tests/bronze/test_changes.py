"""Values that Airbyte changed on the way are named: field, reason, key and raw id; one line for each on the console."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.rules import Finding
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import EXTRACTED, Lake

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint", source="Código"), Column("v", "bigint"), Column("w", "string")),
    key=("id",),
    order=("id",),
)


def land(lake: Lake, *changes: Any) -> None:
    lines = [
        {
            "_airbyte_raw_id": f"r{number}",
            "_airbyte_extracted_at": EXTRACTED,
            "_airbyte_meta": {"sync_id": 1, "changes": changed},
            "_airbyte_data": {"Código": number, "v": None, "w": "a"},
        }
        for number, changed in enumerate(changes)
    ]
    lake.put("itens", "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def found(lake: Lake, spec: TableSpec = SPEC) -> Finding:
    (finding,) = [finding for finding in lake.ingest(spec).findings if finding.rule == "changed_by_airbyte"]
    return finding


def change(field: str, reason: str, how: str = "NULLED") -> dict[str, str]:
    return {"field": field, "change": how, "reason": reason}


def test_field_reason_key_and_raw_id_are_named(lake: Lake) -> None:
    size = "DESTINATION_FIELD_SIZE_LIMITATION"
    land(
        lake, [], [change("v", "SOURCE_RETRIEVAL_ERROR"), change("w", size, "TRUNCATED")], [change("v", "SOURCE_RETRIEVAL_ERROR")]
    )
    finding = found(lake)
    assert (finding.passed, finding.failed, finding.validated, finding.action) == (False, 2, 3, "warn")
    assert finding.detail["fields"] == {"v": 2, "w": 1}
    assert finding.detail["examples"] == [
        'v nulled SOURCE_RETRIEVAL_ERROR: id "1", raw id r1',
        'v nulled SOURCE_RETRIEVAL_ERROR: id "2", raw id r2',
        f'w truncated {size}: id "1", raw id r1',
    ]
    first, second = finding.lines
    assert first.startswith(
        'bronze/itens v: 2 values were changed by Airbyte (nulled, SOURCE_RETRIEVAL_ERROR): id "1", raw id r1; '
    )
    assert first.endswith("The source could not give it: correct it there and sync these records again.")
    assert second.startswith("bronze/itens w: 1 values") and "shorten it at the source" in second


def test_three_records_are_enough_and_a_personal_key_is_not_among_them(lake: Lake) -> None:
    land(lake, *[[change("v", "PLATFORM_SERIALIZATION_ERROR")]] * 9)
    personal = replace(SPEC, columns=(replace(SPEC.columns[0], personal=True), *SPEC.columns[1:]))
    finding = found(lake, personal)
    assert finding.detail["fields"] == {"v": 9}
    assert [example.rpartition(": ")[2] for example in finding.detail["examples"]] == ["raw id r0", "raw id r1", "raw id r2"]
    assert 'id "' not in finding.lines[0]


def test_what_names_no_field_is_counted_and_nothing_fails(lake: Lake) -> None:
    land(lake, [{}], [{"field": None, "change": 5}], "changes", {"changes": 1})
    assert found(lake).failed == 2


def test_nothing_changed_is_nothing_reported(lake: Lake) -> None:
    land(lake, [], [])
    finding = found(lake)
    assert finding.passed and finding.lines == () and finding.detail == {}


@pytest.mark.parametrize("engine", ["duckdb", pytest.param("spark", marks=pytest.mark.spark)])
def test_case_04_nulled(real_data: Path, tmp_path: Path, engine: str) -> None:
    lake = Lake(tmp_path, engine=engine)
    shutil.copytree(real_data / "cases" / "04-nulled", tmp_path / "landing" / "raw" / "caso")
    expected = json.loads((real_data / "cases" / "expected.json").read_text())["04-nulled"]
    columns = tuple(Column(name, kind) for name, kind in expected["columns"])
    spec = TableSpec(
        name="caso", source=AirbyteStream("caso"), columns=columns, key=("id",), order=tuple(expected["order"]), max_loss=1.0
    )
    finding = found(lake, spec)
    assert finding.detail["fields"] == {"v": 1} and 'id "1", raw id r2' in finding.lines[0]
    assert finding.lines[0].startswith("bronze/caso v: 1 values")
    lake.refresh(spec)
    (row,) = lake.rows(spec.silver)
    assert {name: row[name] for name in ("v", "n")} == expected["rows"]["1"]
