"""Work whose states are tried, and what it has reported.

    python -m lakehouse_tests.faults.power.work tables <mount point> <mode>    commits, captures and clean-up, one after the other
    python -m lakehouse_tests.faults.power.work layers <mount point> <mode>    bronze and silver of a table, landing by landing

`mode` is `power` or `process`. Each step that has returned is noted in the journal, and with it what must be there from then on.
"""

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lakehouse.core.store import durability, files
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, restore_version
from lakehouse.maintenance.optimise import clean_log
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults.driver import ITENS
from lakehouse_tests.faults.power.states import MARK

COLUMNS = {"a": "bigint", "dia": "string"}
MORE = {**COLUMNS, "b": "string"}
APPENDS = 13
LANDINGS = 4


def report(mount: Path, **what: object) -> None:
    """Note that something was reported; in hexadecimal, since a name has no slash."""
    with suppress(FileExistsError):
        os.mkdir(mount / f"{MARK}{json.dumps(what).encode().hex()}")  # noqa: PTH102


def tables(mount: Path) -> None:
    """Appends across a checkpoint, one in partitions, a column more, a restore, a clean-up of the log; captures between."""
    lake = Lake(mount)
    uri, apart = f"{mount}/silver/t", f"{mount}/silver/p"
    for number in range(APPENDS):
        table = open_table(uri, COLUMNS)
        with lake.session() as session:
            made = session.write(session.table([{"a": number, "dia": f"d{number % 2}"}], COLUMNS), uri, columns=COLUMNS)
        done = commit_staged(Transaction(table=table, add=made, watermarks={"n": number + 1}))
        report(mount, table="silver/t", version=done.version, rows=[*range(number + 1)])
        body = f"capture {number}".encode() * 50
        files.put(f"{mount}/captures/{number}.json", body, new=True)
        files.put(f"{mount}/state.json", body)
        report(mount, capture=number)
        if number % 4 == 0:
            table = open_table(apart, COLUMNS, partition_by=("dia",))
            with lake.session() as session:
                rows = session.table([{"a": number, "dia": day} for day in ("x", "y")], COLUMNS)
                made = session.write(rows, apart, columns=COLUMNS, partition="dia")
            done = commit_staged(Transaction(table=table, add=made))
            known = [n for n in range(number + 1) if n % 4 == 0]
            report(mount, table="silver/p", version=done.version, rows=sorted([*known, *known]))
    rows = [*range(APPENDS)]
    snapshot = open_table(uri, COLUMNS).add_columns({"b": "string"})
    report(mount, table="silver/t", version=snapshot.version, rows=rows)
    snapshot = restore_version(snapshot, snapshot.version - 1, watermarks={"n": 99}, provenance=Provenance())
    report(mount, table="silver/t", version=snapshot.version, rows=rows)
    snapshot.checkpoint()
    clean_log(snapshot, retained=[snapshot.version], now=datetime.now(UTC) + timedelta(days=99))
    report(mount, table="silver/t", version=snapshot.version, rows=rows)


def layers(mount: Path) -> None:
    """What lands is whole on the disk before it is read: the landing zone is somebody else's."""
    lake = Lake(mount)
    for number in range(LANDINGS):
        land(lake, number)
        durability.sync(map(str, Path(lake.storage.landing).rglob("*")))
        report(mount, landed=number)
        lake.run(ITENS)
        found = open_existing(lake.storage.uri(ITENS.silver))
        report(mount, ran=number, rows=found.rows if found is not None else 0)


def land(lake: Lake, number: int) -> None:
    rows = [
        {"id": 10 * number + n, "nome": f"n{number}", "situacao": "ativo", "em": f"2026-01-{number + 1:02d}T00:00:00Z"}
        for n in range(-1 if number == 1 else 0, 6)
    ]
    lake.land("itens", f"f{number}", rows)


def main() -> None:
    what, mount, mode = sys.argv[1:]
    durability.use("power" if mode == "power" else "process")
    {"tables": tables, "layers": layers}[what](Path(mount))


if __name__ == "__main__":
    main()
