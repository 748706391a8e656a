"""Every asset of `medallion_etl` is computed again from what its run had read: of the first run, and of an increment."""

from pathlib import Path

import dagster as dg
import pytest

from lakehouse.commands import replay
from lakehouse.definitions import build_defs
from lakehouse.sample.landing import write_sample_landing
from lakehouse.settings import Settings
from lakehouse_tests.end_to_end.test_job import QUIET, Lake

pytestmark = pytest.mark.slow


def test_the_first_run_and_an_increment_are_equal(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write_sample_landing(lake.root / "landing", lines=2_500)
    settings = Settings(root=str(lake.root))
    job = build_defs(settings).resolve_job_def("medallion_etl")
    runs = []
    with dg.DagsterInstance.ephemeral() as instance:
        for late in (0, 3):
            for sale in range(late):
                lake.land(sale, quantidade=sale + 1)
            result = job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False)
            assert result.success
            runs.append(replay.run_of(settings.storage, instance.get_run_by_id(result.run_id)))
    first, increment = runs
    assert len(first.made) > len(increment.made) > 3
    before = lake.versions()
    for run in runs:
        assets = replay._asked(run, "")
        found = {str(one.asset): one.outcome for one in replay.computed_again(settings, run, assets)}
        assert found == {str(ref): "equal" for ref in assets}
    assert lake.versions() == before
