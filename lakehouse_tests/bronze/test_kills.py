"""kill -9 at every write of a run, at random instants, and two runs at once: the next run leaves the exact tables.

The processes are real and so is the signal; see kill_driver.py.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lakehouse.settings import project_folder
from lakehouse_tests.bronze.kill_driver import RETRYABLE, SPEC
from lakehouse_tests.conftest import Lake, Row, file_content

#: Plan, quarantine, bronze, its ledger row, quarantine, deletes, silver, its ledger row.
COMMITS = 8


def item(number: int, name: str, day: int = 1, situation: str = "vivo") -> Row:
    return {"id": number, "nome": name, "situacao": situation, "em": f"2026-01-{day:02d}T00:00:00Z"}


def drive(folder: Path, orders: list[dict[str, Any]]) -> list[Any]:
    """Run the driver and return the result of each order."""
    plan = folder / "orders.json"
    plan.write_text(json.dumps(orders))
    command = [sys.executable, "-m", "lakehouse_tests.bronze.kill_driver", str(plan)]
    done = subprocess.run(command, cwd=project_folder(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def state(lake: Lake) -> dict[str, Any]:
    """All that a run is for: the tables without the columns that say when and by whom."""
    bronze = [{k: v for k, v in row.items() if k != "_ingested_at"} for row in lake.rows(SPEC.bronze)]
    names = [name for name in ("id", "nome", "situacao", "em", "novo") if bronze and name in bronze[0]]
    entries = [{k: v for k, v in row.items() if k not in ("version", "run_id", "committed_at")} for row in lake.ledger()]
    return {
        "bronze": sorted(map(str, lake.rows(SPEC.bronze, "_airbyte_raw_id", "_batch_id", "_source_file", "_extra", *names))),
        "silver": lake.rows(SPEC.silver),
        "quarantine": [{k: v for k, v in row.items() if k != "run_id"} for row in lake.quarantined(SPEC)],
        "ledger": sorted(map(str, entries)),
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a first batch in it, and a second in landing that needs every kind of write."""
    lake = Lake(tmp_path_factory.mktemp("prepared") / "lake")
    lake.land("itens", "a", [item(1, "um"), item(2, "dois"), item(3, "três"), item(-1, "neg")])
    lake.run(SPEC)
    lake.land("itens", "b", [item(1, "um!", 2), item(4, "quatro"), item(2, "dois", 3, "apagado"), item(-2, "neg")])
    lake.put("itens", "c.jsonl", "{no record\n" + file_content([{**item(5, "cinco"), "novo": "x"}]).decode())
    lake.put("itens", "d.csv.gz", "no gzip")
    return lake


@pytest.fixture(scope="module")
def expected(prepared: Lake) -> dict[str, Any]:
    whole = Lake(prepared.folder.parent / "whole")
    shutil.copytree(prepared.folder, whole.folder)
    whole.run(SPEC)
    return state(whole)


@pytest.fixture(scope="module")
def killed(prepared: Lake) -> list[tuple[str, Lake, int]]:
    """For every write of a run a lake in which a run was killed after it, and for some one in which it was killed before."""
    parent = prepared.folder.parent
    points = [("stage", 1), ("add_columns", 1), *(("commit", nth) for nth in range(1, COMMITS + 1))]
    cases = [(point, nth, False) for point, nth in points]
    cases += [("add_columns", 1, True), ("commit", 3, True), ("commit", COMMITS - 1, True)]
    orders = []
    for point, nth, before in cases:
        folder = shutil.copytree(prepared.folder, parent / f"{point}-{nth}-{'before' if before else 'after'}")
        orders.append({"do": "kill", "folder": str(folder), "point": point, "nth": nth, "before": before})
    codes = drive(
        parent, [*orders, {"do": "count", "folder": str(shutil.copytree(prepared.folder, parent / "count")), "point": "commit"}]
    )
    assert codes.pop() == COMMITS, "a run makes other commits than it did: name them above"
    return [(Path(order["folder"]).name, Lake(Path(order["folder"])), code) for order, code in zip(orders, codes, strict=True)]


