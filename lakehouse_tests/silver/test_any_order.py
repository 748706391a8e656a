"""Silver is a function of the set of records: any order of arrival, any split into runs, and a rebuild give one table."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range, min_rows, not_null, unique

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("loja", "string"),
        Column("id", "bigint"),
        Column("valor", "decimal(12,2)", source="Valor Total"),
        Column("quantidade", "bigint"),
        Column("status", "string"),
        Column("updated_at", "timestamp"),
        Column("total", "decimal(14,2)", expression="valor * quantidade"),
    ),
    key=("loja", "id"),
    order=("updated_at",),
    deleted="status = 'deleted'",
    rules=(not_null("quantidade"), in_range("quantidade", maximum=90), unique("loja", "id"), min_rows(1)),
)
START = datetime(2026, 1, 1, tzinfo=UTC)


def records(seed, *, count):
    """Few keys and few instants, so that versions, ties, deletes, late old versions and re-creations abound."""
    draw = random.Random(seed)
    out = []
    for _ in range(count):
        moment = START + timedelta(minutes=draw.randrange(4))
        out.append(
            {
                "loja": draw.choice("ab"),
                "id": draw.randrange(12),
                "Valor Total": draw.choice(["1.10", "2.20", None]),
                "quantidade": draw.choice([1, 2, 100, None]),
                "status": draw.choice(["paid", "paid", "deleted"]),
                "updated_at": None if draw.random() < 0.05 else moment.isoformat(),
                "_at": 1_767_225_600_000 + draw.randrange(3) * 1000,
            }
        )
    return out


def one_by_one(lake, parts):
    for number, part in enumerate(parts):
        lake.land("itens", f"part_{number}", part)
        lake.run(SPEC)
    return lake


@pytest.mark.parametrize("seed", range(1))
def test_random_orders_and_a_rebuild_give_the_same_table(make_lake, seed):
    parts = [records(f"{seed}-{n}", count=25) for n in range(6)]
    whole = make_lake()
    for number, part in enumerate(parts):
        whole.land("itens", f"part_{number}", part)
    whole.run(SPEC)
    wanted = whole.rows(SPEC.silver)
    assert wanted
    for order in range(3):
        shuffled = random.Random(f"{seed}-{order}").sample(parts, len(parts))
        lake = one_by_one(make_lake(), shuffled)
        assert lake.rows(SPEC.silver) == wanted
        assert all(row["records_in"] == row["written"] + row["deduplicated"] + row["deleted"] + row["quarantined"]
                   for row in lake.ledger())  # fmt: skip
        bad = sorted(row["record"] for row in lake.quarantined(SPEC))
        assert bad == sorted(row["record"] for row in whole.quarantined(SPEC))
        lake.refresh(SPEC, rebuild=True)
        assert lake.rows(SPEC.silver) == wanted


def row(number, *, minute, status="paid", quantity=1, value="1.00"):
    moment = (START + timedelta(minutes=minute)).isoformat()
    return {"loja": "a", "id": number, "Valor Total": value, "quantidade": quantity, "status": status, "updated_at": moment}


def test_a_late_old_version_does_not_bring_a_deleted_row_back(lake):
    one_by_one(lake, [[row(1, minute=1), row(2, minute=1)], [row(1, minute=5, status="deleted")], [row(1, minute=3)]])
    assert [r["id"] for r in lake.rows(SPEC.silver)] == [2]
    one_by_one(lake, [[row(2, minute=1)]])


def test_a_table_that_became_empty_still_knows_its_deletes(lake):
    spec = replace(SPEC, rules=(), max_loss=1.0)
    for number, part in enumerate([[row(1, minute=1)], [row(1, minute=5, status="deleted")], [row(1, minute=3)]]):
        lake.land("itens", f"part_{number}", part)
        lake.run(spec)
    assert lake.rows(spec.silver) == []


def test_a_newer_version_re_creates_a_deleted_row(lake):
    one_by_one(lake, [[row(1, minute=1)], [row(1, minute=2, status="deleted"), row(2, minute=0)], [row(1, minute=3, quantity=2)]])
    assert [(r["id"], r["quantidade"]) for r in lake.rows(SPEC.silver)] == [(1, 2), (2, 1)]


def test_a_delete_needs_only_its_key_and_order(lake):
    gone = {"loja": "a", "id": 1, "status": "deleted", "updated_at": (START + timedelta(minutes=9)).isoformat()}
    one_by_one(lake, [[row(1, minute=1), row(2, minute=1)], [gone]])
    assert [r["id"] for r in lake.rows(SPEC.silver)] == [2]
    assert lake.quarantined(SPEC) == []


def test_only_files_that_hold_a_changed_key_are_rewritten(lake):
    spec = replace(SPEC, key=("id",), file_mb=1, rules=(unique("id"),))
    for start in range(0, 400, 100):  # new keys only: each run leaves the files before it alone
        lake.land("itens", f"first_{start}", [row(n, minute=1) for n in range(start, start + 100)])
        lake.run(spec)
    from lakehouse.core.delta import open_existing

    before = {f.path: (f.lower["id"], f.upper["id"]) for f in open_existing(lake.storage.uri(spec.silver)).files}
    assert len(before) == 4
    lake.land("itens", "second", [row(150, minute=2, quantity=5)])
    lake.run(spec)
    after = {f.path for f in open_existing(lake.storage.uri(spec.silver)).files}
    untouched = {path for path, (low, high) in before.items() if not low <= 150 <= high}
    assert len(untouched) == 3 and untouched <= after
    assert len(set(before) - after) == 1


def test_a_rule_that_fails_commits_nothing_and_leaves_no_file(lake):
    one_by_one(lake, [[row(1, minute=1)]])
    strict = replace(SPEC, rules=(in_range("quantidade", maximum=90, action="fail"),))
    lake.land("itens", "bad", [row(2, minute=2), row(3, minute=2, quantity=99)])
    lake.ingest(strict)
    before = lake.versions()
    refresh = lake.refresh(strict)
    assert refresh.stopped and refresh.candidate is None
    assert [f.rule for f in refresh.findings if f.stops] == ["range_quantidade"]
    assert {k: v for k, v in lake.versions().items() if not k.startswith("ops")} == {
        k: v for k, v in before.items() if not k.startswith("ops")
    }
    assert lake.stray_files() == []
    assert lake.refresh(SPEC).entry.quarantined == 1  # under the milder rule the good record goes on
    assert [r["id"] for r in lake.rows(SPEC.silver)] == [1, 2]


def test_what_does_not_cast_is_set_aside_with_its_text(lake):
    rows = [
        row(1, minute=1),
        row(2, minute=1, quantity="6.7"),
        row(3, minute=1, value="abc"),
        row(4, minute=1, value="99999999999"),
    ]
    one_by_one(lake, [rows])
    assert [r["id"] for r in lake.rows(SPEC.silver)] == [1]
    reasons = sorted(r["rules"] for r in lake.quarantined(SPEC))
    assert reasons == ["castable_quantidade, not_null_quantidade", "castable_valor", "castable_valor"]
    assert any('"6.7"' in r["record"] for r in lake.quarantined(SPEC))


def test_a_second_run_advances_no_version(lake):
    one_by_one(lake, [[row(1, minute=1), row(2, minute=1, quantity=None)]])
    before = lake.versions()
    assert lake.run(SPEC).candidate is None
    assert lake.versions() == before


def test_losing_more_rows_than_declared_is_refused(lake):
    from lakehouse.core.errors import RefusedWriteError

    one_by_one(lake, [[row(n, minute=1) for n in range(10)]])
    lake.land("itens", "purge", [row(n, minute=2, status="deleted") for n in range(8)])
    lake.ingest(SPEC)
    with pytest.raises(RefusedWriteError, match="make rebuild TABLE="):
        lake.refresh(SPEC)
    assert len(lake.rows(SPEC.silver)) == 10
    assert lake.stray_files() == []
