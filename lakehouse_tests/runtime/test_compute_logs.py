"""What a run printed is where Dagster's pages look for it; a run that printed nothing leaves no file and no folder."""

import shutil
import sys
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.runtime.compute_logs import PrintedLogManager
from lakehouse.settings import project_folder


@dg.op
def prints() -> None:
    print("out loud")
    sys.stdout.flush()


@dg.op
def silent() -> None:
    """Prints nothing."""


@dg.job(executor_def=dg.in_process_executor, logger_defs={})
def loud_job() -> None:
    prints()


@dg.job(executor_def=dg.in_process_executor, logger_defs={})
def silent_job() -> None:
    silent()


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home with the project's own dagster.yaml; whose it is does not follow from the environment."""
    shutil.copy(project_folder() / "dagster.yaml", tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


def test_what_was_printed_stays_and_what_is_empty_goes(home, capfd):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        manager = instance.compute_log_manager
        assert isinstance(manager, PrintedLogManager)
        found = {}
        for job in (loud_job, silent_job):
            run = job.execute_in_process(instance=instance, run_config=QUIET if job is silent_job else {})
            (event,) = [e for e in run.all_events if e.event_type_value == "LOGS_CAPTURED"]
            key = manager.build_log_key_for_run(run.run_id, event.event_specific_data.file_key)
            assert manager.is_capture_complete(key)
            found[job.name] = (manager.get_log_data(key).stdout, (home / "storage" / run.run_id).exists())
    assert found["loud_job"] == (b"out loud\n", True)
    assert found["silent_job"] == (None, False)
    assert "out loud" in capfd.readouterr().out  # and on the console, as ever


def test_a_folder_that_another_step_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    from dagster._core.execution import compute_logs
    from dagster._core.storage import local_compute_log_manager

    made, attempts = compute_logs.mirror_stream_to_file, []

    def late(stream, path):
        attempts.append(path)
        if len(attempts) == 1:
            raise FileNotFoundError(path)
        return made(stream, path)

    monkeypatch.setattr(local_compute_log_manager, "mirror_stream_to_file", late)
    manager = PrintedLogManager(base_dir=str(tmp_path))
    with manager.capture_logs(["run", "compute_logs", "step"]):
        assert not manager.is_capture_complete(["run", "compute_logs", "step"])
    assert len(attempts) == 3
    assert list(tmp_path.iterdir()) == []


def test_logs_of_other_steps_stay(tmp_path):
    manager = PrintedLogManager(base_dir=str(tmp_path))
    other = tmp_path / "run" / "compute_logs" / "other.err"
    with manager.capture_logs(["run", "compute_logs", "step"]):
        other.write_text("printed")
    assert [path.name for path in other.parent.iterdir()] == ["other.err"]
