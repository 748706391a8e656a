"""The real sales, exactly: after the whole, after every sync, in any order of files. Figures from EXPECTED.json."""

import json
import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from lakehouse.maintenance import vacuum
from lakehouse.maintenance.protect import pin, protection
from lakehouse.maintenance.upkeep import maintain, tasks
from lakehouse.ml.registry import Registry
from lakehouse.tables.spec import Health
from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="session")
def expected(real_data):
    return json.loads((real_data / "vendas" / "EXPECTED.json").read_text())


@pytest.fixture(scope="session")
def files(real_data):
    return sorted(path.name for path in (real_data / "vendas" / "landing" / "raw" / "vendas").iterdir())


def figures(lake):
    rows = lake.rows(VENDAS.silver, "total", "pedido_id", "cliente_id", "quantidade")
    return {
        "silver_rows": len(rows),
        "receita_liquida": f"{sum((row['total'] for row in rows), Decimal(0)):.4f}",
        "pedidos": len({row["pedido_id"] for row in rows}),
        "clientes": len({row["cliente_id"] for row in rows} - {None}),
        "quantidade": sum(row["quantidade"] for row in rows),
    }


@pytest.mark.slow
def test_every_month_is_exact_as_its_sync_arrives(lake, copied_landing, expected, files):
    by_sync = defaultdict(list)
    for name in files:
        by_sync[name[:10]].append(name)
    assert len(by_sync) == len(expected["syncs"]) == 13
    for names, sync in zip(by_sync.values(), expected["syncs"], strict=True):
        copied_landing(names)
        refresh = lake.run(VENDAS)
        assert refresh.entry.records_in == sync["records_delivered"]
        assert refresh.entry.balanced and not refresh.stopped
        wanted = {name: sync[name] for name in ("silver_rows", "receita_liquida", "pedidos", "clientes", "quantidade")}
        assert figures(lake) == wanted, f"sync {sync['sync']}"
        assert sum(row["written"] for row in lake.ledger() if row["layer"] == "bronze") == sync["bronze_rows_so_far"]
    incremental = lake.rows(VENDAS.silver)
    assert lake.refresh(VENDAS, rebuild=True).transaction is not None
    assert lake.rows(VENDAS.silver) == incremental
    assert lake.quarantined(VENDAS) == []


def test_all_at_once_is_exact_by_month_and_country(lake, real_data, copied_landing, expected, files):
    copied_landing(files)
    lake.run(VENDAS)
    rows = lake.rows(VENDAS.silver, "id", "created_date", "pais", "total")
    assert len({row["id"] for row in rows}) == len(rows) == expected["syncs"][-1]["silver_rows"]
    months, countries = defaultdict(lambda: [0, Decimal(0)]), defaultdict(lambda: [0, Decimal(0)])
    for row in rows:
        for totals, key in ((months, f"{row['created_date']:%Y-%m}"), (countries, row["pais"])):
            totals[key][0] += 1
            totals[key][1] += row["total"]
    assert {m["mes"]: [m["linhas"], Decimal(m["receita_liquida"])] for m in expected["silver_by_month"]} == dict(months)
    for country in expected["silver_by_country_top5"]:
        assert countries[country["pais"]] == [country["linhas"], Decimal(country["receita_liquida"])]
    for spec in (PRODUTOS, CLIENTES):
        for path in (real_data / "vendas" / "landing" / "raw" / spec.name).iterdir():
            lake.put(spec.name, path.name, path.read_bytes())
        lake.run(spec)
        assert len(lake.rows(spec.silver, "id")) == expected[spec.name]["rows"]


@pytest.mark.slow
def test_optimise_and_vacuum_leave_every_figure_and_report_what_they_did(lake, copied_landing, expected, files):
    """The report's figures are those of an independent count of the files."""
    refs = (VENDAS.bronze, VENDAS.silver)
    for start in range(0, len(files), 3):
        copied_landing(files[start : start + 3])
        lake.run(VENDAS)
    rows, before = lake.rows(VENDAS.silver), {ref: counted(lake, ref) for ref in refs}
    pin(lake.storage, VENDAS.silver, version=2, reason="a test")
    spec = replace(VENDAS, health=Health(max_files=1))
    guard = protection(lake.storage, Registry(f"sqlite:///{lake.folder}/none.db"))
    then = datetime.now(UTC) + timedelta(hours=3)
    maintained = maintain(
        tasks(lake.storage, [spec]),
        storage=lake.storage,
        protected=guard,
        session=lake.session,
        floor=timedelta(hours=1),
        now=then,
    )
    found = {one.ref: one for one in maintained}
    for ref in refs:
        one = found[ref]
        assert one.outcome == "done", one
        assert (one.stored_files_before, one.stored_bytes_before) == before[ref]
        assert (one.stored_files_after, one.stored_bytes_after) == counted(lake, ref)
    assert found[VENDAS.bronze].compacted and found[VENDAS.silver].vacuumed_files
    assert "2: pinned: a test" in found[VENDAS.silver].retained_versions
    assert lake.rows(VENDAS.silver) == rows
    last = expected["syncs"][-1]
    assert figures(lake) == {name: last[name] for name in ("silver_rows", "receita_liquida", "pedidos", "clientes", "quantidade")}
    for version in (2, found[VENDAS.silver].version_after):
        assert vacuum.readable(lake.storage.uri(VENDAS.silver), version)
    assert not lake.refresh(VENDAS, rebuild=True).stopped and lake.rows(VENDAS.silver) == rows


def counted(lake, ref):
    """Data files in a table's folder, and their bytes."""
    location = Path(lake.storage.uri(ref))
    sizes = [path.stat().st_size for path in location.rglob("*.parquet") if "_delta_log" not in path.parts]
    return len(sizes), sum(sizes)


def in_random_order(make_lake, real_data, files, *, seed):
    """A lake that got the files one per run, in an order of the seed."""
    lake = make_lake()
    order = random.Random(seed).sample(files, len(files))
    for name in order:
        lake.put("vendas", name, (real_data / "vendas" / "landing" / "raw" / "vendas" / name).read_bytes())
        assert lake.run(VENDAS).transaction is not None
    return lake.rows(VENDAS.silver)


@pytest.fixture(scope="module")
def rebuilt(real_data, files, tmp_path_factory):
    from lakehouse_tests.conftest import Lake

    lake = Lake(tmp_path_factory.mktemp("rebuilt"))
    for name in files:
        lake.put("vendas", name, (real_data / "vendas" / "landing" / "raw" / "vendas" / name).read_bytes())
    lake.run(VENDAS)
    lake.refresh(VENDAS, rebuild=True)
    return lake.rows(VENDAS.silver)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_one_file_a_run_in_a_random_order_gives_the_table_of_a_rebuild(make_lake, real_data, files, rebuilt, seed):
    assert in_random_order(make_lake, real_data, files, seed=seed) == rebuilt
