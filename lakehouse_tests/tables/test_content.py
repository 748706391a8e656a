"""Content: a code version changes with every part of a declaration that changes rows, and with no other."""

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.bronze.assets import bronze_asset
from lakehouse.core.table.provenance import Provenance
from lakehouse.silver import forms, transforms
from lakehouse.silver.assets import silver_asset
from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    Csv,
    DeltaSource,
    Feed,
    Health,
    PlainFiles,
    Retention,
    Subject,
    TableSpec,
    accepted_values,
    in_range,
)
from lakehouse.tables.spec.content import BRONZE, NEITHER, SILVER

COLUMNS = (Column("id", "bigint"), Column("n", "bigint"), Column("dia", "date"))
SPEC = TableSpec(name="itens", source=AirbyteStream("itens"), columns=COLUMNS, key=("id",), order=("n",))
FEEDS = replace(SPEC, source=None, feeds=(Feed("um", AirbyteStream("um")),))
ELEMENTS = TableSpec(
    name="partes",
    source=AirbyteStream("itens"),
    explode="partes",
    columns=(Column("id", "bigint", parent=True), Column("posicao", "int", position=True), Column("n", "bigint")),
    key=("id", "posicao"),
    order=("id",),
)
#: Another declaration of each part, and of which layer the code version has to change.
CHANGES: dict[str, tuple[TableSpec, dict[str, Any], str]] = {
    "source: folder": (SPEC, {"source": AirbyteStream("itens", folder="outros")}, "bronze"),
    "source: csv": (SPEC, {"source": AirbyteStream("itens", csv=Csv(skip=1))}, "bronze"),
    "source: kind": (SPEC, {"source": PlainFiles("itens")}, "bronze"),
    "source: withdrawals": (
        replace(SPEC, source=DeltaSource("/x", "x")), {"source": DeltaSource("/x", "x", withdrawals="delete")}, "bronze silver",
    ),
    "feeds: values": (FEEDS, {"feeds": (Feed("um", AirbyteStream("um"), {"n": "1"}),)}, "silver"),
    "feeds: another": (FEEDS, {"feeds": (*FEEDS.feeds, Feed("dois", AirbyteStream("dois")))}, "silver"),
    "values": (SPEC, {"values": {"n": "7"}}, "bronze silver"),
    "columns: source": (SPEC, {"columns": (COLUMNS[0], Column("n", "bigint", source="N"), COLUMNS[2])}, "bronze silver"),
    "columns: type": (SPEC, {"columns": (COLUMNS[0], Column("n", "int"), COLUMNS[2])}, "silver"),
    "sync": (SPEC, {"sync": "overwrite"}, "bronze silver"),
    "key": (SPEC, {"key": ("id", "n")}, "bronze silver"),
    "order": (SPEC, {"order": ("dia",)}, "silver"),
    "deleted": (SPEC, {"deleted": "n = 0"}, "silver"),
    "rules": (SPEC, {"rules": (in_range("n", minimum=0),)}, "silver"),
    "rules: action": (
        replace(SPEC, rules=(accepted_values("n", 1),)), {"rules": (accepted_values("n", 1, action="warn"),)}, "silver",
    ),
    "transform": (SPEC, {"transform": "itens"}, "silver"),
    "explode": (ELEMENTS, {"explode": "outras"}, "bronze silver"),
    "partition": (SPEC, {"partition": "dia"}, "silver"),
    "retention: silver": (SPEC, {"retention": Retention(event="dia", silver=timedelta(days=9))}, "bronze silver"),
    "retention: bronze": (
        replace(SPEC, retention=Retention(event="dia", silver=timedelta(days=9))),
        {"retention": Retention(event="dia", silver=timedelta(days=9), bronze=timedelta(days=5))},
        "bronze",
    ),
    "drift": (SPEC, {"drift": "freeze"}, "bronze"),
    "name": (SPEC, {"name": "outros"}, ""),
    "silver_name": (SPEC, {"silver_name": "outros"}, ""),
    "on_change": (SPEC, {"on_change": "rebuild"}, ""),
    "max_loss": (SPEC, {"max_loss": 1.0}, ""),
    "engine": (SPEC, {"engine": "spark"}, ""),
    "freshness": (SPEC, {"freshness": timedelta(hours=1)}, ""),
    "file_mb": (SPEC, {"file_mb": 1}, ""),
    "history": (SPEC, {"history": True}, ""),
    "health": (SPEC, {"health": Health(max_files=9)}, ""),
    "subject": (SPEC, {"subject": Subject("pessoa", "id")}, ""),
    "description": (SPEC, {"description": "x"}, ""),
    "owners": (SPEC, {"owners": ("team:outra",)}, ""),
    "tags": (SPEC, {"tags": ("x",)}, ""),
}  # fmt: skip


def versions(spec: TableSpec) -> dict[str, str | None]:
    made = {"silver": silver_asset(spec)} | ({"bronze": bronze_asset(spec)} if not spec.feeds else {})
    return {layer: asset.code_versions_by_key[asset.key] for layer, asset in made.items()}


@pytest.mark.parametrize("case", CHANGES)
def test_a_code_version_changes_with_what_changes_rows(case: str) -> None:
    spec, change, layers = CHANGES[case]
    before, after = versions(spec), versions(replace(spec, **change))
    assert {layer for layer in before if before[layer] != after[layer]} == {*layers.split()}


def test_every_part_of_a_declaration_is_known_to_decide_something_or_nothing() -> None:
    parts = {part.name for part in fields(TableSpec)}
    assert parts == BRONZE | SILVER | NEITHER and not NEITHER & (BRONZE | SILVER)
    assert {case.split(":")[0] for case in CHANGES} == parts


def test_what_decides_a_value_is_in_both_the_code_version_and_the_digests_of_a_commit() -> None:
    """Rules, the partition and the retention decide which records are rows, and change no row that is there."""
    for case, (spec, change, layers) in CHANGES.items():
        if case == "transform" or "silver" not in layers:
            continue
        found = forms.changed(replace(spec, **change), Provenance(operation="merge", facts=forms.fact(spec)))
        silent = case.split(":")[0] in ("rules", "partition", "retention") or case in ("columns: type", "feeds: another")
        assert bool(found) is not silent, case


def test_a_source_that_states_nothing_of_withdrawals_is_written_as_before_it_could() -> None:
    assert repr(DeltaSource("/x", "x")) == "DeltaSource(uri='/x', name='x', timezone='')"
    retained, followed = (replace(SPEC, source=DeltaSource("/x", "x", withdrawals=how)) for how in ("keep", "delete"))
    assert forms.declared(retained) == forms.declared(SPEC) and "withdrawals" in forms.declared(followed)
    assert versions(retained)["silver"] == versions(SPEC)["silver"]


def test_the_code_of_a_transform_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "__path__", [str(tmp_path)])
    module = tmp_path / "de_itens.py"
    codes = [transforms.code("de_itens")]
    for text in ("raise SystemExit\n", "raise SystemExit  # again\n"):
        module.write_text(text)
        codes.append(transforms.code("de_itens"))
    assert codes[0] == "" and len({*codes}) == 3
