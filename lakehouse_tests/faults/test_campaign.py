"""The whole campaign: 200 kills, and a part of the same without the checks that make them harmless.

`make test-faults` prints the tables.
"""

from pathlib import Path

import pytest

from lakehouse_tests.faults.campaign import (
    BEFORE_COMMIT,
    BEFORE_EVENT,
    BEFORE_LEDGER,
    COMMIT_CHAINS,
    EVENT_CHAINS,
    FORMS,
    LEDGER_CHAINS,
    RANDOM,
    RANDOM_JOB,
    Job,
    Layers,
    Tally,
)
from lakehouse_tests.faults.driver import BROKEN_CHECKS, ITENS, Driver

pytestmark = pytest.mark.faults

SEED = 7
#: Kills at random moments, in each of these lakes and in the Dagster job.
LAKES, IN_LAYERS, IN_JOB = 4, 39, 14


def layers(driver: Driver, folder: Path, *, lakes: int, kills: int, broken: str = "") -> Tally:
    """Kills of bronze and silver: at the places, and so many at random moments in each of so many lakes."""
    targeted = Layers(driver, folder / "placed", seed=SEED, broken=broken)
    targeted.run(BEFORE_COMMIT, COMMIT_CHAINS)
    targeted.run(BEFORE_LEDGER, LEDGER_CHAINS)
    lanes = [targeted]
    for number in range(lakes):
        lane = Layers(driver, folder / f"lake-{number}", seed=SEED + number, broken=broken, forms=FORMS)
        lane.at_random(RANDOM, kills, longest=3)
        lanes.append(lane)
    if not broken:
        for lane in lanes:
            lane.check_finalised()
            rows = lane.lake.rows(ITENS.silver)
            assert not lane.lake.refresh(ITENS, rebuild=True).stopped
            assert lane.lake.rows(ITENS.silver) == rows, "a rebuild gives the same table"
    return sum((lane.tally for lane in lanes), Tally())


def job(driver: Driver, folder: Path, store: Path) -> Tally:
    """Kills of the Dagster job; in the end every mart and report is that of a lake in which nobody was killed."""
    lane = Job(driver, folder / "killed", store=store, seed=SEED)
    lane.recover()
    lane.run(BEFORE_EVENT, EVENT_CHAINS)
    lane.at_random(RANDOM_JOB, IN_JOB, longest=5)
    lane.land_all()
    lane.recover()
    lane.check_finalised()
    assert lane.unrecorded() == []
    assert list((lane.lake.folder / "lake" / ".spill").iterdir()) == []
    whole = Job(driver, folder / "whole", store=store, seed=SEED)
    whole.land_all()
    whole.recover()
    assert whole.tally.clean and len(whole.gold()) == 5
    assert lane.gold() == whole.gold()
    assert set(lane.reports()) >= set(whole.reports()) != set()
    return lane.tally


def test_two_hundred_kills_lose_nothing_and_double_nothing(
    driver: Driver, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = job(driver, tmp_path / "job", store) + layers(driver, tmp_path / "layers", lakes=LAKES, kills=IN_LAYERS)
    with capsys.disabled():
        print(f"\n\n{tally.table()}\n")
    assert tally.clean, tally.where
    assert tally.kills == {BEFORE_COMMIT: 10, BEFORE_LEDGER: 10, BEFORE_EVENT: 10, RANDOM: LAKES * IN_LAYERS, RANDOM_JOB: IN_JOB}
    assert tally.kills.total() == 200


@pytest.mark.parametrize("broken", BROKEN_CHECKS)
def test_the_same_kills_without_a_check_are_seen_to_lose_or_to_double(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    tally = layers(driver, tmp_path, lakes=1, kills=15, broken=broken)
    with capsys.disabled():
        print(f"\n\nwithout the check of the {broken}:\n\n{tally.table()}\n")
    assert tally.lost if broken == "unfinished batches" else tally.doubled
