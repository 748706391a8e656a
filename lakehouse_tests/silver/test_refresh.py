"""Records become rows: cast, renamed, transformed, calculated, validated. What is refused is set aside with its reason, and
what is committed touches only the files that it has to.
"""

import datetime as dt
import json
import random
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import narwhals as nw
import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, ExpressionError, RefusedWriteError
from lakehouse.core.names import TableRef, column_name
from lakehouse.core.rules import Finding
from lakehouse.core.table.snapshot import DataFile, open_existing
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver.checks import declared_rules
from lakehouse.silver.refresh import Refresh, stage_refresh, tombstones_ref
from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    TableSpec,
    accepted_values,
    expression,
    in_range,
    matches,
    min_rows,
    not_null,
    unique,
    volume_drop,
)
from lakehouse_tests.conftest import Lake, Row

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("valor", "decimal(6,2)"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    max_loss=1.0,
)
DAY = "2026-01-{:02d}T00:00:00Z"


def item(number: Any, day: int = 1, **fields: Any) -> Row:
    return {"id": number, "nome": "a", "valor": "1.00", "em": DAY.format(day), **fields}


def finding(refresh: Refresh, rule: str) -> Finding:
    (found,) = [f for f in refresh.findings if f.rule == rule]
    return found


def files(lake: Lake, spec: TableSpec) -> dict[str, DataFile]:
    table = open_existing(lake.storage.uri(spec.silver))
    assert table is not None
    return {file.path: file for file in table.files}


def checked(refresh: Refresh, spec: TableSpec) -> Refresh:
    """Every declared check has exactly one finding, whatever happened."""
    assert [f.rule for f in refresh.findings] == [name for name, _ in declared_rules(spec)]
    assert refresh.entry is None or refresh.entry.balanced
    return refresh


# --- values ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_cast_goes_alone_and_is_named(lake: Lake) -> None:
    bad = {
        1: {"valor": "10000.00"},
        2: {"valor": "abc"},
        3: {"em": "2026-13-01"},
        4: {"em": "infinity"},
        5: {"em": "rubbish", "valor": "NaN"},
        6: {"valor": "9999.994"},
    }
    rows = [item(n, **fields) for n, fields in bad.items()] + [item(value) for value in ("6.7", "abc", "1e400", "")]
    lake.land("itens", "a", [item(100), *rows, item("101"), item("1.02e2"), item(103, valor="9999.990"), item(104, valor="")])
    refresh = checked(lake.run(SPEC), SPEC)
    assert [(row["id"], row["valor"]) for row in lake.rows(SPEC.silver, "id", "valor")] == [
        *((n, Decimal("1.00")) for n in (100, 101, 102)),
        (103, Decimal("9999.99")),
        (104, None),
    ]
    found = {json.loads(row["record"])["id"]: row["rules"] for row in lake.quarantined(SPEC)}
    assert found == {
        "1": "castable_valor",
        "2": "castable_valor",
        "3": "castable_em",
        "4": "castable_em",
        "5": "castable_valor, castable_em",
        "6": "castable_valor",
        "6.7": "castable_id, not_null_id",
        "abc": "castable_id, not_null_id",
        "1e400": "castable_id, not_null_id",
        "": "not_null_id",
    }
    castable = finding(refresh, "castable")
    assert (castable.passed, castable.action, castable.validated) == (False, "quarantine", 15)
    assert castable.detail == {"id": 3, "valor": 4, "em": 3}


def test_a_quarantined_record_is_what_was_delivered_with_where_and_why(lake: Lake) -> None:
    text = 'q"uo\\te\n\t\x01é😀'
    path = lake.land("itens", "a", [item("x", nome=text), item(1)])
    lake.run(SPEC)
    (row,) = lake.rows(SPEC.quarantine)
    assert json.loads(row["record"]) == {"id": "x", "nome": text, "valor": "1.00", "em": DAY.format(1)}
    assert (row["layer"], row["source_file"], row["raw_id"], row["batch_id"]) == ("silver", f"raw/itens/{path.name}", "raw-0", 1)
    assert row["reason"] == "It violates castable_id, not_null_id." and row["run_id"] == "run"


