"""Tables whose rows are the elements of an array of their records.

The record is what is versioned, counted and refused. Small landings are delivered in any order and grouping, and the table is
that of plain Python: the elements of the newest version of each record, all of them and no other.
"""

import datetime as dt
import hashlib
import importlib
import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import LakehouseError
from lakehouse.core.rules import Release
from lakehouse.settings import project_folder
from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    DeltaSource,
    Feed,
    PlainFiles,
    TableSpec,
    in_range,
    not_null,
    references,
    unique,
)
from lakehouse_tests.conftest import EXTRACTED, Lake, Row, few, file_content
from lakehouse_tests.silver.test_sync_modes import land

SPEC = TableSpec(
    name="pedidos_itens",
    source=AirbyteStream("pedidos"),
    explode="itens",
    columns=(
        Column("loja", "string", parent=True),
        Column("pedido_id", "bigint", source="id", parent=True),
        Column("posicao", "int", position=True),
        Column("sku", "string"),
        Column("quantidade", "bigint", source="qtd"),
        Column("preco", "decimal(20,4)"),
        Column("total", "decimal(24,4)", expression="quantidade * preco"),
        Column("situacao", "string", parent=True),
        Column("em", "timestamp", parent=True),
    ),
    key=("loja", "pedido_id", "posicao"),
    order=("em",),
    deleted="situacao = 'apagado'",
    rules=(in_range("quantidade", minimum=0), not_null("sku")),
    max_loss=1.0,
)
SIMPLE = replace(
    SPEC,
    columns=(
        Column("id", "bigint", parent=True),
        Column("n", "int", position=True),
        Column("sku", "string"),
        Column("qtd", "int"),
        Column("em", "timestamp", parent=True),
    ),
    key=("id", "n"),
    deleted=None,
    rules=(),
)
MOVED = replace(SIMPLE, columns=(SIMPLE.columns[-1], *SIMPLE.columns[:-1]))
APPENDED = replace(SIMPLE, sync="append", key=(), order=())
WHOLE = replace(SIMPLE, sync="overwrite")


def order(number: int, *skus: Any, day: int = 1, **more: Any) -> Row:
    return {"id": number, "em": f"2026-01-{day:02d}", "itens": [{"sku": s, "qtd": 1} for s in skus], **more}


def found(lake: Lake, spec: TableSpec = SIMPLE) -> list[tuple[Any, ...]]:
    return [(row["id"], row["n"], row["sku"]) for row in lake.rows(spec.silver, "id", "n", "sku")]


def figures(refresh: Any) -> tuple[int, ...]:
    """What came in and where it went, in records; then the table's rows."""
    entry = refresh.entry
    assert entry.balanced
    return entry.records_in, entry.written, entry.deduplicated, entry.deleted, entry.quarantined, entry.rows_after


# --- any order ---------------------------------------------------------------------------------------------------------


def delivered(seed: int, *, records: int = 50) -> list[Row]:
    """Records that collide in every way there is, with none to four elements, some of them refused."""
    chance = random.Random(seed)

    def item() -> Row | None:
        quantity = chance.choice([None, 1, 2, 3, 3, 3, 3, -1])
        return {"sku": chance.choice("xyz"), "qtd": quantity, "preco": chance.choice([None, "1.50", "10"]), "other": 1}

    days = [None, *(f"2026-01-{day:02d}T00:00:00Z" for day in range(1, 5))]
    return [
        {
            "loja": chance.choice(["a", "é"]),
            "id": chance.choice([1, 2, 3, 4]),
            "itens": chance.choice([None, [], *([item() for _ in range(n)] for n in (1, 2, 2, 3, 4))]),
            "situacao": chance.choice([None, "vivo", "vivo", "vivo", "apagado"]),
            "em": chance.choice(days),
            "_at": EXTRACTED + chance.choice([0, 0, 0, 1, 2]) * 1000,
        }
        for _ in range(records)
    ]


