"""The lake on a real S3 server (versitygw): the same figures, safe writers, faults on the wire, errors that say what to do."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable

from deploy.stack.part import tools
from lakehouse.core.errors import BusyError, StoreError
from lakehouse.core.names import TableRef
from lakehouse.core.store import conformance, files
from lakehouse.core.store.lease import NAME, lease
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import project_folder
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake, few, with_parent
from lakehouse_tests.end_to_end import test_sales_exact as sales
from lakehouse_tests.faults.proxy import Fault, before

# The same tests, with `lake` in a bucket.
test_every_month_is_exact_as_its_sync_arrives = sales.test_every_month_is_exact_as_its_sync_arrives
test_all_at_once_is_exact_by_month_and_country = sales.test_all_at_once_is_exact_by_month_and_country
expected = sales.expected
sales_files = sales.files
files_ = pytest.fixture(name="files", scope="session")(lambda sales_files: sales_files)


@dataclass(frozen=True)
class BucketLake(Lake):
    """A lake whose tables are in a bucket; landing is a folder unless it is said to be there too."""

    root: str = ""
    landing: str = ""

    @property
    def storage(self) -> Storage:
        return Storage(root=self.root, landing=self.landing or str(self.folder / "landing"))

    def rows(self, ref, *columns):
        snapshot = open_existing(self.storage.uri(ref))
        if snapshot is None or not snapshot.files:
            return []
        with self.session() as session:
            relation = session.connection.read_parquet(session.local(snapshot.paths()), union_by_name=True)
            names = columns or tuple(snapshot.columns)
            found = relation.select(", ".join(f'"{name}"' for name in names)).order("ALL").fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]


@pytest.fixture
def environment(s3, monkeypatch):
    """The variables of the server, for this process; nothing is remembered of another one."""
    for name, value in {**s3, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    forget()
    yield s3
    forget()


def forget():
    for known in (files._store, files.reach, conformance.check_store):
        known.cache_clear()


@pytest.fixture
def lake(environment, bucket, tmp_path):
    return BucketLake(tmp_path, root=f"s3://{bucket}/lake")


@pytest.fixture
def proxied(environment, monkeypatch):
    """The server behind a proxy with faults."""
    with before(environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        forget()
        yield proxy


@pytest.fixture
def months(real_data):
    """The files of every sync."""
    source = real_data / "vendas" / "landing" / "raw" / "vendas"
    names = sorted(path.name for path in source.iterdir())
    return [[source / name for name in names if name[:10] == day] for day in sorted({name[:10] for name in names})]


# --- the same lake ---------------------------------------------------------------------------------------------------


def test_a_file_that_landed_in_a_bucket_is_taken_in_once(environment, bucket, tmp_path, months):
    lake = BucketLake(tmp_path, root=f"s3://{bucket}/lake", landing=f"s3://{bucket}/landing")
    for path in months[0]:
        files.put(f"{lake.landing}/raw/vendas/{path.name}", path)
    files.put(f"{lake.landing}/raw/vendas/_SUCCESS", b"not data")
    assert [file.path for file in lake.storage.landed("vendas")] == [f"raw/vendas/{path.name}" for path in months[0]]
    first = lake.ingest(VENDAS)
    assert first.entry.written == first.entry.records_in > 0
    assert lake.ingest(VENDAS).transaction is None
    files.put(f"{lake.landing}/raw/vendas/{months[0][0].name}", months[0][0])  # touched, with the same content
    assert lake.ingest(VENDAS).transaction is None


def test_a_report_and_its_like_are_written_once(environment, bucket):
    storage = Storage(root=f"s3://{bucket}/lake", landing="/landing")
    report = TableRef("reports", "vendas")
    uri = storage.put(report, "2026-01-01/index.html", b"one")
    modified = files.stat(uri).modified
    time.sleep(1.1)
    assert storage.put(report, "2026-01-01/index.html", b"one") == uri
    assert (files.read(uri), files.stat(uri).modified) == (b"one", modified)
    assert [*files.listing(storage.uri(report), below=True)] == ["2026-01-01/index.html"]


# --- writers ---------------------------------------------------------------------------------------------------------

_WRITERS, _APPENDS = 4, 100


def append(uri: str, spill: str, writer: int) -> None:
    """Append rows one by one, each again from the start when another writer was first."""
    from lakehouse.core.engines.session import duckdb_session
    from lakehouse.core.table.staging import Write, stage_write
    from lakehouse.core.table.transaction import redo_on_conflict

    columns = {"writer": "bigint", "n": "bigint"}
    with duckdb_session(memory_limit="200MB", spill=spill, folders=[]) as session:
        for n in range(_APPENDS):
            write = Write(frame=lambda s, n=n: s.table([{"writer": writer, "n": n}], columns), columns=columns, mode="append")
            redo_on_conflict(lambda write=write: commit_staged(stage_write(session, uri, write)), attempts=200)


@pytest.mark.slow
def test_four_processes_append_a_hundred_times_each(environment, bucket, tmp_path):
    uri = f"s3://{bucket}/lake/silver/shared"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append, args=(uri, str(tmp_path / str(w)), w)) for w in range(_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0] * _WRITERS
    table = DeltaTable(uri)
    assert table.version() == _WRITERS * _APPENDS
    commits = {name for name in files.listing(f"{uri}/_delta_log") if name.endswith(".json")}
    assert commits == {f"{version:020}.json" for version in range(_WRITERS * _APPENDS + 1)}
    rows = table.to_pyarrow_table().to_pylist()
    assert sorted((row["writer"], row["n"]) for row in rows) == [(w, n) for w in range(_WRITERS) for n in range(_APPENDS)]


def test_a_lease_is_for_one_and_ends_with_its_block(environment, bucket):
    folder = f"s3://{bucket}/lake/silver/vendas"
    with lock(folder), pytest.raises(BusyError, match=rf"process {os.getpid()} on .*waited 1 s"), lease(folder, wait=1):
        pass
    assert NAME not in files.listing(folder)
    with lock(folder, wait=0):
        pass


OWNER = """
import sys, time
from lakehouse.core.store.lease import lease
with lease(sys.argv[1], wait=0):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_killed_process_is_taken_over(environment, bucket):
    folder = f"s3://{bucket}/lake/silver/vendas"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(BusyError), lease(folder, wait=25):  # it beats, so it is never taken for dead
            pass
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    begun = time.monotonic()
    with lease(folder, wait=60):
        assert time.monotonic() - begun < 30


