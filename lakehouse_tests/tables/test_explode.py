"""A table whose rows are elements: what its declaration says, and what is refused."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.tables.spec import (
    AirbyteStream,
    Column,
    PlainFiles,
    Retention,
    Subject,
    TableSpec,
    check_subjects,
    reads_same,
)

ID = Column("pedido_id", "bigint", source="id", parent=True)
POSITION = Column("posicao", "int", position=True)
SKU = Column("sku", "string")
AT = Column("em", "timestamp", parent=True)
SPEC = TableSpec(
    name="pedidos_itens",
    source=AirbyteStream("pedidos"),
    explode="itens",
    columns=(ID, POSITION, SKU, AT, Column("dia", "date", expression="CAST(em AS DATE)")),
    key=("pedido_id", "posicao"),
    order=("em",),
)


def test_records_have_fields_and_elements_have_theirs() -> None:
    assert dict(SPEC.fields) == {"id": "id", "em": "em", "itens": "itens"}, "what bronze is asked for, and what has to land"
    assert [column.name for column in SPEC.of_elements] == ["sku"]
    assert SPEC.record_level == {"pedido_id", "em", "dia"} and SPEC.record_key == ("pedido_id",)
    plain = replace(SPEC, explode="", columns=(replace(ID, parent=False), SKU, replace(AT, parent=False)), key=("pedido_id",))
    assert plain.record_key == plain.key and plain.of_record == plain.delivered and plain.array is None


def test_the_text_of_the_array_is_personal_where_a_column_of_the_record_shows_it() -> None:
    raw = replace(SPEC, columns=(*SPEC.columns, Column("bruto", "string", source="itens", parent=True, personal=True)))
    assert SPEC.array is not None and not SPEC.array.personal
    assert raw.array is not None and raw.array.personal


def test_a_column_of_a_record_is_written_as_before() -> None:
    assert "parent" not in repr(SKU) and "position" not in repr(SKU) and "parent=True" in repr(ID)


REFUSED: dict[str, dict[str, Any]] = {
    "parent columns of records": {"explode": ""},
    "the position of a record": {"explode": "", "columns": (SKU, POSITION, replace(AT, parent=False)), "key": ("sku",)},
    "an element as a whole of a record": {
        "explode": "",
        "columns": (replace(SKU, path="$"),),
        "key": ("sku",),
        "order": ("sku",),
    },
    "no path": {"explode": "[0]"},
    "no position": {"columns": (ID, SKU, AT)},
    "two positions": {"columns": (*SPEC.columns, Column("outra", "int", position=True))},
    "a key without the position": {"key": ("pedido_id",)},
    "a key that does not end with it": {"key": ("posicao", "pedido_id")},
    "the position alone": {"key": ("posicao",)},
    "a key of the element's": {"key": ("pedido_id", "sku", "posicao")},
    "no key at all": {"key": ()},
    "an order of the element's": {"order": ("sku",)},
    "deleted by an element": {"deleted": "sku = 'x'"},
    "the array's own name": {"columns": (*SPEC.columns, Column("itens", "string"))},
    "the whole record": {"columns": (*SPEC.columns, Column("tudo", "string", path="$", parent=True))},
    "a transform": {"transform": "vendas"},
    "observed": {"columns": (*SPEC.columns, Column("visto", "timestamp", observed="first"))},
    "an event of the element's": {
        "columns": (*SPEC.columns, Column("feito", "date")),
        "retention": Retention(event="feito", silver=timedelta(days=9)),
    },
    "a subject of the element's": {"columns": (*SPEC.columns, Column("quem", "string")), "subject": Subject("pessoa", "quem")},
    "a calculated parent": {"columns": lambda: (*SPEC.columns, Column("x", "int", expression="1", parent=True))},
    "a position that is a text": {"columns": lambda: (ID, Column("posicao", "string", position=True), AT)},
    "a constant of the element's": {"columns": lambda: (*SPEC.columns, Column("canal", "string")), "values": {"canal": "api"}},
    "a list of paths": {"explode": ["itens"]},
    "a position with a source": {"columns": lambda: (ID, Column("posicao", "int", position=True, source="n"), AT)},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_a_remedy(case: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        replace(SPEC, **{name: value() if callable(value) else value for name, value in REFUSED[case].items()})
    remedy = refusal.value.remedy
    assert str(refusal.value).endswith(remedy) and remedy[0].isupper() and remedy.endswith(".") and str(refusal.value) != remedy


def test_tables_of_the_same_files_are_about_the_same_subject() -> None:
    about = replace(
        SPEC, name="pedidos", silver_name="pedidos", columns=(*SPEC.columns, Column("quem", "string", parent=True)),
        subject=Subject("pessoa", "quem"),
    )  # fmt: skip
    for specs in ((SPEC, about), (about, SPEC)):
        with pytest.raises(DeclarationError, match=r"'pedidos_itens' reads the files of 'pedidos'.*about a pessoa"):
            check_subjects(*specs)
    driven = replace(about, name="entregas", silver_name="entregas", subject=Subject("motorista", "quem"))
    assert check_subjects(about, driven) == (about, driven), "each says whom it is about"
    other = replace(SPEC, source=AirbyteStream("other"))
    assert check_subjects(about, other, replace(about, name="itens")) != ()
    assert reads_same(AirbyteStream("a", folder="x/a"), PlainFiles("x", folder="x/a"))
    assert not reads_same(AirbyteStream("a"), PlainFiles("b"))
