"""The table follows from the set of records, never from the order in which they arrived.

Small landings with everything that makes an order matter: ties in the declared order, in the extraction time and in both,
deletes, late old versions, rows that come back, null orders, composite keys, records that are refused. Each is delivered in
another order and grouping, and the table is that of plain Python and of a full rebuild, in every row and column.
"""

import datetime as dt
import json
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range
from lakehouse_tests.conftest import EXTRACTED, Lake, Row, few, file_content, plain
from lakehouse_tests.silver.model import newest

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("loja", "string"),
        Column("id", "bigint"),
        Column("nome", "string", source="Nome Completo"),
        Column("quantidade", "bigint"),
        Column("valor", "decimal(12,2)"),
        Column("situacao", "string"),
        Column("em", "timestamp"),
        Column("total", "decimal(18,2)", expression="quantidade * valor"),
    ),
    key=("loja", "id"),
    order=("em",),
    deleted="situacao = 'apagado'",
    rules=(in_range("quantidade", minimum=0),),
    max_loss=1.0,
)
COLUMNS = [column.name for column in SPEC.columns] + ["_extracted_at"]


def delivered(seed: int, *, records: int = 60) -> list[Row]:
    """Records that collide in every way there is."""
    chance = random.Random(seed)
    days = [None, *(f"2026-01-{day:02d}T00:00:00Z" for day in range(1, 5))]
    return [
        {
            "loja": chance.choice(["a", "b", "é"]),
            "id": chance.choice([1, 2, 3, 4, 5]),
            "Nome Completo": chance.choice([None, "", "x", "y", "Z", "é"]),
            "quantidade": chance.choice([None, 1, 2, 3, -1]),
            "valor": chance.choice([None, "1.50", "2.25", "10"]),
            "situacao": chance.choice([None, "vivo", "vivo", "vivo", "apagado"]),
            "em": chance.choice(days),
            "_at": EXTRACTED + chance.choice([0, 0, 0, 1, 2]) * 1000,
        }
        for _ in range(records)
    ]


def accepted(rows: Sequence[Row]) -> list[Row]:
    """Delivered records as the values that they are, without those that a rule refuses."""
    records = []
    for row in rows:
        quantity, value, deleted = row["quantidade"], row["valor"], row["situacao"] == "apagado"
        if quantity is not None and quantity < 0 and not deleted:
            continue  # refused by the rule
        record = {
            "loja": row["loja"],
            "id": row["id"],
            "nome": row["Nome Completo"],
            "quantidade": quantity,
            "valor": None if value is None else Decimal(value).quantize(Decimal("0.01")),
            "situacao": row["situacao"],
            "em": None if row["em"] is None else dt.datetime.fromisoformat(row["em"]),
            "total": None if quantity is None or value is None else (quantity * Decimal(value)).quantize(Decimal("0.01")),
            "_extracted_at": dt.datetime.fromtimestamp(row["_at"] / 1000, tz=dt.UTC),
            "_deleted": deleted,
        }
        records.append(record)
    return records


def expected(rows: Sequence[Row]) -> list[Row]:
    records = accepted(rows)
    return [plain(row) for row in newest(records, key=SPEC.key, order=SPEC.order, columns=COLUMNS)]


def table(lake: Lake) -> list[Row]:
    return [plain(row) for row in lake.rows(SPEC.silver, *COLUMNS)]


def in_order(rows: list[Row]) -> list[str]:
    return sorted(json.dumps(row, ensure_ascii=False) for row in rows)


def deliver(lake: Lake, rows: Sequence[Row], groups: Sequence[Sequence[int]]) -> None:
    """One file per group, one run per file."""
    for number, group in enumerate(groups):
        lake.put("itens", f"{number:03d}.jsonl", file_content([rows[n] for n in group]))
        assert not lake.run(SPEC).stopped


