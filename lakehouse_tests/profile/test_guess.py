"""Types: which declaration the texts of a column get; whether it accepts them is for the columns' own casts to say."""

from collections.abc import Iterator
from typing import Any

import pytest

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.profile.guess import Guess, Guesser
from lakehouse.tables.spec import Column


@pytest.fixture
def guesser(session: DuckDBSession) -> Iterator[Guesser]:
    yield Guesser(session)


def guess(guesser: Guesser, *texts: str, name: str = "v", known: str = "") -> Guess:
    return guesser.guess(Column(name, "string"), [(text, 1) for text in texts], known=known)


def declared(column: Column) -> dict[str, Any]:
    """What is declared beside name and type."""
    names = ("form", "true", "false", "trim", "format", "timezone", "decimal", "nulls", "rounding", "personal")
    return {name: value for name in names if (value := getattr(column, name))}


LOCAL = {"timezone": "America/Sao_Paulo"}


@pytest.mark.parametrize(
    ("texts", "kind", "beside"),
    [
        (["1", "-20", " 7"], "bigint", {}),
        (["0012", "4711"], "string", {}),
        (["9223372036854775808", "1"], "decimal(21,0)", {}),
        (["1.5", "20.25", "3"], "decimal(12,2)", {}),
        (["1.125", "20.25"], "decimal(12,3)", {}),
        (["0.14285714285714285", "2.5e-7"], "double", {}),
        (["0.12345678901234567891", "2.5"], "decimal(38,20)", {}),
        (["12345678901234567890123456789.123456789012345", "1e-30"], "string", {}),
        (["1.234,56", "10,00", "-5,5"], "decimal(12,2)", {"decimal": ","}),
        (["R$ 1.234,5", "R$ 7"], "decimal(12,2)", {"decimal": ","}),
        (["$1,234.50", "$7"], "decimal(12,2)", {"decimal": "."}),
        (["1.250", "3.500"], "decimal(12,2)", {}),
        (["R$ 5,00", "US$ 7,00"], "string", {}),
        (["S", "N", "S"], "boolean", {"true": ("S",), "false": ("N",)}),
        (["sim", "não"], "boolean", {"true": ("sim",), "false": ("não",)}),
        (["on", "off"], "boolean", {"true": ("on",), "false": ("off",)}),
        (["TRUE", "false"], "boolean", {}),
        (["S", "S"], "string", {}),
        (["F", "M"], "string", {}),
        (["2024-03-10", "2024-12-31"], "date", {}),
        (["2024-03-10T23:30:00Z", "2024-03-10 07:00:00"], "timestamp", {}),
        (["2024-03-10T00:00:00", "2024-03-11T00:00:00"], "date", {}),
        (["10/03/2024", "31/12/2024"], "date", {"format": "%d/%m/%Y"}),
        (["03/31/2024", "12/01/2024"], "date", {"format": "%m/%d/%Y"}),
        (["10.03.2024 23:30:05"], "timestamp", {"format": "%d.%m.%Y %H:%M:%S", **LOCAL}),
        (["10/03/2024 23:30", "5/12/2024 7:05"], "timestamp", {"format": "%d/%m/%Y %H:%M", **LOCAL}),
        (["2024/03/10 23:30:00 -03:00"], "timestamp", {"format": "%Y/%m/%d %H:%M:%S %z"}),
        (["10/03/24", "31/12/24"], "string", {}),
        ([" 10/03/2024 ", "31/12/2024"], "date", {"format": "%d/%m/%Y", "trim": True}),
        (["1", "N/D", "3"], "bigint", {"nulls": ("N/D",)}),
        (["10/03/2024", "-"], "date", {"format": "%d/%m/%Y", "nulls": ("-",)}),
        (["abc", "N/D"], "string", {}),
        (["", "  "], "string", {}),
        (["ana@loja.com.br", "rui@casa.org"], "string", {"personal": True}),
    ],
)
def test_texts_have_a_type(guesser: Guesser, texts: list[str], kind: str, beside: dict[str, Any]) -> None:
    column = guess(guesser, *texts).column
    assert (column.type, declared(column)) == (kind, beside)


@pytest.mark.parametrize(
    ("name", "text", "kind", "beside"),
    [
        ("criado_em", "1710124200", "timestamp", {"form": "epoch_s"}),
        ("event_ts", "1710124200123", "timestamp", {"form": "epoch_ms"}),
        ("numero", "1710124200", "bigint", {}),
        ("data", "20240310", "date", {"format": "%Y%m%d"}),
        ("pedido", "20240310", "bigint", {}),
        ("cep", "11001000", "string", {}),
        ("ativo", "1", "bigint", {}),
    ],
)
def test_the_name_of_a_column_tells_what_its_digits_are(
    guesser: Guesser, name: str, text: str, kind: str, beside: dict[str, Any]
) -> None:
    column = guess(guesser, text, name=name).column
    assert (column.type, declared(column)) == (kind, beside)


def test_ones_and_zeros_are_a_boolean_where_the_name_is_one_of_a_flag(guesser: Guesser) -> None:
    assert guess(guesser, "1", "0", name="ativo").column.type == "boolean"
    assert guess(guesser, "1", "0", name="quantidade").column.type == "bigint"


def test_a_few_values_of_many_that_are_none_are_refused_and_not_the_reason_for_a_text(guesser: Guesser) -> None:
    days = [f"{day:02}/03/2024" for day in range(1, 29)]
    assert guess(guesser, *days, "em breve").column.type == "date"
    assert guess(guesser, *days[:10], "em breve").column.type == "string"


def test_what_no_text_tells_is_reported_as_a_guess(session: DuckDBSession) -> None:
    plain, comma = Guesser(session), Guesser(session, comma=True)
    found = guess(comma, "1.250", "3.500")
    assert (found.column.type, found.column.decimal) == ("decimal(12,2)", ",")
    assert any("does not tell" in line for line in found.evidence)
    assert any("does not tell" in line for line in guess(plain, "1.250", "3.500").evidence)
    assert any("cannot be told apart" in line for line in guess(plain, "10/03/2024").evidence)
    assert not any("cannot be told apart" in line for line in guess(plain, "31/03/2024").evidence)


def test_the_type_that_a_source_has_counts_where_its_texts_are_values_of_it(guesser: Guesser) -> None:
    assert guess(guesser, "1", "2", known="decimal(10,2)").column.type == "decimal(10,2)"
    assert guess(guesser, "1", "dois", known="decimal(10,2)").column.type == "string"
    assert guess(guesser, "4711", "4712", known="string").column.type == "string"
    assert guess(guesser, "2024-03-10", known="string").column.type == "date"