def test_renames_keywords_and_calculated_columns(lake: Lake) -> None:
    spec = replace(
        SPEC,
        columns=(
            Column("id", "bigint", source="ID do Item"),
            Column("order", "bigint", source="Ordem"),
            Column("group", "string"),
            Column("em", "timestamp", source="dataHora"),
            Column("select", "bigint", expression='"order" * 2'),
            Column("end", "string", expression="upper(\"group\") || '!'"),
            Column("dia", "date", expression="CAST(em AS DATE)"),
            Column("from", "decimal(10,1)", expression='"select" / 4'),
        ),
        rules=(expression("r", '"select" > 3'), unique("order", "group")),
    )
    lake.land("itens", "a", [{"ID do Item": n, "Ordem": n, "group": "g'", "dataHora": DAY.format(n)} for n in (1, 2, 3)])
    checked(lake.run(spec), spec)
    rows = [tuple(row.values()) for row in lake.rows(spec.silver, "id", "order", "select", "end", "dia", "from")]
    assert rows == [
        (2, 2, 4, "G'!", dt.date(2026, 1, 2), Decimal("1.0")),
        (3, 3, 6, "G'!", dt.date(2026, 1, 3), Decimal("1.5")),
    ]
    lake.land("itens", "b", [{"ID do Item": 2, "Ordem": 5, "group": "x", "dataHora": DAY.format(9)}])
    lake.run(spec)
    assert [row["order"] for row in lake.rows(spec.silver, "order")] == [3, 5]


def test_a_value_that_cannot_be_calculated_goes_alone(lake: Lake) -> None:
    """An overflow in one record of a batch: it used to stop the table for good."""
    spec = replace(
        SPEC,
        columns=(
            *SPEC.columns,
            Column("dobro", "bigint", expression="id * 2"),
            Column("n", "bigint", expression="CAST(nome AS BIGINT)"),
        ),
        deleted="CAST(nome AS BIGINT) = 0",
        rules=(expression("r", "CAST(nome AS BIGINT) < 100"),),
    )
    big = 9_000_000_000_000_000_000
    lake.land("itens", "a", [item(1, nome="1"), item(big, nome="2"), item(3, nome="x"), item(4, nome="0"), item(5, nome="100")])
    checked(lake.run(spec), spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1]
    found = {json.loads(row["record"])["id"]: row["rules"] for row in lake.quarantined(spec)}
    assert found == {str(big): "castable_dobro", "3": "castable_n, castable__deleted, r", "5": "r"}


