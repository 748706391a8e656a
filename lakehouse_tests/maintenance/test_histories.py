"""Histories under retention, forgetting and compaction: what silver loses they lose, what bronze loses they have."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance import audit, upkeep
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.retention import expire
from lakehouse.silver.history_baseline import history_baseline_ref, points_ref
from lakehouse.tables.spec import TableSpec, history_ref
from lakehouse_tests.conftest import Lake, Row
from lakehouse_tests.maintenance.test_forget import KEY, PESSOA, VENDA, containing, forgotten, person, sale
from lakehouse_tests.maintenance.test_retention import NOW, ONLY_BRONZE, SPEC, item

BRONZE, BOTH = replace(ONLY_BRONZE, history=True), replace(SPEC, history=True)


def run(lake: Lake, spec: TableSpec) -> None:
    lake.run(spec)
    found = lake.history(spec)
    assert [finding.rule for finding in found.findings if not finding.passed] == []


def retain(lake: Lake, spec: TableSpec, *, dry: bool = False) -> dict[str, int]:
    with lake.session() as session:
        return {str(one.ref): one.rows for one in expire(session, lake.storage, spec, now=NOW, dry=dry, wait=0.2)}


def checked(lake: Lake, spec: TableSpec) -> None:
    """The ledger adds up, a rebuild gives the same rows, and the audit finds nothing."""
    before = lake.rows(history_ref(spec))
    rebuilt = lake.history(spec, rebuild=True)
    assert rebuilt.entry is not None and not rebuilt.stopped and rebuilt.entry.balanced
    assert lake.rows(history_ref(spec)) == before and lake.history(spec).transaction is None
    found = [each for each in audit.audit(lake.storage, [spec], session=lake.session) if not each[2].passed]
    assert [each for each in found if each[0] == history_ref(spec)] == []


def names(lake: Lake, spec: TableSpec, number: int) -> list[str]:
    rows = [row for row in lake.rows(history_ref(spec), "id", "valid_from", "nome") if row["id"] == number]
    return [row["nome"] for row in rows]


#: Versions of keys of every age, as they arrive; a delete, a repeat, and one that is refused.
BATCHES: list[list[Row]] = [
    [item(1, 40, "a"), item(2, 40, "a"), item(3, 40, "a"), item(4, 5, "a"), item(6, 40, "x", n=101)],
    [item(1, 40, "b", version=3), item(2, 40, "gone", version=3), item(3, 40, "a", version=5), item(4, 5, "b", version=2)],
]
LATE: list[Row] = [
    item(1, 40, "c", version=2),
    item(2, 40, "b", version=2),
    item(3, 40, "b", version=3),
    item(4, 5, "c", version=4),
]


@pytest.mark.slow
def test_versions_whose_records_have_left_bronze_stay_and_what_comes_late_still_splits_them(
    lake: Lake, make_lake: Callable[..., Lake]
) -> None:
    whole = make_lake()
    for number, rows in enumerate(BATCHES):
        for one in (lake, whole):
            one.land("itens", f"{number}", rows)
            run(one, BRONZE)
    before = lake.rows(history_ref(BRONZE))
    assert retain(lake, BRONZE)["bronze/itens"] == 6, "the refused record waits"
    assert lake.rows(history_ref(BRONZE)) == before
    checked(lake, BRONZE)
    for one in (lake, whole):
        one.land("itens", "late", LATE)
        run(one, BRONZE)
    assert lake.rows(history_ref(BRONZE)) == whole.rows(history_ref(BRONZE))
    assert names(lake, BRONZE, 1) == ["a", "c", "b"] and names(lake, BRONZE, 3) == ["a", "b", "a"]
    checked(lake, BRONZE)
    assert retain(lake, BRONZE)["bronze/itens"] == 3
    checked(lake, BRONZE)
    assert lake.rows(history_ref(BRONZE)) == whole.rows(history_ref(BRONZE))


def test_a_fold_that_was_killed_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, rows in enumerate(BATCHES):
        lake.land("itens", f"{number}", rows)
        run(lake, BRONZE)

    def die(*_: Any, **__: Any) -> None:
        raise BrokenTableError("Dead.", remedy="Run it again.")

    for where in ("_Work._fold", "remove_rows"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lakehouse.maintenance.retention.{where}", die)
            with pytest.raises(BrokenTableError, match="Dead"):
                retain(lake, BRONZE)
        checked(lake, BRONZE)
    retain(lake, BRONZE)
    checked(lake, BRONZE)


def test_what_the_history_has_not_read_stays_in_bronze(lake: Lake) -> None:
    lake.land("itens", "0", BATCHES[0])
    run(lake, BRONZE)
    lake.land("itens", "1", BATCHES[1])
    lake.run(BRONZE)
    assert retain(lake, BRONZE)["bronze/itens"] == 3
    run(lake, BRONZE)
    assert names(lake, BRONZE, 1) == ["a", "b"]
    checked(lake, BRONZE)
    assert retain(lake, BRONZE)["bronze/itens"] == 3


def test_what_expires_in_silver_expires_in_the_history(lake: Lake) -> None:
    for number, rows in enumerate([[*BATCHES[0], item(9, 60), item(8, 60)], [*BATCHES[1], item(9, 60, "gone", version=9)]]):
        lake.land("itens", f"{number}", rows)
        run(lake, BOTH)
    counted = retain(lake, BOTH, dry=True)
    assert (counted["silver/itens"], counted["silver/itens_history"]) == (1, 2)
    assert retain(lake, BOTH) == counted
    assert {row["id"] for row in lake.rows(history_ref(BOTH), "id")} == {1, 2, 3, 4}
    checked(lake, BOTH)
    lake.land("itens", "again", [item(9, 60, "late", version=3), item(8, 60, "late", version=3), item(4, 5, "z", version=9)])
    run(lake, BOTH)
    assert {row["id"] for row in lake.rows(history_ref(BOTH), "id")} == {1, 2, 3, 4}
    checked(lake, BOTH)
    assert [row["operation"] for row in lake.ledger() if row["table"] == "itens_history"].count("expire") == 1


@pytest.mark.slow
def test_a_history_that_is_declared_later_begins_with_what_silver_has_of_the_expired(lake: Lake) -> None:
    for number, rows in enumerate(BATCHES):
        lake.land("itens", f"{number}", rows)
        lake.run(ONLY_BRONZE)
    retain(lake, ONLY_BRONZE)
    run(lake, BRONZE)
    assert (names(lake, BRONZE, 1), names(lake, BRONZE, 2), names(lake, BRONZE, 4)) == (["b"], [], ["a", "b"])
    lake.land("itens", "late", [item(2, 40, "b", version=2), item(7, 30)])
    run(lake, BRONZE)
    assert names(lake, BRONZE, 2) == ["b"], "its delete is known"
    checked(lake, BRONZE)
    assert retain(lake, BRONZE)["bronze/itens"] == 2
    assert {row["id"] for row in lake.rows(history_baseline_ref(BRONZE), "id")} == {1, 2, 3, 7}
    checked(lake, BRONZE)


def test_nobody_who_is_forgotten_is_in_a_version(lake: Lake) -> None:
    sales, people = replace(VENDA, history=True), replace(PESSOA, history=True)
    lake.land("venda", "a", [sale(1, KEY), sale(2, "b"), sale(3, KEY, age=40), sale(6, "b")])
    lake.land("pessoa", "a", [person(KEY), person("b")])
    for spec in (sales, people):
        run(lake, spec)
    lake.land("venda", "b", [sale(6, KEY, version=2), sale(1, KEY, version=2, n=5), sale(2, "b", version=4)])
    lake.land("pessoa", "b", [person(KEY, "c", 3), person(KEY, "gone", 5)])
    for spec in (sales, people):
        run(lake, spec)
    lake.land("venda", "c", [sale(6, "b", version=3)])
    run(lake, sales)
    retain(lake, sales)
    assert containing(lake)
    found, left = forgotten(lake, specs=(sales, people))
    assert left == [] and containing(lake) == []
    assert found["silver/venda_history"] == 4 and found["silver/pessoa_history"] == 2
    for spec in (sales, people):
        run(lake, spec)
        checked(lake, spec)
    assert [(row["id"], row["quem"]) for row in lake.rows(history_ref(sales), "id", "quem")] == [(2, "b"), (6, "b")]
    assert containing(lake) == []


@pytest.mark.slow
def test_compaction_changes_no_version_and_the_next_increment_reads_on(lake: Lake) -> None:
    chance = random.Random(1)
    spec = replace(BRONZE, retention=None, health=replace(BRONZE.health, max_files=3))
    for batch in range(8):
        rows = [item(chance.randrange(9), 5, chance.choice("ab"), version=batch) for _ in range(6)]
        lake.land("itens", f"{batch}", [{**row, "criado": NOW.isoformat()} for row in rows])
        run(lake, spec)
    before = lake.rows(history_ref(spec))
    wanted = upkeep.tasks(lake.storage, [spec])
    done = {
        one.ref: one
        for one in upkeep.maintain(
            wanted, storage=lake.storage, protected=Protection(), session=lake.session, floor=timedelta(0), wait=1
        )
    }
    assert {one.outcome for one in done.values()} <= {"done", "nothing"}
    assert points_ref(spec) in done and done[history_ref(spec)].files_before is not None
    assert lake.rows(history_ref(spec)) == before
    lake.land("itens", "z", [{**item(1, 5, "z", version=99), "criado": NOW.isoformat()}])
    lake.run(spec)
    refresh = lake.history(spec)
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "merge"
    checked(lake, spec)
    table = open_existing(lake.storage.uri(history_ref(spec)))
    assert table is not None and table.watermark("points") == 2, "a rebuild alone numbers the points anew"
