"""Redrive and release: records leave the quarantine when they have arrived, a stopped batch passes by a person's word."""

import json
from collections.abc import Callable
from dataclasses import replace

import narwhals as nw
import pytest

from lakehouse.bronze.ingest import redrive_files
from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.ledger import LEDGER_TABLE
from lakehouse.core.rules import Finding, Release
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver.refresh import Refresh, stage_refresh
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, expression, in_range, min_rows, not_null
from lakehouse_tests.conftest import Filled, Lake, Row, few

STRICT = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("valor", "bigint"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    deleted="nome = 'apagado'",
    rules=(in_range("valor", maximum=10), not_null("nome")),
    max_loss=1.0,
)
FIXED = replace(STRICT, rules=(in_range("valor", maximum=100), not_null("nome")))
FAILING = replace(STRICT, rules=(in_range("valor", maximum=10, action="fail"), not_null("nome")))
BECAUSE = Release("asked by the shop, ticket 7")


def item(number: int, day: int = 1, **fields: object) -> Row:
    return {"id": number, "nome": "a", "valor": 1, "em": f"2026-01-{day:02d}T00:00:00Z", **fields}


def finding(refresh: Refresh, rule: str) -> Finding:
    (found,) = [f for f in refresh.findings if f.rule == rule]
    return found


def waiting_rows(lake: Lake, spec: TableSpec = STRICT) -> list[tuple[str, str]]:
    return sorted((json.loads(row["record"])["id"], row["rules"]) for row in lake.quarantined(spec) if row["record"])


def same_as_rebuilt(lake: Lake, spec: TableSpec) -> None:
    """Silver and quarantine are what a rebuild makes of bronze."""
    table, waiting = lake.rows(spec.silver), waiting_rows(lake, spec)
    lake.refresh(spec, rebuild=True)
    assert (lake.rows(spec.silver), waiting_rows(lake, spec)) == (table, waiting)


def two_batches(lake: Lake) -> None:
    """2, 3 and the old 5 are held back; 4 and a newer 5 came later, and 3 was deleted since."""
    lake.land("itens", "a", [item(1), item(2, valor=50), item(3, valor=60), item(6, valor=500), item(7, nome=None)])
    lake.run(STRICT)
    lake.land("itens", "b", [item(4), item(5, 1, valor=70), item(5, 2), item(3, 2, nome="apagado")])
    lake.run(STRICT)


@pytest.fixture
def full(lake: Lake, fill_once: Filled) -> Lake:
    return fill_once(lake, two_batches)


def test_a_fixed_rule_takes_in_what_it_let_lie(full: Lake) -> None:
    assert waiting_rows(full) == [
        ("2", "range_valor"),
        ("3", "range_valor"),
        ("5", "range_valor"),
        ("6", "range_valor"),
        ("7", "not_null_nome"),
    ]
    before = open_existing(full.storage.uri(STRICT.silver))
    refresh = full.refresh(FIXED, mode="redrive")
    assert refresh.entry is not None and refresh.entry.balanced
    # 2 is new; 3 and 5 are older than what is known of their keys.
    assert (refresh.entry.records_in, refresh.entry.written, refresh.entry.deduplicated, refresh.entry.quarantined) == (
        5,
        1,
        2,
        2,
    )
    assert [row["id"] for row in full.rows(STRICT.silver, "id")] == [1, 2, 4, 5]
    assert [row["valor"] for row in full.rows(STRICT.silver, "id", "valor")] == [1, 50, 1, 1]
    assert waiting_rows(full) == [("6", "range_valor"), ("7", "not_null_nome")]
    assert before is not None and refresh.version == before.version
    assert full.refresh(FIXED).transaction is None
    same_as_rebuilt(full, FIXED)


def test_the_ledger_balances_after_a_redrive_and_later_batches_add_up(full: Lake) -> None:
    full.refresh(FIXED, mode="redrive")
    full.land("itens", "c", [item(8)])
    refresh = full.run(FIXED)
    assert finding(refresh, "complete").passed and not refresh.stopped
    rows = full.rows(LEDGER_TABLE, "layer", "operation", "records_in", "written", "deduplicated", "deleted", "quarantined")
    assert [row["records_in"] for row in rows if row["operation"] == "redrive"] == [5]
    assert all(row["records_in"] == sum(row[n] for n in ("written", "deduplicated", "deleted", "quarantined")) for row in rows)


