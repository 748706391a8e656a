"""Two descriptions become an impact: what it reports of each kind of change, and what it does not."""

import copy
from typing import Any

import pytest

from lakehouse.commands.impact.changes import Change, compare, needs_trial
from lakehouse.commands.impact.text import render, summary

BASE: dict[str, Any] = {
    "assets": {
        "bronze/vendas": {"group": "bronze", "deps": [], "code_version": "a"},
        "silver/vendas": {
            "group": "silver",
            "deps": ["bronze/vendas"],
            "code_version": "b",
            "columns": {"id": "bigint", "total": "decimal(18,4)", "pais": "string"},
            "lineage": {"total": [["bronze/vendas", "valor"]]},
        },
        "gold/diarias": {
            "group": "gold",
            "deps": ["silver/vendas"],
            "code_version": "c",
            "columns": {"receita": "decimal(18,4)", "linhas": "bigint"},
            "lineage": {"receita": [["silver/vendas", "total"]], "linhas": []},
        },
        "reports/vendas": {"group": "reports", "deps": ["gold/diarias"]},
    },
    "checks": {"silver/vendas:unique_id": {"description": "unique id (fail)", "blocking": True}},
    "jobs": {"etl": {"assets": ["gold/diarias", "silver/vendas"], "tags": {}}},
    "schedules": {"etl_daily": {"job": "etl", "cron": "0 6 * * *", "starts": "RUNNING"}},
    "sensors": {},
    "sources": {"silver": {"vendas": {"id": "bigint", "total": "decimal(18,4)", "pais": "string"}}},
    "errors": [],
    "unbuilt": {},
    "unrun": {},
}


@pytest.fixture
def head() -> dict[str, Any]:
    return copy.deepcopy(BASE)


def _columns(head: dict[str, Any], **columns: str) -> None:
    head["assets"]["silver/vendas"]["columns"] = columns
    head["sources"]["silver"]["vendas"] = columns


def test_nothing_is_reported_of_what_is_the_same(head):
    found = compare(BASE, head)
    assert (found.changes, found.breaks, found.errors, found.breaking) == ((), (), (), False)
    assert summary(found) == "Nothing changes in the graph."


def test_a_column_in_the_position_and_of_the_type_of_one_that_is_gone_is_a_rename(head):
    _columns(head, id="bigint", valor_total="decimal(18,4)", pais="string")
    assert compare(BASE, head).changes == (
        Change("column", "silver/vendas.total", "renamed", "valor_total (decimal(18,4))", (), ("gold/diarias.receita",)),
    )


def test_a_column_that_is_gone_another_type_and_a_new_column_are_told_apart(head):
    _columns(head, id="string", total="decimal(18,4)", novo="date", outro="date")
    told = {(change.name, change.how, change.detail) for change in compare(BASE, head).changes}
    assert told == {
        ("silver/vendas.id", "changed", "bigint → string"),
        ("silver/vendas.pais", "removed", "string"),
        ("silver/vendas.novo", "added", "date"),
        ("silver/vendas.outro", "added", "date"),
    }


def test_what_is_made_of_a_column_is_found_through_every_layer_between(head):
    head["assets"]["reports/vendas"]["lineage"] = {"grafico": [["gold/diarias", "receita"]]}
    _columns(head, id="bigint", pais="string")
    (change,) = compare(BASE, head).changes
    assert change.columns == ("gold/diarias.receita", "reports/vendas.grafico")


def test_a_mart_that_is_not_built_any_more_is_named_with_its_columns_checks_and_readers(head):
    _columns(head, id="bigint", pais="string")
    head["unbuilt"] = {"gold/diarias": 'column "total" not found'}
    head["unrun"] = {"gold/diarias:not_null_receita": "no such table"}
    (broken,) = compare(BASE, head).breaks
    assert (broken.name, broken.columns, broken.checks) == ("gold/diarias", ("receita",), ("not_null_receita",))
    assert broken.assets == ("reports/vendas",)
    assert not broken.built


def test_a_check_that_cannot_run_breaks_although_its_mart_is_built(head):
    head["unrun"] = {"gold/diarias:equals_silver": 'column "total" not found'}
    (broken,) = compare(BASE, head).breaks
    assert broken.built
    assert broken.checks == ("equals_silver",)


def test_what_was_broken_before_is_not_this_changes_doing(head):
    base = copy.deepcopy(BASE)
    base["unbuilt"] = head["unbuilt"] = {"gold/diarias": "no such macro"}
    assert not compare(base, head).breaking


def test_where_heads_dbt_project_cannot_be_tried_the_marts_of_base_are_tried_over_its_columns(head):
    _columns(head, id="bigint", pais="string")
    del head["unbuilt"], head["unrun"], head["assets"]["gold/diarias"]
    head["errors"] = ["the dbt project: does not parse"]
    assert needs_trial(BASE, head)
    found = compare(BASE, head, trial={"unbuilt": {"gold/diarias": "no column"}, "unrun": {}})
    assert [one.name for one in found.breaks] == ["gold/diarias"]
    assert found.errors == ("the dbt project: does not parse",)
    assert not [change for change in found.changes if change.name == "gold/diarias"]  # not loaded is not removed


def test_no_trial_is_needed_where_head_was_tried_or_reads_the_same_columns(head):
    assert not needs_trial(BASE, head)
    del head["unbuilt"]
    assert not needs_trial(BASE, head)


def test_assets_state_what_of_them_is_other_and_what_is_downstream(head):
    head["assets"]["silver/vendas"]["code_version"] = "other"
    head["assets"]["silver/vendas"]["deps"] = ["bronze/outra"]
    head["assets"]["gold/nova"] = {"group": "gold", "deps": ["silver/vendas"]}
    del head["assets"]["reports/vendas"]
    changes = {change.name: change for change in compare(BASE, head).changes}
    assert changes["silver/vendas"].detail == "code; deps: +bronze/outra -bronze/vendas"
    assert changes["silver/vendas"].assets == ("gold/diarias", "gold/nova", "reports/vendas")
    assert changes["gold/nova"].how == "added"
    assert changes["reports/vendas"].how == "removed"


def test_checks_jobs_schedules_and_sensors_are_compared_by_name(head):
    head["checks"] = {"silver/vendas:min_rows_1": {"description": "min_rows 1 (fail)", "blocking": True}}
    head["jobs"]["etl"]["assets"] = ["silver/vendas"]
    head["schedules"]["etl_daily"]["cron"] = "0 7 * * *"
    head["sensors"]["novo"] = {"jobs": ["etl"], "seconds": 30}
    told = {(change.kind, change.name, change.how, change.detail) for change in compare(BASE, head).changes}
    assert told == {
        ("check", "silver/vendas:min_rows_1", "added", "min_rows 1 (fail)"),
        ("check", "silver/vendas:unique_id", "removed", "unique id (fail)"),
        ("job", "etl", "changed", "assets: -gold/diarias"),
        ("schedule", "etl_daily", "changed", "cron: 0 6 * * * → 0 7 * * *"),
        ("sensor", "novo", "added", ""),
    }


def test_a_reason_cannot_format_the_page_that_it_stands_on(head):
    head["unbuilt"] = {"gold/diarias": "`</code>` # title " + "x" * 1000}
    page = render(compare(BASE, head), base="main", head="b", markdown=True)
    (line,) = [line for line in page.splitlines() if "`gold/diarias` cannot be built" in line]
    assert "cannot be built: `` '</code>' # title" in line
    assert len(line) < 500