# --- faults on the wire ----------------------------------------------------------------------------------------------


def land(lake, paths):
    target = lake.folder / "landing" / "raw" / "vendas"
    target.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copy2(path, target / path.name)


def is_exact(lake, sync):
    """Whether silver, bronze and the ledger are what EXPECTED.json says of a sync."""
    written = sum(row["written"] for row in lake.ledger() if row["layer"] == "bronze")
    found = {**sales.figures(lake), "bronze_rows_so_far": open_existing(lake.storage.uri(VENDAS.bronze)).rows}
    return found == {name: sync[name] for name in found} and written == sync["bronze_rows_so_far"]


#: What happens to PUT of which objects.
PUTS = [
    ("drop", r"bronze/vendas/_delta_log/\d+\.json"),
    ("drop", r"silver/vendas/_delta_log/\d+\.json"),
    ("drop", r"ops/[a-z_]+/_delta_log/\d+\.json"),
    ("drop", r"vendas/part-"),
    ("reset", r"\.(json|parquet)"),
    ("refuse", r"\.(json|parquet)"),
    ("delay", r"\.(json|parquet)"),
]


@pytest.mark.parametrize("put", few(PUTS, PUTS[1], PUTS[3], PUTS[4]), ids=" ".join)
def test_the_tables_are_exact_whatever_happens_to_a_put(proxied, bucket, tmp_path, months, expected, put):
    lake, (kind, path) = BucketLake(tmp_path, root=f"s3://{bucket}/lake"), put
    for paths, sync in zip(months[:2], expected["syncs"], strict=False):
        land(lake, paths)
        proxied.plan(Fault(kind, path, times=3))
        for _ in range(6):  # recovery is just the next run
            try:
                lake.run(VENDAS)
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, the tables must be right after the next run
                print(f"{kind} {path}: {type(error).__name__}: {str(error)[:200]}")
        assert proxied.happened > 0
        proxied.plan()
        lake.run(VENDAS)
        assert is_exact(lake, sync)


