"""Proposals: each file's declaration, taken as it is, gives a silver table with all of the file's rows."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError, UnreadableFileError
from lakehouse.profile.propose import Proposal
from lakehouse.profile.render import spec_of
from lakehouse.tables.spec import AirbyteStream, Csv, PlainFiles
from lakehouse_tests.conftest import Lake
from lakehouse_tests.profile import shop
from lakehouse_tests.profile.conftest import Profile, workbook


def columns(found: Proposal) -> dict[str, str]:
    return {one.name: one.column.type for one in found.declaration.columns}


def silver(lake: Lake, found: Proposal, *files: tuple[str, bytes | str]) -> list[dict[str, Any]]:
    """Silver after these files landed, with nothing in quarantine."""
    spec = spec_of(found.declaration)
    for name, content in files:
        lake.put(found.declaration.folder, name, content)
    lake.run(spec)
    assert not lake.quarantined(spec)
    return lake.rows(spec.silver)


def test_a_brazilian_shops_csv(profile: Profile, lake: Lake) -> None:
    found = profile("vendas.csv", shop.export(240))
    assert found.declaration.source == PlainFiles("vendas", csv=Csv(delimiter=";", encoding="cp1252"))
    assert columns(found) == {
        **{"codigo": "bigint", "cliente": "string", "cpf": "string", "e_mail": "string", "celular": "string"},
        **{"data_da_venda": "timestamp", "vencimento": "date", "valor_total": "decimal(12,2)", "qtd": "bigint"},
        **{"pago": "boolean", "filial": "string", "cep": "string"},
    }
    assert found.declaration.key.columns == ("codigo",) and found.refused == 0
    personal = {one.name for one in found.declaration.columns if one.column.personal}
    assert personal == {"cliente", "cpf", "e_mail", "celular"}
    rows = silver(lake, found, ("vendas.csv", shop.export(240)))
    assert len(rows) == 240
    (row,) = [row for row in rows if row["codigo"] == 5001]
    assert (str(row["valor_total"]), row["pago"], row["filial"]) == ("123.45", False, "Curitiba")
    assert f"{row['data_da_venda']:%Y-%m-%d %H:%M}" == "2024-02-02 04:01" and row["cpf"] == shop.cpf(123_456_001)
    assert sum(row["vencimento"] is None for row in rows) == 24


def test_nothing_personal_is_in_the_texts_or_on_the_screen(profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    from lakehouse.commands.table import show
    from lakehouse.profile.origin import Origin

    found = profile("vendas.csv", shop.export(240))
    show(found, Origin("vendas.csv", "vendas"))
    for text in (found.module, found.test, capsys.readouterr().out):
        assert len(text) > 500 and [secret for secret in shop.SECRETS if secret in text] == []


def test_repeated_records_are_versions_and_a_key_is_one_that_tells_them_apart(profile: Profile, lake: Lake) -> None:
    lines = [f"{n},{n * 3},2024-01-{1 + n % 28:02}T00:00:01Z" for n in range(1, 60)]
    text = "\n".join(["pedido_id,total,updated_at", *lines, *lines[:5], "7,99,2025-01-01T00:00:00Z"]) + "\n"
    found = profile("pedidos.csv", text)
    assert (found.declaration.key.columns, found.declaration.key.order) == (("pedido_id",), ("updated_at",))
    rows = silver(lake, found, ("a.csv", text))
    assert len(rows) == 59 and next(row["total"] for row in rows if row["pedido_id"] == 7) == 99


def test_two_columns_are_a_key_together_and_without_one_every_record_is_a_row(profile: Profile, lake: Lake) -> None:
    text = "pedido_id,item,valor\n" + "".join(f"{n // 3},{n % 3},1.5\n" for n in range(30))
    assert profile("itens.csv", text).declaration.key.columns == ("pedido_id", "item")
    text = "cor,tamanho\n" + "azul,P\n" * 7
    found = profile("cores.csv", text)
    assert found.declaration.key.columns == () and 'sync="append"' in found.module
    assert len(silver(lake, found, ("cores.csv", text))) == 7


def test_records_within_airbytes_envelope_have_columns_from_their_documents(profile: Profile, lake: Lake) -> None:
    data = {"id": 7, "cliente": {"uf": "SP", "a.b": 1.50}, "itens": [{"sku": "x"}]}
    line = {"_airbyte_raw_id": "q1", "_airbyte_extracted_at": 1704067200000, "_airbyte_meta": {}, "_airbyte_data": data}
    text = json.dumps(line) + "\n"
    found = profile("pedidos.jsonl", text)
    assert found.declaration.source == AirbyteStream("pedidos")
    assert columns(found) == {"id": "bigint", "cliente_uf": "string", "cliente_a_b": "decimal(12,1)", "itens": "string"}
    (row,) = silver(lake, found, ("a.jsonl", text))
    assert (row["cliente_uf"], str(row["cliente_a_b"]), row["itens"]) == ("SP", "1.5", '[{"sku":"x"}]')


def test_fields_that_share_a_name_or_have_none_for_a_column_have_one_each(profile: Profile, lake: Lake) -> None:
    text = "id,saldo+,saldo-,2024,água\n" + "".join(f"{n},{n},{n * 2},{n * 3},{n * 4}\n" for n in range(1, 30))
    found = profile("contas.csv", text)
    rows = silver(lake, found, ("contas.csv", text))
    assert columns(found).keys() == {"id", "saldo", "saldo_2", "c_2024", "agua"}
    (row,) = [row for row in rows if row["id"] == 5]
    assert sorted(row[name] for name in columns(found)) == [5, 5, 10, 15, 20] and (row["c_2024"], row["agua"]) == (15, 20)


@pytest.mark.parametrize("name", ["a.json", "a.csv.gz", "a.parquet", "a.zip"])
def test_other_forms(profile: Profile, lake: Lake, tmp_path: Path, name: str) -> None:
    import duckdb

    rows = [{"id": n, "valor": n / 4, "dia": "2024-02-03"} for n in range(1, 41)]
    path = tmp_path / name
    lines = "id,valor,dia\n" + "".join(f"{row['id']},{row['valor']},{row['dia']}\n" for row in rows)
    if name == "a.json":
        path.write_text(json.dumps(rows))
    elif name == "a.csv.gz":
        import gzip

        path.write_bytes(gzip.compress(lines.encode()))
    elif name == "a.zip":
        import zipfile

        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("dados.csv", lines)
    else:
        made = "SELECT range AS id, range / 4 AS valor, DATE '2024-02-03' AS dia FROM range(1, 41)"
        duckdb.sql(made).write_parquet(str(path))
    found = profile(str(path))
    assert columns(found) == {"id": "bigint", "valor": "double" if name == "a.parquet" else "decimal(12,2)", "dia": "date"}
    assert len(silver(lake, found, (name, path.read_bytes()))) == 40


def test_a_sheet_whose_names_come_after_a_title(profile: Profile, lake: Lake) -> None:
    rows = [["Relatório de vendas"], [], ["Código", "Descrição", "Preço"], *[[n, f"peça {n}", n / 2] for n in range(1, 31)]]
    book = workbook({"Capa": [["x"]], "Peças": rows, "Outra": [["a", "b"], [1, 2]]})
    found = profile("lista.xlsx", book)
    assert found.declaration.source == PlainFiles("lista", csv=Csv(skip=2), sheet="Peças")
    assert columns(found) == {"codigo": "bigint", "descricao": "string", "preco": "decimal(12,1)"}
    assert len(silver(lake, found, ("lista.xlsx", book))) == 30
    other = profile("lista.xlsx", book, sheet="Outra")
    assert columns(other).keys() == {"a", "b"}
    with pytest.raises(UnreadableFileError, match="no sheet 'Nada'"):
        profile("lista.xlsx", book, sheet="Nada")


def test_a_preamble_a_total_and_a_file_without_names(profile: Profile, lake: Lake) -> None:
    lines = "".join(f"{n};peça {n};{n},50\n" for n in range(1, 31))
    text = f"Relatório\n\nid;nome;valor\n{lines}Total;;465,00\n"
    found = profile("lista.csv", text)
    assert found.declaration.source == PlainFiles("lista", csv=Csv(delimiter=";", skip=2, footer=1))
    assert len(silver(lake, found, ("lista.csv", text))) == 30
    without = profile("nada.csv", lines)
    assert without.declaration.source.csv.header == ("coluna_1", "coluna_2", "coluna_3")  # type: ignore[attr-defined]
    people = "".join(f"{shop.cpf(987_000_000 + n)};Ana\n" for n in range(1, 31))
    first = profile("gente.csv", people)
    assert "987.000" not in first.module + first.test and first.trial.rows == 30


def test_a_folder_with_values_in_its_paths(profile: Profile, lake: Lake, tmp_path: Path) -> None:
    for month in ("03", "04"):
        for number in range(2):
            path = tmp_path / "vendas" / f"mes={month}" / f"{number}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("id,valor\n" + "".join(f"{int(month) * 100 + number * 10 + n},1.5\n" for n in range(10)))
    (tmp_path / "vendas" / "leia-me.txt").write_text("x")
    found = profile(str(tmp_path / "vendas"))
    assert columns(found) == {"id": "bigint", "valor": "decimal(12,1)", "mes": "string"} and "mes=03/" in found.test
    shutil.copytree(tmp_path / "vendas", lake.folder / "landing" / "raw" / "vendas", ignore=shutil.ignore_patterns("*.txt"))
    rows = silver(lake, found)
    assert len(rows) == 40 and {row["mes"] for row in rows} == {"03", "04"}


def test_a_stream_that_has_landed_is_read_where_it_is(profile: Profile, lake: Lake, tmp_path: Path) -> None:
    lake.land("cargas/lotes", "a", [{"id": n, "peso": "1.25"} for n in range(1, 12)])
    for named in ("raw/cargas/lotes", "cargas/lotes", str(tmp_path / "landing" / "raw" / "cargas" / "lotes")):
        found = profile(named)
        assert found.declaration.source == AirbyteStream("lotes", folder="cargas/lotes") and found.trial.rows == 11
    assert len(silver(lake, found)) == 11


def test_a_table_of_a_database(profile: Profile, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "loja.db") as connection:
        connection.execute("CREATE TABLE contas (numero INTEGER, filial INTEGER, saldo NUMERIC, PRIMARY KEY (numero, filial))")
        connection.executemany("INSERT INTO contas VALUES (?, ?, ?)", [(n // 2, n % 2, n * 1.25) for n in range(40)])
    found = profile(f"sqlite:///{tmp_path}/loja.db#contas")
    assert columns(found) == {"numero": "bigint", "filial": "bigint", "saldo": "decimal(12,2)"}
    assert found.declaration.key.columns == ("numero", "filial") and found.trial.rows == 40
    assert "primary key of its database table" in found.module and str(tmp_path) not in found.module + found.test


def test_what_would_be_refused_is_counted_and_shown_by_its_shape(profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    from lakehouse.commands.table import show
    from lakehouse.profile.origin import Origin

    lines = [f"{n},{n},1990-01-{1 + n % 28:02}" for n in range(1, 60)]
    text = "\n".join(["id,qtd,nascimento", *lines, "60,muitos,1990-01-01", "61,1,5 de maio"]) + "\n"
    found = profile("p.csv", text)
    show(found, Origin("p.csv", "p"))
    out = capsys.readouterr().out
    assert found.refused == 2 and "2 of 61 records would be refused:\n" in out
    assert "  qtd: 1 are no bigint ('muitos')\n" in out and "  nascimento: 1 are no date ('9 xx xxxx')\n" in out


@pytest.mark.parametrize(
    ("named", "part"),
    [
        ("", "FROM is empty"),
        ("nada.csv", "There is no file"),
        ("s3://bucket/a.csv", "Copy the file to this machine"),
        ("postgresql://ana:senha@host/db", "Write the table after #"),
        ("ftp://x#t", "FROM needs a driver"),
    ],
)
def test_what_is_no_source_is_refused_without_its_password(profile: Profile, named: str, part: str) -> None:
    with pytest.raises(DeclarationError, match=part) as refused:
        profile(named)
    assert "senha" not in str(refused.value)


def test_a_file_without_a_record_is_refused(profile: Profile) -> None:
    with pytest.raises(UnreadableFileError, match="Not one record"):
        profile("v.csv", "id,nome\n")
    with pytest.raises(UnreadableFileError):
        profile("v.parquet", b"no parquet")
