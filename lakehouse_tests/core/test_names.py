"""No name reaches a path, SQL or Jinja that is not on the allow-list; what a source calls its fields never loses a field."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import LAYERS, TableRef, check_name, column_name

HOSTILE = [
    *(
        "",
        " ",
        "1a",
        "_a",
        "A",
        "é",
        "a-b",
        "a b",
        "a.b",
        "a/b",
        "../x",
        "a\\b",
        "a\n",
        "\na",
        "a\x00",
        "a;",
        'a"',
        "a'",
        "{{a}}",
    ),
    *("a" * 64, "tabela$", "select*", "a%", "\uff41", "a\u0301"),
]


@given(st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True))
def test_every_name_of_the_allow_list_passes_unchanged(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=80))
def test_nothing_else_passes(text: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}\Z", text, re.ASCII):
        return
    with pytest.raises(DeclarationError, match="Use 1 to 63 lower-case letters"):
        check_name(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_as_tables(name: str) -> None:
    with pytest.raises(DeclarationError):
        TableRef("bronze", name)


@pytest.mark.parametrize("value", [None, 3, b"a", ["a"]])
def test_what_is_no_text_is_no_name(value: object) -> None:
    with pytest.raises(DeclarationError):
        check_name(value)  # type: ignore[arg-type]


def test_a_field_named_like_a_column_of_the_engine_gets_another_name() -> None:
    assert [column_name(name) for name in ("file_index", "File Row Number", "file_indexes")] == [
        "file_index_",
        "file_row_number_",
        "file_indexes",
    ]


@given(st.text(max_size=200))
def test_a_delivered_field_gets_a_legal_column_or_none(field: str) -> None:
    column = column_name(field)
    assert column is None or check_name(column) == column


@given(st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True))
def test_a_legal_field_name_stays_as_it_is(name: str) -> None:
    assert column_name(name) == name


@pytest.mark.parametrize(
    ("delivered", "column"),
    [
        ("dataHora", "datahora"),
        ("Valor Total", "valor_total"),
        ("_private", "private"),
        ("preço", "pre_o"),
        ("a.b/c", "a_b_c"),
        ("1x", None),
        ("", None),
        ("___", None),
        ("x" * 64, None),
    ],
)
def test_columns_of_delivered_fields(delivered: str, column: str | None) -> None:
    assert column_name(delivered) == column


def test_key_path_and_text_of_a_table_agree() -> None:
    ref = TableRef("silver", "vendas_processed")
    assert (ref.key, str(ref)) == (["silver", "vendas_processed"], "silver/vendas_processed")


def test_a_layer_that_does_not_exist_is_refused_and_the_others_are_listed() -> None:
    with pytest.raises(DeclarationError) as refusal:
        TableRef("platinum", "x")  # type: ignore[arg-type]
    assert all(layer in refusal.value.remedy for layer in LAYERS)
