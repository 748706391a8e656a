"""The profile of another writer's table: its types exactly, each odd one named, and a module whose test passes."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse.commands.table import profiled
from lakehouse.core.errors import DeclarationError
from lakehouse.profile.delta import odd_of, type_of
from lakehouse.profile.origin import Origin, origin_of
from lakehouse.profile.propose import Proposal
from lakehouse.profile.render import spec_of
from lakehouse.settings import Settings
from lakehouse.tables.spec import Column, DeltaSource
from lakehouse_tests.conftest import Lake
from lakehouse_tests.foreign import Theirs

ROWS = 120
INSTANT = datetime(2024, 1, 1, tzinfo=UTC)
ALL_TYPES = {
    "id": pa.array(range(ROWS), pa.int64()),
    "qtd": pa.array([n % 9 for n in range(ROWS)], pa.int32()),
    "byte": pa.array([n % 9 for n in range(ROWS)], pa.int8()),
    "Preço (R$)": pa.array([Decimal(n) / 4 for n in range(ROWS)], pa.decimal128(12, 2)),
    "peso": pa.array([n / 3 for n in range(ROWS)], pa.float64()),
    "curto": pa.array([n / 10 for n in range(ROWS)], pa.float32()),
    "ativo": pa.array([n % 2 == 0 for n in range(ROWS)]),
    "dia": pa.array([date(2024, 1, 1 + n % 28) for n in range(ROWS)]),
    "updated_at": pa.array([INSTANT.replace(hour=n % 24) for n in range(ROWS)], pa.timestamp("us", "UTC")),
    "local": pa.array([datetime(2024, 1, 1, n % 24) for n in range(ROWS)], pa.timestamp("us")),
    "texto": pa.array([str(n) for n in range(ROWS)]),  # digits that are a text there stay one
    "json": pa.array(['{"a": 1}'] * ROWS),
    "tags": pa.array([["a"]] * ROWS, pa.list_(pa.string())),
    "endereco": pa.array([{"cidade": "Recife"}] * ROWS, pa.struct({"cidade": pa.string()})),
    "foto": pa.array([b"\x00A"] * ROWS, pa.binary()),
    "nada": pa.nulls(ROWS, pa.string()),
}


def proposed(uri: str, folder: Path, *, timezone: str = "") -> Proposal:
    folder.mkdir()
    settings = Settings(root=str(folder / "lake"))
    origin = Origin("the Delta table t", "t", delta=DeltaSource(uri, "t", timezone=timezone))
    return profiled(origin, "t", settings, folder)[0]


def test_types_are_those_of_the_delta_table_and_nothing_is_guessed(tmp_path: Path, lake: Lake) -> None:
    uri = str(tmp_path / "old")
    write_deltalake(uri, pa.table(ALL_TYPES), partition_by=["ativo"])
    found = proposed(uri, tmp_path / "scratch")
    assert {one.name: one.column.type for one in found.declaration.columns} == {
        **{"id": "bigint", "qtd": "int", "byte": "int", "preco_r": "decimal(12,2)", "peso": "double", "curto": "double"},
        **{"ativo": "boolean", "dia": "date", "updated_at": "timestamp", "local": "timestamp", "texto": "string"},
        **{"json": "string", "tags": "string", "endereco": "string", "foto": "string", "nada": "string"},
    }
    assert (found.declaration.key.columns, found.declaration.key.order) == (("id",), ("updated_at",))
    assert Column("preco_r", "decimal(12,2)", source="Preço (R$)") in [one.column for one in found.declaration.columns]
    assert f'DeltaSource("{uri}", name="t")' in found.module and "Partitioned by ativo there" in found.module
    for evidence in ("timestamp_ntz: no time zone", "array: a text here", "binary: a text here", "float: a double"):
        assert evidence in found.module, evidence
    spec = spec_of(found.declaration)
    lake.run(spec)
    assert not lake.quarantined(spec)
    rows = lake.rows(spec.silver)
    assert len(rows) == ROWS
    assert [rows[7][name] for name in ("preco_r", "curto", "texto", "tags", "foto")] == [
        *(Decimal("1.75"), 0.7, "7", '["a"]', "\\x00A"),
    ]


def test_the_test_that_is_written_passes_on_the_declaration(tmp_path: Path, lake: Lake) -> None:
    uri = str(tmp_path / "old")
    write_deltalake(uri, pa.table(ALL_TYPES))
    found = proposed(uri, tmp_path / "scratch")
    written = re.search(r'LANDED = """\\\n(.*?)"""', found.test, flags=re.DOTALL)
    assert written is not None and "spec = lake.of_delta(spec, LANDED)" in found.test
    spec = lake.of_delta(spec_of(found.declaration), written[1].replace("\\\\", "\\"))
    refresh = lake.run(spec)
    assert refresh.entry is not None and refresh.entry.balanced and not lake.quarantined(spec)
    assert len(lake.rows(spec.silver)) == 3


def test_a_table_without_a_key_is_added_to_and_deleted_rows_are_not_read(tmp_path: Path, lake: Lake) -> None:
    theirs = Theirs(tmp_path / "old", {"uf": "string", "Valor Total": "double"}, mapped=True, features=["deletionVectors"])
    theirs.add({"uf": ["SP", "SP", "RJ", "MG"], "Valor Total": [1.5, 1.5, 2.0, 9.0]}, deleted=[3])
    found = proposed(str(tmp_path / "old"), tmp_path / "scratch")
    spec = spec_of(found.declaration)
    assert (spec.sync, spec.key, found.trial.rows) == ("append", (), 3)
    lake.run(spec)
    assert [(row["uf"], row["valor_total"]) for row in lake.rows(spec.silver, "uf", "valor_total")] == [
        *(("RJ", 2.0), ("SP", 1.5), ("SP", 1.5)),
    ]


@pytest.mark.parametrize("folder", ["", "below"])
def test_the_files_of_a_delta_table_are_not_read_as_anyones_files(tmp_path: Path, lake: Lake, folder: str) -> None:
    Theirs(tmp_path / "old" / folder, {"id": "long"}).add({"id": [1]})
    with pytest.raises(DeclarationError, match="make adopt FROM="):
        origin_of(str(tmp_path / "old"), lake.storage)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("decimal(38,18)", "decimal(38,18)"), ("short", "int"), ("variant", "string"), ("void", "string"), ("geometry", "string")],
)
def test_a_type_of_delta_is_one_of_a_column_or_told(kind: str, expected: str) -> None:
    assert type_of(kind) == expected
    assert bool(odd_of(kind)) == (kind in ("variant", "void", "geometry"))


def test_rows_that_are_the_same_are_rows_and_small_decimals_are_invented_small(tmp_path: Path, lake: Lake) -> None:
    theirs = Theirs(tmp_path / "old", {"id": "long", "taxa": "decimal(4,4)", "nada": "long"})
    rows = {"id": [n % 100 for n in range(150)], "taxa": pa.array([Decimal("0.1234")] * 150, pa.decimal128(4, 4))}
    theirs.add(pa.table({**rows, "nada": pa.nulls(150, pa.int64())}))
    spec = spec_of(proposed(str(tmp_path / "old"), tmp_path / "scratch").declaration)
    lake.run(spec)
    assert (spec.key, len(lake.rows(spec.silver))) == ((), 150)
