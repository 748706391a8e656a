"""One subject forgotten: nothing in any file names it any more, and all others are as they were."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.delta import open_existing
from lakehouse.core.errors import DeclarationError, RefusedWriteError
from lakehouse.maintenance import forget
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.landed_records import Naming, without
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.retention import expire
from lakehouse.tables.spec import AirbyteStream, Column, Subject, TableSpec
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import FORMS, Lake, Row
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


def holding(lake: Lake, key: str = KEY) -> list[str]:
    return [path for path, text in bytes_of(lake.folder).items() if key in text]


def forgotten(lake: Lake, key: str = KEY, specs: tuple[TableSpec, ...] = SPECS) -> tuple[dict[str, int], list[str]]:
    """What the command does, without gold; what was erased, and what the search finds."""
    subject = forget.subject_of(specs, specs[0].name, key)
    vault = Vault(str(lake.folder / "backup"), str(lake.folder / "scratch"))
    Path(vault.scratch).mkdir(exist_ok=True)
    tables, _ = forget.places_of(lake.storage, subject)
    with lake.session() as session:
        found = forget.erase(session, lake.storage, subject)
    for ref in tables:
        forget.drop_history(lake.storage.uri(ref))
    if vault.names():
        assert not vault.prove(vault.take(lake.storage).backup, session=lake.session).damaged
        vault.expire(keep=1)
    return found, forget.search(lake.storage, subject, vault)


@pytest.fixture
def known(lake: Lake) -> Lake:
    """Somebody in silver, quarantine, bronze, baseline, remembered deletes, unreadable lines, history and a backup."""
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
    assert len(holding(known)) > 15
    others = [row for row in known.rows(VENDA.silver) if row["quem"] != KEY]
    found, left = forgotten(known)
    assert left == [] and holding(known) == []
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
        assert known.ingest(spec).candidate is None, "the files that were rewritten are known"
    known.land("venda", "e", [sale(11, "b")])
    assert not known.run(VENDA).stopped
    checked(known, VENDA, log=False)
    again, left = forgotten(known)
    assert not any(again.values()) and left == [], "forgetting again is no harm"


def test_what_is_kept_or_not_read_yet_is_refused(known: Lake) -> None:
    subject = forget.subject_of(SPECS, "pessoa", KEY)
    pinned = Protection({(VENDA.silver, "any"): {1: "pinned"}})
    with pytest.raises(RefusedWriteError, match="make unpin TABLE=silver/venda VERSION=1"):
        forget.refuse_kept(pinned, [VENDA.silver])
    from lakehouse.core.names import TableRef

    gold = TableRef("gold", "x")
    for guard in (Protection(models={gold: frozenset((1,))}), Protection(unknown="MLflow is down.")):
        with pytest.raises(RefusedWriteError, match="models"):
            forget.refuse_kept(guard, [gold])
    known.land("venda", "new", [sale(20, KEY)])
    with known.session() as session, pytest.raises(RefusedWriteError, match="not read yet"):
        forget.erase(session, known.storage, subject)
    assert holding(known)
    for table, key in (("nada", KEY), ("pessoa", " ")):
        with pytest.raises(DeclarationError):
            forget.subject_of(SPECS, table, key)


@pytest.mark.parametrize(
    "place", [*(pytest.param(place, marks=pytest.mark.stack) for place in ("quarantine", "silver", "deletes")), "bronze"]
)
def test_what_dies_on_the_way_is_finished_by_the_same_command(known: Lake, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    from lakehouse.maintenance import forget as module

    real = module.remove_places

    def dying(session: Any, table: Any, places: Any, **more: Any) -> int:
        if place in table.uri:
            raise KeyboardInterrupt
        return real(session, table, places, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "remove_places", dying)
        with pytest.raises(KeyboardInterrupt):
            forgotten(known)
    assert not known.run(VENDA).stopped and not known.run(PESSOA).stopped
    assert forgotten(known)[1] == [] and holding(known) == []
    assert [row["id"] for row in known.rows(VENDA.silver)] == [2, 7, 9, 10]
    for spec in SPECS:
        checked(known, spec, log=False)


@pytest.mark.parametrize("form", FORMS)
def test_a_landed_file_keeps_every_other_record(lake: Lake, form: str) -> None:
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


def test_the_fingerprint_is_that_of_the_key_and_does_not_have_it() -> None:
    subject = forget.subject_of(SPECS, "pessoa", KEY)
    told = forget.fingerprint(subject)
    assert KEY not in told and told != forget.fingerprint(subject)
    assert forget.is_of(told, KEY) and not forget.is_of(told, "b")
    assert re.fullmatch(r"[0-9a-f]{32}:[0-9a-f]{64}", told)


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
