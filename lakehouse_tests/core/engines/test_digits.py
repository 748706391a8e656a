"""Digits of JSON numbers: what DuckDB reads of a rewritten document is what was delivered, whatever number and text it holds."""

import json
import re

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.core.engines.digits import altered, exact, unmarked

_DIGITS = st.text("0123456789", min_size=1, max_size=25)
_WHOLE = st.one_of(st.just("0"), _DIGITS.filter(lambda text: text[0] != "0"))
_NUMBERS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        _WHOLE,
        st.one_of(st.just(""), _DIGITS.map(".{}".format), st.integers(0, 16).map(lambda n: f".{'0' * n}7")),
        st.one_of(st.just(""), st.from_regex(r"[eE][+-]?[0-9]{1,3}", fullmatch=True)),
    ),
)
#: Texts that look like numbers of JSON, and what may end a text too early.
_TEXTS = st.lists(st.sampled_from([': 1.10, "', "[1e5]", "\\", '"', ",-0}", ":12345678901234567.5", "á", "\ue000", "x"])).map(
    "".join
)


def read(document: str) -> tuple[str | None, str | None, str | None]:
    """`a`, `b` and `c` of a document as bronze has them."""
    values = ", ".join(unmarked(f"(document ->> '/{name}')") for name in "abc")
    query = f"SELECT {values} FROM (SELECT CAST({exact('text')} AS JSON) AS document FROM (SELECT $1 AS text))"
    return duckdb.sql(query, params=[document]).fetchall()[0]


@settings(max_examples=300, deadline=None)
@given(number=_NUMBERS, text=_TEXTS, gap=st.sampled_from(["", " ", "\n\t "]))
def test_numbers_alone_and_within_come_out_as_delivered(number: str, text: str, gap: str) -> None:
    within = f'{{"n":[{number},{number}],"t":{json.dumps(text, ensure_ascii=False)}}}'
    document = f'{{"a":{gap}{number}{gap},"b":{within},"c":{json.dumps(text)}}}'
    assert read(document) == (number, within, text)


@settings(max_examples=300, deadline=None)
@given(number=_NUMBERS)
def test_a_number_that_is_not_taken_for_altered_needs_no_care(number: str) -> None:
    document = f'{{"a":{number}}}'
    found, plain = duckdb.sql(f"SELECT {altered('d')}, d ->> '/a' FROM (SELECT $1 AS d)", params=[document]).fetchall()[0]
    assert found or plain == number


@pytest.mark.parametrize("document", ['{"a":1,"b":"x"}', '{"id":"3e4f-0a1e5b","a":12.35,"t":"2024-03-10T23:30:00"}'])
def test_what_needs_no_care_is_left_as_it_is(document: str) -> None:
    assert duckdb.sql(f"SELECT {altered('d')}, {exact('d')} FROM (SELECT $1 AS d)", params=[document]).fetchall() == [
        (False, document)
    ]


def test_a_text_with_a_mark_of_another_process_stays() -> None:
    text = re.sub("[0-9a-f]{8}", "deadbeef", "\ue00012345678")
    assert read(json.dumps({"a": text, "b": {"x": text}}, ensure_ascii=False))[0] == text
