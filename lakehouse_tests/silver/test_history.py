"""The history of a table: of the same records the same versions, whatever runs, and nothing that silver refuses."""

import datetime as dt
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lakehouse.core.errors import ConflictError
from lakehouse.core.rules import Release
from lakehouse.core.table.snapshot import open_existing
from lakehouse.silver.history_baseline import points_ref
from lakehouse.silver.refresh import Refresh
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, history_ref, in_range, tracked
from lakehouse_tests.conftest import Lake, Row, few, file_content, plain
from lakehouse_tests.silver import test_orders as orders
from lakehouse_tests.silver.model import history

SPEC = replace(orders.SPEC, history=True)
COLUMNS = orders.COLUMNS
ITEMS = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("valor", "int"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    deleted="nome = 'gone'",
    rules=(in_range("valor", maximum=10),),
    max_loss=1.0,
    history=True,
)


def item(number: int, day: int, nome: str = "a", valor: int = 1) -> Row:
    return {"id": number, "nome": nome, "valor": valor, "em": f"2026-01-{day:02d}T00:00:00Z"}


def expected(rows: Sequence[Row], spec: TableSpec = SPEC) -> list[Row]:
    """The history of records as `test_orders` has them."""
    found = [{**row, "_instant": row["em"] or row["_extracted_at"]} for row in orders.accepted(rows)]
    made = history(found, key=spec.key, order=spec.order, columns=COLUMNS, tracked=tracked(spec))
    return [plain(row) for row in made]


def table(lake: Lake, spec: TableSpec = SPEC) -> list[str]:
    columns = [*COLUMNS, "valid_from", "valid_to", "is_current", "version"]
    return texts([plain(row) for row in lake.rows(history_ref(spec), *columns)])


def texts(rows: Sequence[Row]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)


def versions(lake: Lake, spec: TableSpec = ITEMS) -> list[tuple[Any, ...]]:
    """Key, name, first and last day, and number of every version."""

    def day(at: dt.datetime | None) -> int | None:
        return None if at is None else (at.astimezone(dt.UTC) - dt.datetime(2025, 12, 31, tzinfo=dt.UTC)).days

    rows = lake.rows(history_ref(spec), "id", "valid_from", "valid_to", "nome", "version")
    return [(r["id"], r["nome"], day(r["valid_from"]), day(r["valid_to"]), r["version"]) for r in rows]


def checked(refresh: Refresh, *, current: bool = True) -> Refresh:
    assert [finding.rule for finding in refresh.findings] in ([], ["intervals", "current", "ledger", "complete"])
    assert [f for f in refresh.findings if not f.passed and (current or f.rule != "current")] == []
    assert refresh.entry is None or refresh.entry.balanced
    return refresh


def run(lake: Lake, spec: TableSpec = ITEMS) -> Refresh:
    lake.run(spec)
    return checked(lake.history(spec))


# --- it follows from the records -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("some", few([True, ("situacao", "valor")], ("situacao", "valor")), ids=["all columns", "some columns"])
@pytest.mark.parametrize("seed", few(range(12), 0))
def test_any_order_and_grouping_of_records(make_lake: Callable[..., Lake], engine_name: str, seed: int, some: Any) -> None:
    spec, rows, chance = replace(SPEC, history=some), orders.delivered(seed), random.Random(-seed)
    lake = make_lake(engine=engine_name)
    order = chance.sample(range(len(rows)), len(rows))
    cuts = sorted(chance.sample(range(1, len(rows)), chance.choice([2, 3])))
    for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        lake.put("itens", f"{number:03d}.jsonl", file_content([rows[n] for n in order[a:b]]))
        assert not lake.run(spec).stopped
        checked(lake.history(spec))
    wanted = texts(expected(rows, spec))
    assert table(lake, spec) == wanted
    lake.put("itens", "again.jsonl", file_content([rows[n] for n in order[: cuts[0]]]))
    lake.run(spec)
    again = checked(lake.history(spec))
    assert table(lake, spec) == wanted, "what is delivered again makes no version"
    assert again.entry is not None and again.entry.written == 0
    assert checked(lake.history(spec, rebuild=True)).transaction is not None
    assert table(lake, spec) == wanted, "a rebuild gives the same"
    assert lake.history(spec).transaction is None
    assert lake.stray_files() == []


