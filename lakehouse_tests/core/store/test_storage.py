"""Places follow from names, a folder is held by one process at a time, and a file is put there whole or not at all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakehouse.core.errors import BusyError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import STAGING, Storage, lock, staging


def test_a_table_is_below_the_root_or_below_the_root_of_its_layer(tmp_path: Path) -> None:
    storage = Storage(root="/lake/", landing="/landing", layers={"bronze": "/fast/bronze/"})
    assert storage.uri(TableRef("silver", "vendas")) == "/lake/silver/vendas"
    assert storage.uri(TableRef("bronze", "vendas")) == "/fast/bronze/vendas"
    bucket = Storage(root="s3://lake/prefix", landing="/landing", layers={"bronze": "s3://bronze"})
    assert bucket.uri(TableRef("silver", "vendas")) == "s3://lake/prefix/silver/vendas"
    assert bucket.uri(TableRef("bronze", "vendas")) == "s3://bronze/vendas"
    assert bucket.folders() == ["/landing"]
    assert storage.landed_path("raw/vendas/a.csv") == "/landing/raw/vendas/a.csv"


_NO_BUCKET = ["s3://", "s3://b", "s3://Bucket/x", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a b", "s3://bucket/{{x}}"]
_OTHER_SCHEMES = ["file:///lake", "http://bucket/lake", "s3a://bucket/lake", "s3://bucket/.hidden", "s3://user:secret@bucket/x"]


@pytest.mark.parametrize(
    "location", ["lake", "./lake", "", "/a%20b", "/a#b", "/a?b", "/a\\b", "/a\nb", *_NO_BUCKET, *_OTHER_SCHEMES]
)
def test_a_location_that_cannot_be_is_refused(location: str) -> None:
    for given in ({"root": location, "landing": "/l"}, {"root": "/l", "landing": "/l", "layers": {"gold": location}}):
        with pytest.raises(DeclarationError) as refusal:
            Storage(**given)  # type: ignore[arg-type]
        assert refusal.value.remedy


@pytest.mark.parametrize("location", ["landing", "file:///landing"])
def test_landing_is_a_folder_or_in_a_bucket(location: str) -> None:
    with pytest.raises(DeclarationError, match="is neither an absolute folder nor a place in a bucket"):
        Storage(root="/lake", landing=location)


def test_landed_files_are_listed_in_order_with_sub_folders_and_links(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path / "lake"), landing=str(tmp_path / "landing"))
    assert storage.landed("vendas") == []
    stream = tmp_path / "landing" / "raw" / "vendas"
    for name in ("b.csv", "a.csv", "2026/01/c.csv", "_temporary/d.csv", ".e.csv", "_f.csv"):
        (stream / name).parent.mkdir(parents=True, exist_ok=True)
        (stream / name).write_text("id\n1\n")
    (stream / "empty.csv").write_text("")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "g.csv").write_text("id\n1\n")
    (stream / "linked").symlink_to(elsewhere)
    (stream / "loop").symlink_to(stream)
    (stream / "broken.csv").symlink_to(elsewhere / "none")
    os.utime(stream / "a.csv", (1_700_000_000, 1_700_000_000.5))
    found = storage.landed("vendas")
    assert [file.path for file in found] == [f"raw/vendas/{name}" for name in ("2026/01/c.csv", "a.csv", "b.csv", "linked/g.csv")]
    assert (found[1].size, found[1].version, found[1].modified) == (5, "5-1700000000500000", 1_700_000_000.5)


def test_a_report_is_put_whole_and_left_alone_when_it_is_the_same(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path), landing=str(tmp_path))
    ref = TableRef("reports", "vendas")
    path = Path(storage.put(ref, "2026-01-01/index.html", b"one"))
    assert path == tmp_path / "reports" / "vendas" / "2026-01-01" / "index.html" and path.read_bytes() == b"one"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    storage.put(ref, "2026-01-01/index.html", b"one")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    storage.put(ref, "2026-01-01/index.html", b"two")
    assert path.read_bytes() == b"two" and [file.name for file in path.parent.iterdir()] == ["index.html"]


OWNER = """
import sys, time
from lakehouse.core.store.storage import lock
with lock(sys.argv[1], wait=0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "table")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_locked_table_is_busy_and_states_by_whom(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    with pytest.raises(BusyError, match=f"process {owner.pid}") as busy, lock(str(tmp_path / "table"), wait=0.2):
        pass
    assert not busy.value.retryable, "it has waited long enough"


def test_the_lock_of_a_killed_owner_is_free_and_what_it_staged_goes(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    left = tmp_path / "table" / f"{STAGING}x"
    left.mkdir()
    (left / "data.parquet").write_text("half a file")
    owner.kill()
    owner.wait()
    started = time.monotonic()
    with lock(str(tmp_path / "table"), wait=5):
        assert time.monotonic() - started < 1
        assert list((tmp_path / "table").iterdir()) == [], "no lock file, nothing half written"


def test_what_a_killed_writer_staged_goes_with_the_next_write_and_what_a_living_one_stages_stays(tmp_path: Path) -> None:
    left = tmp_path / f"{STAGING}x"
    with staging(str(tmp_path)) as living:
        left.mkdir()
        (left / "data_0.parquet").write_text("half a file")
        with staging(str(tmp_path)) as mine:
            assert {*tmp_path.iterdir()} == {living, mine}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("503 Service Unavailable: ", "is overloaded or out of order"),
        ("500 Internal Server Error: ", "is overloaded or out of order"),
        ("429 Too Many Requests: ", "is overloaded or out of order"),
        ("403 Forbidden: ", "refuses access"),
        ("connection refused", "does not answer"),
        ("the credentials provider found nothing", "There are no credentials"),
    ],
)
def test_a_store_error_is_classified_by_the_answer_not_by_the_address(told: str, sentence: str) -> None:
    """As obstore words it; ports and buckets may hold any digits and words."""
    error = OSError(f"Error performing GET http://127.0.0.1:35031/credentials?prefix=SlowDown in 117 ms - {told}")
    assert sentence in str(files.explain("s3://credentials/lake", error))
