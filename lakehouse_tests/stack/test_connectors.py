"""Airbyte's real connectors, installed by package name: a month of sales through source-file, source-faker killed as it reads.

pytest -m slow lakehouse_tests/stack/test_connectors.py     LAKEHOUSE_CONNECTORS: where faker/ and file/ are installed
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lakehouse.landing.sources.connector import Connector, Synced, sync
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range, not_null, unique
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.sources.test_connector import landed

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SALES = TableSpec(
    name="vendas",
    source=AirbyteStream("vendas"),
    columns=(
        Column("id", "bigint", source="linha"),
        Column("pedido_id", "string", source="InvoiceNo"),
        Column("produto_id", "string", source="StockCode"),
        Column("descricao", "string", source="Description"),
        Column("quantidade", "bigint", source="Quantity"),
        Column("created_at", "timestamp", source="InvoiceDate"),
        Column("valor_unitario", "decimal(12,4)", source="UnitPrice"),
        Column("cliente_id", "bigint", source="CustomerID"),
        Column("pais", "string", source="Country"),
        Column("total", "decimal(18,4)", expression="quantidade * valor_unitario"),
    ),
    key=("id",),
    order=("created_at",),
    rules=(not_null("pedido_id"), in_range("valor_unitario", minimum=0, action="warn"), unique("id")),
)


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the installed connectors."""
    given = os.environ.get("LAKEHOUSE_CONNECTORS", "")
    if given:
        return Path(given)
    if sys.version_info >= (3, 12):
        pytest.skip("airbyte-source-file needs a Python before 3.12")
    folder = tmp_path_factory.mktemp("connectors")
    for name in ("faker", "file"):
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        package = f"airbyte-source-{name}"
        subprocess.run([str(folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet", package], check=True)
    return folder


def run(lake: Lake, connector: Connector) -> Synced:
    return sync(connector, lake.storage, scratch=str(lake.folder), log=lambda level, line: None)


def test_a_real_month_of_sales_is_exact_and_a_second_sync_changes_nothing(lake: Lake, commands: Path, real_data: Path) -> None:
    import duckdb

    december = lake.folder / "dezembro.csv"
    source = real_data / "vendas" / "source" / "online_retail.parquet"
    lines = duckdb.sql(
        f"SELECT row_number() OVER () AS linha, * FROM read_parquet('{source}') "
        "QUALIFY CAST(InvoiceDate AS TIMESTAMP) < TIMESTAMP '2011-01-01' ORDER BY linha"
    )
    with december.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(lines.columns)
        writer.writerows(lines.fetchall())
    expected = json.loads((real_data / "vendas" / "EXPECTED.json").read_text())["syncs"][0]
    connector = Connector(
        name="arquivo",
        command=str(commands / "file" / "bin" / "source-file"),
        config={
            "dataset_name": "vendas",
            "format": "csv",
            "url": str(december),
            "provider": {"storage": "local"},
            "reader_options": json.dumps({"dtype": "string"}),
        },
        streams={"vendas": ("vendas", "full_refresh")},
    )
    tables: list[list[dict[str, Any]]] = []
    for number in (1, 2):
        done = run(lake, connector)
        assert done.records == {"vendas": expected["records_delivered"]}
        found = lake.run(SALES)
        assert found.entry is not None and found.entry.balanced
        assert len(lake.rows(SALES.bronze, "_source_file")) == number * expected["records_delivered"]
        tables.append(lake.rows(SALES.silver, *[column.name for column in SALES.columns]))
    first, second = tables
    assert second == first and len(first) == expected["silver_rows"]
    assert len({row["pedido_id"] for row in first}) == expected["pedidos"]
    assert len({row["cliente_id"] for row in first} - {None}) == expected["clientes"]
    assert sum(row["quantidade"] for row in first) == expected["quantidade"]
    assert f"{sum(row['total'] for row in first):.4f}" == expected["receita_liquida"]


#: Stands before a connector and keeps what it says while it reads, each read in a file of its own, so that the test knows what
#: was emitted without asking what it tests.
WITNESS = """
import subprocess, sys, time
name = {log!r} + "/" + str(time.time_ns()) + "-" + sys.argv[1]
with open(name, "wb") as log, subprocess.Popen([{command!r}, *sys.argv[1:]], stdout=subprocess.PIPE) as process:
    for line in process.stdout:
        log.write(line)
        log.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
sys.exit(process.returncode)
"""


User = tuple[int, str]


def emitted(log: Path) -> list[dict[str, Any]]:
    """What the newest read said, whole messages alone."""
    lines = max(log.glob("*-read")).read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def acknowledged(messages: list[dict[str, Any]], state: dict[str, Any]) -> set[User]:
    """Users, as id and `updated_at`, that a read emitted before a state; none when it never said that state."""
    users: set[User] = set()
    for message in messages:
        if message["type"] == "RECORD":
            users.add((message["record"]["data"]["id"], message["record"]["data"]["updated_at"]))
        elif message["type"] == "STATE" and message["state"] == state:
            return users
    return set()


def test_source_faker_is_killed_while_it_reads_and_nothing_acknowledged_is_lost(lake: Lake, commands: Path) -> None:
    spec = TableSpec(
        name="users",
        source=AirbyteStream("users"),
        columns=(Column("id", "bigint"), Column("nome", "string", source="name"), Column("updated_at", "timestamp")),
        key=("id",),
        order=("updated_at",),
    )
    log, witness = lake.folder / "emitted", lake.folder / "source-witness"
    log.mkdir()
    witness.write_text(f"#!{sys.executable}\n" + WITNESS.format(log=str(log), command=str(commands / "faker/bin/source-faker")))
    witness.chmod(0o755)
    # Without always_updated this connector emits nothing more once it has a state, also when it was cut off.
    config = {"count": 4000, "seed": 7, "parallelism": 1, "records_per_slice": 100, "always_updated": True}
    streams: Any = {"users": ("users", "incremental")}
    connector = Connector(name="faker", command=str(witness), config=config, streams=streams)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from lakehouse.landing.sources.connector import Connector, sync
from lakehouse.core.store.storage import Storage
connector = Connector(name="faker", command={connector.command!r}, config={config!r}, streams={streams!r})
storage = Storage(root={str(lake.folder / "lake")!r}, landing={str(lake.folder / "landing")!r})
sync(connector, storage, scratch={str(lake.folder)!r}, log=lambda level, line: None)
"""
    chance, state_file = random.Random(0), lake.folder / "landing" / "connectors" / "faker" / "state.json"
    sure: set[User] = set()
    for kill in range(5):
        process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        before, states = state_file.read_bytes() if state_file.exists() else b"", chance.randint(2, 20)
        while process.poll() is None and states:  # the first change of the file is made before the first record
            if state_file.exists() and (now := state_file.read_bytes()) != before:
                before, states = now, states - 1
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        output = emitted(log)
        (state,) = json.loads(state_file.read_text())["states"]
        new = acknowledged(output, state)
        count = sum(message["type"] == "RECORD" for message in output)
        print(f"kill {kill + 1}: {count:,} users emitted, {len(new):,} of them before the state that was kept")
        assert 0 < len(new) <= count < config["count"]
        sure |= new
        lake.run(spec)
        rows = [(int(row["id"]), row["updated_at"]) for row in lake.rows(spec.bronze, "id", "updated_at")]
        assert sure <= set(rows) and len(rows) == len(landed(lake))
    run(lake, connector)
    lake.run(spec)
    rows = [(int(row["id"]), row["updated_at"]) for row in lake.rows(spec.bronze, "id", "updated_at")]
    print(
        f"5 kills: {len(sure):,} users acknowledged, {len(sure - set(rows))} of them not among the {len(rows):,} rows of bronze"
    )
    assert sure <= set(rows) and len(rows) == len(landed(lake))
    assert [row["id"] for row in lake.rows(spec.silver)] == list(range(1, 4001))
