"""Kills of tables that follow another writer's Delta table, between any two steps: silver has what that table has."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.landing.readers.files.fields import WITHDRAWN
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults.driver import KILLED, Driver, KillPoint, adopted

TABLES = ("chave", "linhas")
POINTS = [
    point
    for table in TABLES
    for point in (
        KillPoint(call="commit", about="ops/landing_files", nth=1 + TABLES.index(table)),
        KillPoint(call="copy", about=".parquet", before=True, nth=1 + TABLES.index(table)),
        KillPoint(call="copy", about=".parquet", nth=1 + TABLES.index(table)),
        KillPoint(call="stage", about=f"bronze/{table}"),
        KillPoint(call="commit", about=f"bronze/{table}", before=True),
        KillPoint(call="commit", about=f"bronze/{table}"),
        KillPoint(call="write", about=f"silver/{table}"),
        KillPoint(call="commit", about=f"silver/{table}", before=True),
        KillPoint(call="commit", about=f"silver/{table}"),
    )
]


class Writer:
    """The other writer: each change adds, replaces and takes rows away."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.changes = str(folder / "other"), 0
        self.add(range(10))

    def add(self, ids: range) -> None:
        write_deltalake(self.uri, pa.table({"id": [*ids], "nome": [f"em {self.changes}"] * len(ids)}), mode="append")

    def change(self) -> None:
        self.changes += 1
        n, table = self.changes, DeltaTable(self.uri)
        if n % 4 == 3:
            table.restore(table.version() - 3)
        elif n % 4 == 0:
            write_deltalake(self.uri, pa.table({"id": [*range(5 + n)], "nome": ["tudo"] * (5 + n)}), mode="overwrite")
        else:
            table.delete(f"id % 5 = {n % 5}")
            table.update(predicate=f"id % 3 = {n % 3}", updates={"nome": f"'em {n}'"})
            self.add(range(100 + 10 * n, 105 + 10 * n))

    def rows(self) -> Counter[object]:
        return Counter((row["id"], row["nome"]) for row in DeltaTable(self.uri).to_pyarrow_table().to_pylist())


def check(lake: Lake, writer: Writer) -> None:
    for spec in adopted(lake.folder):
        silver = Counter((row["id"], row["nome"]) for row in lake.rows(spec.silver, "id", "nome"))
        assert silver == writer.rows(), spec.name
        live: Counter[object] = Counter()
        bronze = lake.rows(spec.bronze, "_source_file", "_airbyte_meta", "id", "nome")
        for row in bronze:
            live[int(row["id"]), row["nome"]] += -1 if row["_airbyte_meta"] == WITHDRAWN else 1
        assert +live == writer.rows() and not -live, f"{spec.name}: what came and went in bronze"
    for entry in lake.ledger():
        assert entry["records_in"] == sum(entry[name] for name in ("written", "deduplicated", "deleted", "quarantined"))


@pytest.mark.faults
def test_a_kill_at_any_step_changes_nothing(driver: Driver, tmp_path: Path) -> None:
    _killed(driver, tmp_path, POINTS)


def test_kills_at_some_steps_change_nothing(driver: Driver, tmp_path: Path) -> None:
    _killed(driver, tmp_path, POINTS[2::6])


def _killed(driver: Driver, tmp_path: Path, points: Sequence[KillPoint]) -> None:
    lake, writer = Lake(tmp_path), Writer(tmp_path)
    assert driver.run(tmp_path, "adopted").code == 0
    check(lake, writer)
    for point in points:
        writer.change()
        end = driver.run(tmp_path, "adopted", point=point)
        assert end.code == KILLED, f"{point}: {end.code} {end.output[-2000:]}"
        end = driver.run(tmp_path, "adopted")
        assert end.code == 0, f"{point}: {end.output[-2000:]}"
        check(lake, writer)


@pytest.mark.faults
@pytest.mark.parametrize("point", POINTS[:9], ids=str)
def test_a_kill_while_another_version_comes_changes_nothing(driver: Driver, tmp_path: Path, point: KillPoint) -> None:
    lake, writer = Lake(tmp_path), Writer(tmp_path)
    assert driver.run(tmp_path, "adopted").code == 0
    writer.change()
    assert driver.run(tmp_path, "adopted", point=point).code == KILLED
    writer.change()
    for _ in range(2):  # what was planned, then what came since
        end = driver.run(tmp_path, "adopted")
        assert end.code == 0, end.output[-2000:]
    check(lake, writer)