def test_nothing_fixed_changes_nothing_but_the_count(full: Lake) -> None:
    table, waiting = full.rows(STRICT.silver), waiting_rows(full)
    refresh = full.refresh(STRICT, mode="redrive")
    assert refresh.transaction is None and finding(refresh, "range_valor").failed == 4
    assert (full.rows(STRICT.silver), waiting_rows(full)) == (table, waiting)
    lake = full
    lake.refresh(replace(STRICT, rules=()), mode="redrive")
    assert lake.refresh(replace(STRICT, rules=()), mode="redrive").transaction is None


def test_a_redrive_leaves_what_no_silver_run_has_read(full: Lake) -> None:
    full.land("itens", "c", [item(9), item(10, valor=80)])
    full.ingest(STRICT)
    full.refresh(FIXED, mode="redrive")
    assert [row["id"] for row in full.rows(STRICT.silver, "id")] == [1, 2, 4, 5]
    refresh = full.refresh(FIXED)
    assert finding(refresh, "complete").passed
    assert [row["id"] for row in full.rows(STRICT.silver, "id")] == [1, 2, 4, 5, 9, 10]
    same_as_rebuilt(full, FIXED)


@pytest.mark.parametrize("mode", ["redrive", "rebuild"])
@pytest.mark.parametrize("then", few(["redrive", "increment", "strict"], "strict"))
def test_a_run_that_dies_before_its_commit_has_moved_nothing(full: Lake, mode: str, then: str) -> None:
    table, waiting = full.rows(STRICT.silver), waiting_rows(full)
    tighter = replace(FIXED, rules=(in_range("valor", maximum=100), expression("not_four", "id <> 4")))
    with full.session() as session:
        stage_refresh(session, full.storage, tighter, run_id="dies", mode=mode)  # type: ignore[arg-type]
    assert full.rows(STRICT.silver) == table
    if then == "redrive":
        full.refresh(FIXED, mode="redrive")
        assert [row["id"] for row in full.rows(STRICT.silver, "id")] == [1, 2, 4, 5]
        same_as_rebuilt(full, FIXED)
        return
    if then == "increment":
        full.land("itens", "c", [item(11)])
    full.run(STRICT)
    assert waiting_rows(full) == waiting
    if then == "strict":
        assert full.rows(STRICT.silver) == table
    same_as_rebuilt(full, STRICT)


@pytest.mark.parametrize("mode", ["redrive", "rebuild"])
def test_a_run_that_dies_after_its_commit_is_finished_by_the_next(full: Lake, mode: str) -> None:
    with full.session() as session:
        refresh = stage_refresh(session, full.storage, FIXED, run_id="dies", mode=mode)  # type: ignore[arg-type]
        assert refresh.transaction is not None
        commit_staged(refresh.transaction)
    full.refresh(FIXED)
    assert waiting_rows(full) == [("6", "range_valor"), ("7", "not_null_nome")]
    same_as_rebuilt(full, FIXED)


def test_two_redrives_at_once_leave_one_result(full: Lake) -> None:
    with full.session() as one, full.session() as other:
        first = stage_refresh(one, full.storage, FIXED, run_id="1", mode="redrive")
        second = stage_refresh(other, full.storage, FIXED, run_id="2", mode="redrive")
        assert first.transaction is not None and second.transaction is not None
        commit_staged(second.transaction)
        with pytest.raises(Exception, match=r"committed first|conflict|version"):
            commit_staged(first.transaction)
    full.refresh(FIXED)
    same_as_rebuilt(full, FIXED)


def test_a_record_that_bronze_has_lost_is_named(full: Lake) -> None:
    table = open_existing(full.storage.uri(STRICT.bronze))
    assert table is not None
    with full.session() as session:
        rows = session.read(table.paths(), table.columns).filter(nw.col("id") != "2")
        add = session.write(rows, table.uri, columns=table.columns)
    commit_staged(Transaction(table=table, add=add, remove=table.files))
    with pytest.raises(BrokenTableError, match=r"no longer in bronze/itens.*make rebuild TABLE=itens"):
        full.refresh(FIXED, mode="redrive")


# --- release ----------------------------------------------------------------------------------------------------------


