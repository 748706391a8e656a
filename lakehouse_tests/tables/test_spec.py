"""A table that could not work is refused when it is declared, and the message ends with what to do."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError, ExpressionError
from lakehouse.tables import ALL
from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    Csv,
    DeltaSource,
    Feed,
    PlainFiles,
    RowRule,
    Subject,
    TableRule,
    TableSpec,
    accepted_values,
    check_unique,
    expression,
    history_table,
    in_range,
    matches,
    min_rows,
    not_null,
    unique,
    volume_drop,
    with_histories,
)


class UnknownRow(RowRule):
    kind = "weekday"  # type: ignore[assignment]


class UnknownTable(TableRule):
    kind = "max_rows"  # type: ignore[assignment]


ID, AT = Column("id", "bigint"), Column("updated_at", "timestamp")


def spec(**given: Any) -> TableSpec:
    base: dict[str, Any] = {"name": "itens", "source": AirbyteStream("itens"), "columns": (ID, AT), "key": ("id",)}
    return TableSpec(**{**base, "order": ("updated_at",), **given})


TYPED = (Column("t", "string"), Column("d", "date"), Column("m", "decimal(12,2)"), Column("b", "boolean"))


def with_rule(rule: Any) -> TableSpec:
    """A table of columns of each type with one rule, or one more column."""
    columns, rules = (TYPED, (rule,)) if not isinstance(rule, Column) else ((*TYPED, rule), ())
    return spec(columns=(ID, AT, *columns), rules=rules)


REFUSED: dict[str, Callable[[], object]] = {
    "table name": lambda: spec(name="Itens"),
    "silver name": lambda: spec(silver_name="../itens"),
    "stream name": lambda: AirbyteStream("Itens"),
    "csv that is none": lambda: AirbyteStream("itens", csv=";"),  # type: ignore[arg-type]
    "delimiter of two": lambda: Csv(delimiter=";;"),
    "delimiter that is a letter": lambda: Csv(delimiter="a"),
    "delimiter that ends a line": lambda: Csv(delimiter="\n"),
    "quote that is the delimiter": lambda: Csv(delimiter="'", quote="'"),
    "quote of two": lambda: Csv(quote='""'),
    "encoding": lambda: Csv(encoding="cp9999"),
    "encoding of bytes": lambda: Csv(encoding="base64"),
    "lines before none": lambda: Csv(skip=-1),
    "footer of no number": lambda: Csv(footer=True),
    "header that is a text": lambda: Csv(header="id"),  # type: ignore[arg-type]
    "header with a name twice": lambda: Csv(header=("id", "id")),
    "header with an empty name": lambda: Csv(header=("id", " ")),
    "plain files": lambda: PlainFiles("Loja"),
    "folder of plain files": lambda: PlainFiles("loja", folder="../loja"),
    "sheet": lambda: PlainFiles("loja", sheet="a\n"),
    "plain files that are overwritten": lambda: spec(source=PlainFiles("loja"), sync="overwrite"),
    "tag": lambda: spec(tags=("ok", "not ok")),
    "transform": lambda: spec(transform="os.system"),
    "drift": lambda: spec(drift="ignore"),
    "engine": lambda: spec(engine="pandas"),
    "max_loss above one": lambda: spec(max_loss=1.5),
    "max_loss below zero": lambda: spec(max_loss=-0.1),
    "file size": lambda: spec(file_mb=0),
    "column name": lambda: Column("Valor", "string"),
    "column name of the lake": lambda: Column("_batch_id", "string"),
    "type": lambda: Column("a", "text"),
    "type with a space": lambda: Column("a", "decimal(12, 4)"),
    "decimal without digits": lambda: Column("a", "decimal(0,0)"),
    "decimal too wide": lambda: Column("a", "decimal(39,2)"),
    "more decimals than digits": lambda: Column("a", "decimal(4,12)"),
    "type of another engine": lambda: Column("a", "struct<a int>"),
    "source and expression": lambda: Column("a", "bigint", source="b", expression="id"),
    "source that is empty": lambda: Column("a", "bigint", source=""),
    "source with a line end": lambda: Column("a", "bigint", source="b\nc"),
    "source too long": lambda: Column("a", "bigint", source="b" * 129),
    "source and path": lambda: Column("a", "bigint", source="b", path="b.c"),
    "path with an empty step": lambda: Column("a", "bigint", path="b..c"),
    "path that begins with a position": lambda: Column("a", "bigint", path="$[0].c"),
    "path that does not end": lambda: Column("a", "bigint", path="b["),
    "path of a calculated column": lambda: Column("a", "bigint", path="b.c", expression="1"),
    "subject within a document": lambda: spec(columns=(ID, AT, Column("cpf", "string", path="a.b")), subject=Subject("p", "cpf")),
    "same column twice": lambda: spec(columns=(ID, AT, ID)),
    "same rule twice": lambda: spec(rules=(not_null("id"), not_null("id", action="warn"))),
    "no key": lambda: spec(key=()),
    "key that is no column": lambda: spec(key=("id", "x")),
    "no order": lambda: spec(order=()),
    "order that is no column": lambda: spec(order=("criado",)),
    "expression with an unknown column": lambda: spec(columns=(ID, AT, Column("x", "bigint", expression="y + 1"))),
    "expression with a later column": lambda: spec(
        columns=(ID, AT, Column("x", "bigint", expression="y"), Column("y", "bigint", expression="id"))
    ),
    "expression of itself": lambda: spec(columns=(ID, AT, Column("x", "bigint", expression="x"))),
    "deletion condition": lambda: spec(deleted="status = 'deleted'"),
    "rule condition": lambda: spec(rules=(expression("r", "nope > 1"),)),
    "rule that reads no column": lambda: spec(rules=(expression("r", "1 = 1"),)),
    "rule name": lambda: expression("r-1", "id > 1"),
    "rule name of a built-in check": lambda: expression("ledger", "id > 1"),
    "rule name of a cast": lambda: expression("castable_id", "id > 1"),
    "rule action": lambda: expression("r", "id > 1", action="delete"),  # type: ignore[arg-type]
    "table rule action": lambda: min_rows(1, action="quarantine"),  # type: ignore[arg-type]
    "row rule of a kind that is not one": UnknownRow,
    "row rule without a kind": RowRule,
    "table rule of a kind that is not one": UnknownTable,
    "source that is not one": lambda: spec(source="raw/itens"),
    "source of a feed that is not one": lambda: Feed("itens_api", None),  # type: ignore[arg-type]
    "table rule on an unknown column": lambda: spec(rules=(unique("nope"),)),
    "unique without columns": unique,
    "range without bounds": lambda: in_range("id"),
    "range of nothing": lambda: spec(rules=(in_range("id", minimum=float("nan")),)),
    "accepted text of a number": lambda: spec(rules=(accepted_values("id", "1", "x"),)),
    "accepted number beyond the type": lambda: spec(rules=(accepted_values("id", "9223372036854775808"),)),
    "accepted number of a text": lambda: with_rule(accepted_values("t", 1)),
    "accepted day that is none": lambda: with_rule(accepted_values("d", "2024-02-30")),
    "accepted day in another form": lambda: with_rule(accepted_values("d", "01/02/2024")),
    "accepted digits beyond the type": lambda: with_rule(accepted_values("m", "1.005")),
    "accepted word of a boolean": lambda: with_rule(accepted_values("b", "sim")),
    "accepted value of no kind": lambda: accepted_values("m", 1.5),  # type: ignore[arg-type]
    "pattern of a number": lambda: spec(rules=(matches("id", "^[0-9]$"),)),
    "range of a text": lambda: with_rule(in_range("t", minimum=1)),
    "range of a day": lambda: with_rule(in_range("d", minimum=1)),
    "range of a boolean": lambda: with_rule(in_range("b", maximum=1)),
    "expression that compares a number with a text": lambda: with_rule(expression("r", "id = 1 OR 'x' <> id")),
    "expression that rounds what it compares with": lambda: with_rule(expression("r", "id BETWEEN 0 AND '1.5'")),
    "deletion condition of another type": lambda: spec(deleted="id = 'sim'"),
    "calculated column of another type": lambda: with_rule(Column("x", "boolean", expression="m > 'muito'")),
    "no accepted value": lambda: accepted_values("id"),
    "volume drop of nothing": lambda: volume_drop(0),
    "volume drop of more than all": lambda: volume_drop(1.1),
    "rule column": lambda: not_null("Id"),
    "key that may be null with a warning": lambda: spec(rules=(not_null("id", action="warn"),)),
    "key with another rule of that name": lambda: spec(rules=(expression("not_null_id", "id > 0"),)),
    "two tables of one name": lambda: check_unique(spec(), spec()),
    "two silver tables of one name": lambda: check_unique(spec(), spec(name="outros", silver_name="itens")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_a_remedy(case: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        REFUSED[case]()
    text, remedy = str(refusal.value), refusal.value.remedy
    assert text.endswith(remedy) and remedy[0].isupper() and remedy.endswith(".")
    assert text != remedy, "it says what is wrong, too"


def test_a_refused_expression_names_the_columns_that_there_are() -> None:
    with pytest.raises(ExpressionError, match="id, updated_at"):
        spec(deleted="nope")


def test_a_good_spec_states_where_its_tables_are() -> None:
    made = spec(silver_name="itens_limpos", drift="freeze", freshness=timedelta(hours=1), transform="itens", tags=("a",))
    assert [str(ref) for ref in (made.landing, made.bronze, made.silver, made.quarantine)] == [
        "landing/itens",
        "bronze/itens",
        "silver/itens_limpos",
        "quarantine/itens",
    ]


def test_the_silver_table_is_called_as_the_bronze_one_unless_declared_otherwise() -> None:
    assert spec().silver.table == "itens"


def test_a_dialect_that_is_not_declared_is_in_no_code_version() -> None:
    """Another text of the same declaration would compute every table again."""
    plain = "AirbyteStream(stream='itens', folder='itens', made_by='', connector=None)"
    assert repr(AirbyteStream("itens")) == plain
    assert repr(AirbyteStream("itens", csv=Csv(delimiter=";"))) == f"{plain[:-1]}, csv=Csv(delimiter=';'))"
    assert (
        repr(PlainFiles("loja", csv=Csv(header=("id",))))
        == "PlainFiles(name='loja', folder='loja', csv=Csv(header=('id',)), sheet='')"
    )


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        spec().name = "outro"  # type: ignore[misc]


def test_a_key_is_never_null_without_stating_so_and_is_not_validated_twice() -> None:
    assert [rule.name for rule in spec().row_rules] == ["not_null_id"]
    output = spec(rules=(not_null("id", action="fail"), not_null("updated_at")))
    assert [(rule.name, rule.action) for rule in output.row_rules] == [
        ("not_null_id", "fail"),
        ("not_null_updated_at", "quarantine"),
    ]


def test_calculated_columns_may_use_those_before_them() -> None:
    made = spec(columns=(ID, AT, Column("x", "bigint", expression="id + 1"), Column("y", "bigint", expression="x * 2")))
    assert made.parsed("y > 1").columns == {"y"}


def test_a_renamed_column_is_read_from_the_delivered_field() -> None:
    assert Column("timestamp_gps", "bigint", source="dataHora").bronze_name == "datahora"
    assert Column("valor", "bigint").bronze_name == "valor"


@pytest.mark.parametrize(
    ("rule", "name", "condition"),
    [
        (not_null("a"), "not_null_a", '"a" IS NOT NULL'),
        (accepted_values("a", "x", "it's"), "accepted_values_a", "\"a\" IN ('x', 'it''s')"),
        (in_range("a", minimum=0, maximum=1.5), "range_a", '"a" >= 0 AND "a" <= 1.5'),
        (in_range("a", maximum=3), "range_a", '"a" <= 3'),
        (matches("a", "^'x"), "matches_a", "regexp_matches(\"a\", '^''x')"),
        (expression("r", "a > 1"), "r", "a > 1"),
    ],
)
def test_rules_in_words(rule: RowRule, name: str, condition: str) -> None:
    assert (rule.name, rule.condition, rule.action) == (name, condition, "quarantine")


@pytest.mark.parametrize(
    ("rule", "name", "text", "action"),
    [
        (min_rows(100), "min_rows_100", "min_rows 100", "fail"),
        (unique("a", "b", action="warn"), "unique_a_b", "unique a, b", "warn"),
        (volume_drop(0.2), "volume_drop", "volume_drop 0.2", "fail"),
    ],
)
def test_table_rules_in_words(rule: TableRule, name: str, text: str, action: str) -> None:
    assert (rule.name, rule.text, rule.action) == (name, text, action)


def test_rules_of_both_sorts_are_told_apart() -> None:
    assert spec(rules=(min_rows(1), not_null("id"), unique("id"))).table_rules == (min_rows(1), unique("id"))


def test_what_is_not_one_of_a_closed_set_is_answered_with_the_set() -> None:
    with pytest.raises(DeclarationError, match=r"Use one of duckdb, spark\.$"):
        spec(engine="pandas")


def test_the_declared_tables_are_whole() -> None:
    assert {table.name for table in ALL} >= {"vendas", "produtos", "clientes"}
    for table in ALL:
        assert table.description and table.owners
        assert replace(table) == table, "it can be declared again from its own values"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history": ()}, "history="),
        ({"history": ("nada",)}, "'nada'"),
        ({"history": ("id",)}, "'id'"),
        ({"history": "status"}, "history='status'"),
        ({"history": True, "sync": "append", "key": (), "order": ()}, "no key"),
        ({"history": True, "source": DeltaSource("/x", "x", withdrawals="delete")}, "withdrawn"),
        ({"history": True, "columns": (ID, AT, Column("version", "int"))}, "'version'"),
        ({"history": True, "silver_name": "a" * 60}, "cannot be"),
    ],
)
def test_a_history_that_has_no_meaning_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        spec(**changes)


def test_a_history_is_a_table_of_its_own() -> None:
    own = spec(history=True)
    found = history_table(own)
    assert (str(found.silver), found.key, found.bronze) == ("silver/itens_history", ("id", "valid_from"), own.bronze)
    assert [column.name for column in found.columns] == ["id", "updated_at", "valid_from", "valid_to", "is_current", "version"]
    other = spec(name="outros")
    assert with_histories(own, other) == (own, found, other)
    with pytest.raises(DeclarationError, match="silver/itens_history"):
        check_unique(own, spec(name="itens_history"))
