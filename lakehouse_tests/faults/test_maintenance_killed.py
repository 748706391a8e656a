"""kill -9 anywhere in the maintenance, retention included, while deliveries go on: no row is lost or doubled, and the next run
completes."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import lock
from lakehouse.core.table import transaction
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import redo_on_conflict
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.protect import Protection
from lakehouse.maintenance.retention import expire
from lakehouse.maintenance.upkeep import maintain, tasks
from lakehouse.silver.merge import baseline_ref
from lakehouse.tables.spec import Column, Retention
from lakehouse_tests.conftest import EXTRACTED, Lake
from lakehouse_tests.maintenance.test_upkeep import SPEC as PLAIN
from lakehouse_tests.maintenance.test_upkeep import item as plain

pytestmark = pytest.mark.faults
KILLS, SEED = 30, 11
#: A delivery of the test reads for less; the vacuum finds work in what lies longer.
FLOOR = timedelta(seconds=15)
#: Every third key is old; what bronze loses of it the baseline has, with how often it was seen.
SPEC = replace(
    PLAIN,
    columns=(*PLAIN.columns, Column("feito", "timestamp"), Column("vezes", "int", observed="count")),
    retention=Retention(event="feito", bronze=timedelta(days=100)),
)
OLD, YOUNG = "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def item(number: int, name: str = "a", day: int = 1) -> dict[str, Any]:
    return {**plain(number, name, day), "feito": YOUNG if number % 3 else OLD}


def whole_job(folder: str, die_at: int, after: bool, counted: Any) -> None:
    """Retention, upkeep, backup, proof. The process ends by kill -9 at its `die_at`-th change of a file or table,
    before or after it; `counted` has how many there were."""
    lake, calls = Lake(Path(folder)), 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            mine = calls == die_at
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            out = real(*given, **more)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return out

        return call

    stored.put, stored.remove, shutil.copyfile = deadly(stored.put), deadly(stored.remove), deadly(shutil.copyfile)  # type: ignore[assignment]
    transaction.write_version = deadly(transaction.write_version)
    with lake.session() as session:
        redo_on_conflict(lambda: expire(session, lake.storage, SPEC, now=NOW, wait=30))
    vault = Vault(f"{folder}/backup", f"{folder}/scratch")
    protected = Protection(backups=vault.versions())
    wanted = tasks(lake.storage, [SPEC])
    found = list(maintain(wanted, storage=lake.storage, protected=protected, session=lake.session, floor=FLOOR, wait=5))
    assert {one.outcome for one in found} <= {"done", "nothing"}, found
    backup = vault.take(lake.storage).backup
    assert not backup.skipped
    assert not vault.prove(backup, session=lake.session, whole=False).damaged
    vault.expire(retain=2)
    counted.value = calls


def test_kills_anywhere_lose_and_double_nothing(lake: Lake) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lakehouse_tests.faults.test_maintenance_killed"])
    counted = context.Value("i", 0)
    chance, landed = random.Random(SEED), 0

    def deliver() -> None:
        nonlocal landed
        landed += 1
        rows = [item(landed), item(1000, f"v{landed}", day=1 + landed % 28), {**item(1), "id": "x"}]
        lake.land("itens", f"f{landed}", [*rows, item(999)], at=EXTRACTED + landed * 1000)
        # Held, as the assets do.
        with lock(lake.storage.uri(SPEC.bronze)), lock(lake.storage.uri(SPEC.silver)):
            redo_on_conflict(lambda: lake.run(SPEC), attempts=20)

    def job(die_at: int, *, after: bool = False) -> int:
        process = context.Process(target=whole_job, args=(str(lake.folder), die_at, after, counted))
        process.start()
        time.sleep(chance.random() / 2)
        deliver()
        process.join(120)
        assert process.exitcode is not None
        return process.exitcode

    for _ in range(4):
        deliver()
    codes = [job(0)]
    total = counted.value
    assert codes == [0] and total > 15
    kill_points = [round(n * total * 2 / KILLS) + 1 for n in range(KILLS // 2)]
    kill_points += [chance.randint(1, total) for _ in range(KILLS // 2)]
    codes = [job(kill_point, after=bool(n % 2)) for n, kill_point in enumerate(kill_points)]
    killed = codes.count(-signal.SIGKILL)
    assert set(codes) <= {0, -signal.SIGKILL} and killed >= KILLS // 2, codes
    assert job(0) == 0, "the next run completes"
    ids = [row["id"] for row in lake.rows(SPEC.bronze, "id")]
    young = [str(n) for n in range(1, landed + 1) if n % 3]
    left = [number for number in ids if number == "999" or (number.isdigit() and not int(number) % 3)]
    assert sorted(ids) == sorted([*young, *["1000"] * landed, *["x"] * landed, *left]) and len(left) <= 4
    assert [row["id"] for row in lake.rows(SPEC.silver, "id")] == [*range(1, landed + 1), 999, 1000]
    assert {row["id"]: row["vezes"] for row in lake.rows(SPEC.silver, "id", "vezes")} == {
        **dict.fromkeys(range(1, landed + 1), 1),
        999: landed,
        1000: landed,
    }
    assert lake.rows(baseline_ref(SPEC.silver), "id")[-1]["id"] == 999
    assert len(lake.quarantined(SPEC)) == landed
    silver = lake.rows(SPEC.silver)
    assert not any(f.failed for f in lake.refresh(SPEC, rebuild=True).findings if f.rule in ("ledger", "complete"))
    assert lake.rows(SPEC.silver) == silver
    vault = Vault(str(lake.folder / "backup"), str(lake.folder / "scratch"))
    for name in vault.names():
        assert not vault.prove(vault.read(name), session=lake.session).damaged
    backup = vault.chosen()
    shutil.rmtree(lake.folder / "lake")
    for ref in backup.tables:
        vault.restore(backup, ref, lake.storage)
    found = open_existing(lake.storage.uri(SPEC.bronze))
    assert found is not None and not lake.run(SPEC).stopped
    print(f"{killed} kills over {total} places, {landed} deliveries: 0 rows lost, 0 doubled, {len(vault.names())} backups proven")
