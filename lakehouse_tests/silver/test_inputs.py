"""One silver table from several bronze tables: each is read as far as it goes, and nothing of one is lost for another."""

from dataclasses import replace

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.silver.refresh import Refresh
from lakehouse.tables.spec import AirbyteStream, Column, Feed, TableSpec, check_unique, in_range, min_rows
from lakehouse_tests.conftest import Lake, Row

SPEC = TableSpec(
    name="pedidos",
    feeds=(
        Feed("pedidos_api", AirbyteStream("pedidos_api"), {"canal": "api"}),
        Feed("pedidos_db", AirbyteStream("pedidos_db"), {"canal": "db"}),
    ),
    columns=(
        Column("id", "bigint"),
        Column("valor", "decimal(12,2)"),
        Column("canal", "string"),
        Column("em", "timestamp"),
    ),
    key=("id",),
    order=("em",),
    rules=(in_range("valor", minimum=0),),
)
API, DB = SPEC.parts


def order(number: int | None, valor: str = "1.00", em: str = "2026-01-01T00:00:00Z") -> Row:
    return {"id": number, "valor": valor, "em": em}


def run(lake: Lake, spec: TableSpec = SPEC) -> Refresh:
    for part in spec.parts:
        lake.ingest(part)
    return lake.refresh(spec)


def rows(lake: Lake) -> list[tuple[int, str]]:
    return [(row["id"], row["canal"]) for row in lake.rows(SPEC.silver)]


def test_every_feed_delivers_its_records_under_its_own_value(lake: Lake) -> None:
    lake.land("pedidos_api", "a", [order(1), order(2), order(None)])
    lake.land("pedidos_db", "a", [order(10), order(11, "-1")])
    found = run(lake)
    assert rows(lake) == [(1, "api"), (2, "api"), (10, "db")]
    assert found.entry is not None and found.entry.balanced
    assert (found.entry.records_in, found.entry.quarantined) == (5, 2)
    assert [row["rules"] for row in lake.quarantined(API)] == ["not_null_id"]
    assert [row["rules"] for row in lake.quarantined(DB)] == ["range_valor"]


def test_a_feed_goes_on_while_the_other_stands_still(lake: Lake) -> None:
    lake.land("pedidos_api", "a", [order(1)])
    run(lake)
    lake.land("pedidos_db", "a", [order(10)])
    run(lake)
    lake.land("pedidos_api", "b", [order(2)])
    lake.land("pedidos_api", "c", [order(1, "2.00", em="2026-01-02T00:00:00Z")])
    assert run(lake).entry is not None
    assert rows(lake) == [(1, "api"), (2, "api"), (10, "db")]
    assert run(lake).transaction is None  # nothing is new
    before = lake.rows(SPEC.silver)
    lake.refresh(SPEC, rebuild=True)
    assert lake.rows(SPEC.silver) == before


def test_a_feed_that_is_no_longer_declared_is_named_with_the_command_that_helps(lake: Lake) -> None:
    alone = replace(SPEC, feeds=SPEC.feeds[1:])
    lake.land("pedidos_api", "a", [order(1)])
    lake.land("pedidos_db", "a", [order(10)])
    run(lake)
    with pytest.raises(BrokenTableError, match=r"changed since: bronze/pedidos_api \(no.*Run make rebuild TABLE=pedidos"):
        lake.refresh(alone)
    lake.refresh(alone, rebuild=True)
    assert rows(lake) == [(10, "db")]
    run(lake)  # declared again, its records are read again
    assert rows(lake) == [(1, "api"), (10, "db")]
    run(lake, replace(alone, on_change="rebuild"))
    assert rows(lake) == [(10, "db")]


def test_the_newest_version_of_a_key_may_come_from_either(lake: Lake) -> None:
    lake.land("pedidos_api", "a", [order(1, "1.00", em="2026-01-02T00:00:00Z")])
    run(lake)
    lake.land("pedidos_db", "a", [order(1, "2.00"), order(2)])
    run(lake)
    assert rows(lake) == [(1, "api"), (2, "db")]
    lake.land("pedidos_db", "b", [order(1, "3.00", em="2026-01-03T00:00:00Z")])
    run(lake)
    assert rows(lake) == [(1, "db"), (2, "db")]


def test_table_rules_validate_all_feeds_together(lake: Lake) -> None:
    spec = replace(SPEC, rules=(min_rows(3),))
    lake.land("pedidos_api", "a", [order(1)])
    lake.land("pedidos_db", "a", [order(10)])
    assert run(lake, spec).stopped
    lake.land("pedidos_db", "b", [order(11)])
    assert not run(lake, spec).stopped and len(rows(lake)) == 3


def test_what_was_refused_is_validated_again_in_the_feed_that_it_came_from(lake: Lake) -> None:
    lake.land("pedidos_api", "a", [order(1), order(2, "-1")])
    lake.land("pedidos_db", "a", [order(10, "-1")])
    run(lake)
    fixed = replace(SPEC, rules=())
    lake.refresh(fixed, mode="redrive")
    assert rows(lake) == [(1, "api"), (2, "api"), (10, "db")]
    assert lake.quarantined(API) == lake.quarantined(DB) == []


def test_a_feed_without_a_bronze_table_is_named(lake: Lake) -> None:
    lake.land("pedidos_api", "a", [order(1)])
    lake.ingest(API)
    with pytest.raises(BrokenTableError, match=r"bronze/pedidos_db, which does not exist.*Materialise bronze/pedidos_db"):
        lake.refresh(SPEC)


def test_source_or_feeds_and_no_bronze_table_twice() -> None:
    with pytest.raises(DeclarationError):
        replace(SPEC, source=AirbyteStream("pedidos"))
    with pytest.raises(DeclarationError):
        replace(SPEC, feeds=())
    with pytest.raises(DeclarationError):
        replace(SPEC, feeds=(SPEC.feeds[0], SPEC.feeds[0]))
    with pytest.raises(DeclarationError, match="bronze/pedidos_api"):
        check_unique(SPEC, replace(API, silver_name="outra"))
    with pytest.raises(DeclarationError, match="Ask each of its parts"):
        _ = SPEC.landing
