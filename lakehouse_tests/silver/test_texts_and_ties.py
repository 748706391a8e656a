"""Tables of texts only, in every sync mode; and records of one key between which the declared order does not decide."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.rules import Finding
from lakehouse.silver.refresh import Refresh
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, not_null
from lakehouse_tests.conftest import EXTRACTED, Lake, file_content

ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]
TEXTS = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "string"), Column("v", "string")),
    key=("id",),
    order=("v",),
    max_loss=1.0,
)
#: Each sync mode, with a rule and without: then there is nothing at all that could refuse a record.
MODES = {
    "dedup": TEXTS,
    "append": replace(TEXTS, sync="append", key=(), order=()),
    "append with a rule": replace(TEXTS, sync="append", key=(), order=(), rules=(not_null("v"),)),
    "overwrite": replace(TEXTS, sync="overwrite"),
    "overwrite without a key": replace(TEXTS, sync="overwrite", key=(), order=()),
}


def pairs(lake: Lake, spec: TableSpec = TEXTS) -> list[tuple[Any, Any]]:
    return [(row["id"], row["v"]) for row in lake.rows(spec.silver)]


@pytest.mark.parametrize(
    ("mode", "engine"),
    [
        *((mode, "duckdb") for mode in MODES),
        *(pytest.param(mode, "spark", marks=pytest.mark.spark) for mode in ("dedup",)),
    ],
)
def test_a_table_of_texts_only(tmp_path: Path, mode: str, engine: str) -> None:
    lake, spec = Lake(tmp_path, engine=engine), MODES[mode]
    lake.land("itens", "a", [{"id": "x", "v": "1"}, {"id": "x", "v": "2"}, {"id": "y", "v": ""}])
    lake.storage.complete("itens", 3)  # the generation of the records that a test lands
    first = lake.run(spec)
    every = [("x", "1"), ("x", "2"), ("y", "")]
    assert pairs(lake) == (every[1:] if spec.key else every)
    assert first.entry is not None and first.entry.balanced and all(finding.passed for finding in first.findings)
    lake.put("itens", "b.jsonl", file_content([{"id": "x", "v": "3"}, {"id": "z"}], first=3))
    second = lake.run(spec)
    assert second.entry is not None and second.entry.balanced
    if not spec.key:
        added = [("x", "3")] if spec.rules else [("x", "3"), ("z", None)]
        assert sorted(pairs(lake), key=str) == sorted([*every, *added], key=str)
    elif mode == "dedup":
        assert pairs(lake) == [("x", "3"), ("y", ""), ("z", None)]
    before = lake.rows(spec.silver)
    lake.refresh(spec, rebuild=True)
    assert lake.rows(spec.silver) == before


# --- ties ----------------------------------------------------------------------------------------------------------------

ORDERED = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("n", "bigint"), Column("v", "string")),
    key=("id",),
    order=("n",),
    deleted="v = 'gone'",
    max_loss=1.0,
)


def ties(refresh: Refresh) -> Finding:
    (found,) = [finding for finding in refresh.findings if finding.rule == "order_ties"]
    assert found.action == "warn" and found.passed == (found.failed == 0)
    return found


def row(number: int, n: int | None, v: str | None, *, at: int = 0) -> dict[str, Any]:
    return {"id": number, "n": n, "v": v, "_at": EXTRACTED + at}


#: Two deliveries, and how many ties they make.
TIED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], int]] = {
    "none": ([row(1, 1, "a"), row(1, 2, "b")], [row(1, 3, "c")], 0),
    "within a batch": ([], [row(1, 1, "a"), row(1, 1, "b"), row(2, 1, "a")], 1),
    "with a row that is there": ([row(1, 1, "a")], [row(1, 1, "b")], 1),
    "the later extraction wins, and it is one": ([row(1, 1, "a", at=5)], [row(1, 1, "b", at=9)], 1),
    "delivered again": ([row(1, 1, "a")], [row(1, 1, "a"), row(1, 1, "a", at=7)], 0),
    "below the newest": ([row(1, 1, "a"), row(1, 5, "z")], [row(1, 1, "b"), row(2, 1, "a"), row(2, 1, "b"), row(2, 2, "c")], 0),
    "without an order": ([], [row(1, None, "a"), row(1, None, "b")], 1),
    "with a null": ([row(1, 1, None)], [row(1, 1, "b")], 1),
    "with a delete": ([row(1, 1, "a")], [row(1, 1, "gone")], 1),
    "two deletes": ([row(1, 1, "gone")], [row(1, 1, "gone", at=3), row(2, 1, "a")], 0),
    "several keys": (
        [row(n, 1, "a") for n in range(5)],
        [row(n, 1, "b") for n in range(3)] + [row(n, 1, "c") for n in range(3)],
        3,
    ),
}
QUICK = ("within a batch", "with a row that is there", "delivered again", "with a delete", "several keys")


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        *(pytest.param(case, "duckdb", marks=() if case in QUICK else pytest.mark.slow) for case in TIED),
        *(pytest.param(case, "spark", marks=pytest.mark.spark) for case in ("several keys",)),
    ],
)
def test_a_tie_is_counted_and_decided_as_documented(
    tmp_path: Path, make_lake: Callable[[], Lake], case: str, engine: str
) -> None:
    first, second, expected = TIED[case]
    lake, other = Lake(tmp_path / "lake", engine=engine), Lake(tmp_path / "other", engine=engine)
    if first:
        lake.land("itens", "a", first)
        lake.run(ORDERED)
    lake.land("itens", "b", second)
    assert ties(lake.run(ORDERED)).failed == expected
    other.land("itens", "b", second)  # the other way round, and at once
    other.run(ORDERED)
    if first:
        other.land("itens", "a", first)
        other.run(ORDERED)
    assert lake.rows(ORDERED.silver) == other.rows(ORDERED.silver)
    rebuilt = lake.refresh(ORDERED, rebuild=True)
    assert ties(rebuilt).failed == expected and lake.rows(ORDERED.silver) == other.rows(ORDERED.silver)


def test_of_equals_the_greatest_content_is_the_row_and_a_run_without_records_repeats_the_tie(lake: Lake) -> None:
    lake.land("itens", "a", [row(1, 1, "b"), row(1, 1, "c"), row(1, 1, "a")])
    lake.run(ORDERED)
    assert [found["v"] for found in lake.rows(ORDERED.silver)] == ["c"]
    assert lake.refresh(ORDERED).transaction is None


def test_a_table_without_a_key_has_no_ties_and_no_check(lake: Lake) -> None:
    lake.land("itens", "a", [row(1, 1, "a"), row(1, 1, "b")])
    refresh = lake.run(replace(ORDERED, sync="append", key=(), order=(), deleted=None))
    assert "order_ties" not in [finding.rule for finding in refresh.findings] and len(lake.rows(ORDERED.silver)) == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["12-allstr", "12-allstrapp", "12-tie"])
def test_a_case_comes_out_as_expected(real_data: Path, tmp_path: Path, case: str, engine: str) -> None:
    lake, folder = Lake(tmp_path, engine=engine), real_data / "cases"
    shutil.copytree(folder / case, tmp_path / "landing" / "raw" / "itens")
    expected = json.loads((folder / "expected.json").read_text()).get(case, {})
    spec = ORDERED if case == "12-tie" else MODES["append"] if expected.get("sync") == "append" else TEXTS
    refresh = lake.run(spec)
    found = lake.rows(spec.silver)
    assert refresh.entry is not None and refresh.entry.balanced
    assert len(found) == expected.get("count", 1)
    for number, wanted in expected.get("rows", {}).items():
        assert [{name: row[name] for name in wanted} for row in found if row["id"] == number] == [wanted]
    if case == "12-tie":
        assert ties(refresh).failed == 1
