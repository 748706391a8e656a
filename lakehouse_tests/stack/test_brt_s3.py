"""The BRT with captures, CSVs and tables in a bucket: the figures of the real answers, and one run at a time."""

import shutil
import time
from pathlib import Path

import pytest

from lakehouse.core.store import files
from lakehouse.core.store.storage import lock
from lakehouse.landing.assets.feeds import feeds, is_busy
from lakehouse_tests.landing.assets.test_brt import Feed, failed, made
from lakehouse_tests.stack import test_s3

pytestmark = pytest.mark.stack
environment = test_s3.environment


def rows(uri: str) -> int:
    from lakehouse.core.table.snapshot import open_existing

    found = open_existing(uri)
    assert found is not None
    return found.rows


def check_ten_real_captures(root: str, recorded: Path, real_data: Path) -> None:
    """Replay the ten captures of 2025-10-28 through the job, in the lake at `root`, and compare with their known figures."""
    recorded.mkdir()
    for path in (real_data / "brt" / "payloads").glob("17616*.json"):
        shutil.copy2(path, recorded)
    feed = Feed(root, f"file://{recorded}")  # type: ignore[arg-type]  # a place, as in the settings
    started = time.monotonic()
    runs = feed.job(11)
    print(f"11 runs: {time.monotonic() - started:.1f} s")
    assert all(run.success for run in runs)
    assert [made(run) for run in runs[:9]] == [["landing/brt_captura"]] * 9
    assert failed(runs[9])["conflicts"]["failed"] == 4
    assert made(runs[10]) == []
    assert (rows(f"{root}/bronze/brt_gps"), rows(f"{root}/silver/brt_gps")) == (7_310, 5_677)
    assert rows(f"{root}/gold/brt_frota_atual") == 731
    assert len([name for name in files.listing(f"{root}/landing/raw", below=True) if name.endswith(".csv")]) == 1
    assert len(files.listing(f"{root}/landing/captures/brt/exported", below=True)) == 10
    assert not files.listing(f"{root}/landing/captures/brt/pending")


def test_ten_real_captures_in_a_bucket_come_to_their_known_figures(environment, bucket, tmp_path, real_data):
    check_ten_real_captures(f"s3://{bucket}/lake", tmp_path / "recorded", real_data)


def test_a_run_in_a_bucket_locks_the_feed_by_a_lease(environment, bucket):
    landing = f"s3://{bucket}/lake/landing"
    assert not is_busy(feeds()[0], landing)
    with lock(f"{landing}/captures/brt"):
        assert is_busy(feeds()[0], landing)
    assert not is_busy(feeds()[0], landing)
