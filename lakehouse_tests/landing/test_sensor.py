"""The landing sensor: what is a new listing, and how often a run is requested over one until a run has taken it."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.landing import sensor
from lakehouse.landing.sensor import landing_sensor
from lakehouse.runtime.steps import ATTEMPT_TAG
from lakehouse.settings import Settings

JOB = "medallion_etl"
FIRST = "2024_01_01_1_0.jsonl"


@dg.asset
def bronze() -> None:
    """Half of a job."""


@dg.asset
def silver() -> None:
    """The other half."""


DEFS = dg.Definitions(assets=[bronze, silver], jobs=[dg.define_asset_job(JOB, selection="*")])


class Landing:
    """A landing folder, the sensor over it, its cursor between ticks, and the runs of an instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(root=str(root))
        self.folder = root / "landing" / "raw" / "vendas"
        self.instance = instance
        self.cursor: str | None = None

    def land(self, name: str = FIRST, text: str = "{}\n") -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(text)
        return path

    def tick(self) -> dg.RunRequest | dg.SkipReason:
        repository = DEFS.get_repository_def()
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, repository_def=repository) as context:
            (outcome,) = landing_sensor(self.settings)(context)
            self.cursor = context.cursor
        return outcome

    def requested(self) -> dg.RunRequest:
        outcome = self.tick()
        assert isinstance(outcome, dg.RunRequest), outcome
        return outcome

    def skipped(self) -> str:
        outcome = self.tick()
        assert isinstance(outcome, dg.SkipReason), outcome
        return outcome.skip_message or ""

    def run(self, status: dg.DagsterRunStatus, job: str = JOB, **more) -> dg.DagsterRun:
        """A run as whoever starts one leaves it."""
        return self.instance.create_run_for_job(DEFS.resolve_job_def(job), status=status, **more)

    def fail(self) -> None:
        self.instance.report_run_failed(self.run(dg.DagsterRunStatus.STARTED))


@pytest.fixture
def landing(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Landing(tmp_path, instance)


@pytest.fixture
def clock(monkeypatch):
    """The sensor's clock, moved by hand."""

    class Clock(datetime):
        ahead = timedelta()

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + cls.ahead

    monkeypatch.setattr(sensor, "datetime", Clock)
    return Clock


# --- what is a new listing -------------------------------------------------------------------------------------------


def test_nothing_landed_is_no_run(landing):
    assert landing.settings.landing in landing.skipped()
    assert landing.cursor is None


def test_new_files_are_one_run_and_the_same_listing_is_none_once_it_succeeded(landing):
    landing.land()
    landing.land("2024_01_01_1_1.jsonl")
    first = landing.requested()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    assert "has taken the 2 files" in landing.skipped()
    assert "Nothing new among 2 files" in landing.skipped()
    landing.land("2024_01_02_1_0.jsonl")
    assert landing.requested().run_key != first.run_key


def test_a_file_delivered_again_under_its_name_is_a_run(landing):
    path = landing.land(text="{}\n")
    landing.requested()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    landing.skipped()
    path.write_text("{} \n")
    landing.requested()


def test_files_that_are_not_data_or_of_no_declared_stream_are_no_run(landing):
    landing.land("_SUCCESS")
    landing.land(".part")
    landing.land("empty.jsonl", "")
    other = landing.folder.parent / "undeclared"
    other.mkdir()
    (other / "a.jsonl").write_text("{}\n")
    landing.skipped()


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_what_lands_while_a_run_is_on_its_way_is_asked_for_after_it(landing, status):
    landing.land()
    landing.requested()
    run = landing.run(status)
    landing.land("2024_01_02_1_0.jsonl")
    assert "on its way" in landing.skipped()
    landing.instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, JOB), run.run_id)
    landing.requested()


def test_a_run_of_another_job_delays_nothing(landing):
    landing.instance.create_run_for_job(dg.job(name="other")(lambda: None), status=dg.DagsterRunStatus.STARTED)
    landing.land()
    landing.requested()


def test_a_tick_reads_no_landed_file_and_leaves_all_as_they_are(landing):
    path = landing.land()
    os.utime(path, ns=(1, path.stat().st_mtime_ns))
    before = path.stat()
    landing.tick()
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (before.st_mtime_ns, before.st_ino, before.st_size)
    assert list(landing.folder.rglob("*")) == [path]


