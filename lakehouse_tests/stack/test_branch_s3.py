"""A branch computes marts over a lake in a bucket, before which a proxy refuses and counts every request that writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse_tests.faults.proxy import Fault, Proxy, before
from lakehouse_tests.gold.few_rows import Lake, base
from lakehouse_tests.stack.conftest import Environment, s3_client

__all__ = ["base"]


@pytest.fixture
def guarded(s3: Environment, bucket: str, base: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The lake in the bucket, and a proxy before it that passes on what reads."""
    for path in (path for path in base.root.rglob("*") if path.is_file() and ".spill" not in path.parts):
        s3_client(s3).upload_file(str(path), bucket, f"lake/{path.relative_to(base.root)}")
    with before(s3["AWS_ENDPOINT_URL"]) as proxy:
        proxy.plan(Fault("refuse", methods=("PUT", "POST", "DELETE", "PATCH"), seconds=3600))
        for name, value in {**s3, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield proxy


def test_two_marts_are_computed_over_a_bucket_that_may_only_be_read(
    guarded: Proxy, bucket: str, base: Lake, tmp_path: Path
) -> None:
    branch = Lake(tmp_path / "branch", base=f"s3://{bucket}/lake")
    result = branch.run("vendas_por_pais", "vendas_mensais")
    assert result.success
    assert set(branch.versions()) == {"vendas_por_pais", "vendas_mensais"}
    assert branch.rows("vendas_por_pais") == base.rows("vendas_por_pais")
    assert guarded.happened == 0
