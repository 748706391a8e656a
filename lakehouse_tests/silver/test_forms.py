"""A declaration that makes other values of the same records is noticed: the table stops, or is computed again, never mixed."""

import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import commit_staged
from lakehouse.maintenance import optimise
from lakehouse.maintenance.rollback import roll_back
from lakehouse.silver import forms
from lakehouse.tables.spec import AirbyteStream, Column, Feed, Health, TableSpec, in_range
from lakehouse_tests.conftest import Lake, few

ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]
SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("n", "bigint"),
        Column("c", "bigint", expression="n + 1"),
        Column("em", "date", source="dia"),
        Column("v", "decimal(6,2)"),
        Column("pago", "boolean"),
        Column("nome", "string"),
    ),
    key=("id",),
    order=("n",),
    max_loss=1.0,
)


def declared(name: str, **given: Any) -> TableSpec:
    """The table with other words for one of its columns."""
    return replace(SPEC, columns=tuple(replace(c, **given) if c.name == name else c for c in SPEC.columns))


#: What is declared otherwise, and what the message calls it.
CHANGED = {
    "expression": (declared("c", expression="n + 100"), "column c"),
    "a text in an expression": (declared("c", expression="CASE WHEN nome = 'a  b' THEN n ELSE n + 1 END"), "column c"),
    "deleted": (replace(SPEC, deleted="n > 1"), "deleted"),
    "source": (declared("em", source="data"), "column em"),
    "format": (declared("em", format="%d/%m/%Y"), "column em"),
    "timezone": (declared("em", timezone="America/Sao_Paulo"), "column em"),
    "form": (declared("em", form="epoch_s"), "column em"),
    "decimal": (declared("v", decimal=","), "column v"),
    "rounding": (declared("v", rounding="half_up"), "column v"),
    "true": (declared("pago", true=("S",)), "column pago"),
    "false": (declared("pago", false=("N",)), "column pago"),
    "trim": (declared("nome", trim=True), "column nome"),
    "case": (declared("nome", case="upper"), "column nome"),
    "nulls": (declared("nome", nulls=("-",)), "column nome"),
    "default": (declared("nome", default=""), "column nome"),
    "sync": (replace(SPEC, sync="overwrite"), "sync"),
    "two at once": (replace(declared("nome", trim=True), deleted="n > 1"), "column nome, deleted"),
}
SAME = {
    "description": declared("nome", description="of the item"),
    "personal": declared("nome", personal=True),
    "an expression in other lines": declared("c", expression="n+1 -- as ever"),
    "a source that is the name": declared("nome", source="nome"),
    "the zone that is the default": declared("em", timezone="UTC"),
    "a rule": replace(SPEC, rules=(in_range("v", minimum=0),)),
    "what happens then": replace(SPEC, on_change="rebuild"),
    "the files": replace(SPEC, file_mb=32, description="Items."),
}


def item(number: int, n: int = 1, **given: Any) -> dict[str, Any]:
    return {"id": number, "n": n, "dia": "2026-01-01", "v": "1.00", "pago": "true", "nome": "a", **given}


def values(lake: Lake, name: str = "c") -> dict[int, Any]:
    return {row["id"]: row[name] for row in lake.rows(SPEC.silver)}


@pytest.mark.parametrize("kind", few(CHANGED, "expression", "deleted", "format", "decimal", "sync", "two at once"))
def test_a_changed_declaration_stops_the_table_with_the_one_command(lake: Lake, kind: str) -> None:
    other, named = CHANGED[kind]
    lake.land("itens", "a", [item(1), item(2, 2)])
    lake.run(SPEC)
    before = lake.versions()
    message = rf"^silver/itens was computed under another declaration; changed since: {named}\. Run make rebuild TABLE=itens to"
    for mode in ("increment", "redrive"):
        with pytest.raises(BrokenTableError, match=message):
            lake.refresh(other, mode=mode)  # type: ignore[arg-type]
    assert lake.versions() == before
    assert lake.refresh(SPEC).transaction is None  # taken back, it goes on


@pytest.mark.parametrize("kind", few(SAME, "a source that is the name", "a rule", "the files"))
def test_what_changes_no_value_stops_nothing_and_commits_nothing(lake: Lake, kind: str) -> None:
    lake.land("itens", "a", [item(1)])
    lake.run(SPEC)
    refresh = lake.refresh(SAME[kind])
    assert refresh.transaction is None and refresh.notes == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rebuild_takes_the_new_declaration_and_the_table_goes_on_under_it(tmp_path: Path, engine: str) -> None:
    lake, other = Lake(tmp_path, engine=engine), replace(declared("c", expression="n * 10"), deleted="nome = 'x'")
    lake.land("itens", "a", [item(1), item(2, 2), item(3, nome="x")])
    lake.run(SPEC)
    assert values(lake) == {1: 2, 2: 3, 3: 2}
    lake.land("itens", "b", [item(4, 4)])
    lake.ingest(SPEC)
    with pytest.raises(BrokenTableError, match="column c, deleted"):
        lake.refresh(other)
    assert lake.refresh(other, rebuild=True).notes == ()
    assert values(lake) == {1: 10, 2: 20, 4: 40}
    lake.land("itens", "c", [item(1, 5)])
    lake.run(other)
    assert values(lake) == {1: 50, 2: 20, 4: 40}
    with pytest.raises(BrokenTableError, match="column c, deleted"):
        lake.refresh(SPEC)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("new", few([False, True], True), ids=["nothing new", "a new batch"])