def a_stopped_batch(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    lake.run(FAILING)
    lake.land("itens", "b", [item(2, valor=50), item(3), item(4, valor=99)])
    assert lake.run(FAILING).stopped


@pytest.fixture
def stuck(lake: Lake, fill_once: Filled) -> Lake:
    return fill_once(lake, a_stopped_batch)


def test_a_stopped_batch_states_what_to_type_and_shows_some_of_it(stuck: Lake) -> None:
    found = finding(stuck.refresh(FAILING), "range_valor")
    assert (found.failed, found.validated) == (2, 3)
    assert "make release TABLE=itens REASON=" in found.detail["what_to_do"]
    assert len(found.detail["examples"]) == 2 and all("raw/itens/b.jsonl" in one for one in found.detail["examples"])
    assert [row["id"] for row in stuck.rows(STRICT.silver, "id")] == [1] and waiting_rows(stuck) == []


def test_released_to_quarantine(stuck: Lake) -> None:
    refresh = stuck.refresh(FAILING, release=BECAUSE)
    assert refresh.transaction is not None
    assert refresh.transaction.provenance.operation == "release"
    assert (refresh.transaction.provenance.released, refresh.transaction.provenance.reason) == (("range_valor",), BECAUSE.reason)
    assert finding(refresh, "range_valor").action == "quarantine" and not finding(refresh, "range_valor").passed
    assert [row["id"] for row in stuck.rows(STRICT.silver, "id")] == [1, 3]
    assert waiting_rows(stuck) == [("2", "range_valor"), ("4", "range_valor")]
    stuck.land("itens", "c", [item(5, valor=77)])
    assert stuck.run(FAILING).stopped, "the release was for one batch"


def test_released_as_it_is(stuck: Lake) -> None:
    refresh = stuck.refresh(FAILING, release=Release(BECAUSE.reason, accept=True))
    found = finding(refresh, "range_valor")
    assert (found.passed, found.action, found.failed) == (False, "warn", 2)
    assert [row["id"] for row in stuck.rows(STRICT.silver, "id")] == [1, 2, 3, 4] and waiting_rows(stuck) == []
    assert stuck.refresh(FAILING, rebuild=True).stopped
    again = stuck.refresh(FAILING, rebuild=True, release=Release(BECAUSE.reason, accept=True))
    assert again.transaction is not None and len(stuck.rows(STRICT.silver)) == 4


def test_what_stops_a_batch_may_be_an_outdated_record_of_it(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, 1, valor=50), item(1, 2)])
    assert lake.run(FAILING).stopped
    refresh = lake.refresh(FAILING, release=Release(BECAUSE.reason, accept=True))
    found = finding(refresh, "range_valor")
    assert (found.passed, found.action, found.failed, found.validated) == (False, "warn", 1, 2)
    assert [row["valor"] for row in lake.rows(STRICT.silver, "id", "valor")] == [1] and waiting_rows(lake) == []


def test_a_rule_of_the_table_yields_to_accept_alone(lake: Lake) -> None:
    spec = replace(STRICT, rules=(min_rows(5),))
    lake.land("itens", "a", [item(1)])
    assert lake.run(spec).stopped and lake.refresh(spec, release=BECAUSE).stopped
    assert "ACTION=accept" in finding(lake.refresh(spec), "min_rows_5").detail["what_to_do"]
    assert lake.refresh(spec, release=Release("small shop", accept=True)).transaction is not None


def test_a_key_is_never_null_whatever_is_released(lake: Lake) -> None:
    spec = replace(STRICT, rules=(not_null("id", action="fail"),))
    lake.land("itens", "a", [item(1), {**item(2), "id": None}])
    assert lake.run(spec).stopped
    assert lake.refresh(spec, release=Release("let it in", accept=True)).transaction is not None
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1] and len(lake.quarantined(spec)) == 1


def test_there_must_be_something_to_release_and_a_reason(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    lake.ingest(STRICT)
    with pytest.raises(RefusedWriteError, match="No rule stops silver/itens"):
        lake.refresh(STRICT, release=BECAUSE)
    assert lake.stray_files() == []
    for reason in ("", "  ", "a\nb", "x" * 501):
        with pytest.raises(DeclarationError, match="REASON="):
            Release(reason)


# --- files -----------------------------------------------------------------------------------------------------------


def redrive(lake: Lake, spec: TableSpec) -> list[str]:
    with lake.session() as session:
        return redrive_files(session, lake.storage, spec, run_id="redrive")


def test_a_file_that_drifted_is_read_again_under_another_policy(lake: Lake) -> None:
    spec = replace(STRICT, drift="quarantine")
    lake.land("itens", "a", [item(1)])
    lake.land("itens", "b", [item(2, novo="x"), item(3)])
    lake.run(spec)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1]
    assert redrive(lake, STRICT) == ["raw/itens/b.jsonl"]
    assert lake.quarantined(spec) == []
    lake.run(STRICT)
    lake.run(STRICT)
    assert [row["id"] for row in lake.rows(spec.silver, "id")] == [1, 2, 3]
    assert [row["id"] for row in lake.rows(spec.bronze, "id")] == ["1", "2", "3"]
    assert redrive(lake, STRICT) == []