@pytest.mark.parametrize("seed", few(range(20), 0))
def test_ten_landings_each_in_an_order_of_its_own(lake: Lake, seed: int) -> None:
    rows, chance = delivered(seed), random.Random(-seed)
    order = chance.sample(range(len(rows)), len(rows))
    cuts = sorted(chance.sample(range(1, len(rows)), chance.choice([2, 3, 4])))
    deliver(lake, rows, [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)])
    assert in_order(table(lake)) == in_order(expected(rows))
    entries = [row for row in lake.ledger() if row["layer"] == "silver"]
    assert sum(row["records_in"] for row in entries) == len(rows)
    refused = sum((row["quantidade"] or 0) < 0 and row["situacao"] != "apagado" for row in rows)
    assert sum(row["quarantined"] for row in entries) == len(lake.quarantined(SPEC)) == refused
    increments = table(lake)
    assert lake.refresh(SPEC, rebuild=True).transaction is not None
    assert table(lake) == increments, "a rebuild gives the identical table"


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_ties(lake: Lake, step: int, backwards: bool) -> None:
    """Equal in the declared order: the later extraction; equal in that too: the delete; no delete: the greater content."""
    base: Row = {"loja": "a", "Nome Completo": "n", "quantidade": 1, "valor": "1", "situacao": "vivo", "em": "2026-01-01"}
    rows = [
        {**base, "id": 1, "valor": "9", "_at": EXTRACTED},
        {**base, "id": 1, "valor": "1", "_at": EXTRACTED + 1},
        {**base, "id": 2, "_at": EXTRACTED},
        {**base, "id": 2, "situacao": "apagado", "_at": EXTRACTED},
        {**base, "id": 3, "Nome Completo": "a", "_at": EXTRACTED},
        {**base, "id": 3, "Nome Completo": "b", "_at": EXTRACTED},
        {**base, "id": 4, "em": None, "_at": EXTRACTED + 5},
        {**base, "id": 4, "Nome Completo": "dated", "_at": EXTRACTED},
        {**base, "id": 5, "em": None, "Nome Completo": "first", "_at": EXTRACTED},
        {**base, "id": 5, "em": None, "Nome Completo": "later", "_at": EXTRACTED + 1},
        {**base, "id": 6, "situacao": "apagado", "_at": EXTRACTED},
        {**base, "id": 6, "_at": EXTRACTED + 1},
    ]
    groups = [range(first, len(rows), step) for first in range(step)]  # the two of a tie together, or one after the other
    deliver(lake, rows, [group[::-1] for group in groups[::-1]] if backwards else groups)
    found = [(row["id"], row["nome"], row["valor"]) for row in table(lake)]
    assert found == [(1, "n", "1.00"), (3, "b", "1.00"), (4, "dated", "1.00"), (5, "later", "1.00"), (6, "n", "1.00")]


def version(day: int, situation: str = "vivo", name: str = "n") -> Row:
    row = {"loja": "a", "Nome Completo": name, "quantidade": 1, "valor": "1", "situacao": situation}
    return {**row, "em": f"2026-01-{day:02d}", "_at": EXTRACTED + day * 1000}


#: The versions of a row as they arrive, one per run, and the row that there is in the end.
HISTORIES: dict[str, tuple[list[Row], str | None]] = {
    "a late old version stays deleted": ([version(1), version(3, "apagado"), version(2)], None),
    "a delete before any version": ([version(3, "apagado"), version(1), version(2)], None),
    "only a delete, and then a newer version": ([version(3, "apagado"), version(4, name="novo")], "novo"),
    "back after the delete": ([version(1), version(3, "apagado"), version(5, name="de volta")], "de volta"),
    "back, and a version from between": ([version(3, "apagado"), version(5, name="de volta"), version(4)], "de volta"),
    "back, deleted again, and all of it late": (
        [version(1), version(3, "apagado"), version(5), version(7, "apagado"), version(6), version(2), version(4, "apagado")],
        None,
    ),
    "a late delete does not touch what is newer": ([version(5, name="novo"), version(3, "apagado"), version(4)], "novo"),
    "the same delete twice": ([version(1), version(3, "apagado"), version(3, "apagado"), version(2)], None),
}


def test_deletes_are_stored(lake: Lake) -> None:
    for step in range(max(len(rows) for rows, _ in HISTORIES.values())):
        arriving = [{**rows[step], "id": n} for n, (rows, _) in enumerate(HISTORIES.values()) if step < len(rows)]
        lake.put("itens", f"{step}.jsonl", file_content(arriving))
        lake.run(SPEC)
    wanted = {history: name for history, (_, name) in HISTORIES.items() if name}

    def found() -> dict[str, Any]:
        return {list(HISTORIES)[row["id"]]: row["nome"] for row in table(lake)}

    assert found() == wanted
    lake.refresh(SPEC, rebuild=True)
    assert found() == wanted
    lake.put("itens", "late.jsonl", file_content([{**version(2, name="late again"), "id": n} for n in range(len(HISTORIES))]))
    lake.run(SPEC)
    assert found() == wanted, "also after a rebuild"


def test_a_table_that_became_empty_still_knows_its_deletes(lake: Lake) -> None:
    for day, situation in ((1, "vivo"), (5, "apagado"), (3, "vivo")):
        lake.put("itens", f"{day}.jsonl", file_content([{**version(day, situation), "id": 1}]))
        lake.run(SPEC)
    assert table(lake) == []


def test_a_delete_that_a_dead_run_has_stored_is_still_applied(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones are committed before the table. Here nothing but the key and the order distinguishes them."""
    from lakehouse.core.errors import ConflictError

    spec = TableSpec(
        name="itens",
        source=AirbyteStream("itens"),
        columns=(Column("id", "bigint"), Column("valor", "bigint"), Column("em", "timestamp")),
        key=("id",),
        order=("em",),
        deleted="valor IS NULL",
        max_loss=1.0,
    )
    lake.land("itens", "a", [{"id": 1, "valor": 1, "em": "2026-01-01"}, {"id": 2, "valor": 1, "em": "2026-01-01"}])
    lake.run(spec)
    lake.land("itens", "b", [{"id": 1, "valor": None, "em": "2026-01-02"}])
    lake.ingest(spec)

    def die(_: Any) -> None:  # after the deletes were committed, which silver/merge.py does
        raise ConflictError("Dead.", remedy="Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr("lakehouse_tests.conftest.commit_staged", die)
        with pytest.raises(ConflictError):
            lake.refresh(spec)
    assert len(lake.rows(spec.silver)) == 2
    lake.refresh(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [2]
