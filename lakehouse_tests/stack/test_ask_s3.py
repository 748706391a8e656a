"""Questions to a lake in a bucket: the same answers, from copies of the files of the tables that are named, and no others."""

from pathlib import Path

import duckdb
import pytest

from lakehouse.ask.catalogue import Catalogue
from lakehouse.ask.connection import LakeConnection
from lakehouse.ask.lake_file import write_lake_file
from lakehouse.ask.statement import StatementError
from lakehouse_tests.ask.conftest import two_people
from lakehouse_tests.stack import test_s3
from lakehouse_tests.stack.test_maintenance_s3 import Remote

pytestmark = pytest.mark.stack
environment = test_s3.environment


def test_a_lake_in_a_bucket_is_asked_and_written_as_a_lake_file(environment, bucket, tmp_path: Path) -> None:
    lake = Remote(tmp_path, location=f"s3://{bucket}/lake")
    two_people(lake)
    catalogue = Catalogue(
        root=lake.storage.root,
        landing=lake.storage.landing,
        layers={},
        memory_limit="500MB",
        spill=str(tmp_path / "data" / ".spill"),
        personal={"silver/pessoas": ["nome", "idade"]},
    )
    with LakeConnection(catalogue) as connection:
        assert connection.sql("select id, nome, cidade from silver.pessoas order by id").fetchall() == [
            (1, "***", "Rio"),
            (2, None, "Niterói"),
        ]
        copied = [path for path in Path(catalogue.spill).rglob("*.parquet")]
        assert copied and all("/silver/pessoas/" in str(path) for path in copied)
        with pytest.raises(StatementError, match="COPY"):
            connection.sql(f"copy (select 1) to 's3://{bucket}/x.csv'")
    assert not [*Path(catalogue.spill).iterdir()]
    written = write_lake_file(catalogue, catalogue.lake_file, layers=["silver"])
    with duckdb.connect(str(written.file), read_only=True) as other:
        assert other.execute("select id, nome from silver.pessoas order by id").fetchall() == [(1, "***"), (2, None)]
    assert [path.parent.name for path in Path(f"{written.file}.files").rglob("*.parquet")] == ["pessoas"]