def test_the_next_run_after_a_kill_leaves_the_exact_tables(
    killed: list[tuple[str, Lake, int]], prepared: Lake, expected: dict[str, Any]
) -> None:
    assert [(name, code) for name, _, code in killed if code != -signal.SIGKILL] == []
    whole = [prepared.rows(SPEC.silver), expected["silver"]]
    for name, lake, _ in killed:
        assert lake.rows(SPEC.silver) in whole, f"{name}: a reader sees the table of before or of after"
        lake.run(SPEC)
        assert state(lake) == expected, name
        versions = lake.versions()
        lake.run(SPEC)
        assert lake.versions() == versions, name


def test_ten_kills_at_random_and_then_one_run(tmp_path: Path) -> None:
    lake, rows = Lake(tmp_path / "lake"), waiting(tmp_path / "lake", files=10)
    (codes,) = drive(tmp_path, [{"do": "random", "folder": str(lake.folder), "seed": 1}])
    assert len(codes) == 10 and -signal.SIGKILL in codes and set(codes) <= {0, -signal.SIGKILL}
    for _ in range(2):  # the batch that was planned, then what landed since
        lake.run(SPEC)
    exact(lake, rows)
    assert not [path for path in (lake.folder / "lake").rglob("*") if "lock" in path.name.lower()]


def test_two_runs_at_once_conflict_at_most(tmp_path: Path) -> None:
    lake, rows = Lake(tmp_path / "lake"), waiting(tmp_path / "lake", files=6)
    (codes,) = drive(tmp_path, [{"do": "together", "folder": str(lake.folder)}])
    assert set(codes) <= {0, RETRYABLE} and codes.count(0) >= 1
    for _ in range(2):
        lake.run(SPEC)
    exact(lake, rows)


def waiting(folder: Path, *, files: int) -> list[Row]:
    """Files that will land one by one, each with updates and deletes of the others' rows, and a line that is no record."""
    (folder / "waiting").mkdir(parents=True)
    rows = []
    for n in range(files):
        part = [item(100 * n + k, f"f{n}") for k in range(20)] + [item(-n - 1, "neg")]
        part += [item(k, f"de {n}", 2 + n, "apagado" if (k + n) % 3 == 0 else "vivo") for k in range(15)]
        extra = {f"campo_{n}": n} if n % 3 == 2 else {}
        content = file_content([{**row, **extra} for row in part], first=1000 * n) + b"{no record\n"
        (folder / "waiting" / f"{n:02d}.jsonl").write_bytes(content)
        rows += part
    return rows


def exact(lake: Lake, rows: list[Row]) -> None:
    """Every record is in bronze once, and silver is what follows from them."""
    found = Counter((row["_airbyte_raw_id"], row["id"], row["nome"]) for row in lake.rows(SPEC.bronze))
    assert found.total() == len(rows) and set(found.values()) == {1}
    newest: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row["em"]):
        newest[row["id"]] = row
    alive = [row for row in newest.values() if row["id"] >= 0 and row["situacao"] != "apagado"]
    silver = [(row["id"], row["nome"]) for row in lake.rows(SPEC.silver, "id", "nome")]
    assert silver == sorted((row["id"], row["nome"]) for row in alive)
    quarantined = Counter(row["layer"] for row in lake.quarantined(SPEC))
    assert quarantined == {
        "bronze": len({row["nome"] for row in rows if row["nome"].startswith("f")}),
        "silver": sum(row["id"] < 0 for row in rows),
    }
    entries = [row for row in lake.ledger() if row["layer"] == "silver"]
    assert sum(row["records_in"] for row in entries) == len(rows)
    versions = lake.versions()
    lake.run(SPEC)
    assert lake.versions() == versions
    rebuilt = lake.refresh(SPEC, rebuild=True)
    assert not rebuilt.stopped and [(row["id"], row["nome"]) for row in lake.rows(SPEC.silver, "id", "nome")] == silver