def test_the_sensor_requests_the_job_that_takes_in_what_landed(landing):
    assert [target.job_name for target in landing_sensor(landing.settings).targets] == [JOB]


# --- asked again until taken -----------------------------------------------------------------------------------------


def test_after_a_failure_the_first_tick_asks_again_and_no_file_is_needed(landing):
    landing.land()
    first = landing.requested()
    landing.fail()
    again = landing.requested()
    assert again.run_key != first.run_key
    assert (first.tags[ATTEMPT_TAG], again.tags[ATTEMPT_TAG]) == ("1", "2")
    landing.run(dg.DagsterRunStatus.SUCCESS)
    landing.skipped()
    assert "Nothing new" in landing.skipped()


def test_the_pauses_grow_with_the_failures_up_to_an_hour(landing, clock):
    landing.land()
    pauses = []
    for _ in range(6):
        waited = 0
        while not isinstance(landing.tick(), dg.RunRequest):
            clock.ahead += timedelta(minutes=1)
            waited += 1
        pauses.append(waited)
        landing.fail()
        clock.ahead = timedelta()
    assert pauses == [0, 0, 5, 15, 60, 60]
    assert f"{JOB} has failed 6 times in a row; it is asked again in " in landing.skipped()


def test_a_new_file_is_asked_for_at_once_whatever_failed_before_it(landing):
    landing.land()
    for _ in range(3):
        landing.tick()
        landing.fail()
    assert "3 times in a row" in landing.skipped()
    landing.land("2024_01_02_1_0.jsonl")
    assert landing.requested().tags[ATTEMPT_TAG] == "4"


def test_a_run_that_dagster_could_not_start_is_asked_for_again(landing):
    landing.land()
    landing.requested()
    landing.instance.report_run_failed(landing.run(dg.DagsterRunStatus.NOT_STARTED))
    landing.requested()


def test_a_run_of_the_shell_that_succeeds_counts(landing):
    landing.land()
    landing.requested()
    landing.fail()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    assert "has taken" in landing.skipped()


def test_a_run_that_began_before_the_files_were_seen_does_not_count(landing):
    landing.land()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    landing.requested()


def test_a_re_execution_from_failure_counts_when_its_first_run_saw_the_files(landing):
    landing.land()
    landing.requested()
    failed = landing.run(dg.DagsterRunStatus.FAILURE)
    more = {"root_run_id": failed.run_id, "parent_run_id": failed.run_id}
    tags = {"dagster/is_resume_retry": "true"}
    landing.run(dg.DagsterRunStatus.SUCCESS, tags=tags, **more)
    assert "has taken" in landing.skipped()


def test_a_re_execution_of_an_older_run_does_not_count(landing):
    failed = landing.run(dg.DagsterRunStatus.FAILURE)
    landing.land()
    landing.requested()
    more = {"root_run_id": failed.run_id, "parent_run_id": failed.run_id}
    landing.run(dg.DagsterRunStatus.SUCCESS, tags={"dagster/is_resume_retry": "true"}, **more)
    landing.requested()


def test_a_re_execution_of_chosen_steps_does_not_count(landing):
    landing.land()
    landing.requested()
    failed = landing.run(dg.DagsterRunStatus.FAILURE)
    more = {"root_run_id": failed.run_id, "parent_run_id": failed.run_id}
    landing.run(dg.DagsterRunStatus.SUCCESS, tags={"dagster/step_selection": "silver"}, **more)
    landing.requested()


def test_runs_of_chosen_assets_count_when_together_they_are_all_of_the_job(landing):
    landing.land()
    landing.requested()
    landing.fail()
    for key in ("bronze", "silver"):
        assert isinstance(landing.tick(), dg.RunRequest)
        landing.run(dg.DagsterRunStatus.SUCCESS, job="__ASSET_JOB", asset_selection=frozenset([dg.AssetKey(key)]))
    assert "has taken" in landing.skipped()


def test_a_cursor_of_an_earlier_release_is_asked_for_once_more(landing):
    landing.land()
    digest, files = sensor.listing_digest(landing.settings)
    landing.cursor = json.dumps({"digest": digest, "files": files})
    landing.requested()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    landing.skipped()
    assert "Nothing new" in landing.skipped()


def test_who_clears_the_cursor_gets_a_run(landing):
    landing.land()
    landing.requested()
    landing.run(dg.DagsterRunStatus.SUCCESS)
    landing.skipped()
    landing.cursor = None
    landing.requested()
