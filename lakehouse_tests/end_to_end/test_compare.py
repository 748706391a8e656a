"""`make compare`: two tables that say the same, and every way in which one may not."""

import shutil
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse.commands.compare import compare
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake
from lakehouse_tests.foreign import Theirs


def sale(number, **changed):
    return {
        "id": number, "pedido_id": f"p{number}", "produto_id": "x", "descricao": "café", "quantidade": 2,
        "valor_unitario": "1.50", "cliente_id": None if number == 3 else 7, "pais": "Brasil", "status": "paid",
        "created_at": "2026-01-01T10:00:00Z", "updated_at": "2026-01-01T10:00:00Z", **changed,
    }  # fmt: skip


@pytest.fixture(scope="module")
def sold(tmp_path_factory):
    """A silver table of five sales."""
    lake = Lake(tmp_path_factory.mktemp("sold"))
    lake.land("vendas", "a", [sale(number) for number in range(5)])
    lake.run(VENDAS)
    return lake


@pytest.fixture
def here(sold, lake, monkeypatch):
    """That table in a lake of the test's own, and the settings that lead to it."""
    shutil.copytree(sold.folder, lake.folder, dirs_exist_ok=True)
    monkeypatch.setenv("LAKEHOUSE_ROOT", lake.storage.root)
    return lake


@pytest.fixture
def other(here, tmp_path):
    """Another flow's table with these rows: numbers as text, instants as text, a column of its own."""

    def write(change=lambda rows: rows):
        rows = [{name: row[name] for name in row if name != "_extracted_at"} for row in here.rows(VENDAS.silver)]
        for row in rows:
            row |= {"valor_unitario": f"{row['valor_unitario'].normalize():f}", "id": str(row["id"]), "loaded_by": "old"}
            row |= {"created_at": row["created_at"].isoformat(), "updated_at": row["updated_at"].isoformat()}
        location = str(tmp_path / "old")
        write_deltalake(location, pa.Table.from_pylist(change(rows)), mode="overwrite", schema_mode="overwrite")
        return location

    return write


def test_the_same_values_in_other_types_are_the_same(other, capsys):
    assert compare("vendas", other()) == 0
    output = capsys.readouterr().out
    assert "only here: column _extracted_at" in output and "only there: column loaded_by" in output
    assert output.endswith("5 rows are in both; 12 columns were compared, and nothing differs\n")


def test_a_table_is_the_same_as_itself(here, capsys):
    assert compare("vendas", here.storage.uri(VENDAS.silver)) == 0
    assert capsys.readouterr().out.endswith("5 rows are in both; 13 columns were compared, and nothing differs\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: [{**row, "quantidade": 9} if row["id"] == "2" else row for row in rows],
         "1 rows differ in quantidade\n    2: 2 here, 9 there"),
        (lambda rows: [{**row, "cliente_id": 1} if row["id"] == "3" else row for row in rows],
         "1 rows differ in cliente_id\n    3: None here, 1 there"),
        (lambda rows: [{**row, "pais": None} if row["id"] == "1" else row for row in rows],
         "1 rows differ in pais\n    1: Brasil here, None there"),
        (lambda rows: [{**row, "quantidade": "1.5" if row["id"] == "2" else "2"} for row in rows],
         "1 rows differ in quantidade\n    2: 2 here, 1.5 there"),
        (lambda rows: [{**row, "cliente_id": "x" if row["id"] == "3" else "7"} for row in rows],
         "1 rows differ in cliente_id\n    3: None here, x there"),
        (lambda rows: rows[1:], "1 rows are only here\n    0"),
        (lambda rows: [*rows, {**rows[0], "id": "99"}], "1 rows are only there\n    99"),
        (lambda rows: [*rows, rows[4]], "1 keys occur more than once there"),
    ],
)  # fmt: skip
def test_a_planted_difference_is_named(other, capsys, change, expected):
    assert compare("vendas", other(change)) == 1
    output = capsys.readouterr().out
    assert expected in output and "nothing differs" not in output


