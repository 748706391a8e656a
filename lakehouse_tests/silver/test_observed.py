"""Tables of positions: a record that is sent again is one row that says how often it was seen; files are kept apart by day."""

import datetime as dt
import random
from dataclasses import replace
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, expression, in_range, unique
from lakehouse_tests.conftest import EXTRACTED, Lake, Row, few

SPEC = TableSpec(
    name="posicoes",
    source=AirbyteStream("posicoes"),
    columns=(
        Column("em", "timestamp", source="dataHora", form="epoch_ms"),
        Column("veiculo", "string", source="codigo"),
        Column("linha", "string", nulls=("", "0")),
        Column("direcao", "double", nulls=(" ",)),
        Column("primeira_em", "timestamp", observed="first"),
        Column("ultima_em", "timestamp", observed="last"),
        Column("vezes", "int", observed="count"),
        Column("data", "date", expression="CAST(em AT TIME ZONE 'America/Sao_Paulo' AS DATE)"),
        Column("hora", "int", expression="EXTRACT(HOUR FROM em AT TIME ZONE 'America/Sao_Paulo')"),
    ),
    key=("em", "veiculo"),
    order=("em",),
    rules=(
        in_range("direcao", minimum=0, maximum=360),
        expression("not_ahead", "em <= primeira_em + INTERVAL '5' MINUTE"),
        unique("em", "veiculo"),
    ),
    partition="data",
    max_loss=1.0,
)
MINUTE = 60_000


def position(car: str, at: int, *, seen: int = 0, **fields: Any) -> Row:
    """A position sent `at` minutes after EXTRACTED, and delivered in the capture of minute `seen`."""
    moved = {"codigo": car, "dataHora": EXTRACTED + at * MINUTE, "linha": "52", "direcao": 90}
    return {**moved, **fields, "_at": EXTRACTED + seen * MINUTE}


