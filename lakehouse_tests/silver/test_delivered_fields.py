"""Delivered fields: a column shows the field that it is declared from, whatever other fields are called like it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake, few

ID = Column("id", "bigint")


def table(*columns: Column, **more: Any) -> TableSpec:
    return TableSpec(name="itens", source=AirbyteStream("itens"), columns=(ID, *columns), key=("id",), order=("id",), **more)


def put(lake: Lake, name: str, *records: dict[str, Any] | str) -> None:
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    lake.put("itens", f"{name}.jsonl", "".join(f"{line}\n" for line in lines))


def shown(lake: Lake, spec: TableSpec) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in lake.rows(spec.silver, *(column.name for column in spec.columns))]


def finding(lake: Lake, spec: TableSpec) -> Any:
    return next(f for f in lake.ingest(spec).findings if f.rule == "field_collisions")


NAMES = {"antes": "preço?", "depois": "preço!", "p": "Preço "}
PRICES = table(*(Column(name, "string", source=field) for name, field in NAMES.items()))


@pytest.mark.parametrize("together", few([True, False], True))
def test_fields_that_share_a_name_are_each_their_own(make_lake: Callable[..., Lake], engine_name: str, together: bool) -> None:
    records = [
        {"id": 1, "preço?": "a", "preço!": "b"},
        {"id": 2, "preço!": "c"},
        {"id": 3, "Preço ": "d"},
        {"id": 4, "preço?": "e"},
    ]
    lake = make_lake(engine=engine_name)
    for n, record in enumerate(records):
        put(lake, str(n), record)
        if not together:
            lake.run(PRICES)
    lake.run(PRICES)
    expected = [(1, "a", "b", None), (2, None, "c", None), (3, None, None, "d"), (4, "e", None, None)]
    assert shown(lake, PRICES) == expected
    lake.refresh(PRICES, rebuild=True)
    assert shown(lake, PRICES) == expected


def test_a_collision_is_reported_with_the_fields_until_each_is_declared(make_lake: Callable[..., Lake]) -> None:
    lake, some = make_lake(), table(Column("antes", "string", source="preço?"))
    put(lake, "a", {"id": 1, "preço?": "a", "preco": "z"})
    assert finding(lake, some).passed
    put(lake, "b", {"id": 2, "preço!": "b"})
    found = finding(lake, some)
    assert (found.passed, found.action, found.failed) == (False, "warn", 1)
    assert found.detail["columns"] == {"pre_o_": ["preço?", "preço!"]}
    assert found.lines == (
        "bronze/itens pre_o_: the fields 'preço?', 'preço!' share this name; the first is in the column, the others in _extra. "
        "Declare each that you need by its own: Column(…, source='preço!').",
    )
    put(lake, "c", {"id": 3, "preco": "c"})
    assert finding(lake, some).passed
    put(lake, "d", {"id": 4, "preço!": "b"})
    found = finding(lake, PRICES)
    assert found.passed and found.lines == () and found.detail["each_declared"] == {"pre_o_": ["preço?", "preço!"]}


def test_any_name_can_be_declared(make_lake: Callable[..., Lake], engine_name: str) -> None:
    names = ["água", "% desconto", "日本", "a.b", "Nome do Cliente", 'com "aspas"', "it's", "x" * 80, "1º", "select", "_id"]
    spec = table(*[Column(f"c{n}", "string", source=name) for n, name in enumerate(names)])
    lake = make_lake(engine=engine_name)
    put(lake, "a", {"id": 1, **{name: f"v{n}" for n, name in enumerate(names)}}, {"id": 2})
    lake.run(spec)
    assert shown(lake, spec) == [(1, *(f"v{n}" for n in range(len(names)))), (2, *[None] * len(names))]


def test_a_column_without_a_source_is_also_the_field_that_is_written_otherwise(make_lake: Callable[..., Lake]) -> None:
    spec = table(Column("valor_total", "string"))
    rows = [{"id": 1, "Valor Total": "a"}, {"Id": 2, "VALOR_TOTAL": "b"}, {"id": 3, "valor_total": "c", "Valor Total": "d"}]
    outcomes = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        lake = make_lake()
        for n in order:
            put(lake, str(n), rows[n])
            lake.run(spec)
        outcomes.append(shown(lake, spec))
        lake.refresh(spec, rebuild=True)
        outcomes.append(shown(lake, spec))
    assert outcomes == [[(1, "a"), (2, "b"), (3, "c")]] * 6


def test_a_field_that_another_column_claims_is_not_taken_for_it(make_lake: Callable[..., Lake]) -> None:
    spec = table(Column("mongo", "string", source="_id"))
    lake = make_lake()
    put(lake, "a", {"_id": "5", "id": 1}, {"_id": "6"})
    lake.run(spec)
    assert shown(lake, spec) == [(1, "5")] and [row["rules"] for row in lake.quarantined(spec)] == ["not_null_id"]


def test_bronze_of_an_earlier_release_is_read_as_it_was(make_lake: Callable[..., Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its columns do not know their fields; the next delivery says which it is."""
    from lakehouse.core.table.snapshot import Snapshot

    spec = table(Column("total", "string", source="Valor Total"))
    lake, add_columns = make_lake(), Snapshot.add_columns
    put(lake, "a", {"id": 1, "Valor Total": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "add_columns", lambda self, columns, fields=None: add_columns(self, columns))
        lake.run(spec)
    bronze = open_existing(lake.storage.uri(spec.bronze))
    assert bronze is not None and bronze.fields == {} and shown(lake, spec) == [(1, "a")]
    put(lake, "b", {"id": 2, "Valor Total": "b"})
    lake.run(spec)
    bronze = open_existing(lake.storage.uri(spec.bronze))
    assert bronze is not None and bronze.fields == {"valor_total": ("Valor Total",)}
    lake.refresh(spec, rebuild=True)
    assert shown(lake, spec) == [(1, "a"), (2, "b")]


def test_a_field_that_a_record_has_twice_is_reported(make_lake: Callable[..., Lake]) -> None:
    lake = make_lake()
    put(lake, "a", '{"id":1,"v":"a","v":"b"}', '{"id":2,"v":"a"}')
    found = finding(lake, table(Column("v", "string")))
    assert not found.passed and found.detail["repeated"] == {"v": 1}
    assert found.lines == ("bronze/itens v: 1 records have this field twice; one of the values counts. Correct the source.",)


# --- paths -----------------------------------------------------------------------------------------------------------


ADDRESS = table(
    Column("cidade", "string", path="endereco.cidade"),
    Column("sku", "string", path="$.itens[1].sku"),
    Column("preco", "decimal(20,10)", path="itens[0].preco"),
    Column("ponto", "bigint", path='endereco["a.b"]', default="7"),
    Column("endereco", "string"),
)


def test_a_path_leads_to_a_value_with_its_digits(make_lake: Callable[..., Lake], engine_name: str) -> None:
    lake = make_lake(engine=engine_name)
    nested = '{"cidade":"São Paulo","a.b":3}'
    put(
        lake,
        "a",
        f'{{"id":1,"endereco":{nested},"itens":[{{"preco":1234567890.1234567890}},{{"sku":"b"}}]}}',
        {"id": 2, "endereco": None, "itens": []},
        {"id": 3},
    )
    lake.run(ADDRESS)
    (first, *others) = shown(lake, ADDRESS)
    assert [str(value) for value in first] == ["1", "São Paulo", "b", "1234567890.1234567890", "3", nested]
    assert others == [(2, None, None, None, 7, None), (3, None, None, None, 7, None)]


def test_a_path_into_what_is_no_document_is_refused(make_lake: Callable[..., Lake], engine_name: str) -> None:
    lake = make_lake(engine=engine_name)
    put(lake, "a", {"id": 1, "endereco": "Rua X"}, {"id": 2, "endereco": {"cidade": "Recife"}})
    lake.run(ADDRESS)
    assert [row[1] for row in shown(lake, ADDRESS)] == ["Recife"]
    (row,) = lake.quarantined(ADDRESS)
    assert sorted(row["rules"].split(", ")) == ["castable_cidade", "castable_ponto"]