def test_the_ledger_adds_up(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 1), item(2, 1), item(2, 1, valor=99), item(3, 1, "gone")])
    first = run(lake).entry
    assert first is not None
    assert (first.records_in, first.written, first.deduplicated, first.deleted, first.quarantined) == (4, 2, 0, 1, 1)
    lake.land("itens", "b", [item(1, 3, "b"), item(1, 2), item(2, 1)])
    second = run(lake).entry
    assert second is not None and (second.batch_from, second.batch_to, second.rows_after) == (1, 2, 3)
    assert (second.records_in, second.written, second.deduplicated, second.deleted) == (3, 1, 2, 0)
    rows = [row for row in lake.ledger() if row["table"] == "itens_history"]
    assert [row["operation"] for row in rows] == ["rebuild", "merge"]
    lake.land("itens", "c", [])
    assert lake.history(ITEMS).transaction is None


def test_an_increment_rewrites_only_files_with_a_row_that_changes(lake: Lake) -> None:
    for batch in range(4):  # keys of one batch lie together, and in a file of their own
        lake.land("itens", f"f{batch}", [item(100 * batch + n, 5) for n in range(50)])
        run(lake)
    ref = history_ref(ITEMS)

    def files() -> dict[str, int]:
        found = open_existing(lake.storage.uri(ref))
        assert found is not None
        return {file.path: file.lower["id"] for file in found.files}

    before = files()
    lake.land("itens", "g", [item(203, 7, "b"), item(249, 3, "b"), item(120, 9), item(999, 1)])
    refresh = run(lake)
    assert refresh.transaction is not None and refresh.entry is not None
    assert [before[file.path] for file in refresh.transaction.remove] == [200], "120 repeats what was known"
    assert (refresh.entry.rows_after, refresh.entry.written, refresh.entry.deduplicated) == (203, 3, 1)
    assert len({*before} & {*files()}) == 3
    lake.land("itens", "h", [item(120, 9), item(203, 8, "b")])
    refresh = run(lake)
    assert refresh.transaction is not None and not refresh.transaction.add and not refresh.transaction.remove


# --- it follows silver -------------------------------------------------------------------------------------------------------


def test_what_silver_has_not_read_is_in_no_version(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 1)])
    run(lake)
    lake.land("itens", "b", [item(1, 2, "b")])
    lake.ingest(ITEMS)
    assert lake.history(ITEMS).transaction is None
    lake.land("itens", "c", [item(1, 3, "c")])
    lake.refresh(ITEMS)
    lake.ingest(ITEMS)
    found = checked(lake.history(ITEMS))
    assert found.entry is not None and found.entry.records_in == 1
    lake.refresh(ITEMS)
    checked(lake.history(ITEMS))
    assert versions(lake) == [(1, "a", 1, 2, 1), (1, "b", 2, 3, 2), (1, "c", 3, None, 3)]


def test_a_batch_that_silver_stops_is_in_no_version_until_it_is_released(lake: Lake) -> None:
    strict = replace(ITEMS, rules=(in_range("valor", maximum=10, action="fail"),))
    lake.land("itens", "a", [item(1, 1)])
    run(lake, strict)
    lake.land("itens", "b", [item(1, 2, "b", 99), item(2, 2)])
    assert lake.run(strict).stopped and lake.history(strict).transaction is None
    lake.refresh(strict, release=Release("as agreed"))
    checked(lake.history(strict))
    assert versions(lake) == [(1, "a", 1, None, 1), (2, "a", 2, None, 1)]
    lake.land("itens", "c", [item(1, 3, "c", 98)])
    assert lake.run(strict).stopped
    lake.refresh(strict, release=Release("as agreed", accept=True))
    checked(lake.history(strict))
    wanted = [(1, "a", 1, 3, 1), (1, "c", 3, None, 2), (2, "a", 2, None, 1)]
    assert versions(lake) == wanted
    checked(lake.history(strict, rebuild=True))
    assert versions(lake) == wanted


