"""kill -9 of the process that asks an API: after one run more, silver is what the API has, children included.

The API changes between two kills, answers slowly, and now and then not at all.
"""

import multiprocessing
import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import SourceDownError
from lakehouse.core.store.storage import lock
from lakehouse.landing.sources import extract as landing
from lakehouse.landing.sources.registry import Work, extract
from lakehouse.tables.spec import Bearer, Column, Cursor, Pages, Resource, RestApi, TableSpec
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults import KILLS
from lakehouse_tests.landing.rest_stub import Stub, serve

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["lakehouse.bronze.ingest", "lakehouse_tests.conftest", "requests", "deltalake", __name__])


def loja(url: str) -> RestApi:
    return RestApi(
        "loja",
        url=url,
        auth=Bearer("s3cret"),
        resources=(
            Resource("pedidos", path="/v1/pedidos", paginate=Cursor("next"), since="updated_since", cursor="updated_at"),
            Resource("itens", path="/v1/pedidos/{pedidos.id}/itens", paginate=Pages(size=10)),
        ),
    )


def tables(api: RestApi) -> tuple[TableSpec, TableSpec]:
    at, valor = Column("updated_at", "timestamp"), Column("valor", "decimal(12,2)")
    pedido, of_order = Column("pedidos_id", "bigint"), Column("pedidos_updated_at", "timestamp")
    orders = TableSpec(
        name="pedidos_loja", source=api.resource("pedidos"), columns=(Column("id", "bigint"), valor, at), key=("id",),
        order=("updated_at",),
    )  # fmt: skip
    items = TableSpec(
        name="itens_loja", source=api.resource("itens"), columns=(pedido, Column("sku", "string"), valor, of_order),
        key=("pedidos_id", "sku"), order=("pedidos_updated_at",),
    )  # fmt: skip
    return orders, items


def run(folder: Path, url: str) -> None:
    """What the assets do, each with the lock that it has."""
    lake, api = Lake(folder), loja(url)
    with lock(f"{lake.storage.landing}/raw/loja"), lake.session() as session:
        deadline = time.monotonic() + 60
        work = Work(
            storage=lake.storage, session=session, declared=api, sample=False, cache=str(folder / "cache"), deadline=deadline
        )  # fmt: skip
        extract(api, work)
    for spec in tables(api):
        for ref, step in ((spec.bronze, lake.ingest), (spec.silver, lake.refresh)):
            with lock(lake.storage.uri(ref)):
                step(spec)


def change(stub: Stub, chance: random.Random, minute: int) -> None:
    """New orders, and other values of known ones and of their items; a change of an item changes its order."""
    orders = stub.lists.setdefault("/v1/pedidos", [])
    for _ in range(20):
        at = f"{BEGINS + timedelta(minutes=minute, seconds=len(orders) % 60):%Y-%m-%dT%H:%M:%SZ}"
        number = chance.randrange(1, len(orders) + 2) if orders else 1
        valor = f"{chance.randrange(100_000) / 100:.2f}"
        if number > len(orders):
            orders.append({"id": number, "valor": valor, "updated_at": at})
            stub.lists[f"/v1/pedidos/{number}/itens"] = []
        else:
            orders[number - 1] |= {"valor": valor, "updated_at": at}
        items = stub.lists[f"/v1/pedidos/{number}/itens"]
        for item in items:
            item["valor"] = f"{chance.randrange(1_000) / 100:.2f}"
        items.append({"sku": f"s{len(items)}", "valor": "1.00"})


def compare(lake: Lake, stub: Stub) -> None:
    """Silver, and what landed, against the stub's own records."""
    orders, items = tables(loja(stub.url))
    listed = stub.lists["/v1/pedidos"]
    found = sorted((row["id"], row["valor"]) for row in lake.rows(orders.silver, "id", "valor"))
    assert found == [(order["id"], Decimal(order["valor"])) for order in listed]
    expected = [
        (order["id"], item["sku"], Decimal(item["valor"]))
        for order in listed
        for item in stub.lists[f"/v1/pedidos/{order['id']}/itens"]
    ]
    assert sorted(
        (row["pedidos_id"], row["sku"], row["valor"]) for row in lake.rows(items.silver, "pedidos_id", "sku", "valor")
    ) == sorted(expected)
    for spec in (orders, items):
        ids: list[Any] = [row["_airbyte_raw_id"] for row in lake.rows(spec.bronze, "_airbyte_raw_id")]
        assert len(ids) == len(set(ids))
    newest = max(order["updated_at"] for order in listed)
    cursor = landing.cursor(lake.storage.landed("loja/pedidos"))
    assert cursor is not None and f"{cursor:%Y-%m-%dT%H:%M:%SZ}" <= newest


@pytest.mark.faults
def test_thirty_kills_of_an_extraction_lose_and_double_nothing(tmp_path):
    chance, done = random.Random(24), 0
    lake, stub = Lake(tmp_path), Stub({}, size=10, styles={"/v1/pedidos": "token"}, secret="s3cret", wait=0.02)
    stub.style = "pages"
    change(stub, chance, 0)
    with serve(stub):
        while done < KILLS:
            process = _PROCESSES.Process(target=run, args=(tmp_path, stub.url))
            process.start()
            process.join(chance.uniform(0.05, 3.0))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                done += 1
                if chance.random() < 0.5:
                    change(stub, chance, done)
                continue
            assert process.exitcode == 0
            compare(lake, stub)
            change(stub, chance, done)
        stub.faults = {("/v1/pedidos/1/itens", 1): 500}
        stub.lists["/v1/pedidos"][0]["updated_at"] = f"{BEGINS + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        with pytest.raises(SourceDownError, match="answered 500"):
            run(tmp_path, stub.url)
        run(tmp_path, stub.url)
        compare(lake, stub)
