"""A secret of the environment is nowhere in what a run leaves behind: tables, Dagster's history, dbt's target, logs.

Here: one whole job at debug level, in a process of its own. Every byte is looked at, and what is compressed is read.
"""

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from lakehouse.sample.landing import write_sample_landing
from lakehouse.settings import project_folder

CANARY = "c4n4ryS3cr3tValueOfTheEnvironment"
SECRETS = {
    "LAKEHOUSE_CANARY": CANARY,
    "LAKEHOUSE_PASSWORD": CANARY,
    "AWS_ACCESS_KEY_ID": f"AKIA{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "DATABASE_URL": f"postgresql://user:{CANARY}@db.example.org:5432/vendas",
    "PGPASSWORD": CANARY,
    "DBT_ENV_SECRET_TOKEN": CANARY,
    "DAGSTER_CLOUD_API_TOKEN": CANARY,
}
JOB = """
import logging
logging.basicConfig(level=logging.DEBUG)
import dagster as dg
from lakehouse.definitions import build_defs
from lakehouse.settings import load_settings
settings = load_settings()
logging.getLogger("lakehouse").debug("%r", settings)
job = build_defs(settings).resolve_job_def("medallion_etl")
with dg.DagsterInstance.get() as instance:
    config = {"loggers": {"console": {"config": {"log_level": "DEBUG"}}}}
    result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    print(result.success, len(instance.all_logs(result.run_id)))
"""
FORMS = (CANARY.encode(), base64.b64encode(CANARY.encode()).rstrip(b"="), CANARY.encode("utf-16-le"), CANARY[::-1].encode())


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and those that it holds compressed."""
    content = path.read_bytes()
    yield content
    if content[:16] == b"SQLite format 3\x00":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for value in (value for row in database.execute(f'SELECT * FROM "{table}"') for value in row):
                    blob = value if isinstance(value, bytes) else str(value).encode()
                    yield blob
                    try:
                        yield zlib.decompress(blob)
                    except zlib.error:
                        continue
    elif path.suffix == ".parquet":
        with duckdb.connect() as connection:
            for row in connection.execute("FROM read_parquet($1)", [str(path)]).fetchall():
                yield repr(row).encode()


def files_with_it(folder: Path) -> list[str]:
    """The files below a folder that hold the canary."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(path) for path in files if any(form in content for content in contents(path) for form in FORMS)]


@pytest.mark.parametrize("location", ["x.txt", "x.db", "x.parquet"])
def test_the_search_finds_one_in_every_kind_of_file(tmp_path: Path, location: str) -> None:
    if location == "x.db":
        with sqlite3.connect(tmp_path / location) as database:
            database.execute("CREATE TABLE snapshots (body BLOB)")
            database.execute("INSERT INTO snapshots VALUES (?)", [zlib.compress(f"password={CANARY}".encode() * 9)])
    elif location == "x.parquet":
        duckdb.execute("COPY (SELECT $1 AS a FROM range(99)) TO $2 (COMPRESSION zstd)", [CANARY, str(tmp_path / location)])
    else:
        (tmp_path / location).write_text(f"postgresql://user:{CANARY}@host")
    assert files_with_it(tmp_path) == [str(tmp_path / location)]


@pytest.mark.stack
def test_a_secret_of_the_environment_is_nowhere_after_a_run_at_debug_level(tmp_path: Path) -> None:
    home, root = tmp_path / "dagster", tmp_path / "lake"
    home.mkdir()
    text = (project_folder() / "dagster.yaml").read_text()
    assert "python_log_level: INFO" in text
    (home / "dagster.yaml").write_text(text.replace("python_log_level: INFO", "python_log_level: DEBUG"))
    write_sample_landing(root / "landing", lines=2_500)
    (root / "landing" / "raw" / "vendas" / "damaged.jsonl").write_text("{broken\n")  # so that there is a quarantine
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
    done = subprocess.run(
        [sys.executable, "-c", JOB],
        env={**environment, **SECRETS, "LAKEHOUSE_ROOT": str(root), "DAGSTER_HOME": str(home), "TMPDIR": str(_made(tmp_path))},
        cwd=project_folder(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    succeeded, events = done.stdout.split()[-2:]
    assert succeeded == "True" and int(events) > 100
    assert "DEBUG" in done.stderr
    assert list((root / "quarantine").rglob("*.parquet")) and list(home.rglob("*.db"))
    assert not any(form.decode("latin-1") in output for output in (done.stdout, done.stderr) for form in FORMS)
    assert files_with_it(tmp_path) == []
    target = tmp_path / "target"
    shutil.copytree(project_folder() / "dbt_project" / "target", target)
    assert any(target.rglob("manifest.json")) and files_with_it(target) == []


def _made(folder: Path) -> Path:
    (folder / "tmp").mkdir()
    return folder / "tmp"