def test_what_leaves_the_quarantine_joins_the_versions(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 1), item(1, 2, "b", 99), item(1, 3, "c")])
    run(lake)
    assert versions(lake) == [(1, "a", 1, 3, 1), (1, "c", 3, None, 2)]
    relaxed = replace(ITEMS, rules=())
    lake.refresh(relaxed, mode="redrive")
    assert checked(lake.history(relaxed)).transaction is not None
    assert versions(lake) == [(1, "a", 1, 2, 1), (1, "b", 2, 3, 2), (1, "c", 3, None, 3)]
    assert lake.history(relaxed).transaction is None


def test_another_declaration_is_computed_again(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 1), item(1, 2, valor=2), item(1, 3, "b")])
    run(lake)
    assert len(versions(lake)) == 3
    some = replace(ITEMS, history=("nome",))
    assert checked(lake.history(some)).transaction is not None
    assert versions(lake) == [(1, "a", 1, 3, 1), (1, "b", 3, None, 2)]
    grown = replace(some, columns=(*some.columns, Column("cor", "string", default="azul")))
    lake.refresh(grown)
    checked(lake.history(grown))
    assert [row["cor"] for row in lake.rows(history_ref(grown), "cor")] == ["azul", "azul"]
    checked(lake.history(grown))


def test_a_run_that_died_between_points_and_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.land("itens", "a", [item(1, 1), item(1, 5)])
    run(lake)
    lake.land("itens", "b", [item(1, 3, "b"), item(2, 3, "gone"), item(1, 7, "b"), item(1, 8, "b")])
    lake.run(ITEMS)

    def die(_: Any) -> None:
        raise ConflictError("Dead.", remedy="Run it again.")

    for rebuild in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr("lakehouse_tests.conftest.commit_staged", die)
            with pytest.raises(ConflictError):
                lake.history(ITEMS, rebuild=rebuild)
        assert versions(lake) == [(1, "a", 1, None, 1)]
    checked(lake.history(ITEMS))
    wanted = [(1, "a", 1, 3, 1), (1, "b", 3, 5, 2), (1, "a", 5, 7, 3), (1, "b", 7, None, 4)]
    assert versions(lake) == wanted
    lake.land("itens", "c", [item(2, 1), item(1, 2)])
    run(lake)
    assert versions(lake) == [*wanted, (2, "a", 1, 3, 1)]
    points = lake.rows(points_ref(ITEMS), "id", "em", "_deleted")
    assert {(row["id"], row["_deleted"]) for row in points} == {(1, False), (2, True)}


def test_a_history_needs_its_table(lake: Lake) -> None:
    from lakehouse.core.errors import BrokenTableError

    with pytest.raises(BrokenTableError, match="silver/itens"):
        lake.history(ITEMS)
    lake.ingest(ITEMS)
    lake.refresh(ITEMS)
    assert lake.history(ITEMS).transaction is None


# --- whole tables ------------------------------------------------------------------------------------------------------------

WHOLE = replace(ITEMS, sync="overwrite", order=("valor",), deleted=None)


