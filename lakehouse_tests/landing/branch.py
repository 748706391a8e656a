"""A branch's database as a source, taken in as its asset does it: any database, any declaration."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lakehouse.core.store.storage import lock
from lakehouse.landing.sources.extract import Landed
from lakehouse.landing.sources.registry import Work, extract
from lakehouse.tables.spec import Database, Query, Table
from lakehouse.tables.spec.setting import setting
from lakehouse_tests.conftest import Lake


@dataclass(frozen=True)
class Branch:
    """A database of tests, landing in a lake."""

    lake: Lake
    declared: Database
    url: str

    @classmethod
    def of(cls, lake: Lake, url: str, *tables: Table | Query, **given: Any) -> "Branch":
        return cls(lake, Database("filial", url=setting("FILIAL_DB_URL", secret=True), tables=tables, **given), url)

    def take(self, *, seconds: float = 60.0) -> Mapping[str, Landed]:
        """One extraction."""
        storage = self.lake.storage
        system = replace(self.declared, url=self.url)
        with lock(f"{storage.landing}/raw/{self.declared.name}"), self.lake.session("200MB") as session:
            work = Work(
                storage=storage,
                session=session,
                declared=self.declared,
                sample=False,
                cache=str(self.lake.folder / f"cache-{uuid.uuid4().hex}"),
                deadline=time.monotonic() + seconds,
            )
            return extract(system, work).streams

    def new(self) -> dict[str, int]:
        """New records of one extraction, by table."""
        return {name: landed.new for name, landed in self.take().items()}

    def names(self, table: str) -> list[str]:
        """The names of a table's landed files."""
        return [file.path.rpartition("/")[2] for file in self.lake.storage.landed(f"filial/{table}")]

    def records(self, table: str) -> list[dict[str, Any]]:
        """What landed, read with another reader."""
        import pyarrow.parquet as pq

        paths = [f"{self.lake.folder}/landing/{file.path}" for file in self.lake.storage.landed(f"filial/{table}")]
        return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]

    def values(self, table: str) -> dict[str, dict[str, Any]]:
        """The records without Airbyte's columns, by their `id`."""
        found = self.records(table)
        return {row["id"]: {name: value for name, value in row.items() if not name.startswith("_airbyte")} for row in found}
