"""One subject forgotten: nothing in any file names it any more, and all others are as they were."""

import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError, RefusedWriteError, UnreadableFileError
from lakehouse.core.table.snapshot import open_existing
from lakehouse.landing.readers.files import avro
from lakehouse.landing.readers.files.packing import packing, unpack
from lakehouse.landing.readers.files.reading import Reading
from lakehouse.maintenance import forget
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.landed_records import Naming, without
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.retention import expire
from lakehouse.tables.spec import AirbyteStream, Column, Csv, Subject, TableSpec, matches
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import FORMS, Lake, Row
from lakehouse_tests.landing.readers.test_dialects import PACKED, written
from lakehouse_tests.landing.readers.test_kinds import parquet
from lakehouse_tests.landing.readers.workbook import cell, rows, text, workbook
from lakehouse_tests.maintenance.test_retention import DAY, NOW, ONLY_BRONZE, checked

#: Found nowhere by chance.
KEY = "cliente-7f3a91"
VENDA = replace(
    ONLY_BRONZE,
    name="venda",
    silver_name="venda",
    source=AirbyteStream("venda"),
    columns=(*ONLY_BRONZE.columns, Column("quem", "string")),
    subject=Subject("pessoa", "quem"),
)
PESSOA = TableSpec(
    name="pessoa",
    source=AirbyteStream("pessoa"),
    columns=(Column("id", "string"), Column("nome", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    deleted="nome = 'gone'",
    max_loss=1.0,
    subject=Subject("pessoa", "id"),
)
SPECS = (VENDA, PESSOA)


def sale(number: Any, who: str | None, *, age: float = 5, version: int = 1, n: int = 1) -> Row:
    criado = NOW - age * DAY
    em = (criado + version * DAY / 24).isoformat()
    return {"id": number, "nome": "a", "criado": criado.isoformat(), "em": em, "n": n, "quem": who}


def person(key: str, name: str = "a", day: int = 1) -> Row:
    return {"id": key, "nome": name, "em": f"2026-01-{day:02}T00:00:00Z"}


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file below a folder, decoded: Parquet as text of its rows and statistics, others as they are."""
    import pyarrow.parquet as pq

    out = {}
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            if raw[:4] == b"PAR1":
                file = pq.ParquetFile(path)
                out[str(path)] = str(file.read().to_pylist()) + raw.decode("latin-1")
            else:
                out[str(path)] = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("latin-1")
    return out


def containing(lake: Lake, key: str = KEY) -> list[str]:
    return [path for path, text in bytes_of(lake.folder).items() if key in text]


def forgotten(lake: Lake, key: str = KEY, specs: tuple[TableSpec, ...] = SPECS) -> tuple[dict[str, int], list[str]]:
    """What the command does, without gold; what was erased, and what the search finds."""
    subject = forget.subject_of(specs, specs[0].name, key)
    vault = Vault(str(lake.folder / "backup"), str(lake.folder / "scratch"))
    Path(vault.scratch).mkdir(exist_ok=True)
    tables, _ = forget.tables_of(lake.storage, subject)
    with lake.session() as session:
        found = forget.erase(session, lake.storage, subject)
    for ref in tables:
        forget.drop_history(lake.storage.uri(ref))
    if vault.names():
        assert not vault.prove(vault.take(lake.storage).backup, session=lake.session).damaged
        vault.expire(retain=1)
    return found, forget.search(lake.storage, subject, vault)


@pytest.fixture
def known(lake: Lake) -> Lake:
    """Somebody in silver, quarantine, bronze, baseline, tombstones, unreadable lines, history and a backup."""
    lake.land("venda", "a", [sale(1, KEY), sale(2, "b"), sale(3, KEY, n=999), sale(4, "b", n=999), sale(5, KEY, age=40)])
    lake.run(VENDA)
    lake.land("venda", "b", [sale(6, "b"), sale(6, KEY, version=2), sale(7, KEY), sale(7, "b", version=2)], "v1-csv.gz")
    lake.run(VENDA)
    gone = {**sale(8, KEY, version=2), "nome": "gone"}
    lake.land("venda", "c", [sale(8, KEY), gone, sale(9, None), sale(10, "b", age=40)], "v2-parquet")
    lake.run(VENDA)
    lake.put("venda", "d.jsonl", f'{{"_airbyte_raw_id": "1", broken {KEY}\n{{"_airbyte_raw_id": "2", broken too\n')
    lake.run(VENDA)
    lake.land("pessoa", "a", [person(KEY), person("b")])
    lake.run(PESSOA)
    lake.land("pessoa", "b", [person(KEY, "gone", 2), person("c")], "v2-csv-flat")
    lake.run(PESSOA)
    with lake.session() as session:
        expire(session, lake.storage, VENDA, now=NOW)
    Vault(str(lake.folder / "backup"), str(lake.folder / "scratch")).take(lake.storage)
    return lake


def test_a_search_over_every_file_finds_nothing_and_all_others_stand(known: Lake) -> None:
    assert len(containing(known)) > 15
    others = [row for row in known.rows(VENDA.silver) if row["quem"] != KEY]
    found, left = forgotten(known)
    assert left == [] and containing(known) == []
    assert known.rows(VENDA.silver) == others and [row["id"] for row in others] == [2, 7, 9, 10]
    assert [row["id"] for row in known.rows(PESSOA.silver)] == ["b", "c"]
    assert {name: count for name, count in found.items() if count} == {
        "landing/venda": 8,
        "quarantine/venda": 2,
        "silver/venda": 3,
        "ops/deletes_venda": 1,
        "ops/baseline_venda": 1,
        "bronze/venda": 7,
        "landing/pessoa": 2,
        "bronze/pessoa": 2,
        "ops/deletes_pessoa": 1,
    }
    assert len(known.quarantined(VENDA)) == 2, "somebody else's record, and a line that names nobody"
    for spec in SPECS:
        checked(known, spec, log=False)
    for spec in SPECS:
        assert known.ingest(spec).transaction is None, "the files that were rewritten are known"
    known.land("venda", "e", [sale(11, "b")])
    assert not known.run(VENDA).stopped
    checked(known, VENDA, log=False)
    again, left = forgotten(known)
    assert not any(again.values()) and left == [], "forgetting again is no harm"


def test_what_is_protected_or_not_read_yet_is_refused(known: Lake) -> None:
    subject = forget.subject_of(SPECS, "pessoa", KEY)
    pinned = Protection({(VENDA.silver, "any"): {1: "pinned"}})
    with pytest.raises(RefusedWriteError, match="make unpin TABLE=silver/venda VERSION=1"):
        forget.refuse_protected(pinned, [VENDA.silver])
    from lakehouse.core.names import TableRef

    gold = TableRef("gold", "x")
    for guard in (Protection(models={gold: frozenset((1,))}), Protection(unknown="MLflow is down.")):
        with pytest.raises(RefusedWriteError, match="models"):
            forget.refuse_protected(guard, [gold])
    known.land("venda", "new", [sale(20, KEY)])
    with known.session() as session, pytest.raises(RefusedWriteError, match="not read yet"):
        forget.erase(session, known.storage, subject)
    assert containing(known)
    for table, key in (("nada", KEY), ("pessoa", " ")):
        with pytest.raises(DeclarationError):
            forget.subject_of(SPECS, table, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dies_at", [*(pytest.param(dies_at, marks=pytest.mark.stack) for dies_at in ("quarantine", "silver", "deletes")), "bronze"]
)
def test_what_dies_on_the_way_is_finished_by_the_same_command(known: Lake, monkeypatch: pytest.MonkeyPatch, dies_at: str) -> None:
    from lakehouse.maintenance import forget as module

    real = module.remove_rows

    def dying(session: Any, table: Any, row_ids: Any, **more: Any) -> int:
        if dies_at in table.uri:
            raise KeyboardInterrupt
        return real(session, table, row_ids, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "remove_rows", dying)
        with pytest.raises(KeyboardInterrupt):
            forgotten(known)
    assert not known.run(VENDA).stopped and not known.run(PESSOA).stopped
    assert forgotten(known)[1] == [] and containing(known) == []
    assert [row["id"] for row in known.rows(VENDA.silver)] == [2, 7, 9, 10]
    for spec in SPECS:
        checked(known, spec, log=False)


@pytest.mark.parametrize("form", FORMS)
def test_every_other_record_stays_in_a_landed_file(lake: Lake, form: str) -> None:
    rows = [{"id": n, "quem": who, "texto": f'a "{n}"\nb'} for n, who in enumerate(("x", "12", "y", "120", "12"))]
    path = lake.land("s", "f", rows, form)
    rewritten = lake.folder / "out"
    naming = Naming(frozenset({"quem"}), "12")
    assert without(path, rewritten, naming, name=path.name) == 2
    assert without(rewritten, lake.folder / "none", naming, name=path.name) == 0
    assert not (lake.folder / "none").exists()
    spec = TableSpec(
        name="s",
        source=AirbyteStream("s"),
        columns=(Column("id", "bigint"), Column("quem", "string"), Column("texto", "string")),
        sync="append",
    )
    path.write_bytes(rewritten.read_bytes())
    lake.run(spec)
    assert [(row["id"], row["texto"]) for row in lake.rows(spec.silver, "id", "texto")] == [
        (n, rows[n]["texto"]) for n in (0, 2, 3)
    ]


RECORDS = [("0", "x", "a"), ("1", "12", 'a "1"'), ("2", "y", "b,\n12"), ("3", "120", "ç"), ("4", " 12 ", "")]
DIALECTS = {
    "semicolon": Csv(delimiter=";", encoding="cp1252"),
    "two": Csv(delimiter="\t", quote="'", encoding="utf-16"),
    "without names": Csv(header=("id", "quem", "texto"), encoding="utf-8-sig"),
    "around": Csv(skip=2, footer=1),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_in_a_dialect_retains_every_other_record(tmp_path: Path, dialect: str, packed: str) -> None:
    csv, name = DIALECTS[dialect], f"a.csv{packed}"
    names, rest = ("id", "quem", "texto"), [RECORDS[n] for n in (0, 2, 3)]
    whole, expected = (written([*map(list, some)], csv, ends="\r\n", columns=names) for some in (RECORDS, rest))
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(PACKED[packed](whole))
    naming = Naming(frozenset({"quem"}), "12")
    assert without(before, after, naming, name=name, reading=Reading(csv=csv)) == 2
    with opened_plain(after, packed, tmp_path) as plain:
        assert plain.read_bytes() == expected
    assert without(after, tmp_path / "none", naming, name=name, reading=Reading(csv=csv)) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "opened") == ["after", "before"]


@contextmanager
def opened_plain(path: Path, packed: str, folder: Path) -> Iterator[Path]:
    unpack(str(path), packing(f"a.csv{packed}")[1], folder / "opened")
    yield folder / "opened"


def rest_of(folder: Path, name: str, content: bytes, reading: Reading | None = None) -> tuple[int, bytes]:
    """How many records of a file name the subject `12`, and what is left of it."""
    before, after = folder / "before", folder / "after"
    after.unlink(missing_ok=True)
    before.write_bytes(content)
    count = without(before, after, Naming(frozenset({"quem"}), "12"), name=name, reading=reading)
    assert after.exists() == bool(count)
    return count, after.read_bytes() if count else b""


def test_no_form_of_a_file_retains_the_subject(tmp_path: Path) -> None:
    array = b'\xef\xbb\xbf[ {"quem":12, "v":1.10},\n{"quem":"x","v":1e3 } ,7,{"quem":"12"}]'
    assert rest_of(tmp_path, "a.json", array) == (2, b'[{"quem":"x","v":1e3 },\n7]\n')
    assert rest_of(tmp_path, "a.json", b'[{"quem":12}]') == (1, b"")
    assert rest_of(tmp_path, "a.json", b'{"quem":12}\n{"quem":1}\n') == (1, b'{"quem":1}\n')
    bad = b'id,quem\n1,"12\n2,13\n3,12,x\n4,"12"\n'
    assert rest_of(tmp_path, "a.csv", bad) == (3, b"id,quem\n2,13\n")
    assert rest_of(tmp_path, "a.csv", b'\xef\xbb\xbf"quem" ,b\n12,x\n13,12\n') == (1, b'\xef\xbb\xbf"quem" ,b\n13,12\n')


def test_a_file_that_was_refused_is_looked_at_by_its_words(tmp_path: Path) -> None:
    """It is not in bronze, and nobody knows which of its fields says whom it is about."""
    undeclared = b"id;quem\n1;12\n2;13\n"
    assert rest_of(tmp_path, "a.csv", undeclared) == (1, b"id;quem\n2;13\n")
    assert rest_of(tmp_path, "a.jsonl", b'{"cliente":12}\n{"cliente":120}\n') == (1, b'{"cliente":120}\n')
    assert rest_of(tmp_path, "a.jsonl", b'{"quem":1,"v":12}\n{"v":12}\n') == (0, b"")
    assert rest_of(tmp_path, "a.parquet", parquet(cliente=["12", "13"]))[0] == 1


def test_a_path_may_name_the_subject(tmp_path: Path) -> None:
    hive = Reading(hive=True, order=("quem", "id"))
    assert rest_of(tmp_path, "raw/s/quem=12/a.csv", b"id\n1\n", hive) == (1, b"")
    assert rest_of(tmp_path, "raw/s/quem=13/a.csv", b"id,quem\n1,14\n", hive) == (0, b"")
    assert rest_of(tmp_path, "raw/s/quem=12/a.csv", b"id,quem\n1,14\n") == (0, b"")


def test_what_is_not_rewritten_is_refused_by_name(tmp_path: Path) -> None:
    sheet = rows([text("A1", "id"), text("B1", "quem")], [cell("A2", "1"), cell("B2", "12")])
    for name, content in (("a.xlsx", workbook({"Um": sheet})), ("a.xlsx.gz", gzip.compress(workbook({"Um": sheet})))):
        with pytest.raises(UnreadableFileError, match=r"a\.xlsx.* is an Excel workbook with.*Remove these"):
            rest_of(tmp_path, name, content)
    assert rest_of(tmp_path, "a.xlsx", workbook({"Um": sheet.replace(">12<", ">13<")})) == (0, b"")
    with pytest.raises(UnreadableFileError, match=r"a\.json cannot be read"):
        rest_of(tmp_path, "a.json", b'[{"quem":12}')
    named = Naming(frozenset({"quem"}), KEY)
    (tmp_path / "before").write_bytes(f"Para {KEY}\nid,quem\n1,x\n".encode())
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        without(tmp_path / "before", tmp_path / "after", named, name="a.csv", reading=Reading(csv=Csv(skip=1)))


def test_an_avro_record_that_no_calendar_has_is_found_too(tmp_path: Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    at = {"type": "long", "logicalType": "timestamp-millis"}
    fields = [{"name": "quem", "type": "string"}, {"name": "em", "type": ["null", at]}]
    schema = {"type": "record", "name": "r", "fields": fields}
    records = [{"quem": who, "em": em} for who, em in (("12", 1 << 62), ("x", 1 << 62), ("12", 0), ("y", 5), ("z", None))]
    out = io.BytesIO()
    fastavro.writer(out, schema, records, codec="deflate")
    count, rest = rest_of(tmp_path, "a.avro", out.getvalue())
    (tmp_path / "rest").write_bytes(rest)
    assert count == 2 and [record for record, _ in avro.records(str(tmp_path / "rest"))] == [records[n] for n in (1, 3, 4)]
    assert fastavro.block_reader(io.BytesIO(rest)).writer_schema["fields"][1]["type"][1]["logicalType"] == "timestamp-millis"


def test_the_fingerprint_is_that_of_the_key_and_does_not_have_it() -> None:
    subject = forget.subject_of(SPECS, "pessoa", KEY)
    told = forget.fingerprint(subject)
    assert KEY not in told and told != forget.fingerprint(subject)
    found = re.fullmatch(r"([0-9a-f]{32}):([0-9a-f]{64})", told)
    assert found is not None
    salt, retained = found.groups()  # ops/audit of years ago: whoever has the key checks it so
    assert hashlib.scrypt(KEY.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=32).hex() == retained


@pytest.mark.real_data
@pytest.mark.slow
def test_one_customer_of_the_real_sales(real_data: Path, lake: Lake, copied_landing: Callable[[Any], None]) -> None:
    expected = json.loads((real_data / "vendas" / "EXPECTED.json").read_text())["syncs"][-1]
    names = sorted(path.name for path in (real_data / "vendas" / "landing" / "raw" / "vendas").iterdir())
    for part in (names[: len(names) // 2], names[len(names) // 2 :]):
        copied_landing(part)
        lake.run(VENDAS)
    rows = lake.rows(VENDAS.silver, "id", "cliente_id", "total")
    by_customer: dict[int, list[Decimal]] = {}
    for row in rows:
        by_customer.setdefault(row["cliente_id"], []).append(row["total"])
    one = max((c for c in by_customer if c is not None), key=lambda c: len(by_customer[c]))
    found, left = forgotten(lake, str(one), (VENDAS,))
    assert left == [] and found["silver/vendas"] == len(by_customer[one])
    after = lake.rows(VENDAS.silver, "id", "cliente_id", "total")
    assert len(after) == expected["silver_rows"] - len(by_customer[one])
    assert sum(row["total"] for row in after) == Decimal(expected["receita_liquida"]) - sum(by_customer[one])
    assert len({row["cliente_id"] for row in after} - {None}) == expected["clientes"] - 1
    assert not lake.refresh(VENDAS, rebuild=True).stopped
    assert lake.rows(VENDAS.silver, "id", "cliente_id", "total") == after
    assert open_existing(lake.storage.uri(VENDAS.bronze)) is not None


def test_a_subject_goes_from_both_tables_that_read_its_records(lake: Lake) -> None:
    """A table of records and one of their elements have a bronze table each, of the same landed files."""
    columns = (Column("id", "bigint"), Column("quem", "string"), Column("em", "timestamp"))
    sold = TableSpec(
        name="venda",
        source=AirbyteStream("venda"),
        columns=columns,
        key=("id",),
        order=("em",),
        subject=Subject("pessoa", "quem"),
        max_loss=1.0,
    )
    items = replace(
        sold,
        name="item",
        silver_name="item",
        explode="itens",
        columns=(
            *(replace(column, parent=True) for column in columns),
            Column("n", "int", position=True),
            Column("sku", "string", path="$"),
        ),
        key=("id", "n"),
        rules=(matches("sku", "^[a-z]+$"),),
    )

    def sale_of(number: int, who: str | None, *skus: str, day: int = 1) -> Row:
        return {"id": number, "quem": who, "em": f"2026-01-{day:02}", "itens": list(skus)}

    first = [sale_of(1, KEY, "a", "b"), sale_of(2, "b", "c"), sale_of(3, KEY, "7"), sale_of(4, None, "x", "y"), sale_of(5, KEY)]
    lake.land("venda", "a", first)
    lake.land("venda", "b", [sale_of(4, KEY, "d", day=2), sale_of(6, "b", "e", "f")])
    for spec in (sold, items):
        lake.run(spec)
    found, left = forgotten(lake, specs=(sold, items))
    assert left == [] and containing(lake) == []
    assert {name: count for name, count in found.items() if count} == {
        "landing/venda": 4,
        "silver/venda": 4,
        "bronze/venda": 5,
        "quarantine/item": 1,
        "silver/item": 3,
        "ops/deletes_item": 1,
        "bronze/item": 5,
    }
    assert [row["id"] for row in lake.rows(sold.silver)] == [2, 6]
    assert [(row["id"], row["sku"]) for row in lake.rows(items.silver, "id", "n", "sku")] == [(2, "c"), (6, "e"), (6, "f")]
    for spec in (sold, items):
        checked(lake, spec, log=False)
        assert lake.ingest(spec).transaction is None, "the files that were rewritten are known to both"