def test_a_table_with_mapped_columns_deleted_rows_and_odd_partitions_is_read_as_its_rows(here, tmp_path, capsys):
    theirs = Theirs(
        tmp_path / "old", {"id": "long", "pais": "string", "Valor Unitario": "string"}, partition_by=["pais"], mapped=True,
        features=["deletionVectors"],
    )  # fmt: skip
    theirs.add(
        {"id": range(5), "Valor Unitario": ["1.5"] * 5}, partition={"pais": "Brasil"}, deleted=[2], name="p=100%25/um.parquet"
    )
    assert compare("vendas", str(tmp_path / "old")) == 1
    output = capsys.readouterr().out
    assert f"there: {tmp_path}/old, version 1, 4 rows" in output
    assert "1 rows are only here\n    2\n" in output and "differ in" not in output
    assert output.endswith("4 rows are in both; 2 columns were compared\n")


def test_null_is_not_the_empty_text(other, capsys):
    assert compare("vendas", other(lambda rows: [{**row, "descricao": "" if row["id"] == "2" else None} for row in rows])) == 1
    assert "5 rows differ in descricao\n    0: café here, None there" in capsys.readouterr().out


@pytest.fixture
def nested(here, tmp_path):
    """Another flow's table whose `descricao` is typed, beside five sales of which it is the given text."""

    def compared(text, values, kind, *, delta):
        here.land("vendas", "b", [sale(number, descricao=text, updated_at="2026-01-02T10:00:00Z") for number in range(5)])
        here.run(VENDAS)
        folder = tmp_path / "old"
        theirs = Theirs(folder, {"id": "long", "descricao": delta}, features=["variantType"] if delta == "variant" else [])
        theirs.add(pa.table({"id": range(5), "descricao": pa.array(values, kind)}))
        return compare("vendas", str(folder))

    return compared


STRUCT = {"type": "struct", "fields": [{"name": "a", "type": "decimal(5,2)", "nullable": True, "metadata": {}},
                                       {"name": "b", "type": "string", "nullable": True, "metadata": {}}]}  # fmt: skip
ARRAY = {"type": "array", "elementType": "boolean", "containsNull": True}
MAP = {"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": True}
TYPED = pa.struct({"a": pa.decimal128(5, 2), "b": pa.string()})
VARIANT = pa.struct({"metadata": pa.binary(), "value": pa.binary()})


@pytest.mark.parametrize(
    ("text", "value", "kind", "delta"),
    [
        ('{"b": "x", "a": 1.10}', {"a": Decimal("1.10"), "b": "x"}, TYPED, STRUCT),
        ('{"a":1.1}', {"a": Decimal("1.10"), "b": None}, TYPED, STRUCT),
        ("[true, null]", [True, None], pa.list_(pa.bool_()), ARRAY),
        ('{"y": null, "x": 9007199254740993}', [("x", 9007199254740993), ("y", None)], pa.map_(pa.string(), pa.int64()), MAP),
        ('{"key": 1}', {"metadata": b"\x01\x01\x00\x03key", "value": b"\x02\x01\x00\x00\x02\x0c\x01"}, VARIANT, "variant"),
    ],
)
def test_a_nested_value_equals_its_json(nested, capsys, text, value, kind, delta):
    assert nested(text, [value] * 5, kind, delta=delta) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "value", "kind", "delta", "shown"),
    [
        ("[1, null]", [True, None], pa.list_(pa.bool_()), ARRAY, "[1, null] here, [true,null] there"),
        ('{"x": 9007199254740992}', [("x", 9007199254740993)], pa.map_(pa.string(), pa.int64()), MAP, '{"x":9007199254740993}'),
        ('{"x": 1}', [("x", 1), ("y", None)], pa.map_(pa.string(), pa.int64()), MAP, '{"x":1,"y":null} there'),
        ("[]", None, pa.list_(pa.bool_()), ARRAY, "[] here, None there"),
    ],
)
def test_another_nested_value_differs(nested, capsys, text, value, kind, delta, shown):
    assert nested(text, [value] * 5, kind, delta=delta) == 1
    output = capsys.readouterr().out
    assert "5 rows differ in descricao\n    0: " in output and shown in output


def test_what_cannot_be_compared_is_refused(here, tmp_path):
    with pytest.raises(DeclarationError, match="'old' is not an absolute folder"):
        compare("vendas", "old")
    with pytest.raises(BrokenTableError, match=r"There is no Delta table in .*/nothing"):
        compare("vendas", str(tmp_path / "nothing"))
    write_deltalake(str(tmp_path / "keyless"), pa.table({"a": [1]}))
    with pytest.raises(DeclarationError, match="keyless has no column id"):
        compare("vendas", str(tmp_path / "keyless"))
