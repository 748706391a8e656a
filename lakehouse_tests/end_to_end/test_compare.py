"""`make compare`: two tables that say the same, and every way in which one may not."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse.compare import compare
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.tables.vendas import VENDAS


def sale(number, **changed):
    return {
        "id": number, "pedido_id": f"p{number}", "produto_id": "x", "descricao": "café", "quantidade": 2,
        "valor_unitario": "1.50", "cliente_id": None if number == 3 else 7, "pais": "Brasil", "status": "paid",
        "created_at": "2026-01-01T10:00:00Z", "updated_at": "2026-01-01T10:00:00Z", **changed,
    }  # fmt: skip


@pytest.fixture
def here(lake, monkeypatch):
    """A silver table of five sales, and the settings that lead to it."""
    lake.land("vendas", "a", [sale(number) for number in range(5)])
    lake.run(VENDAS)
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
        place = str(tmp_path / "old")
        write_deltalake(place, pa.Table.from_pylist(change(rows)), mode="overwrite", schema_mode="overwrite")
        return place

    return write


def test_the_same_values_in_other_types_are_the_same(other, capsys):
    assert compare("vendas", other()) == 0
    said = capsys.readouterr().out
    assert "only here: column _extracted_at" in said and "only there: column loaded_by" in said
    assert said.endswith("5 rows are in both; 12 columns were compared, and nothing differs\n")


def test_a_table_is_the_same_as_itself(here, capsys):
    assert compare("vendas", here.storage.uri(VENDAS.silver)) == 0
    assert capsys.readouterr().out.endswith("5 rows are in both; 13 columns were compared, and nothing differs\n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: [{**row, "quantidade": 9} if row["id"] == "2" else row for row in rows],
         "1 rows differ in quantidade\n    2: 2 here, 9 there"),
        (lambda rows: [{**row, "cliente_id": 1} if row["id"] == "3" else row for row in rows],
         "1 rows differ in cliente_id\n    3: None here, 1 there"),
        (lambda rows: [{**row, "pais": None} if row["id"] == "1" else row for row in rows],
         "1 rows differ in pais\n    1: Brasil here, None there"),
        (lambda rows: rows[1:], "1 rows are only here\n    0"),
        (lambda rows: [*rows, {**rows[0], "id": "99"}], "1 rows are only there\n    99"),
        (lambda rows: [*rows, rows[4]], "1 keys occur more than once there"),
    ],
)  # fmt: skip
def test_a_planted_difference_is_named(other, capsys, change, says):
    assert compare("vendas", other(change)) == 1
    said = capsys.readouterr().out
    assert says in said and "nothing differs" not in said


def test_what_cannot_be_compared_is_refused(here, tmp_path):
    with pytest.raises(DeclarationError, match="'old' is not an absolute folder"):
        compare("vendas", "old")
    with pytest.raises(BrokenTableError, match=r"There is no Delta table in .*/nothing"):
        compare("vendas", str(tmp_path / "nothing"))
    write_deltalake(str(tmp_path / "keyless"), pa.table({"a": [1]}))
    with pytest.raises(DeclarationError, match="keyless has no column id"):
        compare("vendas", str(tmp_path / "keyless"))
