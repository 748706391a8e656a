"""Runs the job of one table in processes of its own, and ends them with SIGKILL.

    python -m lakehouse_tests.bronze.kill_driver <orders.json>        prints one JSON line per order

An order is {"do": "count" | "kill" | "random" | "together", "folder": ..., ...}. The libraries are imported once, here; each
child is a fork that has opened nothing before.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake.transaction  # noqa: F401 - imported before the forks, as what follows
import narwhals.dataframe  # noqa: F401
import pyarrow.parquet  # noqa: F401
import sqlglot  # noqa: F401
import tenacity  # noqa: F401

import lakehouse.bronze.ingest
import lakehouse.silver.refresh  # noqa: F401
from lakehouse.core import delta
from lakehouse.core.errors import LakehouseError
from lakehouse.core.landing import airbyte
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec, in_range
from lakehouse_tests.conftest import Lake

SPEC = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("situacao", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    deleted="situacao = 'apagado'",
    rules=(in_range("id", minimum=0),),
)
#: Every write of a run goes through one of these.
POINTS: dict[str, tuple[Any, str]] = {
    "commit": (delta.Snapshot, "commit"),
    "add_columns": (delta.Snapshot, "add_columns"),
    "stage": (airbyte, "stage"),
}
RETRYABLE, BROKEN = 10, 1


def job(lake: Lake) -> None:
    """What a child does; its exit code says how it went."""
    try:
        lake.run(SPEC)
    except LakehouseError as error:
        os._exit(RETRYABLE if error.retryable else BROKEN)
    except BaseException:  # noqa: BLE001 - the exit code says so
        traceback.print_exc()
        os._exit(BROKEN)
    os._exit(0)


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def ended(pid: int) -> int:
    """Exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at(point: str, *, nth: int, before: bool, act: Callable[[], None]) -> None:
    """Have `act` called at the nth call of a function."""
    owner, name = POINTS[point]
    original, calls = getattr(owner, name), iter(range(1, 1000))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        here = next(calls) == nth
        if here and before:
            act()
        result = original(*args, **kwargs)
        if here and not before:
            act()
        return result

    setattr(owner, name, wrapped)


def kill_at(lake: Lake, point: str, nth: int, *, before: bool) -> int:
    def work() -> None:
        at(point, nth=nth, before=before, act=lambda: os.kill(os.getpid(), signal.SIGKILL))
        job(lake)

    return ended(fork(work))


def count(lake: Lake, point: str) -> int:
    """How often a whole run calls a function: the exit code of a child that counted."""
    owner, name = POINTS[point]

    def work() -> None:
        original, calls = getattr(owner, name), []

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)
        lake.run(SPEC)
        os._exit(len(calls))

    return ended(fork(work))


def arrivals(lake: Lake) -> Iterator[None]:
    """Land the files that wait, one at each step."""
    for file in sorted((lake.folder / "waiting").iterdir()):
        target = lake.folder / "landing" / "raw" / "itens"
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target / file.name)
        yield


def kill_at_random(lake: Lake, seed: int) -> list[int]:
    chance, codes = random.Random(seed), []
    for _ in arrivals(lake):
        pid = fork(lambda: job(lake))
        time.sleep(chance.uniform(0.0, 0.5))
        os.kill(pid, signal.SIGKILL)
        codes.append(ended(pid))
    return codes


def together(lake: Lake) -> list[int]:
    codes = []
    for _ in arrivals(lake):
        pids = [fork(lambda: job(lake)) for _ in range(2)]
        codes += [ended(pid) for pid in pids]
    return codes


def main(orders: list[dict[str, Any]]) -> None:
    for order in orders:
        lake, result = Lake(Path(order["folder"])), None
        if order["do"] == "count":
            result = count(lake, order["point"])
        elif order["do"] == "kill":
            result = kill_at(lake, order["point"], order["nth"], before=order["before"])
        elif order["do"] == "random":
            result = kill_at_random(lake, order["seed"])
        else:
            result = together(lake)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
