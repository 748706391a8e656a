"""Retention: exactly what has expired goes, a rebuild gives the same silver, and nothing that went comes back."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.core.errors import BusyError, DeclarationError, RefusedWriteError
from lakehouse.core.store.storage import lock
from lakehouse.core.table import transaction
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance import audit
from lakehouse.maintenance.retention import Expired, expire
from lakehouse.maintenance.rollback import roll_back
from lakehouse.silver import baseline
from lakehouse.silver.merge import baseline_ref
from lakehouse.tables.spec import AirbyteStream, Column, Retention, TableSpec, in_range
from lakehouse_tests.conftest import EXTRACTED, LEDGER, Filled, Lake, Row, few, file_content

DAY = timedelta(days=1)
#: What the tests take for now: events of June 2026 and before are there.
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("nome", "string"),
        Column("criado", "timestamp"),
        Column("em", "timestamp"),
        Column("n", "int"),
        Column("dobro", "int", expression="n * 2"),
    ),
    key=("id",),
    order=("em",),
    deleted="nome = 'gone'",
    rules=(in_range("n", maximum=100),),
    max_loss=1.0,
    retention=Retention(event="criado", landing=10 * DAY, bronze=20 * DAY, silver=50 * DAY, quarantine=30 * DAY),
)
ONLY_BRONZE = replace(SPEC, retention=Retention(event="criado", bronze=20 * DAY))


def item(number: Any, age: float, name: str = "a", n: int = 1, *, version: int = 1) -> Row:
    """A record of a key that was made `age` days before `NOW`."""
    criado = NOW - age * DAY
    return {
        "id": number,
        "nome": name,
        "criado": criado.isoformat(),
        "em": (criado + version * timedelta(hours=1)).isoformat(),
        "n": n,
    }


def run(lake: Lake, spec: TableSpec = SPEC, *, now: datetime = NOW, dry: bool = False) -> dict[str, int]:
    with lake.session() as session:
        return {str(one.ref): one.rows for one in expire(session, lake.storage, spec, now=now, dry=dry, wait=0.2)}


def ids(lake: Lake, spec: TableSpec = SPEC) -> list[int]:
    return [row["id"] for row in lake.rows(spec.silver, "id")]


def checked(lake: Lake, spec: TableSpec = SPEC, *, log: bool = True) -> None:
    """The ledger adds up, and a rebuild gives the silver that is there; no file is in no commit (where the `log` has all)."""
    assert all(
        row["records_in"] == row["written"] + row["deduplicated"] + row["deleted"] + row["quarantined"] for row in lake.ledger()
    )
    found = audit.audit(lake.storage, [spec], session=lake.session)
    assert [finding for _, guarantee, finding in found if guarantee == "ledger" and not finding.passed] == []
    before = lake.rows(spec.silver)
    rebuilt = lake.refresh(spec, rebuild=True)
    assert rebuilt.entry is not None and not rebuilt.stopped and rebuilt.entry.balanced
    assert lake.rows(spec.silver) == before
    assert lake.refresh(spec).transaction is None and not (log and lake.stray_files())
    found = audit.audit(lake.storage, [spec], session=lake.session)
    assert [finding for _, guarantee, finding in found if guarantee == "ledger" and not finding.passed] == []


def four_files(lake: Lake) -> None:
    """Records of every age; keys with several versions, a delete, and one that is refused, in four files."""
    lake.land("itens", "a", [item(1, 60), item(2, 40), item(3, 40, "old"), item(4, 40)])
    lake.run(SPEC)
    lake.land("itens", "b", [item(3, 40, "new", version=2), item(4, 40, "gone", version=2), item(5, 25), item(6, 25, n=101)])
    lake.run(SPEC)
    lake.land("itens", "c", [item(7, 15), item(2, 40, "newer", version=3)])
    lake.run(SPEC)
    lake.land("itens", "d", [item(8, 1)])
    lake.run(SPEC)


@pytest.fixture
def aged(lake: Lake, fill_once: Filled) -> Lake:
    return fill_once(lake, four_files)


def test_exactly_what_has_expired_goes_and_a_rebuild_gives_the_same_silver(aged: Lake) -> None:
    before = {row["id"]: row for row in aged.rows(SPEC.silver)}
    versions = aged.versions()
    wanted = {"landing/itens": 3, "quarantine/itens": 0, "silver/itens": 1, "bronze/itens": 8}
    assert run(aged, dry=True) == wanted and aged.versions() == versions, "a dry run changes nothing"
    assert run(aged) == wanted
    assert {row["id"]: row for row in aged.rows(SPEC.silver)} == {key: before[key] for key in (2, 3, 5, 7, 8)}
    assert sorted(row["id"] for row in aged.rows(SPEC.bronze, "id")) == ["6", "7", "8"], "6 waits in quarantine"
    assert sorted(path.name for path in (aged.folder / "landing/raw/itens").iterdir()) == ["d.jsonl"]
    assert [(row["id"], row["nome"]) for row in aged.rows(baseline_ref(SPEC.silver), "id", "nome")] == [
        (2, "newer"),
        (3, "new"),
        (5, "a"),
    ]
    expired = [(row["layer"], row["records_in"], row["deleted"]) for row in aged.ledger() if row["operation"] == "expire"]
    assert sorted(expired) == [("bronze", 8, 8), ("silver", 1, 1)]
    checked(aged)
    assert run(aged) == dict.fromkeys(wanted, 0), "what is done is left alone"


@pytest.mark.slow
def test_syncs_go_on_and_what_expired_does_not_come_back(aged: Lake, make_lake: Callable[[], Lake]) -> None:
    content = (aged.folder / "landing/raw/itens/a.jsonl").read_bytes()
    run(aged)
    aged.put("itens", "a.jsonl", content)
    assert aged.ingest(SPEC).transaction is None, "the ledger knows the file although it was gone"
    aged.put("itens", "again.jsonl", content)
    aged.land(
        "itens", "e", [item(9, 2), item(3, 40, "newest", version=5), item(2, 40, "late", version=2), item(1, 60, version=9)]
    )
    refresh = aged.run(SPEC)
    assert refresh.entry is not None and refresh.entry.balanced and not refresh.stopped
    assert (refresh.entry.records_in, refresh.entry.written, refresh.entry.deleted) == (8, 2, 2), "1, twice, is too old"
    names = {row["id"]: row["nome"] for row in aged.rows(SPEC.silver, "id", "nome")}
    assert names == {2: "newer", 3: "newest", 5: "a", 7: "a", 8: "a", 9: "a"}, "4 is deleted, 1 has expired"
    checked(aged)
    later = NOW + 12 * DAY
    assert run(aged, now=later)["silver/itens"] == 2
    assert ids(aged) == [5, 7, 8, 9]
    checked(aged)


@pytest.mark.slow
def test_only_bronze_expires_and_silver_stays_whole(aged: Lake) -> None:
    before = aged.rows(SPEC.silver)
    assert run(aged, ONLY_BRONZE) == {"bronze/itens": 8}
    assert aged.rows(SPEC.silver) == before
    checked(aged, ONLY_BRONZE)
    assert [row["id"] for row in aged.rows(aged.deletes(SPEC))] == [4], "the delete is remembered through the rebuild"
    fixed = replace(ONLY_BRONZE, rules=(in_range("n", maximum=1000),))
    aged.refresh(fixed, mode="redrive")
    assert 6 in ids(aged)
    checked(aged, fixed)
    grown = replace(fixed, columns=(*fixed.columns, Column("cor", "string", default="azul")))
    assert not aged.refresh(grown).stopped
    colours = {row["id"]: row["cor"] for row in aged.rows(grown.silver, "id", "cor")}
    assert colours == {1: None, 2: None, 3: None, 5: None, 6: "azul", 7: "azul", 8: "azul"}, "what is gone cannot be read again"
    assert run(aged, grown, now=NOW + 6 * DAY) == {"bronze/itens": 2}
    checked(aged, grown)
    assert {row["id"]: row["cor"] for row in aged.rows(grown.silver, "id", "cor")} == colours
    assert aged.rows(baseline_ref(SPEC.silver), "id", "cor")[-1] == {"id": 7, "cor": "azul"}
    with pytest.raises(RefusedWriteError, match=r"left bronze/itens|something was done"), aged.session() as session:
        roll_back(session, aged.storage, [grown], grown.silver, version=1, reason="a test")


@pytest.mark.slow
def test_observed_counts_are_those_of_before(lake: Lake) -> None:
    seen = (Column("vezes", "int", observed="count"), Column("primeira", "timestamp", observed="first"))
    spec = replace(ONLY_BRONZE, deleted=None, rules=(), columns=(*SPEC.columns, *seen))
    hour = 3_600_000
    for n in range(4):
        lake.land("itens", f"f{n}", [item(1, 40), item(2, 15)], at=1_767_225_600_000 + n * hour)
        lake.run(spec)
    before = lake.rows(spec.silver)
    assert [row["vezes"] for row in before] == [4, 4]
    run(lake, spec)
    assert len(lake.rows(spec.bronze)) == 4
    checked(lake, spec)
    lake.land("itens", "f9", [item(1, 40), item(2, 15)], at=1_767_225_600_000 + 9 * hour)
    lake.run(spec)
    assert [row["vezes"] for row in lake.rows(spec.silver)] == [5, 5]
    checked(lake, spec)


@pytest.mark.slow
def test_silver_rows_of_an_appended_table_stay_when_bronze_records_expire(lake: Lake) -> None:
    spec = replace(ONLY_BRONZE, sync="append", key=(), order=(), deleted=None)
    for n in range(3):
        lake.put("itens", f"f{n}.jsonl", file_content([item(1, 40 - n * 15), item(1, 40 - n * 15)], first=2 * n))
        lake.run(spec)
    assert run(lake, spec) == {"bronze/itens": 4}
    assert len(ids(lake, spec)) == 6
    checked(lake, spec)
    older = replace(spec, retention=Retention(event="criado", silver=30 * DAY, bronze=20 * DAY))
    assert run(lake, older) == {"silver/itens": 2, "bronze/itens": 0}
    assert len(ids(lake, older)) == 4
    checked(lake, older)


def test_a_record_that_was_delivered_twice_leaves_with_its_repeat_and_is_folded_once(lake: Lake) -> None:
    spec = replace(ONLY_BRONZE, sync="append", key=(), order=(), deleted=None)
    for name in ("a", "b"):
        lake.land("itens", name, [item(1, 40), item(2, 5)])
        lake.run(spec)
    assert ids(lake, spec) == [1, 2]
    assert run(lake, spec) == {"bronze/itens": 2}
    assert [row["id"] for row in lake.rows(baseline_ref(spec.silver), "id")] == [1]
    checked(lake, spec)


def test_a_file_that_has_grown_goes_when_each_of_its_tails_is_in_bronze(lake: Lake) -> None:
    spec = replace(SPEC, sync="append", key=(), order=(), deleted=None, retention=Retention(event="criado", landing=10 * DAY))
    rows = [item(n, 40) for n in range(3)]
    path = lake.put("itens", "a.jsonl", file_content(rows[:1]))
    lake.run(spec)
    with path.open("ab") as grown:
        grown.write(file_content(rows[1:], first=1))
    lake.run(spec)
    lake.put("itens", "z.jsonl", file_content([item(9, 1)], first=9))
    lake.run(spec)
    assert ids(lake, spec) == [0, 1, 2, 9]
    _lose(lake, spec, "0")
    assert run(lake, spec) == {"landing/itens": 0} and path.exists(), "a record of its beginning is missing in bronze"
    table = DeltaTable(lake.storage.uri(spec.bronze))
    table.restore(table.version() - 1)
    assert run(lake, spec) == {"landing/itens": 1} and not path.exists()


@pytest.mark.parametrize("dies_before", few(["fold", "bronze"], "bronze"))
def test_a_run_that_dies_between_two_commits_is_taken_up(aged: Lake, monkeypatch: pytest.MonkeyPatch, dies_before: str) -> None:
    before = aged.rows(SPEC.silver)
    write_version = transaction.write_version

    def dying(staged: transaction.Transaction) -> int:
        part = "fold" if "baseline" in staged.table.uri else "bronze" if "/bronze/" in staged.table.uri else ""
        if part == dies_before:
            staged.abandon()
            raise KeyboardInterrupt
        return write_version(staged)

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "write_version", dying)
        with pytest.raises(KeyboardInterrupt):
            run(aged, ONLY_BRONZE)
    assert aged.rows(SPEC.silver) == before
    aged.land("itens", "e", [item(9, 2)])
    assert not aged.run(ONLY_BRONZE).stopped
    before = aged.rows(SPEC.silver)
    assert aged.refresh(ONLY_BRONZE, rebuild=True).transaction is not None and aged.rows(SPEC.silver) == before
    assert aged.rows(baseline_ref(SPEC.silver)) == [], "what was folded is in bronze still"
    assert run(aged, ONLY_BRONZE) == {"bronze/itens": 8}
    assert aged.rows(SPEC.silver) == before
    checked(aged, ONLY_BRONZE)


def test_a_file_goes_only_when_its_records_are_in_bronze(aged: Lake) -> None:
    spec = replace(SPEC, retention=Retention(event="criado", landing=10 * DAY))
    aged.land("itens", "new", [item(50, 40)])
    assert run(aged, spec) == {"landing/itens": 3}, "one file is not in bronze yet, one is the newest"
    left = {path.name for path in (aged.folder / "landing/raw/itens").iterdir()}
    assert left == {"d.jsonl", "new.jsonl"}
    aged.run(spec)
    table = open_existing(aged.storage.uri(spec.bronze))
    assert table is not None
    whole = aged.rows(spec.bronze)
    aged.land("itens", "two", [item(60, 40), item(61, 40)])
    aged.run(spec)
    aged.land("itens", "z", [item(62, 1)])
    aged.run(spec)
    _lose(aged, spec, "61")
    assert "two.jsonl" in {p.name for p in (aged.folder / "landing/raw/itens").iterdir()}
    run(aged, spec)
    left = {path.name for path in (aged.folder / "landing/raw/itens").iterdir()}
    assert left >= {"two.jsonl"} and len(whole) == 12, "a record of it is missing in bronze"


def _lose(lake: Lake, spec: TableSpec, number: str) -> None:
    DeltaTable(lake.storage.uri(spec.bronze)).delete(f"id = '{number}'")


def test_unreadable_lines_wait_for_their_time(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 40)])
    path = lake.put("itens", "b.jsonl", b'{"_airbyte_raw_id": "x", broken\n')
    lake.run(SPEC)
    lake.land("itens", "z", [item(2, 1)])
    lake.run(SPEC)
    assert run(lake, now=datetime.now(UTC)) and path.exists(), "it can be read again from landing alone"
    assert len(lake.quarantined(SPEC)) == 1
    later = datetime.now(UTC) + 31 * DAY
    assert run(lake, now=later)["quarantine/itens"] == 1
    assert run(lake, now=later) is not None and not path.exists() and lake.quarantined(SPEC) == []


def test_a_table_in_a_writers_hands_is_left_alone(aged: Lake) -> None:
    with lock(aged.storage.uri(SPEC.silver)), pytest.raises(BusyError):
        run(aged)
    assert len(aged.rows(SPEC.bronze)) == 11


def test_bronze_and_baseline_from_different_moments_are_refused(aged: Lake) -> None:
    run(aged, ONLY_BRONZE)
    shutil.rmtree(aged.storage.uri(baseline_ref(SPEC.silver)))
    with pytest.raises(baseline.BrokenTableError, match="same backup"):
        aged.refresh(ONLY_BRONZE, rebuild=True)
    assert len(ids(aged)) == 6


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (Retention(event="em", silver=DAY), "orders the versions"),
        (Retention(event="nome", silver=DAY), "not one of its dates"),
        (Retention(event="dobro", silver=DAY), "not one of its dates"),
    ],
)
def test_what_cannot_be_an_event_date(retention: Retention, expected: str) -> None:
    with pytest.raises(DeclarationError, match=expected):
        replace(SPEC, retention=retention)


def test_ages_that_cannot_be() -> None:
    with pytest.raises(DeclarationError, match="a day or more"):
        Retention(event="criado", silver=timedelta(hours=1))
    with pytest.raises(DeclarationError, match="outlive"):
        Retention(event="criado", landing=2 * DAY, bronze=DAY)
    with pytest.raises(DeclarationError, match="overwritten"):
        replace(SPEC, sync="overwrite", retention=Retention(event="criado", bronze=DAY))
    with pytest.raises(DeclarationError, match="belong to who writes"):
        replace(SPEC, source=AirbyteStream("itens", made_by="outro"), retention=Retention(event="criado", landing=DAY))
    assert LEDGER and str(Expired(ref=SPEC.silver, rows=2, before=NOW, column="criado")).startswith("2 rows with criado before")


# --- tables whose rows are elements -----------------------------------------------------------------------------------------

#: Each record's elements are named after it, so that they are known again.
ELEMENTS = replace(
    SPEC,
    name="partes",
    silver_name="partes",
    explode="partes",
    columns=(
        *(replace(column, parent=True) for column in SPEC.columns if column.delivered),
        Column("posicao", "int", position=True),
        Column("parte", "string", path="$"),
    ),
    key=("id", "posicao"),
    retention=Retention(event="criado", bronze=20 * DAY),
)


def parted(number: Any, age: float, *parts: str, **more: Any) -> Row:
    return {**item(number, age, **more), "partes": [*parts]}


def parts_of(lake: Lake, spec: TableSpec = ELEMENTS) -> list[tuple[int, str]]:
    return [(row["id"], row["parte"]) for row in lake.rows(spec.silver, "id", "posicao", "parte")]


@pytest.mark.slow
def test_elements_of_records_that_expired_in_bronze_stay_as_rows_of_the_newest_version(lake: Lake) -> None:
    lake.land("itens", "a", [parted(1, 40, "a", "b"), parted(2, 40, "c", "d"), parted(3, 40, "e"), parted(4, 40, "f")])
    lake.run(ELEMENTS)
    lake.land("itens", "b", [parted(2, 40, "g", version=2), parted(3, 40, version=3), parted(4, 40, name="gone", version=3)])
    lake.run(ELEMENTS)
    lake.land("itens", "c", [parted(5, 5, "h", "i")])
    lake.run(ELEMENTS)
    there = [(1, "a"), (1, "b"), (2, "g"), (5, "h"), (5, "i")]
    assert parts_of(lake) == there
    assert run(lake, ELEMENTS, dry=True) == run(lake, ELEMENTS) == {"bronze/partes": 7}, "records, not elements"
    checked(lake, ELEMENTS)
    lake.land("itens", "d", [parted(3, 40, "late", version=2), parted(1, 40, "z", version=2), parted(4, 40, "late", version=2)])
    lake.run(ELEMENTS)
    assert parts_of(lake) == [(1, "z"), *there[2:]]
    checked(lake, ELEMENTS)
    older = replace(ELEMENTS, retention=Retention(event="criado", silver=30 * DAY, bronze=20 * DAY))
    assert run(lake, older)["silver/partes"] == 2 and parts_of(lake) == there[3:]
    checked(lake, older)


@pytest.mark.slow
def test_elements_of_an_appended_table_stay_when_bronze_records_expire(lake: Lake) -> None:
    spec = replace(ELEMENTS, sync="append", key=(), order=(), deleted=None)
    for n in range(2):
        rows = [parted(1, 40 - n * 35, "a", "b"), parted(2, 40 - n * 35)]
        lake.put("itens", f"f{n}.jsonl", file_content(rows, first=2 * n))
        lake.run(spec)
    assert run(lake, spec) == {"bronze/partes": 2}
    assert parts_of(lake, spec) == [(1, "a"), (1, "a"), (1, "b"), (1, "b")]
    checked(lake, spec)


@pytest.mark.slow
def test_a_landed_file_stays_until_each_table_that_reads_it_has_done_so(lake: Lake) -> None:
    retained = replace(SPEC, retention=Retention(event="criado", landing=10 * DAY))
    lake.land("itens", "a", [parted(1, 40, "a")])
    lake.land("itens", "z", [parted(2, 1, "b")])
    lake.run(retained)

    def expired() -> list[int]:
        with lake.session() as session:
            return [one.rows for one in expire(session, lake.storage, retained, now=NOW, beside=[retained, ELEMENTS])]

    assert expired() == [0]
    lake.run(ELEMENTS)
    lake.land("itens", "a", [parted(1, 40, "c")], at=EXTRACTED + 1)  # of the same name and size, with other content
    lake.land("itens", "zz", [parted(3, 1, "d")])  # the newest file stays
    lake.run(retained)
    assert expired() == [0]
    lake.run(ELEMENTS)
    assert expired() == [1] and parts_of(lake) == [(1, "c"), (2, "b"), (3, "d")]