def land(lake: Lake, generation: int, rows: list[Row], *, complete: bool = True) -> None:
    """A generation that was extracted on the day of its number."""
    at = int(dt.datetime(2026, 1, generation, tzinfo=dt.UTC).timestamp() * 1000)
    envelope = {"_airbyte_extracted_at": at, "_airbyte_generation_id": generation, "_airbyte_meta": {"changes": []}}
    lines = [{"_airbyte_raw_id": f"{generation}-{n}", **envelope, "_airbyte_data": row} for n, row in enumerate(rows)]
    lake.put("itens", f"g{generation}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if complete:
        lake.storage.complete("itens", generation)


GENERATIONS = {
    1: [item(1, 1), item(2, 1), item(3, 1)],
    2: [item(1, 1), item(2, 1, "b"), item(4, 1)],
    3: [item(9, 1)],  # never complete
    4: [item(1, 1), item(3, 1), item(4, 1, "x", 99)],
    5: [item(1, 1), item(2, 1, "b"), item(4, 1, "y"), item(4, 1, "z", 2)],
}
WANTED = [
    *((1, "a", 1, None, 1), (2, "a", 1, 2, 1), (2, "b", 2, 4, 2), (2, "b", 5, None, 3)),
    *((3, "a", 1, 2, 1), (3, "a", 4, 5, 2), (4, "a", 2, 4, 1), (4, "z", 5, None, 2)),
]


@pytest.mark.parametrize("together", few([1, 2, 5], 2))
def test_the_changes_of_a_table_that_is_overwritten_are_those_between_generations(lake: Lake, together: int) -> None:
    for number, rows in GENERATIONS.items():
        land(lake, number, rows, complete=number != 3)
        if number % together == 0 or number == 5:
            lake.run(WHOLE)
            checked(lake.history(WHOLE))
    assert versions(lake, WHOLE) == WANTED
    assert lake.history(WHOLE).transaction is None
    checked(lake.history(WHOLE, rebuild=True))
    assert versions(lake, WHOLE) == WANTED
    assert lake.rows(points_ref(WHOLE)) == []


def test_a_generation_of_nothing_ends_every_version(lake: Lake) -> None:
    land(lake, 1, [item(1, 1)])
    lake.run(WHOLE)
    checked(lake.history(WHOLE))
    lake.storage.complete("itens", 2)
    lake.run(WHOLE)
    checked(lake.history(WHOLE))
    (row,) = lake.rows(history_ref(WHOLE))
    assert row["valid_to"] > row["valid_from"] and not row["is_current"]
    checked(lake.history(WHOLE, rebuild=True))
    assert lake.rows(history_ref(WHOLE)) == [row]


def test_an_unchanged_generation_rewrites_nothing(lake: Lake) -> None:
    land(lake, 1, [item(1, 1), item(2, 1)])
    lake.run(WHOLE)
    lake.history(WHOLE)
    land(lake, 2, [item(1, 1), item(2, 1)])
    lake.run(WHOLE)
    found = checked(lake.history(WHOLE))
    assert found.transaction is not None and not found.transaction.add and not found.transaction.remove


# --- commands ----------------------------------------------------------------------------------------------------------------


def test_a_rebuild_takes_the_history_along_and_it_is_compared_like_a_table(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lakehouse.commands.compare import compare
    from lakehouse.commands.tables import rebuild
    from lakehouse.tables.vendas import CLIENTES

    monkeypatch.setenv("LAKEHOUSE_ROOT", lake.storage.root)
    for name, segmento, day in (("a", "x", 1), ("b", "y", 2)):
        lake.land("clientes", name, [{"id": 1, "segmento": segmento, "updated_at": f"2026-01-{day:02d}T00:00:00Z"}])
        lake.run(CLIENTES)
    assert rebuild("clientes") == 0
    assert "silver/clientes_history: version 1, 2 rows." in capsys.readouterr().out
    assert [row["segmento"] for row in lake.rows(history_ref(CLIENTES), "valid_from", "segmento")] == ["x", "y"]
    assert compare("clientes_history", lake.storage.uri(history_ref(CLIENTES))) == 0
    assert "2 rows are in both" in capsys.readouterr().out
    assert rebuild("clientes") == 0
    assert "silver/clientes_history: version 2, 2 rows." in capsys.readouterr().out
