"""The benchmarks fit the graph, and stand without the tests. `make check` asks the same; measured they are by `make bench`."""

import re

from benchmarks.cases.graph import SALES_MARTS, GraphRun
from benchmarks.check import problems
from lakehouse.settings import project_folder


def test_every_case_finds_the_tables_that_it_reads():
    assert problems() == []


def test_a_case_that_selects_more_than_its_lake_contains_is_told_what_is_missing():
    """The case gold selected its layer, which others joined."""
    found = problems([GraphRun(select="tag:layer=gold", given=SALES_MARTS.given), GraphRun(job="no_such_job")])
    assert "The selection tag:layer=gold reads silver/pedidos, which the case does not make." in found
    assert "The selection tag:layer=gold reads bronze/brt_gps, which the case does not make." in found
    assert any(line.startswith("The job no_such_job does not resolve: ") for line in found)


def test_a_table_that_left_the_graph_is_not_given():
    found = problems([GraphRun(select='key:"gold/vendas_diarias"', given=("silver/vendas", "silver/old"))])
    assert found == ['The selection key:"gold/vendas_diarias" is given silver/old, which is not one of the graph\'s tables.']


def test_the_benchmarks_import_nothing_of_the_tests():
    for file in (project_folder() / "benchmarks").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) lakehouse_tests", file.read_text(), flags=re.MULTILINE), file