def is_refused(row: Row) -> bool:
    return row["situacao"] != "apagado" and any((item["qtd"] or 0) < 0 for item in row["itens"] or [])


def expected(rows: Sequence[Row]) -> dict[Any, set[str]]:
    """By key of a record the elements of the newest one; several where only the content decides which that is."""
    best: dict[Any, list[tuple[Any, Row]]] = {}
    for row in rows:
        if not is_refused(row):
            ended = row["situacao"] == "apagado" or not row["itens"]
            rank = (row["em"] is not None, row["em"] or "", row["_at"], ended)
            best.setdefault((row["loja"], row["id"]), []).append((rank, row))
    out = {}
    for key, versions in best.items():
        newest = max(rank for rank, _ in versions)
        last = [row for rank, row in versions if rank == newest]
        if not newest[-1]:
            out[key] = {as_text(key, row["itens"]) for row in last}
    return out


def as_text(key: Any, items: Sequence[Row]) -> str:
    return json.dumps([*key, [[item["sku"], item["qtd"], item["preco"] and f"{Decimal(item['preco']):.4f}"] for item in items]])


def tables(lake: Lake) -> dict[Any, str]:
    """By key of a record its elements, in the order of their positions, which begin at 0 and leave none out."""
    by_key: dict[Any, list[Row]] = {}
    for row in lake.rows(SPEC.silver, "loja", "pedido_id", "posicao", "sku", "quantidade", "preco"):
        by_key.setdefault((row["loja"], row["pedido_id"]), []).append(row)
    for rows in by_key.values():
        assert [row["posicao"] for row in rows] == list(range(len(rows)))
    return {
        key: as_text(key, [{"sku": r["sku"], "qtd": r["quantidade"], "preco": r["preco"] and str(r["preco"])} for r in rows])
        for key, rows in by_key.items()
    }


@pytest.mark.parametrize("seed", few(range(20)))
def test_landings_each_in_an_order_of_its_own(lake: Lake, make_lake: Any, seed: int) -> None:
    rows, chance = delivered(seed), random.Random(-seed)
    there: list[list[Row]] = []
    for here in (lake, make_lake(engine=lake.engine)):
        shuffled = chance.sample(range(len(rows)), len(rows))
        cuts = sorted(chance.sample(range(1, len(rows)), chance.choice([1, 2, 3])))
        for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
            here.put("pedidos", f"{number:03d}.jsonl", file_content([rows[n] for n in shuffled[a:b]]))
            assert not here.run(SPEC).stopped
        silver, wanted = tables(here), expected(rows)
        assert silver.keys() == wanted.keys()
        assert all(text in wanted[key] for key, text in silver.items()), "of one version, and of all of it"
        entries = [row for row in here.ledger() if row["layer"] == "silver"]
        assert all(e["records_in"] == e["written"] + e["deduplicated"] + e["deleted"] + e["quarantined"] for e in entries)
        assert sum(row["records_in"] for row in entries) == len(rows)
        assert len(here.quarantined(SPEC)) == sum(map(is_refused, rows)) == sum(row["quarantined"] for row in entries)
        there.append(here.rows(SPEC.silver))
        assert here.refresh(SPEC, rebuild=True).transaction is not None
        assert here.rows(SPEC.silver) == there[-1], "a rebuild gives the identical table"
    assert there[0] == there[1], "also where only the content decides"


def test_all_rows_of_the_older_version_go(lake: Lake) -> None:
    for number, (record, wanted) in enumerate(
        [
            (order(1, "a", "b", "c"), [(1, 0, "a"), (1, 1, "b"), (1, 2, "c")]),
            (order(1, "d", day=3), [(1, 0, "d")]),
            (order(1, "x", "y", day=2), [(1, 0, "d")]),
            (order(1, day=5), []),
            (order(1, "late", day=4), []),
            (order(1, "e", "f", day=6), [(1, 0, "e"), (1, 1, "f")]),
        ]
    ):
        lake.land("pedidos", f"{number}", [record, order(2, "stays")])
        lake.run(SIMPLE)
        assert found(lake) == [*wanted, (2, 0, "stays")], number
    lake.refresh(SIMPLE, rebuild=True)
    assert found(lake) == [(1, 0, "e"), (1, 1, "f"), (2, 0, "stays")]
    assert lake.stray_files() == []


