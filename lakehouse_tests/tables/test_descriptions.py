"""Every column of bronze and silver has a description, and the events that Dagster shows have it."""

import dagster as dg
import pytest

from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.runtime.io_manager import _described
from lakehouse.tables import ALL
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, descriptions


def test_bronzes_own_columns_are_those_that_it_writes():
    assert {name: kind for name, (kind, _) in descriptions.ENVELOPE.items()} == ENVELOPE


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_no_column_is_without_a_description(spec):
    silver, bronze = descriptions.of_silver(spec), descriptions.of_bronze(spec)
    assert {column.name for column in spec.columns} <= {*silver}
    assert {column.bronze_name for column in spec.of_record} <= {*bronze}
    assert all(text for _, text in [*silver.values(), *bronze.values()])


def test_what_is_not_described_states_where_its_value_is_from():
    columns = (
        Column("id", "bigint", description="Number."),
        Column("valor", "decimal(12,2)", source="Valor (R$)"),
        Column("cidade", "string", path="endereco.cidade"),
        Column("dobro", "decimal(13,2)", expression="valor * 2"),
    )
    spec = TableSpec(name="loja", source=AirbyteStream("loja"), key=("id",), order=("id",), columns=columns)
    texts = {name: text for name, (_, text) in descriptions.of_silver(spec).items()}
    assert texts["id"] == "Number."
    assert texts["valor"] == "From the field Valor (R$)."
    assert texts["cidade"] == "From endereco.cidade."
    assert texts["dobro"] == "Calculated: valor * 2"


def test_an_event_has_the_types_that_were_measured_and_the_descriptions_that_are_declared():
    schema = "dagster/column_schema"
    measured = {schema: dg.TableSchema([dg.TableColumn("id", "bigint"), dg.TableColumn("novo", "string")]), "files": 1}
    declared = dg.TableSchema([dg.TableColumn("id", "string", description="Number.")])
    found = _described(measured, declared)
    assert [(c.name, c.type, c.description) for c in found[schema].columns] == [
        ("id", "bigint", "Number."),
        ("novo", "string", None),
    ]
    assert _described({"files": 1}, declared) == {"files": 1}
    assert _described(measured, None) == measured
