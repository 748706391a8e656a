"""What is accepted as the pattern of a rule compiles in RE2 and in Java; what is not says where it is wrong."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.core.errors import DeclarationError, ExpressionError
from lakehouse.core.patterns import problem
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, expression, matches

READ = (
    "^[0-9]{44}$", r"^\d{3}\.\d{3}\.\d{3}-\d{2}$", r"(?i)sim|n[ãa]o", r"^(?:[A-Z]{2}-)?\w+\b", r"\p{L}[\p{Lu}\s-]*?",
    r"[\w.-]+@[\w-]+",
    r"\A\x41|\x{1F600}\z", "(?s:a.b)|(?m)^c$", "a]}", "", "a||b", "()", "[a^b-]", "é{2,}?", r"\/\-\_", "(a{10}){100}",
)  # fmt: skip
WRONG = {
    "([0-9": 2, "(a": 1, "a)": 2, "a**": 3, "*a": 1, "a{2,1}": 2, "a{1001}": 2, "(a{100}){11}": 1, "a{": 2, "a{,3}": 2, "a++": 3,
    "(?=a)": 1, "(?<n>a)": 1, "(?P<n>a)": 1, "(?U)a": 1, r"(a)\1": 4, "[[:alpha:]]": 2, "[a&&b]": 3, "[z-a]": 2, "[]a]": 2,
    r"[\b]": 2, r"a\v": 2, r"a\Z": 2, "a\\": 2, r"\é": 1, r"\p{Greek}": 1, r"\p{L}{1000}": 1,
    r"\x{110000}": 1, "^*": 1, "a{2}{3}": 5,
}  # fmt: skip
PIECES = [
    *"ab|()[]^$.*+?{}-&,19:é \\", "(?:", "(?i)", "(?s:", "(?m-i:", "{2}", "{1,3}", "{2,}", "+?", r"\d", r"\p{L}", r"\PN", r"\x41",
    r"\x{1F600}", "[a-z]", "[^é]", r"\b", r"\z", r"\.", r"[\d-z]", "{900}", r"\_", "&&", "--", "(?=", r"\1", r"\Q", r"\v", r"\07",
]  # fmt: skip


def re2(pattern: str) -> str:
    """What RE2 says of a pattern; empty when it reads it."""
    with duckdb.connect() as connection:
        try:
            connection.execute("SELECT regexp_matches(v, ?) FROM (VALUES ('x')) t(v)", [pattern])
        except duckdb.Error as error:
            return str(error)
    return ""


@pytest.mark.parametrize("pattern", READ)
def test_what_both_engines_read_is_accepted(pattern: str) -> None:
    assert problem(pattern) is None and re2(pattern) == ""


@pytest.mark.parametrize("pattern", WRONG)
def test_what_one_of_them_cannot_read_is_refused_where_it_is_declared(pattern: str) -> None:
    with pytest.raises(
        DeclarationError, match=rf"^Rule 'matches_c': .* \(character {WRONG[pattern]}\)\. Use what RE2 and Java share"
    ):
        matches("c", pattern)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join))
def test_nothing_is_accepted_that_re2_refuses(pattern: str) -> None:
    assert problem(pattern) is not None or re2(pattern) == "", pattern


@pytest.mark.spark
def test_nothing_is_accepted_that_java_refuses() -> None:
    import random

    from pyspark.sql import SparkSession

    random.seed(21)
    patterns = {"".join(random.choices(PIECES, k=random.randint(1, 7))) for _ in range(5_000)} | {*READ}
    accepted = sorted(pattern for pattern in patterns if problem(pattern) is None)
    java = SparkSession.builder.master("local[1]").getOrCreate()._jvm.java.util.regex.Pattern
    for pattern in accepted:
        java.compile(pattern)  # raises what Java says
    assert len(accepted) > 500


def test_a_pattern_within_an_expression_is_checked_too_and_names_table_and_rule() -> None:
    columns = (Column("id", "bigint"), Column("c", "string"))
    with pytest.raises(ExpressionError, match=r"Table 'itens', rule 'nota': .*no_function") as refusal:
        TableSpec(
            name="itens", source=AirbyteStream("itens"), columns=columns, key=("id",), order=("id",),
            rules=(expression("nota", "no_function(c)"),),
        )  # fmt: skip
    assert refusal.value.remedy
    with pytest.raises(DeclarationError, match=r"Table 'itens', rule 'nota': .* is not closed \(character 1\)"):
        TableSpec(
            name="itens", source=AirbyteStream("itens"), columns=columns, key=("id",), order=("id",),
            rules=(expression("nota", "regexp_matches(c, '(a')"),),
        )  # fmt: skip