def test_a_deleted_record_takes_its_elements_with_it(lake: Lake) -> None:
    spec = replace(
        SIMPLE, columns=(*SIMPLE.columns, Column("gone", "boolean", parent=True)), deleted="gone", rules=(not_null("sku"),)
    )
    lake.land("pedidos", "a", [order(1, "a", "b"), order(2, "c")])
    lake.run(spec)
    # What else a delete says does not matter: neither the item without a sku, nor that this is no array.
    lake.land("pedidos", "b", [order(1, None, day=3, gone=True), {**order(2, day=3, gone=True), "itens": "x"}])
    assert figures(lake.run(spec)) == (2, 0, 0, 2, 0, 0)
    lake.land("pedidos", "c", [order(1, "late", day=2)])
    assert figures(lake.run(spec)) == (1, 0, 1, 0, 0, 0)
    assert lake.rows(spec.silver) == []


def test_an_empty_version_that_a_dead_run_has_stored_is_still_applied(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.core.errors import ConflictError

    lake.land("pedidos", "a", [order(1, "a", "b"), order(2, "c")])
    lake.run(SIMPLE)
    lake.land("pedidos", "b", [order(1, day=2)])
    lake.ingest(SIMPLE)

    def die(_: Any) -> None:
        raise ConflictError("Dead.", remedy="Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr("lakehouse_tests.conftest.commit_staged", die)
        with pytest.raises(ConflictError):
            lake.refresh(SIMPLE)
    assert len(found(lake)) == 3
    lake.refresh(SIMPLE)
    assert found(lake) == [(2, 0, "c")]


def test_rows_are_partitioned_by_a_day_that_an_element_has(lake: Lake) -> None:
    spec = replace(SIMPLE, columns=(*SIMPLE.columns, Column("dia", "date")), partition="dia")
    rows = [order(1, "a", "b"), order(2, "c"), order(3)]
    for row, days in zip(rows, [("2026-02-01", "2026-02-02"), ("2026-02-01",), ()], strict=True):
        for item, day in zip(row["itens"], days, strict=True):
            item["dia"] = day
    lake.land("pedidos", "a", rows)
    assert figures(lake.run(spec)) == (3, 2, 0, 1, 0, 3)
    lake.land("pedidos", "b", [{**order(1, "z", day=2), "itens": [{"sku": "z", "dia": "2026-02-03"}]}, order(2, "no day", day=2)])
    refresh = lake.run(spec)
    assert figures(refresh) == (2, 1, 0, 0, 1, 2) and lake.quarantined(spec)[0]["rules"] == "not_null_dia"
    assert [(row["id"], str(row["dia"])) for row in lake.rows(spec.silver, "id", "dia")] == [(1, "2026-02-03"), (2, "2026-02-01")]


# --- sync modes ----------------------------------------------------------------------------------------------------------


def test_elements_of_every_record_that_is_appended_are_rows(lake: Lake) -> None:
    lake.land("pedidos", "a", [order(1, "a", "b"), order(1, "a"), order(2)])
    assert figures(lake.run(APPENDED)) == (3, 2, 0, 1, 0, 3)
    lake.put("pedidos", "b.jsonl", file_content([order(1, "c"), order(3, "d", "e")], first=2))  # raw-2 again, and raw-3
    assert figures(lake.run(APPENDED)) == (2, 1, 1, 0, 0, 5)
    before = found(lake, APPENDED)
    assert before == [(1, 0, "a"), (1, 0, "a"), (1, 1, "b"), (3, 0, "d"), (3, 1, "e")]
    assert figures(lake.refresh(APPENDED, rebuild=True)) == (5, 3, 1, 1, 0, 5)
    assert found(lake, APPENDED) == before


@pytest.mark.parametrize("spec", [WHOLE, replace(WHOLE, key=(), order=())], ids=["with a key", "without"])
def test_an_overwritten_table_has_the_elements_of_the_newest_generation(lake: Lake, spec: TableSpec) -> None:
    def generation(number: int, *rows: Row) -> Any:
        target = lake.folder / "landing" / "raw" / "pedidos"
        land(lake, f"{number}", list(rows), number)
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(lake.folder / "landing" / "raw" / "itens" / f"{number}.jsonl", target)
        lake.storage.complete("pedidos", number)
        return lake.run(spec)

    generation(1, order(1, "a", "b"), order(2, "c"))
    assert found(lake, spec) == [(1, 0, "a"), (1, 1, "b"), (2, 0, "c")]
    assert figures(generation(2, order(2, "d"), order(3))) == (4, 1, 2, 1, 0, 1)
    assert found(lake, spec) == [(2, 0, "d")]


# --- what is an array, and an element ------------------------------------------------------------------------------------


#: What is delivered as an array, and its elements, or the rule that refuses the record.
ARRAYS: list[tuple[str, Any]] = [
    (
        '[{"sku": "a", "preco": 99999999999999.9900}, {"sku": "b", "preco": 1.10}]',
        [("a", "99999999999999.9900"), ("b", "1.1000")],
    ),
    ('[{"sku": "a\\"\\u00e1"}, {"sku": null, "other": 1}, {}]', [('a"á', None), (None, None), (None, None)]),
    ('[{"sku": "a"}, null]', [("a", None), (None, None)]),
    ("[]", []),
    ("null", []),
    ('"[{\\"sku\\": \\"a\\"}]"', [("a", None)]),
    ('{"sku": "a"}', "castable_itens"),
    ('"a"', "castable_itens"),
    ("7", "castable_itens"),
    ('[{"sku": "a"}, "b"]', "castable_itens"),
    ('[["sku"]]', "castable_itens"),
    ('[{"sku": "a", "preco": "1.00005"}]', "castable_preco"),
]


def test_what_an_array_is(lake: Lake) -> None:
    line = '{"_airbyte_raw_id": "%d", "_airbyte_extracted_at": 1, "_airbyte_data": {"id": %d, "loja": "a", "itens": %s}}\n'
    lake.put("pedidos", "a.jsonl", "".join(line % (number, number, itens) for number, (itens, _) in enumerate(ARRAYS)))
    lake.run(replace(SPEC, rules=(), max_loss=1.0))
    quarantined = {int(json.loads(row["record"])["id"]): row for row in lake.quarantined(SPEC)}
    elements = lake.rows(SPEC.silver, "pedido_id", "posicao", "sku", "preco")
    for number, (itens, rows) in enumerate(ARRAYS):
        got = [(row["sku"], row["preco"]) for row in elements if row["pedido_id"] == number]
        if isinstance(rows, str):
            refused = quarantined.pop(number)
            assert refused["rules"] == rows and got == []
            text = json.loads(refused["record"])["itens"]  # as delivered, but for blanks
            assert text == (json.loads(itens) if itens.startswith('"') else itens.replace(": ", ":").replace(", ", ","))
        else:
            assert got == [(sku, None if price is None else Decimal(price)) for sku, price in rows], itens
    assert quarantined == {}


def test_a_record_without_the_field_has_no_elements(lake: Lake) -> None:
    lake.put("pedidos", "a.jsonl", file_content([{"id": 1, "em": "2026-01-01"}, order(2, "a")]))
    assert figures(lake.run(SIMPLE)) == (2, 1, 0, 1, 0, 1)


def test_elements_that_are_values_and_arrays_within_documents(lake: Lake) -> None:
    spec = TableSpec(
        name="etiquetas",
        source=AirbyteStream("pedidos"),
        explode="detalhe.etiquetas",
        columns=(
            Column("id", "bigint", parent=True),
            Column("cidade", "string", path="detalhe.cidade", parent=True),
            Column("n", "bigint", position=True),
            Column("etiqueta", "string", path="$"),
            Column("numero", "decimal(20,2)", path="$", nulls=("x", "[1.10]", '{"a":1.0}')),
        ),
        key=("id", "n"),
        order=("id",),
        max_loss=1.0,
    )
    line = '{"_airbyte_raw_id": "%s", "_airbyte_extracted_at": 1, "_airbyte_data": {"id": %s, "detalhe": %s}}\n'
    details = ['{"cidade": "São Paulo", "etiquetas": ["x", 12345678901234567.10, null, [1.10], {"a": 1.0}]}', "null", "7", "{}"]
    lake.put("pedidos", "a.jsonl", "".join(line % (n, n, detail) for n, detail in enumerate(details)))
    lake.run(spec)
    rows = lake.rows(spec.silver, "n", "cidade", "etiqueta", "numero")
    assert [tuple(row.values()) for row in rows] == [
        (0, "São Paulo", "x", None),
        (1, "São Paulo", "12345678901234567.10", Decimal("12345678901234567.10")),
        (2, "São Paulo", None, None),
        (3, "São Paulo", "[1.10]", None),
        (4, "São Paulo", '{"a":1.0}', None),
    ]
    assert [(json.loads(row["record"])["id"], row["rules"]) for row in lake.quarantined(spec)] == [
        ("2", "castable_cidade, castable_etiquetas")
    ]


@pytest.mark.parametrize("form", ["v2-csv", "v2-parquet", "v1-jsonl.gz-flat"])
def test_arrays_of_every_kind_of_file(lake: Lake, form: str) -> None:
    rows = [{"id": 1, "em": "2026-01-01", "itens": [{"sku": "a", "qtd": 2}, {"sku": "b", "qtd": 1}]}]
    lake.land("pedidos", "a", rows, form)
    lake.run(SIMPLE)
    assert found(lake) == [(1, 0, "a"), (1, 1, "b")]


def test_a_csv_file_of_anyone_with_json_in_a_field(lake: Lake) -> None:
    spec = replace(SIMPLE, source=PlainFiles("pedidos"))
    lake.put("pedidos", "a.csv", 'id,em,itens\n1,2026-01-01,"[{""sku"": ""a""}]"\n2,2026-01-01,\n3,2026-01-01,a\n')
    assert figures(lake.run(spec)) == (3, 1, 0, 1, 1, 1)


def test_a_delta_table_of_others_with_a_column_of_structs(lake: Lake) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    itens = [[{"sku": "a", "qtd": 1}, {"sku": "b", "qtd": 2}], [], None]
    write_deltalake(str(lake.folder / "delta"), pa.table({"id": [1, 2, 3], "em": ["2026-01-01"] * 3, "itens": itens}))
    spec = replace(SIMPLE, source=DeltaSource(str(lake.folder / "delta"), "pedidos_delta"))
    assert figures(lake.run(spec)) == (3, 1, 0, 2, 0, 2)
    assert found(lake) == [(1, 0, "a"), (1, 1, "b")]


def test_records_of_several_feeds_with_values_of_their_own(lake: Lake) -> None:
    spec = replace(
        SIMPLE,
        source=None,
        feeds=(Feed("p_api", AirbyteStream("p_api"), {"canal": "api"}), Feed("p_db", AirbyteStream("p_db"), {"canal": "db"})),
        columns=(*SIMPLE.columns, Column("canal", "string", parent=True)),
    )
    lake.land("p_api", "a", [order(1, "a", "b"), order(2, "c", day=2), {**order(3), "itens": 1}])
    lake.land("p_db", "a", [order(1, "x", day=2), order(2, "y")])
    for part in spec.parts:
        lake.ingest(part)
    assert figures(lake.refresh(spec)) == (5, 2, 2, 0, 1, 2)
    rows = lake.rows(spec.silver, "id", "n", "sku", "canal")
    assert [tuple(row.values()) for row in rows] == [(1, 0, "x", "db"), (2, 0, "c", "api")]
    assert len(lake.quarantined(spec.parts[0])) == 1 and lake.quarantined(spec.parts[1]) == []


# --- quarantine ----------------------------------------------------------------------------------------------------------


def test_one_bad_element_refuses_its_record_whole_and_a_better_rule_takes_it_in(lake: Lake) -> None:
    strict = replace(SIMPLE, rules=(in_range("qtd", maximum=5),))
    bad = order(1, "a", "b", "c", day=2)
    bad["itens"][1]["qtd"], bad["itens"][2]["qtd"] = 9, "many"
    lake.land("pedidos", "a", [order(1, "old"), order(2, "z")])
    lake.run(strict)
    lake.land("pedidos", "b", [bad])
    refresh = lake.run(strict)
    assert figures(refresh) == (1, 0, 0, 0, 1, 2)
    assert found(lake) == [(1, 0, "old"), (2, 0, "z")], "the version before stays, whole"
    (refused,) = lake.quarantined(strict)
    assert refused["rules"] == "castable_qtd, range_qtd"
    assert refused["reason"] == "It violates castable_qtd, range_qtd. First in itens[1]."
    assert json.loads(json.loads(refused["record"])["itens"]) == bad["itens"]
    (line,) = next(finding for finding in refresh.findings if finding.rule == "castable").lines
    assert "qtd: 1 of 1 records have elements whose values are no int ('many')" in line
    better = replace(SIMPLE, columns=tuple(replace(c, nulls=("many",)) if c.name == "qtd" else c for c in SIMPLE.columns))
    lake.refresh(replace(better, on_change="rebuild"))  # another declaration of qtd
    assert found(lake) == [(1, 0, "a"), (1, 1, "b"), (1, 2, "c"), (2, 0, "z")] and lake.quarantined(strict) == []


def test_redrive_takes_in_what_a_rule_had_refused_unless_it_is_older_by_now(lake: Lake) -> None:
    strict = replace(SIMPLE, rules=(in_range("qtd", maximum=5),))
    rows = [order(n, "a", "b", day=2) for n in (1, 2)]
    for row in rows:
        row["itens"][1]["qtd"] = 9
    lake.land("pedidos", "a", rows)
    lake.run(strict)
    lake.land("pedidos", "b", [order(2, "newer", day=3)])
    lake.run(strict)
    assert len(lake.quarantined(strict)) == 2
    assert figures(lake.refresh(SIMPLE, mode="redrive")) == (2, 1, 1, 0, 0, 3)
    assert found(lake) == [(1, 0, "a"), (1, 1, "b"), (2, 0, "newer")] and lake.quarantined(SIMPLE) == []


def test_what_is_not_an_array_has_a_line_on_the_console(lake: Lake) -> None:
    lake.land("pedidos", "a", [{**order(1), "itens": {"sku": "a"}}, {**order(2), "itens": ["x"]}, order(3, "a")])
    castable = next(finding for finding in lake.run(SIMPLE).findings if finding.rule == "castable")
    assert castable.detail == {"itens": 2} and castable.failed == 2
    assert castable.lines == (
        "silver/pedidos_itens itens: 2 of 3 records have no array of objects there ('x', '{\"sku\":\"a\"}'). "
        "Correct explode='itens', declare path='$' for an element itself, or correct the source.",
    )


def test_rules_that_stop_and_a_release(lake: Lake) -> None:
    stopping = replace(SIMPLE, rules=(in_range("qtd", maximum=5, action="fail"),))
    bad = order(1, "a", "b")
    bad["itens"][1]["qtd"] = 9
    lake.land("pedidos", "a", [bad, order(2, "c")])
    assert lake.run(stopping).stopped and found(lake) == []
    taken = lake.refresh(stopping, release=Release("seen by the owner"))
    assert figures(taken) == (2, 1, 0, 0, 1, 1) and found(lake) == [(2, 0, "c")]
    accepted = lake.refresh(stopping, mode="rebuild", release=Release("seen by the owner", accept=True))
    assert figures(accepted) == (2, 2, 0, 0, 0, 3)


def test_rules_over_rows_and_over_the_table(lake: Lake) -> None:
    orders = TableSpec(
        name="pedidos",
        source=AirbyteStream("pedidos"),
        columns=(Column("id", "bigint"), Column("em", "timestamp")),
        key=("id",),
        order=("em",),
        rules=(in_range("id", maximum=8),),
        max_loss=1.0,
    )
    spec = replace(
        SIMPLE,
        rules=(
            in_range("qtd", minimum=1, action="warn"),
            unique("id", "n", action="fail"),
            references("id", "pedidos", "id", action="warn"),
        ),
    )
    rows = [order(1, "a", "b"), order(9, "c"), order(3)]
    rows[0]["itens"][1]["qtd"] = 0
    lake.land("pedidos", "a", rows)
    lake.run(orders)
    by_name = {finding.rule: (finding.passed, finding.failed) for finding in lake.run(spec).findings}
    assert by_name["range_qtd"] == (False, 1) and by_name["unique_id_n"] == (True, 0)
    assert by_name[spec.table_rules[1].name] == (False, 1), "order 9 is in quarantine, its item is here"


# --- personal data, the cases ----------------------------------------------------------------------------------------------


def test_personal_elements_are_not_shown(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    from lakehouse.commands.tables import _masked

    spec = replace(
        SIMPLE,
        columns=tuple(replace(column, personal=column.name == "sku") for column in SIMPLE.columns),
        rules=(not_null("qtd"),),
    )
    lake.land("pedidos", "a", [{**order(1, "secret"), "itens": [{"sku": "secret"}, {"sku": "secret", "qtd": "secret"}]}])
    refresh = lake.run(spec)
    assert "secret" not in _masked(spec, lake.quarantined(spec)[0]["record"])
    lake.land("pedidos", "b", [{**order(2), "itens": "secret"}])
    castable = [line for finding in lake.run(spec).findings for line in finding.lines]
    assert castable and not any("secret" in line for line in castable) and refresh.entry is not None


def test_the_case_of_nested_arrays(real_data: Path, lake: Lake) -> None:
    folder = real_data / "cases" / "07-nested"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    shutil.copytree(folder, lake.folder / "landing" / "raw" / "pedidos")
    spec = replace(SIMPLE, columns=tuple(c for c in SIMPLE.columns if c.name != "em"), order=("id",))
    lake.run(spec)
    assert [(row["sku"], row["qtd"]) for row in lake.rows(spec.silver, "n", "sku", "qtd")] == [("a", 2), ("b", 1)]


# --- docs/tables.md ----------------------------------------------------------------------------------------------------------


def test_the_example_of_the_docs(lake: Lake) -> None:
    page = (project_folder() / "docs" / "tables.md").read_text()
    part = page.partition("## Rows that are elements of an array")[2].partition("\n## ")[0]
    scope = dict(vars(importlib.import_module("lakehouse.tables.spec")))
    exec(re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)[0], scope)
    spec: TableSpec = replace(scope["PEDIDOS_ITENS"], max_loss=1.0)
    examples = re.findall(r"^\| `({.*?})` \| (.*) \|$", part, flags=re.MULTILINE)
    assert len(examples) == 8
    for number, (record, outcome) in enumerate(examples):
        delivered = json.loads(record)
        lake.land("pedidos", f"{number}", [delivered])
        lake.run(spec)
        rows = [
            row for row in lake.rows(spec.silver, "pedido_id", "posicao", "sku", "qtd") if row["pedido_id"] == delivered["id"]
        ]
        assert rows == [json.loads(text) for text in re.findall(r"`({.*?})`", outcome)], record
        refused = [r["reason"] for r in lake.quarantined(spec) if json.loads(r["record"])["id"] == str(delivered["id"])]
        assert refused == re.findall(r"refused: `(.*?)`", outcome), record


# --- the engine's part -------------------------------------------------------------------------------------------------------

LISTS = [
    '[{"a":1.10,"b":[1,2.50]}, null, "x", 99999999999999.99, true, "nu\\"ll \\u00e1", [1,null], "", {}, 1e5, -0]',
    *("[]", None, "", " ", '{"a":1}', "x", "3", "[1", '"[1]"', "[1] x", "[[1,2],[3.10]]", ' [ 1 , {"x" : 1.0 } ]\n'),
]


def digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def elements_of(session: Session) -> None:
    """What both engines make of `LISTS`."""
    rows = session.table([{"i": n, "t": text} for n, text in enumerate(LISTS)], {"i": "int", "t": "string"})
    frame = session.elements(rows, "t", element="_e", index="_x", failed="_f")
    got: dict[int, list[Any]] = {}
    for i, _, text, failed in sorted(session.rows(frame.select("i", "_x", "_e", "_f")), key=lambda row: (row[0], row[1] or 0)):
        got.setdefault(i, []).append("no list" if failed else text)
    first = ['{"a":1.10,"b":[1,2.50]}', None, "x", "99999999999999.99", "true", 'nu"ll á', "[1,null]", "", "{}", "1e5", "-0"]
    nothing, wrong = [None], ["no list"]
    lists = [["[1,2]", "[3.10]"], ["1", '{"x":1.0}']]
    assert list(got.values()) == [first, nothing, nothing, nothing, *[wrong] * 7, *lists]
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("ab", None), (None, "ab"), (None, None), ("é", "b")]
    texts = session.table([{"a": a, "b": b} for a, b in pairs], {"a": "string", "b": "string"})
    prints = {tuple(row[:2]): row[2] for row in session.rows(session.fingerprint(texts, "_p", ["a", "b"]).select("a", "b", "_p"))}
    assert prints == {pair: digest("".join("-" if text is None else digest(text) for text in pair)) for pair in pairs}


def test_elements_of_a_list(session: Session) -> None:
    elements_of(session)


def test_instants_are_those_of_the_record(lake: Lake) -> None:
    lake.land("pedidos", "a", [order(1, "a", "b")], at=EXTRACTED)
    lake.run(SIMPLE)
    assert {row["_extracted_at"] for row in lake.rows(SIMPLE.silver)} == {dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
    assert len({row["_record_digest"] for row in lake.rows(SIMPLE.silver)}) == 1


def test_a_record_has_the_same_digest_in_whatever_order_its_columns_are_declared(lake: Lake) -> None:
    lake.land("pedidos", "a", [{"id": 1, "em": "2026-01-01T00:00:00Z", "itens": [{"sku": "a", "qtd": 1}]}])
    lake.run(SIMPLE)
    before = lake.rows(SIMPLE.silver, "id", "n", "_record_digest")
    assert lake.refresh(MOVED, rebuild=True).transaction is not None
    assert lake.rows(SIMPLE.silver, "id", "n", "_record_digest") == before


def test_a_table_whose_rows_become_elements_stops(lake: Lake) -> None:
    records = replace(SIMPLE, explode="", columns=(Column("sku", "string"),), key=(), order=(), sync="append")
    lake.land("pedidos", "a", [{"sku": "top", "itens": [{"sku": "a"}]}])
    lake.run(records)
    elements = replace(records, explode="itens", columns=(Column("sku", "string"), Column("n", "int", position=True)))
    with pytest.raises(LakehouseError, match="explode"):
        lake.run(elements)
    assert [row["sku"] for row in lake.rows(records.silver, "sku")] == ["top"]
