"""kill -9 of the process that captures, exports and takes in: no capture is lost, none is in two CSVs or twice in bronze."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from lakehouse.landing.sources.captures import Captures
from lakehouse.sample.brt import answer
from lakehouse.tables.brt import BRT_GPS
from lakehouse_tests.conftest import Lake

START, MINUTE, VEHICLES, BUFFER = 1_761_620_400_000, 60_000, 12, 3
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["lakehouse.bronze.ingest", "lakehouse_tests.conftest", "obstore", "deltalake"])


def captures_of(folder: Path) -> Captures:
    return Captures(landing=str(folder / "landing"), source="brt", stream="brt_gps", field="veiculos")


def replay(folder: Path) -> None:
    """What a run does, again and again: the next recorded answer, the CSV when it is time, bronze."""
    captures, lake = captures_of(folder), Lake(folder)
    while (found := captures.recorded(str(folder / "recorded"))) is not None:
        captures.check(found.body)
        captures.persist(found)
        if captures.export(buffer=BUFFER):
            lake.ingest(BRT_GPS)


def killed(folder: Path, kills: int) -> None:
    chance, done, recorded = random.Random(7), 0, 0
    (folder / "recorded").mkdir()
    while done < kills:
        for number in range(recorded, recorded + 60):
            at = START + number * MINUTE
            (folder / "recorded" / f"{at}.json").write_bytes(answer(at, vehicles=VEHICLES))
        recorded += 60
        while done < kills:
            process = _PROCESSES.Process(target=replay, args=(folder,))
            process.start()
            process.join(chance.uniform(0.1, 2.5))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
            time.sleep(0.01)
    replay(folder)
    captures, lake = captures_of(folder), Lake(folder)
    captures.export(buffer=1)
    lake.ingest(BRT_GPS)
    expected = {f"{START + number * MINUTE}-{vehicle}" for number in range(recorded) for vehicle in range(1, VEHICLES + 1)}
    exported = [line.split(",")[0] for path in (folder / "landing" / "raw").rglob("*.csv") for line in path.open()]
    exported = [name for name in exported if name != "_airbyte_raw_id"]
    assert len(exported) == len(expected) and set(exported) == expected
    rows = [row["_airbyte_raw_id"] for row in lake.rows(BRT_GPS.bronze, "_airbyte_raw_id")]
    assert len(rows) == len(expected) and set(rows) == expected
    print(f"{done} kills, {recorded} captures, {len(rows)} records in bronze, none lost, none twice")


@pytest.mark.stack
def test_a_few_kills_lose_and_double_nothing(tmp_path):
    killed(tmp_path, 3)


@pytest.mark.faults
def test_fifty_kills_lose_and_double_nothing(tmp_path):
    killed(tmp_path, 50)
