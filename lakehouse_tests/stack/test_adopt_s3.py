"""`make adopt` and `make compare` of a lake in a bucket, before which a proxy refuses and counts every request that writes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lakehouse_tests.commands.test_adopt import adopt
from lakehouse_tests.commands.test_table import copy, rows
from lakehouse_tests.faults.proxy import Fault, Proxy, before
from lakehouse_tests.foreign import Theirs
from lakehouse_tests.stack.conftest import Environment, s3_client

__all__ = ["copy"]


@pytest.fixture
def guarded(s3: Environment, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A lake in the bucket, and a proxy before it that passes on what reads."""
    lake = tmp_path / "old"
    Theirs(lake / "silver" / "resumo", {"uf": "string", "total": "double"}).add(
        {"uf": ["SP", "SP", "RJ"], "total": [1.5, 1.5, 2.0]}
    )
    mapped = Theirs(
        lake / "silver" / "São João 100%",
        {"id": "long", "uf": "string"},
        partition_by=["uf"],
        mapped=True,
        features=["deletionVectors"],
    )
    mapped.add({"id": range(120)}, partition={"uf": "SP"}, name="uf=SP/um.parquet", deleted=[3, 4])
    for path in (path for path in lake.rglob("*") if path.is_file()):
        s3_client(s3).upload_file(str(path), bucket, f"lake/{path.relative_to(lake)}")
    with before(s3["AWS_ENDPOINT_URL"]) as proxy:
        proxy.plan(Fault("refuse", methods=("PUT", "POST", "DELETE", "PATCH"), seconds=3600))
        for name, value in {**s3, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield proxy


def compare(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    own |= {"DAGSTER_HOME": str(copy / "dagster_home"), "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "lakehouse", "compare", *words]
    return subprocess.run(line, cwd=copy, env=own, capture_output=True, text=True, check=False, timeout=600)


def test_a_lake_in_a_bucket_is_adopted_and_compared_without_one_request_that_writes(
    guarded: Proxy, s3: Environment, bucket: str, copy: Path
) -> None:
    def objects() -> list[tuple[Any, ...]]:
        listed = s3_client(s3).list_objects_v2(Bucket=bucket)["Contents"]
        return sorted((one["Key"], one["ETag"], one["LastModified"]) for one in listed)

    there, location = objects(), f"s3://{bucket}/lake"
    listed = adopt(copy, location)
    assert listed.returncode == 0, listed.stderr
    assert "silver/São João 100%: version 1, rows not counted" in listed.stdout and "2 are read exactly" in listed.stdout
    done = adopt(copy, location, "--table", "*", "--yes", "1")
    assert done.returncode == 0, done.stderr
    assert {name: rows(copy, "silver", name) for name in ("resumo", "sao_joao_100")} == {"resumo": 3, "sao_joao_100": 118}
    same = compare(copy, location, "--html", str(copy / "parity.html"))
    assert same.returncode == 0 and "2 tables were compared: 2 equal" in same.stdout, same.stdout + same.stderr
    assert guarded.happened == 0 and objects() == there

    with pytest.raises(ClientError):  # the proxy does refuse
        s3_client({**s3, "AWS_ENDPOINT_URL": guarded.url}).delete_object(Bucket=bucket, Key="lake/x")
    assert guarded.happened > 0
