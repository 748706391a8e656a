"""Declared text forms on their way to silver, and what `make doctor` says of a lake from before the grammar of casts."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.doctor import changed_casts
from lakehouse.core.engines.casts import GRAMMAR, VERSION
from lakehouse.core.errors import DeclarationError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance.rollback import roll_back
from lakehouse.settings import Settings
from lakehouse.silver.grammar import affected
from lakehouse.tables.spec import AirbyteStream, Column, Feed, TableSpec
from lakehouse_tests.conftest import Lake


def spec(*columns: Column) -> TableSpec:
    return TableSpec(
        name="itens",
        source=AirbyteStream("itens"),
        columns=(Column("id", "bigint"), *columns),
        key=("id",),
        order=("id",),
        max_loss=1.0,
    )


def silver(lake: Lake, table: TableSpec, *values: Any) -> dict[int, Any]:
    """The last column of silver by id, of records with these values; the ids are 1, 2, ..."""
    lake.land("itens", "a", [{"id": n, "v": value} for n, value in enumerate(values, start=1)])
    refresh = lake.run(table)
    assert refresh.entry is not None and refresh.entry.balanced
    return {row["id"]: row[table.columns[-1].name] for row in lake.rows(table.silver)}


def test_a_rounded_value_is_counted_and_one_that_is_exact_is_not(lake: Lake) -> None:
    column = Column("v", "decimal(12,2)", rounding="half_up")
    lake.land("itens", "a", [{"id": n, "v": v} for n, v in enumerate(("1.005", "2.500", "abc", None, "-0.125"))])
    refresh = lake.run(spec(column))
    found = next(finding for finding in refresh.findings if finding.rule == "castable")
    assert (found.passed, found.failed, dict(found.detail)) == (False, 1, {"v": 1, "rounded_v": 2})
    rows = {row["id"]: row["v"] for row in lake.rows(spec(column).silver)}
    assert rows == {0: Decimal("1.01"), 1: Decimal("2.50"), 3: None, 4: Decimal("-0.13")}


def test_rounding_alone_is_no_failed_check(lake: Lake) -> None:
    lake.land("itens", "a", [{"id": 1, "v": "1.005"}])
    found = next(f for f in lake.run(spec(Column("v", "decimal(12,2)", rounding="half_up"))).findings if f.rule == "castable")
    assert found.passed and found.detail == {"rounded_v": 1}


@pytest.mark.parametrize(("kind", "bad", "good", "value"), [("double", "1,5", "1.5", 1.5), ("boolean", "sim", "true", True)])
def test_a_value_that_cannot_be_costs_its_column_alone_where_that_is_declared(lake: Lake, kind, bad, good, value) -> None:
    column = Column("v", kind, invalid="null")
    lake.land("itens", "a", [{"id": 1, "v": good}, {"id": 2, "v": bad}, {"id": 3, "v": None}, {"id": "x", "v": good}])
    refresh = lake.run(spec(column))
    found = next(finding for finding in refresh.findings if finding.rule == "castable")
    assert dict(found.detail) == {"id": 1, "invalid_v": 1}, "the count of values, beside that of refused records"
    assert {row["id"]: row["v"] for row in lake.rows(spec(column).silver)} == {1: value, 2: None, 3: None}
    assert refresh.entry is not None and refresh.entry.balanced and refresh.entry.quarantined == 1


def test_what_tells_rows_apart_cannot_be_null_for_what_is_no_value() -> None:
    with pytest.raises(DeclarationError, match="invalid"):
        TableSpec(name="t", source=AirbyteStream("t"), columns=(Column("id", "int", invalid="null"),), key=("id",), order=("id",))
    with pytest.raises(DeclarationError, match="invalid is for a type"):
        Column("v", "string", invalid="null")


def test_blanks_around_a_text_are_no_value_where_they_are_trimmed(lake: Lake) -> None:
    column = Column("v", "date", trim=True, nulls=("-",))
    assert silver(lake, spec(column), " 2024-03-10 ", "\u00a0", " - ", " x ") == {1: date(2024, 3, 10), 2: None, 3: None}
    assert [json.loads(row["record"])["v"] for row in lake.quarantined(spec(column))] == [" x "]


def test_a_key_may_have_a_text_form(lake: Lake) -> None:
    table = TableSpec(
        name="itens",
        source=AirbyteStream("itens"),
        columns=(Column("cod", "string", trim=True, case="upper"), Column("dia", "date"), Column("v", "bigint")),
        key=("cod", "dia"),
        order=("v",),
        max_loss=1.0,
    )
    days = ("2024-03-10T23:30:00-03:00", "2024-03-11", "2024-03-11T02:30:00Z")
    lake.land(
        "itens", "a", [{"cod": cod, "dia": day, "v": n} for n, (cod, day) in enumerate(zip(("a ", "A", " a"), days, strict=True))]
    )
    lake.run(table)
    assert [(r["cod"], r["dia"], r["v"]) for r in lake.rows(table.silver)] == [("A", date(2024, 3, 11), 2)]
    assert lake.refresh(table, rebuild=True).transaction is not None
    assert [(r["cod"], r["dia"], r["v"]) for r in lake.rows(table.silver)] == [("A", date(2024, 3, 11), 2)]


def test_the_doctor_counts_what_the_grammar_takes_away_until_the_table_is_computed_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a lake from before the grammar: bronze and silver are there, silver does not say under which grammar."""
    table = spec(
        Column("valor", "decimal(12,2)"), Column("pago", "boolean"), Column("dia", "date"), Column("fone", "int", personal=True)
    )
    rows = [
        {"id": 1, "valor": "1.005", "pago": "N", "dia": "2024-03-10T23:30:00-03:00", "fone": " 5"},
        {"id": 2, "valor": "1.50", "pago": "yes", "dia": "10/03/24", "fone": "1e-30"},
        {"id": 3, "valor": "abc", "pago": "sim", "dia": "x", "fone": "x"},
    ]
    lake.land("itens", "a", rows)
    lake.ingest(table)
    monkeypatch.setattr("lakehouse.silver.refresh.VERSION", 0)
    lake.refresh(table)
    with lake.session() as session:
        found = {one.column: one for one in affected(session, lake.storage, table)}
    assert {name: (one.refused, one.changed) for name, one in found.items()} == {
        "valor": (1, 0), "pago": (2, 0), "dia": (1, 1), "fone": (1, 0),
    }  # fmt: skip
    assert "Add rounding=\"half_up\" to Column('valor'" in found["valor"].message and "'1.005'" in found["valor"].message
    assert "true=('yes',), false=('N',)" in found["pago"].message
    assert found["fone"].samples == ()
    monkeypatch.undo()
    lake.land("itens", "b", [{"id": 4, "valor": "1"}])
    lake.run(table)  # the rows of before stay
    with lake.session() as session:
        assert [one.column for one in affected(session, lake.storage, table)] == ["valor", "pago", "dia", "fone"]
    lake.refresh(table, rebuild=True)
    snapshot = open_existing(lake.storage.uri(table.silver))
    assert snapshot is not None and snapshot.watermark(GRAMMAR) == VERSION
    with lake.session() as session:
        assert list(affected(session, lake.storage, table)) == []