def instant(minutes: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(EXTRACTED / 1000, tz=dt.UTC) + dt.timedelta(minutes=minutes)


def observed(lake: Lake) -> list[tuple[Any, ...]]:
    rows = lake.rows(SPEC.silver, "veiculo", "em", "primeira_em", "ultima_em", "vezes", "linha", "data", "hora")
    return [tuple(row.values()) for row in rows]


def test_a_position_that_is_sent_again_is_one_row_that_states_how_often(lake: Lake) -> None:
    lake.land("posicoes", "a", [position("b1", 0), position("b1", 0, seen=1), position("b2", 0, seen=1)])
    lake.run(SPEC)
    lake.land("posicoes", "b", [position("b1", 0, seen=2), position("b1", 2, seen=2)])
    found = lake.run(SPEC)
    day = dt.date(2025, 12, 31)  # 00:00 UTC is 21:00 of the day before in São Paulo
    assert observed(lake) == [
        ("b1", instant(0), instant(0), instant(2), 3, "52", day, 21),
        ("b1", instant(2), instant(2), instant(2), 1, "52", day, 21),
        ("b2", instant(0), instant(1), instant(1), 1, "52", day, 21),
    ]
    assert found.entry is not None and (found.entry.records_in, found.entry.written, found.entry.deduplicated) == (2, 2, 0)


def test_texts_that_mean_nothing_are_null_and_instants_are_milliseconds(lake: Lake) -> None:
    rows = [position("a", 0, linha="0", direcao=" "), position("b", 0, linha="", direcao=361), position("c", 0, dataHora="x")]
    lake.land("posicoes", "a", [*rows, position("d", 0, dataHora=10**17), position("e", 6)])
    lake.run(SPEC)
    assert [(row["veiculo"], row["linha"], row["direcao"]) for row in lake.rows(SPEC.silver)] == [("a", None, None)]
    refused = {row["record"].split('"codigo":"')[1][0]: row["rules"] for row in lake.quarantined(SPEC)}
    ahead = "not_ahead"
    assert refused["b"] == "range_direcao" and refused["e"] == ahead
    assert "castable_em" in refused["c"] and "castable_em" in refused["d"]


def test_a_key_with_two_contents_is_resolved_by_the_last_capture_and_counted(lake: Lake) -> None:
    lake.land("posicoes", "a", [position("b1", 0, seen=1, linha="10"), position("b1", 0, seen=0, linha="20"), position("b2", 0)])
    (found,) = [f for f in lake.run(SPEC).findings if f.rule == "conflicts"]
    assert (found.passed, found.failed, found.action) == (False, 1, "warn")
    lake.land("posicoes", "b", [position("b2", 0, seen=3, linha="30"), position("b1", 0, seen=3, linha="10")])
    (found,) = [f for f in lake.run(SPEC).findings if f.rule == "conflicts"]
    assert found.failed == 1  # b2; of b1 the same came again
    assert [(row[0], row[5], row[4]) for row in observed(lake)] == [("b1", "10", 3), ("b2", "30", 2)]


@pytest.mark.parametrize("seed", few(range(10), 0))
def test_any_order_of_files_gives_the_table_of_a_rebuild(lake: Lake, seed: int) -> None:
    chance = random.Random(seed)
    captures = [
        [position(f"b{car}", chance.choice([minute, 0, -1500]), seen=minute, linha=chance.choice("12")) for car in range(6)]
        for minute in range(8)
    ]
    order = list(range(8))
    chance.shuffle(order)
    for number, minute in enumerate(order):
        lake.land("posicoes", f"{number}", captures[minute])
        if chance.random() < 0.6:
            lake.run(SPEC)
    lake.run(SPEC)
    one = lake.rows(SPEC.silver)
    assert sum(row["vezes"] for row in one) == 48
    lake.refresh(SPEC, rebuild=True)
    assert lake.rows(SPEC.silver) == one and len({row["data"] for row in one}) == 2


def test_files_are_partitioned_by_day_and_a_late_position_finds_its_own(lake: Lake) -> None:
    lake.land("posicoes", "a", [position("b1", 0), position("b1", -2 * 1440)])
    lake.run(SPEC)
    before = {file.path for file in _files(lake)}
    lake.land("posicoes", "b", [position("b1", -2 * 1440, seen=1), position("b1", -1440, seen=1)])
    lake.run(SPEC)
    files = _files(lake)
    assert {file.path.split("/")[0] for file in files} == {"data=2025-12-29", "data=2025-12-30", "data=2025-12-31"}
    assert all(file.partition == {"data": file.path.split("/")[0].removeprefix("data=")} for file in files)
    unchanged = {file.path for file in files} & before
    assert [path.split("/")[0] for path in unchanged] == ["data=2025-12-31"]
    assert lake.stray_files() == []


def test_other_readers_find_the_partitions(lake: Lake) -> None:
    from deltalake import DeltaTable

    lake.land("posicoes", "a", [position("b1", 0), position("b1", -1440)])
    lake.run(SPEC)
    table = DeltaTable(lake.storage.uri(SPEC.silver))
    assert table.metadata().partition_columns == ["data"]
    day = dt.date(2025, 12, 31)
    found = table.to_pyarrow_table(filters=[("data", "=", day)]).to_pylist()
    assert [(row["veiculo"], row["data"], row["vezes"]) for row in found] == [("b1", day, 1)]


def test_a_day_that_cannot_be_told_is_no_partition(lake: Lake) -> None:
    lake.land("posicoes", "a", [position("b1", 0, dataHora=None), position("b2", 0)])
    found = lake.run(SPEC)
    assert len(lake.rows(SPEC.silver)) == 1 and found.entry is not None and found.entry.quarantined == 1


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: replace(SPEC, partition="veiculo"),
        lambda: replace(SPEC, partition="dia"),
        lambda: replace(SPEC, deleted="linha = '9'"),
        lambda: Column("vezes", "timestamp", observed="count"),
        lambda: Column("primeira", "int", observed="first"),
        lambda: Column("n", "int", observed="count", nulls=("",)),
        lambda: Column("n", "bigint", form="epoch_ms"),
        lambda: Column("n", "timestamp", form="epoch_ns"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_observed_is_refused(mistake: Any) -> None:
    with pytest.raises(DeclarationError):
        mistake()


def _files(lake: Lake) -> Any:
    table = open_existing(lake.storage.uri(SPEC.silver))
    assert table is not None
    return table.files
