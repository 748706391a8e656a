"""References: a rule over two silver tables, evaluated against the version of the other that the run finds."""

from collections.abc import Callable
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, check_references, references
from lakehouse_tests.conftest import Lake


def table(name: str, *more: Column, rules: Any = ()) -> TableSpec:
    columns = (Column("id", "bigint"), *more)
    return TableSpec(name=name, source=AirbyteStream(name), columns=columns, key=("id",), order=("id",), rules=rules)


PRODUTOS = table("produtos")
PRODUTO = Column("produto_id", "bigint")


def pedidos(action: Any = "fail", *, personal: bool = False) -> TableSpec:
    column = Column("produto_id", "bigint", personal=personal)
    return table("pedidos", column, rules=(references("produto_id", "produtos", "id", action=action),))


def put(lake: Lake, spec: TableSpec, name: str, *records: str) -> None:
    lake.put(spec.name, f"{name}.jsonl", "".join(f"{record}\n" for record in records))


def found(refresh: Any) -> Any:
    return next(finding for finding in refresh.findings if finding.rule == "references_produto_id")


def test_a_batch_with_a_value_that_the_other_table_lacks_is_stopped(make_lake: Callable[..., Lake], engine_name: str) -> None:
    lake, spec = make_lake(engine=engine_name), pedidos()
    put(lake, PRODUTOS, "a", '{"id":1}', '{"id":2}')
    lake.run(PRODUTOS)
    put(lake, spec, "a", '{"id":1,"produto_id":2}', '{"id":2,"produto_id":null}', '{"id":3,"produto_id":1}')
    first = lake.run(spec)
    assert found(first).passed and not first.stopped
    put(lake, spec, "b", '{"id":4,"produto_id":7}', '{"id":5,"produto_id":7}', '{"id":6,"produto_id":9}')
    stopped = lake.run(spec)
    finding = found(stopped)
    assert stopped.stopped and (finding.failed, finding.validated) == (3, 6)
    assert finding.detail["values"] == 2 and finding.detail["examples"] == ["7", "9"]
    put(lake, PRODUTOS, "b", '{"id":7}', '{"id":9}')
    lake.run(PRODUTOS)
    assert not lake.refresh(spec).stopped
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1, 2, 3, 4, 5, 6]


def test_the_commit_names_the_version_that_it_was_compared_with(make_lake: Callable[..., Lake]) -> None:
    lake, spec = make_lake(), pedidos("warn")
    put(lake, PRODUTOS, "a", '{"id":1}')
    lake.run(PRODUTOS)
    put(lake, spec, "a", '{"id":1,"produto_id":2}')
    lake.run(spec)
    silver, other = (open_existing(lake.storage.uri(ref)) for ref in (spec.silver, PRODUTOS.silver))
    assert silver is not None and other is not None
    assert silver.provenance.inputs["silver/produtos"] == other.version


def test_a_table_that_does_not_exist_yet_is_named(make_lake: Callable[..., Lake]) -> None:
    lake, spec = make_lake(), pedidos(personal=True)
    put(lake, spec, "a", '{"id":1,"produto_id":2}')
    finding = found(lake.run(spec))
    assert not finding.passed and "silver/produtos does not exist yet" in finding.detail["reason"]
    assert "examples" not in finding.detail


def test_a_table_may_refer_to_itself(make_lake: Callable[..., Lake]) -> None:
    spec = table("itens", Column("pai", "bigint"), rules=(references("pai", "itens", "id"),))
    check_references(spec)
    assert spec.referred == ()
    lake = make_lake()
    put(lake, spec, "a", '{"id":1}', '{"id":2,"pai":1}')
    assert not lake.run(spec).stopped
    put(lake, spec, "b", '{"id":3,"pai":4}')
    assert lake.run(spec).stopped


OTHERS = TableSpec(name="produtos", source=AirbyteStream("p"), columns=(Column("c", "bigint"),), sync="append")
CIRCLE = table("produtos", PRODUTO, rules=(references("produto_id", "pedidos", "id"),))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((pedidos(),), "silver table"),
        ((pedidos(), table("produtos", rules=())), ""),
        ((pedidos(), OTHERS), "column of"),
        ((table("pedidos", Column("produto_id", "string"), rules=pedidos().rules), PRODUTOS), "compares a string"),
        ((pedidos(), CIRCLE), "in a circle"),
    ],
)
def test_a_reference_to_what_is_not_there_is_refused(specs: tuple[TableSpec, ...], message: str) -> None:
    if not message:
        assert check_references(*specs) == specs
        return
    with pytest.raises(DeclarationError, match=message):
        check_references(*specs)