def test_a_table_may_recompute_by_itself_and_reports_it(tmp_path: Path, engine: str, new: bool) -> None:
    lake, whole = Lake(tmp_path / "lake", engine=engine), Lake(tmp_path / "whole")
    other = replace(declared("c", expression="n + 100"), deleted="n > 5", on_change="rebuild")
    for each in (lake, whole):
        each.land("itens", "a", [item(1), item(2, 6), item(3, v="x")])
    lake.run(replace(SPEC, on_change="rebuild"))
    if new:
        for each in (lake, whole):
            each.land("itens", "b", [item(4, 2), item(2, 4)])
        lake.ingest(SPEC)
    refresh = lake.refresh(other)
    whole.run(other)
    assert refresh.notes == (
        "silver/itens was computed under another declaration; changed since: column c, deleted. "
        "All of it is computed again from bronze.",
    )
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "evolve"
    assert lake.rows(SPEC.silver) == whole.rows(SPEC.silver) and values(lake)[1] == 101
    assert [r["record"] for r in lake.quarantined(SPEC)] == [r["record"] for r in whole.quarantined(SPEC)]
    assert lake.refresh(other).transaction is None


def test_a_key_that_changed_is_recomputed_too_where_the_table_may(lake: Lake) -> None:
    lake.land("itens", "a", [item(1), item(2, nome="b")])
    lake.run(SPEC)
    refresh = lake.refresh(replace(SPEC, key=("nome",), on_change="rebuild"))
    assert "cannot become those that its spec declares" in refresh.notes[0]
    assert sorted(values(lake, "nome").values()) == ["a", "b"]


def test_recomputed_by_itself_a_table_loses_no_more_than_it_may(lake: Lake) -> None:
    careful = replace(SPEC, max_loss=0.2, on_change="rebuild")
    lake.land("itens", "a", [item(1), item(2, 2)])
    lake.run(careful)
    with pytest.raises(RefusedWriteError, match="1 of 2 rows"):
        lake.refresh(replace(careful, deleted="n = 2"))
    assert len(values(lake)) == 2


def test_an_order_with_the_same_columns_is_another_one(lake: Lake) -> None:
    """The tombstones have the same columns, so these do not show it."""
    lake.land("itens", "a", [item(1)])
    lake.run(replace(SPEC, order=("n", "em")))
    with pytest.raises(BrokenTableError, match=r"make rebuild TABLE=itens"):
        lake.refresh(replace(SPEC, order=("em", "n")))
    lake.refresh(replace(SPEC, order=("n", "id")), rebuild=True)
    with pytest.raises(BrokenTableError, match=r"changed since: order\."):
        lake.refresh(SPEC)


def test_a_column_that_was_only_added_is_computed_for_the_rows_that_are_there(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, novo="7"), item(2)])
    lake.run(SPEC)
    grown = replace(SPEC, columns=(*SPEC.columns, Column("novo", "bigint", default="5")))
    refresh = lake.refresh(grown)
    assert refresh.transaction is not None and refresh.transaction.provenance.operation == "evolve"
    assert values(lake, "novo") == {1: 7, 2: 5} and refresh.notes == ()
    both = replace(grown, columns=(*grown.columns, Column("mais", "bigint")), deleted="n > 9")
    with pytest.raises(BrokenTableError, match=r"changed since: deleted\."):
        lake.refresh(both)


# --- where it is kept --------------------------------------------------------------------------------------------------