@pytest.mark.slow
def test_a_minute_of_503_during_the_job_is_waited_out(proxied, bucket, tmp_path, months, expected):
    lake = BucketLake(tmp_path, root=f"s3://{bucket}/lake")
    land(lake, months[0])
    lake.ingest(VENDAS)
    proxied.plan(Fault("refuse", methods=("GET", "PUT", "POST", "HEAD", "DELETE"), seconds=60))
    begun = time.monotonic()
    lake.refresh(VENDAS)
    assert time.monotonic() - begun > 30 and proxied.happened > 5
    assert is_exact(lake, expected["syncs"][0])


# --- errors ----------------------------------------------------------------------------------------------------------


def trigger(tmp_path: Path, environment) -> tuple[int, str, float]:
    """`make trigger`'s command: exit code, output, seconds."""
    (tmp_path / "dagster").mkdir(exist_ok=True)
    given = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster"), "LAKEHOUSE_LANDING": str(tmp_path), **environment}
    begun = time.monotonic()
    command = [sys.executable, "-m", "lakehouse", "trigger", "medallion_etl"]
    done = subprocess.run(command, env=given, cwd=project_folder(), capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begun


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary-of-a-secret"}, "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Check that it runs, and AWS_ENDPOINT_URL."),
        (
            {"LAKEHOUSE_ROOT": "s3://no-such-bucket/lake"},
            "There is no bucket s3://no-such-bucket. Create it, or set LAKEHOUSE_ROOT",
        ),
    ],
)
def test_what_is_wrong_is_reported_within_half_a_minute(environment, bucket, tmp_path, changed, sentence):
    code, output, seconds = trigger(tmp_path, {**environment, "LAKEHOUSE_ROOT": f"s3://{bucket}/lake", **changed})
    first = output.splitlines()[0]
    assert code == 2 and first.startswith("error: ") and sentence in first and seconds < 30, (seconds, output)
    assert "canary" not in output and environment["AWS_SECRET_ACCESS_KEY"] not in output


def test_a_store_that_answers_503_is_named(proxied, environment, bucket, tmp_path):
    proxied.plan(Fault("refuse", methods=("GET", "PUT", "POST", "HEAD"), seconds=90))
    here = {**environment, "LAKEHOUSE_ROOT": f"s3://{bucket}/lake", "AWS_ENDPOINT_URL": proxied.url}
    code, output, seconds = trigger(tmp_path, here)
    assert code == 2 and "is overloaded or out of order" in output.splitlines()[0] and seconds < 30, (seconds, output)


def test_a_store_without_conditional_puts_is_refused(environment, bucket, monkeypatch):
    put = files.put
    # As rclone up to 1.70 behaves (below), which ignores If-None-Match.
    monkeypatch.setattr(files, "put", lambda uri, content, new=False: put(uri, content))
    with pytest.raises(StoreError, match="the second of two puts of one object replaced the first") as refusal:
        conformance.probe(f"s3://{bucket}/lake")
    assert "Upgrade the store" in refusal.value.remedy


RCLONE = "github.com/rclone/rclone@v1.70.3"  # 1.76 refuses a second put: 300 races of 8 had one winner each


@pytest.mark.slow  # for five minutes of compiling; PATH is not asked: a newer one is safe
def test_rclone_is_refused_by_the_doctor_and_at_the_first_write(tmp_path, monkeypatch, months):
    program = tools() / "bin" / "rclone"
    if not program.exists():
        subprocess.run(["go", "install", RCLONE], check=True, env={**os.environ, "GOBIN": str(program.parent)})
    (tmp_path / "data" / "lake").mkdir(parents=True)
    key, secret = "user", "a-secret-of-rclone"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["serve", "s3", "--addr", address, "--auth-key", f"{key},{secret}", str(tmp_path / "data")]
    with subprocess.Popen(with_parent(str(program), *words), stderr=subprocess.DEVNULL) as server:
        try:
            settings = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1"}
            for name, value in {**settings, "AWS_ENDPOINT_URL": f"http://{address}", "AWS_ALLOW_HTTP": "true"}.items():
                monkeypatch.setenv(name, value)
            forget()
            with pytest.raises(StoreError, match="the second of two puts of one object replaced the first"):
                conformance.probe("s3://lake/root")
            lake = BucketLake(tmp_path, root="s3://lake/root")
            land(lake, months[0][:1])
            with pytest.raises(StoreError, match="Tables cannot be kept in s3://lake"):
                lake.run(VENDAS)
            assert not any("_delta_log" in path for path in files.listing("s3://lake/root", below=True))
        finally:
            server.kill()
            forget()
