"""The lake as a Dagster resource: its places and its engine, as the settings say. Tables are read and written through it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from lakehouse.core.engines.session import Session, Spark, duckdb_session, open_session
from lakehouse.core.store.scratch import scratch
from lakehouse.core.store.storage import Storage

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession


class LakeResource(dg.ConfigurableResource):
    """Where tables, landed files and reports are, where tables are read that are not there (`base`), and what computes."""

    root: str
    landing: str
    layers: dict[str, str]
    base: str = ""
    base_layers: dict[str, str] = Field(default_factory=dict)
    engine: str
    memory_limit: str
    spill: str
    environment: str
    connectors: str = ""
    spark_master: str = "local[*]"
    spark_conf: dict[str, str] = Field(default_factory=dict)
    spark_jars: list[str] = Field(default_factory=list)

    @property
    def storage(self) -> Storage:
        base = Storage(root=self.base, landing=f"{self.base}/landing", layers=self.base_layers) if self.base else None
        return Storage(root=self.root, landing=self.landing, layers=self.layers, base=base)

    @contextmanager
    def session(self, *, engine: str = "") -> Iterator[Session]:
        """An engine session that ends with the block.

        Args:
            engine: `duckdb` or `spark`, where a table overrides the setting.
        """
        folders = [*self.storage.folders(), self.spill]  # what a step has in scratch
        spark = Spark(self.spark_master, self.spark_conf, tuple(self.spark_jars), start=_start_spark)
        limit = self.memory_limit
        with (
            scratch(self.spill) as spill,
            open_session(engine or self.engine, memory_limit=limit, spill=spill, folders=folders, spark=spark) as session,
        ):
            yield session

    @contextmanager
    def duckdb(self, *, landing: Storage | None = None, at_most: int | None = None) -> "Iterator[DuckDBSession]":
        """A DuckDB session, whatever the engine: landed files are read and gold is computed with it.

        Args:
            landing: it reads the files that landed there, so what links below lead to is open to it as well.
            at_most: another bound of its memory, in megabytes, where the setting allows more.
        """
        folders = [*self.storage.folders(), self.spill]  # the scratch database is below spill, not its own folder
        if landing is not None:
            folders += landing.folders(links=True)
        with (
            scratch(self.spill) as spill,
            duckdb_session(memory_limit=_at_most(self.memory_limit, at_most), spill=spill, folders=folders) as session,
        ):
            yield session


def _at_most(limit: str, megabytes: int | None) -> str:
    """A size such as 4GB, or the megabytes where they are less."""
    units = {"MB": 1, "MiB": 1.05, "GB": 1000, "GiB": 1074}
    size = next((float(limit[: -len(unit)]) * factor for unit, factor in units.items() if limit.endswith(unit)), None)
    return limit if megabytes is None or (size is not None and size <= megabytes) else f"{megabytes}MB"


def _start_spark(conf: Mapping[str, str]) -> Any:
    """A Spark application by Dagster's own resource. It imports pyspark, so it is made when Spark is wanted."""
    from dagster_pyspark import LazyPySparkResource

    return LazyPySparkResource(spark_config=dict(conf)).spark_session