def test_a_feed_that_is_added_is_not_all_of_a_table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Feed(name, AirbyteStream(name)) for name in ("um", "dois"))
    table = replace(spec(Column("v", "decimal(12,2)")), source=None, feeds=(one,))
    for feed in ("um", "dois"):
        lake.land(feed, "a", [{"id": len(feed), "v": "1.005"}])
    monkeypatch.setattr("lakehouse.silver.refresh.VERSION", 0)
    lake.ingest(table.parts[0])
    lake.refresh(table)
    monkeypatch.undo()
    both = replace(table, feeds=(one, two))
    lake.ingest(both.parts[1])
    lake.refresh(both)
    snapshot = open_existing(lake.storage.uri(table.silver))
    assert snapshot is not None and snapshot.watermark(GRAMMAR) == 0


def test_a_rollback_to_before_the_grammar_is_from_before_it_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = replace(spec(Column("v", "decimal(12,2)")), sync="overwrite")
    lake.land("itens", "a", [{"id": 1, "v": "1"}])
    lake.put("itens", "_complete/3", "")
    monkeypatch.setattr("lakehouse.silver.refresh.VERSION", 0)
    version = lake.run(table).version + 1
    monkeypatch.undo()
    lake.land("itens", "b", [{"id": 2, "v": "1"}])
    lake.run(table)
    snapshot = open_existing(lake.storage.uri(table.silver))
    assert snapshot is not None and snapshot.watermark(GRAMMAR) == VERSION and snapshot.version > version
    with lake.session() as session:
        back = roll_back(session, lake.storage, [table], table.silver, version=version, reason="a test")
    assert back.watermark(GRAMMAR) == 0


