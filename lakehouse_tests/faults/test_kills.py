"""A handful of the campaign, with every `make test`: kills at the places that matter most, and two runs at once.

The whole is `test_campaign.py` (`make test-faults`).
"""

from pathlib import Path

import pytest

from lakehouse_tests.faults.campaign import (
    BEFORE_COMMIT,
    BEFORE_EVENT,
    BEFORE_LEDGER,
    COMMIT_CHAINS,
    LEDGER_CHAINS,
    RANDOM,
    Job,
    Layers,
)
from lakehouse_tests.faults.driver import RETRYABLE, Driver, KillPoint


def test_the_kill_points_of_the_campaign_are_all_writes_of_a_run(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=3)
    before = lane.lake.versions()
    lane.land()
    lane.recover()
    commits = {table: version - before[table] for table, version in lane.lake.versions().items()}
    assert commits == {
        "ops/landing_files": 1,
        "quarantine/itens": 2,
        "bronze/itens": 2,  # new columns, and the batch
        "ops/ledger": 2,
        "ops/deletes_itens": 1,
        "silver/itens": 1,
    }
    points = [point for chain in [*COMMIT_CHAINS, *LEDGER_CHAINS] for point in chain if point is not None]
    assert {point.about for point in points if point.call == "commit" and point.before} == set(commits)


@pytest.mark.stack
def test_kills_between_two_writes_and_at_random(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=3)
    lane.run(BEFORE_COMMIT, [COMMIT_CHAINS[6], COMMIT_CHAINS[8]])
    lane.run(BEFORE_LEDGER, [LEDGER_CHAINS[0]])
    lane.at_random(RANDOM, 2, longest=2)
    assert lane.tally.kills == {BEFORE_COMMIT: 2, BEFORE_LEDGER: 2, RANDOM: 2}
    lane.check_finalised()


@pytest.mark.stack
def test_a_dagster_run_killed_between_commit_and_event(driver: Driver, store: Path, tmp_path: Path) -> None:
    lane = Job(driver, tmp_path, store=store, seed=3, work="assets")
    lane.run(BEFORE_EVENT, [[KillPoint(call="record", about="silver/vendas", before=True)]])
    assert lane.tally.clean and lane.tally.kills == {BEFORE_EVENT: 1}, lane.tally
    assert lane.unrecorded() == [], "a recovered run tells Dagster of what the killed one committed"


@pytest.mark.slow
def test_without_the_check_of_unfinished_batches_a_kill_is_seen_to_lose(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=3, broken="unfinished batches")
    assert lane.tally.clean, "it is the kill that does it"
    lane.run(BEFORE_COMMIT, [COMMIT_CHAINS[6]])
    assert lane.tally.lost


@pytest.mark.slow
def test_without_the_written_ahead_plan_a_kill_is_seen_to_double(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=3, broken="written-ahead plan")
    assert lane.tally.clean, "it is the kill that does it"
    lane.run(BEFORE_LEDGER, [LEDGER_CHAINS[0]])
    assert lane.tally.doubled and not lane.tally.lost


def test_two_runs_at_once_conflict_at_most(driver: Driver, tmp_path: Path) -> None:
    lane = Layers(driver, tmp_path, seed=3)
    codes: list[int] = []
    for _ in range(2):
        lane.land()
        codes += driver.run(tmp_path, "two at once").codes
    assert set(codes) <= {0, RETRYABLE} and 0 in codes
    driver.run(tmp_path, "layers")  # the batch that was planned; then what landed since
    lane.recover()
    lane.check_finalised()
