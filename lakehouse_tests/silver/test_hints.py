"""Values that could not be cast: one line a column says which, why, and the declaration that would accept them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.rules import Release
from lakehouse.silver.hints import hint
from lakehouse.silver.refresh import Refresh
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range, min_rows, not_null
from lakehouse_tests.conftest import Lake, few

ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]
#: What is refused, by the column that refuses it, and what is to be declared.
CAUSES: dict[str, tuple[Column, tuple[str, ...], str]] = {
    "rounding": (Column("v", "decimal(12,2)"), ("1.005", "2.499"), """Add rounding="half_up" to Column('v', 'decimal(12,2)',"""),
    "comma": (Column("v", "decimal(12,2)"), ("1.250,50", "R$ 10,00"), """Add decimal="," to Column('v', 'decimal(12,2)',"""),
    "dollars": (Column("v", "decimal(12,2)"), ("$1,250.50",), """Add decimal="." to Column('v', 'decimal(12,2)', ...)."""),
    "comma and digits": (Column("v", "decimal(12,2)"), ("1,255",), """Add decimal=",", rounding="half_up" to"""),
    "large": (Column("v", "decimal(5,2)"), ("123456.78",), "Declare Column('v', 'decimal(38,2)', ...)."),
    "int": (Column("v", "int"), ("3000000000",), "Declare Column('v', 'bigint', ...)."),
    "cents": (Column("v", "bigint"), ("10.5",), "Declare Column('v', 'decimal(18,2)', ...)."),
    "cents with a comma": (Column("v", "bigint"), ("10,5",), """Declare Column('v', 'decimal(18,2)', decimal=",", ...)."""),
    "words": (Column("v", "boolean"), ("S", "N", "S"), "Add true=('S',), false=('N',) to Column('v', 'boolean', ...)."),
    "more words": (Column("v", "boolean", true=("ok",)), ("sim",), "Add true=('ok', 'sim') to"),
    "words in capitals": (Column("v", "boolean"), ("SIM", "NÃO ", "Nao"), "Add true=('SIM',), false=('Nao', 'NÃO ') to"),
    "blanks": (Column("v", "date"), (" 2026-01-02 ",), "Add trim=True to Column('v', 'date', ...)."),
    "days": (Column("v", "date"), ("31/01/2026", "01/02/2026"), """Add format="%d/%m/%Y" to Column('v', 'date', ...)."""),
    "months first": (Column("v", "date"), ("01/31/2026",), """Add format="%m/%d/%Y" to"""),
    "instants": (Column("v", "timestamp"), ("31/01/2026 10:30",), """Add format="%d/%m/%Y %H:%M" to"""),
    "numbers": (Column("v", "timestamp"), ("1767225600",), """Add form="epoch_s" to"""),
    "nothing known": (Column("v", "date"), ("amanhã",), "Add the format that the source writes to Column('v', 'date', ...), or"),
    "no number": (Column("v", "bigint"), ("abc",), "Correct the source, or declare 'v' as it is written."),
    "mostly": (Column("v", "date"), ("31/01/2026", "30/01/2026", "x"), """Add format="%d/%m/%Y" to"""),
}  # fmt: skip


@pytest.mark.parametrize("case", few(CAUSES, "rounding", "comma", "large", "words in capitals", "instants", "mostly"))
def test_the_declaration_that_accepts_them_is_named(lake: Lake, case: str) -> None:
    column, texts, way = CAUSES[case]
    with lake.session() as session:
        assert hint(session, column, texts).way.startswith(way)


def test_a_date_that_may_be_read_two_ways_is_named_as_such(lake: Lake) -> None:
    with lake.session() as session:
        found = hint(session, Column("v", "date"), ["01/02/2026", "03/04/2026"])
    assert found.declare.startswith('Add format="%d/%m/%Y"') and found.cause.endswith("(or %m/%d/%Y: look)")


SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(
        Column("id", "bigint"),
        Column("valor", "decimal(12,2)"),
        Column("cpf", "bigint", personal=True),
        Column("pago", "boolean", personal=True),
        Column("dobro", "int", expression="id * 2"),
    ),
    key=("id",),
    order=("id",),
    max_loss=1.0,
)


def item(number: int, valor: str = "1", cpf: str = "123", pago: str = "1") -> dict[str, Any]:
    return {"id": number, "valor": valor, "cpf": cpf, "pago": pago}


def lines(refresh: Refresh) -> list[str]:
    return [line for finding in refresh.findings for line in finding.lines]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_line_per_column_has_table_count_samples_cause_and_declaration(tmp_path: Path, engine: str) -> None:
    lake = Lake(tmp_path, engine=engine)
    bad = [item(n, valor=f"1.25{n % 5},00") for n in range(10)]
    lake.land("itens", "a", [*bad, item(20, cpf="111.222.333-44"), item(21, pago="S"), item(3_000_000_000)])
    found = lines(lake.run(SPEC))
    assert found == [
        "silver/itens valor: 10 of 13 values are no decimal(12,2) ('1.250,00', '1.251,00', '1.252,00'): written with a decimal "
        "comma, thousands marks or a currency sign. Add decimal=\",\" to Column('valor', 'decimal(12,2)', ...). "
        "Then make rebuild TABLE=itens.",
        "silver/itens cpf: 1 of 13 values are no bigint: none of the known ways to write one. "
        "Correct the source, or declare 'cpf' as it is written.",
        "silver/itens pago: 1 of 13 values are no boolean: other words for true and false. "
        "Add their words as true=(…), false=(…) to Column('pago', 'boolean', ...). Then make rebuild TABLE=itens.",
        "silver/itens dobro: 1 of 13 could not be calculated as int (id * 2): an overflow, a bad cast, or digits that it has no "
        "room for. Correct it (round(…) says to how many digits), or widen its type.",
    ]
    assert lines(lake.refresh(SPEC)) == []
    fixed = replace(SPEC, columns=(SPEC.columns[0], Column("valor", "decimal(12,2)", decimal=","), *SPEC.columns[2:]))
    again = lines(lake.refresh(fixed, rebuild=True))
    assert not any(" valor:" in line for line in again) and len(lake.rows(SPEC.silver)) >= 10


def test_a_field_with_a_personal_column_is_not_shown_by_another(lake: Lake) -> None:
    columns = (SPEC.columns[0], Column("cpf", "string", personal=True), Column("numero", "bigint", source="cpf"))
    lake.land("itens", "a", [item(1, cpf="segredo")])
    (line,) = lines(lake.run(replace(SPEC, columns=columns)))
    assert line.startswith("silver/itens numero: 1 of 1 values are no bigint: ") and "segredo" not in line


def test_a_long_text_is_cut(lake: Lake) -> None:
    lake.land("itens", "a", [item(1, valor="9" * 500)])
    (line,) = lines(lake.run(SPEC))
    assert f"('{'9' * 40}…')" in line


STOPPED = {
    "a rule of the table": (min_rows(5),),
    "a rule of a row": (not_null("valor", action="fail"),),
}


@pytest.mark.parametrize("kind", STOPPED)
def test_to_accept_is_never_the_advice_where_values_failed_to_cast(lake: Lake, kind: str) -> None:
    spec = replace(SPEC, rules=STOPPED[kind])
    lake.land("itens", "a", [item(n, valor="1,50") for n in range(3)])
    refresh = lake.run(spec)
    assert refresh.stopped and "valor: 3 of 3" in lines(refresh)[0]
    messages = [str(finding.detail["what_to_do"]) for finding in refresh.findings if finding.stops]
    assert messages and all("ACTION=accept" not in text and "Values could not be cast" in text for text in messages)
    assert all(("make release" in text) == (kind == "a rule of a row") for text in messages)


def test_it_is_where_they_did_not(lake: Lake) -> None:
    spec = replace(SPEC, rules=(in_range("valor", maximum=1, action="fail"),))
    lake.land("itens", "a", [item(1, valor="5")])
    refresh = lake.run(spec)
    assert refresh.stopped and "ACTION=accept" in str([finding.detail for finding in refresh.findings if finding.stops])
    assert lake.refresh(spec, release=Release("a test", accept=True)).transaction is not None