@pytest.mark.slow
def test_a_file_that_is_still_bad_is_back_in_quarantine(lake: Lake) -> None:
    lake.land("itens", "a", [item(1)])
    lake.put("itens", "b.jsonl.gz", b"no gzip")
    for _ in range(3):
        lake.run(STRICT)
        assert len(lake.quarantined(STRICT)) == 1
        assert redrive(lake, STRICT) == ["raw/itens/b.jsonl.gz"]
    assert [row["id"] for row in lake.rows(STRICT.bronze, "id")] == ["1"]


@pytest.mark.parametrize("where", ["mark_leaving", "give_back_files"])
@pytest.mark.parametrize("again", few([True, False], True))
def test_a_redrive_of_files_that_dies_loses_and_doubles_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, where: str, again: bool
) -> None:
    from lakehouse.core import ledger, quarantine

    spec = replace(STRICT, drift="quarantine")
    lake.land("itens", "a", [item(1)])
    lake.land("itens", "b", [item(2, novo="x")])
    lake.run(spec)
    owner = quarantine if where == "mark_leaving" else ledger
    real: Callable[..., None] = getattr(owner, where)

    def dies(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, where, dies)
        redrive(lake, STRICT)
    if again:
        redrive(lake, STRICT)
    lake.run(STRICT)
    lake.run(STRICT)
    expected = ["1"] if where == "mark_leaving" and not again else ["1", "2"]
    assert [row["id"] for row in lake.rows(STRICT.bronze, "id")] == expected
    assert len(lake.quarantined(STRICT)) == 2 - len(expected)


# --- drift -----------------------------------------------------------------------------------------------------------


def test_freeze_stops_the_batch_until_it_is_declared_or_released(lake: Lake, make_lake: Callable[[], Lake]) -> None:
    spec = replace(STRICT, drift="freeze")
    for each in (lake, one := make_lake(), two := make_lake()):
        each.land("itens", "a", [item(1)])
        each.run(spec)
        each.land("itens", "b", [item(2, novo="x")])
        each.land("itens", "c", [item(3)])
        batch = each.ingest(spec)
        assert batch.stopped and batch.transaction is None and each.stray_files() == []
        (found,) = batch.findings
        assert (found.rule, found.action, found.failed) == ("schema_drift", "fail", 1)
        assert "make release TABLE=itens REASON=" in found.detail["what_to_do"] and "novo" in found.detail["files"][0]
        assert [row["id"] for row in each.rows(spec.bronze, "id")] == ["1"] and each.quarantined(spec) == []
    lake.ingest(replace(spec, columns=(*spec.columns, Column("novo", "string"))))
    assert [row["id"] for row in lake.rows(spec.bronze, "id")] == ["1", "2", "3"]
    one.ingest(spec, release=BECAUSE)
    assert [row["id"] for row in one.rows(spec.bronze, "id")] == ["1", "3"] and len(one.quarantined(spec)) == 1
    two.ingest(spec, release=Release(BECAUSE.reason, accept=True))
    assert [(row["id"], row["novo"]) for row in two.rows(spec.bronze, "id", "novo")] == [("1", None), ("2", "x"), ("3", None)]


def test_what_changed_is_reported(lake: Lake) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parquet(name: str, **columns: pa.Array) -> None:
        path = lake.folder / "landing" / "raw" / "itens" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": pa.array([len(name)]), **columns}), path)

    day = pa.array(["2026-01-01T00:00:00Z"])

    def drift(name: str, **columns: pa.Array) -> Finding:
        parquet(name, **columns)
        batch = lake.ingest(STRICT)
        (found,) = [f for f in batch.findings if f.rule == "schema_drift"]
        return found

    assert drift("a", nome=pa.array(["x"]), valor=pa.array([1]), em=day).passed
    assert drift("bb", nome=pa.array(["x"]), valor=pa.array([1.5]), em=day).detail["types"] == {
        "valor": "widened from int64 to double"
    }
    narrowed = drift("ccc", nome=pa.array(["x"]), valor=pa.array([1], pa.int32()), em=day)
    assert narrowed.detail["types"] == {"valor": "narrowed from double to int32"} and not narrowed.passed
    renamed = drift("dddd", titulo=pa.array(["x"]), valor=pa.array([1], pa.int32()), em=day)
    assert renamed.detail["perhaps_renamed"] == ["nome", "titulo"] and not renamed.passed
    assert drift("eeeee", nome=pa.array(["x"]), valor=pa.array([1], pa.int32()), em=day).passed
