"""docs/sources.md: the page's API is a file of `tables/` in a copy of the project, and is taken to silver against a stub."""

import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.settings import project_folder
from lakehouse_tests.landing.rest_stub import Stub, serve

PROJECT = project_folder()
TOKEN = "s3cret-t0ken"
COLUMNS = {"pedidos_loja": ("id", "valor"), "itens_loja": ("pedidos_id", "sku", "valor"), "clientes_loja": ("id", "nome")}
#: Asks the declared source as its asset does, and takes its tables to silver; prints the job's name and what landed anew.
PROGRAM = """
import json, sys, time
from pathlib import Path

import lakehouse
from lakehouse.landing.sources.registry import Work, extract
from lakehouse.landing.sources.window import Window
from lakehouse.settings import load_settings
from lakehouse.tables import ALL, JOBS, SOURCES
from lakehouse_tests.conftest import Lake

assert Path(lakehouse.__file__).parents[1] == Path.cwd()
lake = Lake(Path(sys.argv[1]))
declared = next(source for source in SOURCES if source.name == "loja_api")
system = next(source for source in load_settings().sources if source.name == "loja_api")
with lake.session() as session:
    work = Work(storage=lake.storage, session=session, declared=declared, sample=False, cache=str(lake.folder / "cache"),
                deadline=time.monotonic() + 60, window=Window(full=len(sys.argv) > 2))
    done = extract(system, work)
for spec in ALL:
    if "loja" in spec.tags:
        lake.run(spec)
print(json.dumps({"jobs": [job.name for job in JOBS], "new": {name: landed.new for name, landed in done.streams.items()}}))
"""


def block() -> str:
    (found,) = re.findall(
        r"test_declared_api.py -->\n```python\n(.*?)```", (PROJECT / "docs" / "sources.md").read_text(), flags=re.DOTALL
    )
    return str(found)


def stub() -> Stub:
    orders = [{"id": n, "valor": f"{n}.50", "updated_at": f"2026-01-{n % 28 + 1:02}T00:00:00Z"} for n in range(1, 36)]
    lists: dict[str, list[dict[str, Any]]] = {
        "/v1/pedidos": orders,
        "/v1/clientes": [{"id": n, "nome": f"João {n}", "atualizado": "2026-01-01T00:00:00Z"} for n in range(1, 26)],
    }
    for order in orders:
        lists[f"/v1/pedidos/{order['id']}/itens"] = [{"sku": f"s{k}", "valor": k + 0.25} for k in range(order["id"] % 4)]
    return Stub(lists, secret=TOKEN, styles={"/v1/pedidos": "token", "/v1/clientes": "pages"})


def run(folder: Path, api: Stub, *command: str) -> str:
    """Run Python in a copy of the project with the page's file. What it printed."""
    copy = folder / "copy"
    if not copy.exists():
        for name in ("lakehouse", "dbt_project"):
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
        (copy / "lakehouse_tests").mkdir()
        for name in ("__init__.py", "conftest.py"):
            shutil.copy2(PROJECT / "lakehouse_tests" / name, copy / "lakehouse_tests" / name)
        (copy / "lakehouse" / "tables" / "loja.py").write_text(block())
        (folder / "dagster").mkdir()
    own = {
        "LOJA_API_URL": api.url,
        "LOJA_API_TOKEN": TOKEN,
        "LAKEHOUSE_ROOT": str(folder / "lake"),
        "LAKEHOUSE_LANDING": str(folder / "landing"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "PYTHONPATH": str(copy),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")} | own
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    assert TOKEN not in output
    return done.stdout


def found(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What silver has."""
    from deltalake import DeltaTable

    rows = {name: DeltaTable(folder / "lake" / "silver" / name).to_pyarrow_table().to_pylist() for name in COLUMNS}
    return {name: sorted(tuple(row[column] for column in columns) for row in rows[name]) for name, columns in COLUMNS.items()}


def expected(api: Stub) -> dict[str, list[tuple[Any, ...]]]:
    """The stub's own records, as silver has them."""
    orders = api.lists["/v1/pedidos"]
    items = [(o["id"], i["sku"], Decimal(str(i["valor"]))) for o in orders for i in api.lists[f"/v1/pedidos/{o['id']}/itens"]]
    return {
        "pedidos_loja": sorted((order["id"], Decimal(order["valor"])) for order in orders),
        "itens_loja": sorted(items),
        "clientes_loja": sorted((client["id"], client["nome"]) for client in api.lists["/v1/clientes"]),
    }


def change(api: Stub) -> None:
    """One record of each resource."""
    api.lists["/v1/pedidos"][6] |= {"valor": "700.10", "updated_at": "2026-02-01T00:00:00Z"}
    api.lists["/v1/pedidos/7/itens"][0]["valor"] = 9.75
    api.lists["/v1/clientes"][0] |= {"nome": "Zé", "atualizado": "2026-02-01T00:00:00Z"}


def test_an_api_of_three_resources_one_a_child_is_one_file_of_forty_lines(tmp_path):
    assert len(block().splitlines()) <= 40
    with serve(stub()) as api:
        first = json.loads(run(tmp_path, api, "-c", PROGRAM, str(tmp_path)))
        assert "loja" in first["jobs"]
        assert first["new"] == {"pedidos": 35, "clientes": 25, "itens": len(expected(api)["itens_loja"])}
        assert found(tmp_path) == expected(api)
        change(api)
        second = json.loads(run(tmp_path, api, "-c", PROGRAM, str(tmp_path), "full"))  # not from the hour's cache
        assert second["new"] == {"pedidos": 1, "clientes": 1, "itens": 3}  # all items of the order, with its instant
        assert found(tmp_path) == expected(api)


@pytest.mark.slow
def test_its_job_runs_as_the_page_tells(tmp_path):
    with serve(stub()) as api:
        run(tmp_path, api, "-m", "lakehouse", "trigger", "loja")
        assert found(tmp_path) == expected(api)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "copy" not in path.parts]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