def without_forms(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As a lake of an earlier release writes its commits."""
    monkeypatch.setattr(forms, "fact", lambda spec: {})
    return monkeypatch


def test_a_table_from_before_takes_its_present_declaration_with_its_next_commit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land("itens", "a", [item(1)])
    with monkeypatch.context() as patch:
        without_forms(patch)
        lake.run(SPEC)
    other, before = declared("c", expression="n + 2"), lake.versions()
    assert lake.refresh(other).transaction is None and lake.versions() == before
    lake.land("itens", "b", [item(2)])
    assert lake.run(other).transaction is not None
    with pytest.raises(BrokenTableError, match="changed since: column c"):
        lake.refresh(SPEC)


@pytest.mark.slow
def test_upkeep_retains_it_and_a_rollback_returns_to_that_of_its_version(lake: Lake) -> None:
    other = declared("c", expression="n + 2")
    for number in range(4):
        lake.land("itens", f"p{number}", [item(number)])
        lake.run(SPEC)
    snapshot = open_existing(lake.storage.uri(SPEC.silver))
    assert snapshot is not None
    with lake.session() as session:
        bounds = Health(max_files=1, max_small=0.01)
        staged = optimise.compact(session, snapshot, bounds=bounds, file_mb=16, sort_by=SPEC.key)
        if staged is not None:
            commit_staged(staged)
    snapshot.table.update_incremental()
    snapshot.table.create_checkpoint()
    with pytest.raises(BrokenTableError, match="changed since: column c"):
        lake.refresh(other)
    with lake.session() as session:
        roll_back(session, lake.storage, [SPEC], SPEC.silver, version=2, reason="the third was wrong")
    with pytest.raises(BrokenTableError, match="changed since: column c"):
        lake.refresh(other)
    assert lake.refresh(SPEC).transaction is not None
    assert values(lake) == dict.fromkeys(range(4), 2)


def test_a_version_from_before_has_the_declaration_that_the_first_commit_after_it_took(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without_forms(patch)
        for number in range(2):
            lake.land("itens", f"p{number}", [item(number)])
            lake.run(SPEC)
    old = open_existing(lake.storage.uri(SPEC.silver))
    assert old is not None and forms.FORMS not in old.provenance.facts
    lake.land("itens", "p2", [item(2)])
    lake.run(SPEC)
    with lake.session() as session:
        roll_back(session, lake.storage, [SPEC], SPEC.silver, version=old.version, reason="a test of it")
    with pytest.raises(BrokenTableError, match="changed since: column c"):
        lake.refresh(declared("c", expression="n + 2"))
    assert lake.refresh(SPEC).transaction is not None


def test_the_digests_are_those_that_lakes_have() -> None:
    """They are persisted. With others every table would stop at once."""
    found = forms.declared(replace(SPEC, columns=(SPEC.columns[0], declared("v", decimal=",").columns[4]), order=("id",)))
    assert found == {
        "column id": "44136fa355b3",
        "column v": "35bfde6a7b9d",
        "values": "44136fa355b3",
        "sync": "49729c90c53b",
        "key": "fc949a4dac6b",
        "order": "fc949a4dac6b",
        "deleted": "74234e98afe7",
        "transform": "74234e98afe7",
    }


def test_values_of_feeds_and_a_raised_transform_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lakehouse.silver.transforms.dobro")
    module.transform = lambda frame: frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    feeds = tuple(Feed(name, AirbyteStream(name), {"canal": name}) for name in ("loja", "site"))
    columns = (*SPEC.columns, Column("canal", "string"))
    spec = replace(SPEC, source=None, feeds=feeds, columns=columns, transform="dobro")
    first = forms.declared(spec)

    def differs(other: TableSpec) -> list[str]:
        now = forms.declared(other)
        return [part for part in first if now.get(part, first[part]) != first[part]]

    assert differs(replace(spec, feeds=(replace(feeds[0], values={"canal": "x"}), feeds[1]))) == ["values of loja"]
    assert differs(replace(spec, feeds=(*feeds, Feed("app", AirbyteStream("app"), {"canal": "app"})))) == []
    assert differs(replace(spec, transform=None)) == ["transform"]
    module.VERSION = 1  # type: ignore[attr-defined]
    assert differs(spec) == ["transform"]


def test_what_happens_on_a_change_is_one_of_two() -> None:
    with pytest.raises(DeclarationError, match="Use one of stop, rebuild"):
        replace(SPEC, on_change="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_case_13_drule(real_data: Path, tmp_path: Path, make_lake: Callable[[], Lake], engine: str) -> None:
    lake = Lake(tmp_path / "lake", engine=engine)
    target = lake.folder / "landing" / "raw" / "caso"
    target.parent.mkdir(parents=True)
    shutil.copytree(real_data / "cases" / "13-drule", target)
    columns = (Column("id", "bigint"), Column("n", "bigint"), Column("txt", "string"), Column("c", "bigint", expression="n + 1"))
    first = TableSpec(name="caso", source=AirbyteStream("caso"), columns=columns, key=("id",), order=("id",), max_loss=1.0)
    lake.run(first)
    assert [row["c"] for row in lake.rows(first.silver)] == [2, 2]
    then = replace(first, columns=(*columns[:3], Column("c", "bigint", expression="n + 100")))
    with pytest.raises(BrokenTableError, match=r"silver/caso .*: column c, deleted\. Run make rebuild TABLE=caso"):
        lake.run(replace(then, deleted="n > 0"))
    lake.refresh(then, rebuild=True)
    assert [row["c"] for row in lake.rows(first.silver)] == [101, 101]
    lake.refresh(replace(then, deleted="n > 0"), rebuild=True)
    assert lake.rows(first.silver) == []