def test_values_are_accepted_of_every_type(lake: Lake) -> None:
    """On a column of numbers this ended in a stack trace of the engine."""
    columns = (Column("n", "int"), Column("dia", "date"), Column("pago", "boolean"))
    rules = (
        accepted_values("n", 1, -2),
        accepted_values("valor", "1.00", "2.5"),
        accepted_values("dia", "2026-01-05"),
        accepted_values("pago", "true"),
        accepted_values("em", DAY.format(1), DAY.format(2)),
    )
    spec = replace(SPEC, columns=(*SPEC.columns, *columns), rules=rules)
    good = {"n": -2, "dia": "2026-01-05", "pago": "true"}
    bad = ({"n": 2}, {"valor": "2"}, {"dia": "2026-01-06"}, {"pago": "false"}, {"em": DAY.format(3)})
    records = [item(0, **good), item(1, valor="2.50"), *(item(n, **(good | one)) for n, one in enumerate(bad, start=2))]
    lake.land("itens", "a", records)
    checked(lake.run(spec), spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [0, 1]
    found = {json.loads(row["record"])["id"]: row["rules"] for row in lake.quarantined(spec)}
    names = ("n", "valor", "dia", "pago", "em")
    assert found == {str(n): f"accepted_values_{name}" for n, name in enumerate(names, start=2)}


def test_a_null_input_makes_a_null_result_and_no_violation(lake: Lake) -> None:
    spec = replace(
        SPEC,
        columns=(*SPEC.columns, Column("dobro", "decimal(12,2)", expression="valor * 2")),
        rules=(in_range("dobro", minimum=0),),
    )
    lake.land("itens", "a", [item(1, valor=None), item(2)])
    lake.run(spec)
    assert [row["dobro"] for row in lake.rows(spec.silver, "id", "dobro")] == [None, Decimal("2.00")] and lake.quarantined(
        spec
    ) == []


def test_a_transform_runs_between_casts_and_calculated_columns(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lakehouse.silver.transforms.itens")

    def transform(frame: Any) -> Any:
        return frame.with_columns(nw.col("nome").str.to_uppercase(), valor=nw.col("valor") + nw.lit(Decimal("0.50")))

    module.transform = transform  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lakehouse.silver.transforms.itens", module)
    spec = replace(SPEC, transform="itens", columns=(*SPEC.columns, Column("dobro", "decimal(12,2)", expression="valor * 2")))
    spec = replace(spec, rules=(accepted_values("nome", "A", "B"),))
    lake.land("itens", "a", [item(1), item(2, nome="b"), item(3, nome="c"), item(4, valor="abc")])
    checked(lake.run(spec), spec)
    rows = lake.rows(spec.silver, "id", "nome", "valor", "dobro")
    assert [tuple(row.values()) for row in rows] == [
        (1, "A", Decimal("1.50"), Decimal("3.00")),
        (2, "B", Decimal("1.50"), Decimal("3.00")),
    ]
    found = {json.loads(row["record"])["id"]: (row["rules"], json.loads(row["record"])["nome"]) for row in lake.quarantined(spec)}
    assert found == {"3": ("accepted_values_nome", "c"), "4": ("castable_valor", "a")}, "validated after it, stored as delivered"


def test_a_result_that_is_no_value_of_its_column_is_refused_and_none_is_rounded(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a calculated column and of a transform: engines would round, each in its own way, and say nothing."""
    module = types.ModuleType("lakehouse.silver.transforms.itens")
    module.transform = lambda frame: frame.with_columns(  # type: ignore[attr-defined]
        valor=nw.col("valor") * nw.lit(Decimal("0.50")), quantas=nw.col("valor")
    )
    monkeypatch.setitem(sys.modules, "lakehouse.silver.transforms.itens", module)
    columns = (Column("quantas", "int"), Column("inteiro", "bigint", expression="valor * 2.5"))
    spec = replace(SPEC, transform="itens", columns=(*SPEC.columns, *columns))
    values = {1: "4.00", 2: "4.01", 3: "5.00", 4: "2.50", 5: None}
    lake.land("itens", "a", [item(n, valor=value, quantas="0") for n, value in values.items()])
    refresh = lake.run(spec)
    checked(refresh, spec)
    rows = [tuple(row.values()) for row in lake.rows(spec.silver, "id", "valor", "quantas", "inteiro")]
    assert rows == [(1, Decimal("2.00"), 4, 5), (5, None, None, None)]
    found = {json.loads(row["record"])["id"]: row["rules"] for row in lake.quarantined(spec)}
    assert found == {
        "2": "castable_valor, castable_quantas",
        "3": "castable_inteiro",
        "4": "castable_quantas, castable_inteiro",
    }
    lines = {line.split(":")[0]: line for line in finding(refresh, "castable").lines}
    assert "values are no decimal(6,2) after the transform 'itens' ('4.01')" in lines["silver/itens valor"]
    assert "could not be calculated as bigint (valor * 2.5)" in lines["silver/itens inteiro"]


def test_a_transform_that_does_not_exist_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.land("itens", "a", [item(1)])
    spec = replace(SPEC, transform="itens")
    with pytest.raises(DeclarationError, match=r"of silver/itens does not exist.*transforms/itens\.py"):
        lake.run(spec)
    monkeypatch.setitem(sys.modules, "lakehouse.silver.transforms.itens", types.ModuleType("lakehouse.silver.transforms.itens"))
    with pytest.raises(DeclarationError, match="Write transform"):
        lake.run(spec)


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, columns=(*SPEC.columns, Column("x", "bigint", expression="nome + 1"))),
        replace(SPEC, rules=(expression("r", "em > id"),)),
    ],
    ids=["calculated column", "a number with an instant"],
)
def test_an_expression_that_does_not_fit_is_named_with_its_table(lake: Lake, changed: TableSpec) -> None:
    lake.land("itens", "a", [item(1)])
    with pytest.raises(
        ExpressionError, match=r"^silver/itens: The expression '(nome|em) .*' cannot be computed as \w+: [^\n]*\. Correct it"
    ):
        lake.run(changed)
    assert lake.rows(SPEC.silver) == [] and lake.stray_files() == []


def test_a_transform_that_loses_records_is_caught(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lakehouse.silver.transforms.itens")
    module.transform = lambda frame: frame.filter(nw.col("id") > 1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lakehouse.silver.transforms.itens", module)
    spec = replace(SPEC, transform="itens")
    lake.land("itens", "a", [item(1), item(2)])
    refresh = lake.run(spec)
    assert refresh.stopped and finding(refresh, "ledger").failed == 1 and lake.rows(spec.silver) == []
    assert lake.stray_files() == []


def test_columns_may_be_called_like_anything_of_ours(lake: Lake) -> None:
    names = ("rules", "record", "reason", "layer", "n", "pair", "raw_id", "batch_id", "path", "k", "v", "d", "s", "file_index")
    columns = (Column("id", "bigint"), Column("em", "timestamp"), *(Column(name, "string") for name in names))
    spec = replace(SPEC, columns=columns, rules=(unique("n", "k"), not_null("rules", action="warn"), not_null("v")))
    values = {name: f"<{name}>" for name in names}
    lake.land(
        "itens", "a", [{**values, **item(1), "1x": "aside"}, {**values, **item("x")}, {**values, **item(2), "v": None, "n": "2"}]
    )
    lake.run(spec)
    lake.land("itens", "b", [{**values, **item(1, 2), "n": "3"}])
    checked(lake.run(spec), spec)
    (row,) = lake.rows(spec.silver, *names)
    assert row == {**values, "n": "3"}
    found = {record["id"]: (row["rules"], record) for row in lake.quarantined(spec) for record in [json.loads(row["record"])]}
    assert {key: rules for key, (rules, _) in found.items()} == {"x": "castable_id, not_null_id", "2": "not_null_v"}
    assert all(
        {name: record[column_name(name)] for name in values if name not in ("n", "v")}.items() <= values.items()
        for _, record in found.values()
    )


def test_deletes_of_tables_with_long_names_are_separate() -> None:
    long = "a" * 60
    refs = {str(tombstones_ref(TableRef("silver", name))) for name in (long + "b", long + "c", "a" * 55, "a" * 56, "b")}
    assert len(refs) == 5


def test_a_table_of_nothing_but_its_key_and_order(lake: Lake) -> None:
    spec = replace(SPEC, columns=(Column("id", "bigint"), Column("em", "timestamp")), deleted="id < 0")
    for number, rows in enumerate(([item(1), item(-1)], [item(2), item(1, 2)], [item(-1, 0 + 1), item(3)])):
        lake.land("itens", f"f{number}", rows)
        lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1, 2, 3]


# --- rules -----------------------------------------------------------------------------------------------------------


def test_row_rules_count_what_they_find_and_null_meets_them(lake: Lake) -> None:
    spec = replace(
        SPEC,
        rules=(
            not_null("nome", action="warn"),
            accepted_values("nome", "a", "it's"),
            in_range("valor", minimum=0, maximum=5, action="warn"),
            matches("nome", "^[a-z']+$", action="quarantine"),
            min_rows(1),
            unique("id"),
        ),
    )
    rows = [
        item(1, nome=None, valor=None),
        item(2, nome="it's"),
        item(3, nome="B"),
        item(4, valor="-1"),
        item(5, valor="9"),
        item(None),
    ]
    lake.land("itens", "a", rows)
    refresh = checked(lake.run(spec), spec)
    counts = {f.rule: (f.passed, f.action, f.failed) for f in refresh.findings}
    assert counts == {
        "castable": (True, "quarantine", 0),
        "not_null_id": (False, "quarantine", 1),
        "not_null_nome": (False, "warn", 1),
        "accepted_values_nome": (False, "quarantine", 1),
        "range_valor": (False, "warn", 2),
        "matches_nome": (False, "quarantine", 1),
        "min_rows_1": (True, "fail", 0),
        "unique_id": (True, "fail", 0),
        "order_ties": (True, "warn", 0),
        "ledger": (True, "fail", 0),
        "complete": (True, "fail", 0),
    }
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1, 2, 4, 5]
    assert {row["rules"] for row in lake.quarantined(spec)} == {"accepted_values_nome, matches_nome", "not_null_id"}
    again = lake.refresh(spec)
    assert again.transaction is None and again.findings == []
    lake.land("itens", "b", [item(6, valor="7"), item(7)])
    assert finding(lake.run(spec), "range_valor").failed == 1, "an increment is checked by itself"


def test_a_deletion_is_validated_by_its_key_and_its_order_only(lake: Lake) -> None:
    spec = replace(SPEC, deleted="nome = 'x'", rules=(not_null("valor"), in_range("valor", minimum=0)))
    lake.land("itens", "a", [item(1), item(2), item(3), item(4)])
    lake.run(spec)
    gone = [
        item(1, 2, nome="x", valor="abc"),
        item(2, 2, nome="x", valor=None),
        item(3, nome="x", em="rubbish"),
        item(None, 2, nome="x"),
    ]
    lake.land("itens", "b", gone)
    refresh = checked(lake.run(spec), spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [3, 4]
    assert sorted(row["rules"] for row in lake.quarantined(spec)) == ["castable_em", "not_null_id"]
    assert refresh.entry is not None and (refresh.entry.deleted, refresh.entry.quarantined) == (2, 2)


def test_a_deletion_may_carry_nothing_else(lake: Lake) -> None:
    spec = replace(SPEC, deleted="nome = 'x'", rules=(not_null("valor"),))
    lake.land("itens", "a", [item(1), item(2)])
    lake.run(spec)
    lake.land("itens", "b", [{"id": 1, "nome": "x", "em": DAY.format(9)}])
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [2] and lake.quarantined(spec) == []


def test_losing_more_rows_than_declared_is_refused(lake: Lake) -> None:
    spec = replace(SPEC, deleted="nome = 'x'", max_loss=0.5)
    lake.land("itens", "a", [item(n) for n in range(10)])
    lake.run(spec)
    lake.land("itens", "b", [item(n, 2, nome="x") for n in range(6)])
    lake.ingest(spec)
    with pytest.raises(RefusedWriteError, match="would leave 4 of 10 rows") as refusal:
        lake.refresh(spec)
    assert "make rebuild TABLE=" in refusal.value.remedy
    assert len(lake.rows(spec.silver)) == 10 and lake.stray_files() == []
    lake.refresh(spec, rebuild=True)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [6, 7, 8, 9], "a rebuild is meant"


@pytest.mark.parametrize("whole", [True, False])
def test_a_rule_that_fails_leaves_the_table_as_it_is_and_stages_nothing(lake: Lake, whole: bool) -> None:
    spec = replace(SPEC, rules=(in_range("valor", minimum=0, action="fail"),))
    if not whole:
        lake.land("itens", "a", [item(1)])
        lake.run(spec)
    lake.land("itens", "b", [item(2), item(3, valor="-1")])
    lake.ingest(spec)
    before = lake.versions()
    for _ in range(2):
        refresh = checked(lake.refresh(spec), spec)
        assert refresh.stopped and refresh.transaction is None
        assert [f.rule for f in refresh.findings if f.stops] == ["range_valor"]
    assert {n: v for n, v in lake.versions().items() if n != "ops/deletes_itens"} | {
        "silver/itens": before.get("silver/itens", 0)
    } == {**{n: v for n, v in lake.versions().items() if n != "ops/deletes_itens"}}
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == ([] if whole else [1])
    assert lake.stray_files() == [] and lake.quarantined(spec) == []


@pytest.mark.parametrize(
    ("rule", "stops"),
    [
        (min_rows(3), True),
        (min_rows(3, action="warn"), False),
        (min_rows(2), False),
        (unique("nome"), True),
        (unique("nome", action="warn"), False),
        (unique("nome", "valor"), False),
        (volume_drop(0.3), True),
        (volume_drop(0.3, action="warn"), False),
        (volume_drop(0.5), False),
    ],
)
def test_table_rules_validate_the_table_as_it_would_be(lake: Lake, rule: Any, stops: bool) -> None:
    plain = replace(SPEC, deleted="nome = 'x'")
    lake.land("itens", "a", [item(1, nome="um"), item(2, nome="dois"), item(3, nome="três")])
    lake.run(plain)
    spec = replace(plain, rules=(rule,))
    lake.land("itens", "b", [item(1, 2, nome="x"), item(3, 2, nome="dois", valor="5")])
    refresh = checked(lake.run(spec), spec)
    assert refresh.stopped is stops
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == ([1, 2, 3] if stops else [2, 3])


def test_an_increment_without_records_skips_the_rules(lake: Lake) -> None:
    spec = replace(SPEC, rules=(min_rows(5), unique("nome"), not_null("nome", action="fail")))
    lake.put("itens", "a.jsonl.gz", b"no gzip")
    refresh = checked(lake.run(spec), spec)
    assert refresh.transaction is not None and not refresh.stopped and all(f.passed for f in refresh.findings)
    assert lake.refresh(spec).transaction is None, "its watermark is written"


# --- accounts --------------------------------------------------------------------------------------------------------


def test_bronze_that_lost_rows_is_noticed(lake: Lake) -> None:
    from deltalake import DeltaTable

    lake.land("itens", "a", [item(1), item(2)])
    lake.run(SPEC)
    DeltaTable(lake.storage.uri(SPEC.bronze)).delete("id = '2'")
    lake.land("itens", "b", [item(3)])
    refresh = lake.run(SPEC)
    complete = finding(refresh, "complete")
    assert refresh.stopped and (complete.passed, complete.failed) == (False, 1)
    assert complete.detail == {"bronze_rows": 2, "read_before": 2, "read_now": 1}
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1, 2]


def test_silver_ahead_of_bronze_is_refused_with_its_remedy(lake: Lake) -> None:
    for name in ("a", "b"):
        lake.land("itens", name, [item(1)])
        lake.run(SPEC)
    for ref in (SPEC.bronze, TableRef("ops", "landing_files")):
        shutil.rmtree(lake.storage.uri(ref))
    lake.ingest(SPEC)
    with pytest.raises(BrokenTableError, match="make rebuild TABLE=itens"):
        lake.refresh(SPEC)
    lake.refresh(SPEC, rebuild=True)
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1]


def test_there_is_no_silver_without_bronze(lake: Lake) -> None:
    with pytest.raises(BrokenTableError, match=r'Materialise bronze/itens first: make materialize SELECT=.\+key:"bronze/itens"'):
        lake.refresh(SPEC)
    assert lake.versions() == {}


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, columns=(SPEC.columns[0], Column("nome", "bigint"), *SPEC.columns[2:])),
        replace(SPEC, columns=(*SPEC.columns[:3], Column("em", "date"))),
        replace(SPEC, columns=(SPEC.columns[0], *SPEC.columns[2:])),
        replace(SPEC, key=("id", "nome")),
        replace(SPEC, order=("em", "valor")),
        replace(SPEC, key=("nome",), order=("id",)),
    ],
)
def test_another_declaration_needs_a_rebuild_and_gets_one(lake: Lake, changed: TableSpec) -> None:
    rows = [{**item(n), "nome": str(n), "novo": "x"} for n in range(5)]
    lake.land("itens", "a", rows)
    lake.run(SPEC)
    lake.land("itens", "b", [{**item(1, 5), "nome": "9", "novo": "y"}])
    lake.ingest(SPEC)
    with pytest.raises(BrokenTableError, match="make rebuild TABLE=itens"):
        lake.refresh(changed)
    assert lake.refresh(changed, rebuild=True).transaction is not None
    table = open_existing(lake.storage.uri(SPEC.silver))
    assert table is not None and [*table.columns] == [*(column.name for column in changed.columns), "_extracted_at"]
    lake.land("itens", "c", [{**item(7, 5), "nome": "7", "novo": "z"}])
    assert lake.run(changed).transaction is not None
    assert 7 in [row["id"] for row in lake.rows(SPEC.silver, "id")]


@pytest.mark.parametrize("changed", [replace(SPEC, key=("id", "nome")), replace(SPEC, order=("valor", "em"))])
def test_a_rebuild_that_was_killed_after_its_tombstones_is_done_again(lake: Lake, changed: TableSpec) -> None:
    """Tombstones have the new key by then, and the rows do not."""
    rows = [item(1, nome="x"), item(2, nome="y", valor="9.00"), item(2, 2, nome="z")]
    lake.land("itens", "a", rows)
    lake.run(SPEC)
    with lake.session() as session:
        stage_refresh(session, lake.storage, changed, run_id="x", mode="rebuild")
    lake.land("itens", "b", [item(3, nome="w")])
    with pytest.raises(BrokenTableError, match="make rebuild TABLE=itens"):
        lake.run(changed)
    refresh = lake.refresh(replace(changed, on_change="rebuild"))
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "evolve"
    found = lake.rows(changed.silver)
    assert [(row["id"], row["nome"]) for row in found] == (
        [(1, "x"), (2, "y"), (2, "z"), (3, "w")] if changed.key != SPEC.key else [(1, "x"), (2, "y"), (3, "w")]
    )
    lake.refresh(changed, rebuild=True)
    assert lake.rows(changed.silver) == found
    lake.land("itens", "c", [item(4)])
    refresh = lake.run(changed)
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "merge"


WIDER = {
    "new column": (*SPEC.columns, Column("novo", "string")),
    "new column with a default": (*SPEC.columns, Column("novo", "bigint", default="7")),
    "new calculated column": (*SPEC.columns, Column("dobro", "decimal(9,2)", expression="valor * 2")),
    "wider decimal": (*SPEC.columns[:2], Column("valor", "decimal(9,3)"), SPEC.columns[3]),
    "decimal to string": (*SPEC.columns[:2], Column("valor", "string"), SPEC.columns[3]),
    "bigint to decimal": (Column("id", "decimal(19,0)"), *SPEC.columns[1:]),
}


@pytest.mark.parametrize("columns", WIDER.values(), ids=WIDER)
def test_a_declaration_that_has_grown_works_on_the_same_table(
    lake: Lake, make_lake: Callable[[], Lake], columns: tuple[Column, ...]
) -> None:
    wider = replace(SPEC, columns=columns, deleted="nome = 'gone'")
    before = replace(SPEC, deleted=wider.deleted)
    deliveries = [
        [item(1), item(2), item(3, valor="x")],
        [item(1, 3, nome="gone"), item(2, 2, valor="2.5")],
        [item(1, 2), item(3, 2, novo="9"), item(4)],
    ]
    whole = make_lake()
    for number, rows in enumerate(deliveries):
        lake.land("itens", f"p{number}", rows)
        whole.land("itens", f"p{number}", rows)
        refresh = lake.run(wider if number == 2 else before)
    assert refresh.transaction is not None
    assert refresh.transaction.provenance.operation == "evolve"
    whole.run(wider)
    assert lake.rows(wider.silver) == whole.rows(wider.silver)
    assert [r["record"] for r in lake.quarantined(wider)] == [r["record"] for r in whole.quarantined(wider)]
    if "default" in {"default" for column in columns if column.default}:
        assert [row["novo"] for row in lake.rows(wider.silver, "id", "novo")] == [7, 9, 7]
    assert lake.refresh(wider).transaction is None


def test_a_silver_table_of_another_name_and_one_on_demand(lake: Lake) -> None:
    spec = replace(SPEC, silver_name="itens_limpos")
    lake.land("itens", "a", [item(1)])
    lake.run(spec)
    extra = TableRef("silver", "itens_copia")
    for _ in range(2):
        with lake.session() as session:
            refresh = stage_refresh(session, lake.storage, spec, run_id="x", target=extra)
            if refresh.transaction is not None:
                commit_staged(refresh.transaction)
    assert lake.rows(extra) == lake.rows(spec.silver) and len(lake.rows(extra)) == 1
    assert set(lake.versions()) >= {"silver/itens_limpos", "silver/itens_copia"}
    assert not Path(lake.storage.uri(TableRef("silver", "itens"))).exists()


def test_a_table_on_demand_leaves_the_quarantine_to_the_declared_one(lake: Lake) -> None:
    strict = replace(SPEC, rules=(in_range("valor", maximum=5),))
    lake.land("itens", "a", [item(1), item(2, valor="9.00")])
    lake.run(strict)
    with lake.session() as session:
        refresh = stage_refresh(session, lake.storage, SPEC, run_id="x", target=TableRef("silver", "itens_copia"))
        assert refresh.transaction is not None
        commit_staged(refresh.transaction)
    assert [row["rules"] for row in lake.quarantined(SPEC)] == ["range_valor"], "2 is in the copy alone"
    lake.refresh(SPEC, mode="redrive")
    assert [row["id"] for row in lake.rows(SPEC.silver)] == [1, 2] and lake.quarantined(SPEC) == []


def test_a_column_that_must_be_unique_may_have_values_without_bounds(lake: Lake) -> None:
    """Delta has no bounds of a double that is not a number, so the files cannot be put in an order."""
    spec = replace(SPEC, columns=(*SPEC.columns, Column("nota", "double")), rules=(unique("nota", action="warn"),))
    for number, nota in enumerate(("1.5", "NaN", "2", "1.5")):
        lake.land("itens", f"p{number}", [item(number, nota=nota)])
        refresh = lake.run(spec)
        assert finding(refresh, "unique_nota").failed == (number == 3)


# --- files -----------------------------------------------------------------------------------------------------------

KEYS: dict[str, list[Any]] = {
    "bigint": [*range(-40, 40), 2**62, -(2**62)],
    "string": [chr(97 + n % 26) * (n + 1) for n in range(40)] + ["é" * 40, "z" * 300, "😀", "", "it's"],
    "decimal(38,0)": [10**30 + n for n in range(40)],
    "decimal(20,6)": [Decimal(n) / 1_000_000 for n in range(40)],
    "timestamp": [(dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=7 * n)).isoformat() for n in range(40)],
    "date": [str(dt.date(1, 1, 1) + dt.timedelta(days=n)) for n in range(40)],
    "double": [n / 8 for n in range(-20, 20)],
    "boolean": [True, False],
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_of_any_type_is_found_again_in_its_file(lake: Lake, kind: str) -> None:
    """Files are chosen by their bounds: were one wrong, the old row would stay beside the new one."""
    chance = random.Random(kind)
    spec = replace(SPEC, columns=(Column("id", kind), *SPEC.columns[1:]), deleted="nome = 'x'")
    latest: dict[str, str] = {}
    keys = [str(key).lower() if kind == "boolean" else str(key) for key in KEYS[kind]]
    for run in range(3):
        chosen = chance.sample(keys, max(len(keys) // 2, 1))
        rows = [item(key, run + 1, nome=chance.choice(["a", "b", "c", "x"])) for key in chosen]
        latest |= {row["id"]: row["nome"] for row in rows}
        lake.land("itens", f"f{run}", rows)
        assert not lake.run(spec).stopped
    found = lake.rows(spec.silver, "nome")
    assert sorted(row["nome"] for row in found) == sorted(name for name in latest.values() if name != "x")


def test_only_the_files_that_contain_a_changed_key_are_written_again(lake: Lake) -> None:
    spec = replace(SPEC, file_mb=1)
    for run in range(5):  # keys of one run lie together, and in a file of their own
        lake.land("itens", f"f{run}", [item(100 * run + n) for n in range(50)])
        lake.run(spec)
    before = files(lake, spec)
    assert len(before) == 5
    lake.land("itens", "g", [item(203, 2, nome="b"), item(249, 2, nome="b"), item(460, 2), item(60, 2)])
    refresh = lake.run(spec)
    after = files(lake, spec)
    assert [file.lower["id"] for path, file in before.items() if path not in after] == [200]
    assert sum(file.rows for file in after.values()) == 252 and len(refresh.transaction.remove) == 1
    untouched = set(before) & set(after)
    assert len(untouched) == 4
    lake.land("itens", "h", [item(203, 1), item(999, 3)])
    lake.run(spec)
    assert untouched <= set(files(lake, spec)), "an old version changes no file"


def test_a_record_that_was_delivered_twice_writes_nothing_again(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(2)])
    lake.run(SPEC)
    before = files(lake, SPEC)
    lake.land("itens", "b", [item(1), item(2)])
    refresh = lake.run(SPEC)
    assert refresh.entry is not None and (refresh.entry.written, refresh.entry.deduplicated) == (0, 2)
    assert files(lake, SPEC) == before


def test_more_changed_keys_than_are_compared_one_by_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.core.table import staging

    monkeypatch.setattr(staging, "_COMPARED_KEYS", 3)
    for run in range(3):
        lake.land("itens", f"f{run}", [item(n, run + 1, nome=f"r{run}") for n in range(run, 20, run + 1)])
        lake.run(SPEC)
    expected = {n: max(r for r in range(3) if n in range(r, 20, r + 1)) for n in range(20)}
    assert {row["id"]: row["nome"] for row in lake.rows(SPEC.silver, "id", "nome")} == {n: f"r{r}" for n, r in expected.items()}


def test_a_merge_that_would_miscount_commits_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a file not found for its key, the row would be there twice: the staged rows are counted before the commit."""
    from lakehouse.core.errors import LakehouseError
    from lakehouse.silver import merge

    lake.land("itens", "a", [item(1), item(2)])
    lake.run(SPEC)
    real = merge.replace_keys

    def forget(session: Any, snapshot: Any, **given: Any) -> Any:
        add, _ = real(session, snapshot, **given)
        return add, []

    monkeypatch.setattr(merge, "replace_keys", forget)
    lake.land("itens", "b", [item(1, 2)])
    with pytest.raises(LakehouseError, match="make rebuild"):
        lake.run(SPEC)
    assert len(lake.rows(SPEC.silver)) == 2 and lake.stray_files() == []


def test_a_discarded_refresh_is_done_again(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(None)])
    lake.ingest(SPEC)
    with lake.session() as session:
        candidate = stage_refresh(session, lake.storage, SPEC, run_id="x").transaction
        assert isinstance(candidate, Transaction)
        candidate.abandon()
    assert lake.rows(SPEC.silver) == []
    lake.refresh(SPEC)
    assert len(lake.rows(SPEC.silver)) == 1 and len(lake.quarantined(SPEC)) == 1
