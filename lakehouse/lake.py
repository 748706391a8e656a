"""The lake as a Dagster resource: its places and its engine, as the settings say. Tables are read and written through it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse.core.engines import Session, duckdb_session, open_session
from lakehouse.core.storage import Storage

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession


class LakeResource(dg.ConfigurableResource):
    """Where tables, landed files and reports are, and what computes."""

    root: str
    landing: str
    layers: dict[str, str]
    engine: str
    memory_limit: str
    spill: str
    environment: str

    @property
    def storage(self) -> Storage:
        return Storage(root=self.root, landing=self.landing, layers=self.layers)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An engine session that ends with the block."""
        with open_session(self.engine, memory_limit=self.memory_limit, spill=self.spill) as session:
            yield session

    def duckdb(self) -> AbstractContextManager["DuckDBSession"]:
        """A DuckDB session, whatever the engine: landed files are read and gold is computed with it."""
        return duckdb_session(memory_limit=self.memory_limit, spill=self.spill)
