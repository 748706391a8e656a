"""What the tests of the rig share: one warmed-up driver, and the sample's files for the job."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.sample.landing import write_sample_landing
from lakehouse_tests.faults.driver import Driver


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with Driver() as started:
        started.start()
        yield started


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the sample's syncs that have not landed yet."""
    folder = tmp_path_factory.mktemp("store")
    write_sample_landing(folder, lines=2_500)
    return folder
