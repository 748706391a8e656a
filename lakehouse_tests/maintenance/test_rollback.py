"""A rollback is one commit, after which the next run reads again what the version had not."""

from pathlib import Path

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance.rollback import roll_back
from lakehouse.tables.spec import Column, in_range
from lakehouse_tests.conftest import Lake
from lakehouse_tests.maintenance.test_upkeep import SPEC, item, rows_at


def rolled(lake: Lake, version: int, *, ref: TableRef = SPEC.silver, reason: str = "a bad delivery") -> None:
    with lake.session() as session:
        roll_back(session, lake.storage, [SPEC], ref, version=version, reason=reason)


def test_a_rolled_back_table_takes_in_again_what_it_had_not(lake: Lake) -> None:
    for n in range(1, 5):
        lake.land("itens", f"f{n}", [item(n, f"v{n}"), item(100, f"v{n}", day=n), {**item(n), "id": "no number"}])
        lake.run(SPEC)
    uri, before = lake.storage.uri(SPEC.silver), lake.rows(SPEC.silver)
    refused = lake.quarantined(SPEC)
    rolled(lake, 2)
    now = open_existing(uri)
    assert now is not None and now.version == 5 and rows_at(uri, 5) == rows_at(uri, 2)
    made = now.provenance
    assert (made.operation, made.facts["rolled_back_to"], made.reason) == ("rollback", "2", "a bad delivery")
    assert now.watermark("from:bronze/itens") == 2 and made.input_ids
    refresh = lake.refresh(SPEC)
    assert refresh.entry is not None and not refresh.stopped
    assert (refresh.entry.batch_from, refresh.entry.batch_to, refresh.entry.records_in) == (2, 4, 6)
    assert lake.rows(SPEC.silver) == before and lake.quarantined(SPEC) == refused
    lake.land("itens", "f5", [item(5)])
    assert not lake.run(SPEC).stopped, "the ledger adds up"
    rolled(lake, 3)
    rolled(lake, 1)
    assert not lake.refresh(SPEC).stopped
    assert [row["id"] for row in lake.rows(SPEC.silver)] == [1, 2, 3, 4, 5, 100]
    operations = [
        row["operation"] for row in lake.rows(TableRef("ops", "ledger"), "operation", "layer") if row["layer"] == "silver"
    ]
    assert operations.count("rollback") == 3
    assert lake.refresh(SPEC, rebuild=True).findings and [row["id"] for row in lake.rows(SPEC.silver)] == [1, 2, 3, 4, 5, 100]


def test_records_that_left_the_quarantine_would_be_in_no_table(lake: Lake) -> None:
    from dataclasses import replace

    strict = replace(SPEC, columns=(*SPEC.columns, Column("n", "int")), rules=(in_range("n", maximum=5),))
    lake.land("itens", "f1", [{**item(1), "n": 1}, {**item(2), "n": 9}])
    lake.run(strict)
    fixed = replace(strict, rules=(in_range("n", maximum=10),))
    lake.refresh(fixed, mode="redrive")
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1, 2]
    with pytest.raises(RefusedWriteError, match=r"redrive.*make rebuild TABLE=itens"):
        rolled(lake, 1)
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [1, 2]


def test_what_cannot_be_rolled_back(lake: Lake) -> None:
    lake.land("itens", "f1", [item(1)])
    lake.run(SPEC)
    lake.land("itens", "f2", [item(2)])
    lake.run(SPEC)
    for ref in (SPEC.bronze, TableRef("ops", "ledger"), TableRef("silver", "outro")):
        with pytest.raises(DeclarationError, match="cannot be rolled back"):
            rolled(lake, 0, ref=ref)
    with pytest.raises(DeclarationError, match="at version 2"):
        rolled(lake, 2)
    with pytest.raises(DeclarationError, match="REASON"):
        rolled(lake, 1, reason="")
    first = open_existing(lake.storage.uri(SPEC.silver), version=1)
    assert first is not None
    Path(first.uri, first.files[0].path).unlink()
    with pytest.raises(BrokenTableError, match="is missing"):
        rolled(lake, 1)


def test_a_mart_records_what_it_was_made_from(lake: Lake) -> None:
    lake.land("itens", "f1", [item(1)])
    lake.run(SPEC)
    lake.land("itens", "f2", [item(2)])
    lake.run(SPEC)
    mart = TableRef("gold", "itens")
    Path(lake.storage.uri(mart)).parent.mkdir()
    Path(lake.storage.uri(SPEC.silver)).rename(lake.storage.uri(mart))
    first, last = (open_existing(lake.storage.uri(mart), version=version) for version in (1, 2))
    assert first is not None and last is not None
    rolled(lake, 1, ref=mart)
    now = open_existing(lake.storage.uri(mart))
    assert now is not None and now.provenance.inputs == first.provenance.inputs != last.provenance.inputs