def test_the_doctor_names_a_damaged_table_and_compares_the_others(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The damage leaves the size as it is, so only the engine finds it."""
    monkeypatch.setattr("lakehouse.silver.refresh.VERSION", 0)
    damaged = spec(Column("v", "decimal(12,2)"))
    whole = replace(damaged, name="outros", silver_name="outros", source=AirbyteStream("outros"))
    for table in (damaged, whole):
        lake.land(table.name, "a", [{"id": 1, "v": "1.005"}])
        lake.run(table)
    file = next(Path(lake.storage.uri(damaged.bronze)).rglob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\xff" * (len(content) - 12) + content[-8:])
    monkeypatch.setattr("lakehouse.tables.ALL", (damaged, whole))
    settings = Settings(root=lake.storage.root, landing_dir=lake.storage.landing)
    found = list(changed_casts(settings))
    assert [finding.state for finding in found] == ["WRONG", "note"]
    assert found[0].message.startswith(f"silver/itens: A data file of {lake.storage.uri(damaged.bronze)} is damaged: ")
    assert "Put it back from a backup. Without one, see docs/operations.md" in found[0].message
    assert found[1].message.startswith("silver/outros v: 1 values are refused")


REFUSED = {
    "rounding of an integer": {"type": "bigint", "rounding": "half_up"},
    "rounding of another kind": {"type": "decimal(12,2)", "rounding": "floor"},
    "true of a string": {"type": "string", "true": ("S",)},
    "a text that is both": {"type": "boolean", "true": ("S",), "false": ("S",)},
    "an empty text": {"type": "boolean", "false": ("",)},
    "case of a number": {"type": "bigint", "case": "upper"},
    "another case": {"type": "string", "case": "title"},
    "decimal mark of a text": {"type": "string", "decimal": ","},
    "another decimal mark": {"type": "decimal(12,2)", "decimal": ";"},
    "form of a number": {"type": "bigint", "form": "epoch_s"},
    "format of a number": {"type": "bigint", "format": "%d/%m/%Y"},
    "form and format": {"type": "timestamp", "form": "epoch_s", "format": "%d/%m/%Y"},
    "two-digit years": {"type": "date", "format": "%d/%m/%y"},
    "a part twice": {"type": "date", "format": "%d/%d/%m/%Y"},
    "minutes without hours": {"type": "timestamp", "format": "%d/%m/%Y %M"},
    "no day": {"type": "date", "format": "%m/%Y"},
    "a percent sign alone": {"type": "date", "format": "%d/%m/%Y%"},
    "timezone of a text": {"type": "string", "timezone": "America/Sao_Paulo"},
    "timezone that is none": {"type": "timestamp", "timezone": "America/Nowhere"},
    "timezone of two meanings": {"type": "timestamp", "timezone": "EST"},
    "timezone of a complete instant": {"type": "timestamp", "form": "epoch_s", "timezone": "America/Sao_Paulo"},
    "a calculated column": {"type": "date", "expression": "id", "trim": True},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_form_that_does_not_fit_is_refused_when_it_is_declared(case: str) -> None:
    with pytest.raises(DeclarationError, match=r"Column 'v'.*\. [A-Z]"):
        Column("v", **REFUSED[case])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_", "named"),
    [
        ("%d/%b/%Y", "%b, names of months, is not supported"),
        ("%d %B %Y", "%B, names of months, is not supported"),
        ("%d/%m/%Y %I:%M %p", "%I, hours up to 12, is not supported, %p, AM and PM, is not supported"),
        ("%d/%m/%y", "%y, years of two digits, is not supported"),
    ],
)
def test_a_part_of_a_format_that_no_engine_is_asked_to_read_is_named(format_: str, named: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        Column("v", "timestamp", format=format_)
    assert named in str(refusal.value)


def test_a_column_without_forms_is_shown_as_before_they_were() -> None:
    """Code versions are made of it: a new one would show every table as changed."""
    assert repr(Column("a", "bigint")) == (
        "Column(name='a', type='bigint', source=None, expression=None, description='', default=None, personal=False, "
        "nulls=(), form='', observed='')"
    )
    assert repr(Column("a", "date", trim=True)).endswith("observed='', trim=True)")
