"""Resources: what assets are given to work with, bound here once.

`lake` says where tables are and opens engine sessions (Spark's by dagster-pyspark's resource); `io_manager`
hands frames to assets and commits what they return; `request` lets one run ask for one table (job `bronze_to_silver`);
`brt_feed` says where bus positions are asked for, `airbyte` where syncs are; `orders` and `warehouse` are the SQL databases and
the API outside the lake; `ml` says where models are registered.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.io_manager import DeltaIOManager
from lakehouse.lake import LakeResource
from lakehouse.landing.brt import BrtFeedResource
from lakehouse.landing.pedidos import OrderSources
from lakehouse.landing.server import AirbyteApi
from lakehouse.ml.resource import MlResource
from lakehouse.settings import Settings
from lakehouse.tables import ALL
from lakehouse.tables.spec import TableSpec
from lakehouse.warehouse.assets import warehouse_of


class TableRequest(dg.ConfigurableResource):
    """Which table a run of `bronze_to_silver` is for, and where it goes; empty means every table, to its own place."""

    source_table: str = ""
    target_table: str = ""

    def target(self, spec: TableSpec) -> TableRef | None:
        """Where this run puts silver of `spec`; None when the run is for another table.

        Raises:
            DeclarationError: there is no such source, or the target cannot be its.
        """
        source, target = self.source_table, self.target_table
        if not source:
            if target:
                raise DeclarationError(f"The target table {target!r} needs a source table.", remedy="Name both.")
            return spec.silver
        if not any(source in (other.name, other.silver_name) for other in ALL):
            names = ", ".join(other.name for other in ALL)
            raise DeclarationError(f"There is no table {source[:80]!r}.", remedy=f"Use one of {names}.")
        wanted = TableRef("silver", target) if target else spec.silver
        if source not in (spec.name, spec.silver_name):
            return None
        if wanted != spec.silver and wanted in [other.silver for other in ALL]:
            raise DeclarationError(f"{wanted} is the table of another source.", remedy="Use a name that no table has.")
        return wanted


def build_resources(settings: Settings, *, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every resource of the code location. `overrides` replaces some, for tests."""
    storage = settings.storage
    lake = LakeResource(
        root=storage.root,
        landing=storage.landing,
        layers=dict(storage.layers),
        engine=settings.engine,
        memory_limit=settings.memory_bound,
        spill=settings.spill,
        environment=settings.env,
        connectors=settings.connectors_folder,
        spark_master=settings.spark.master,
        spark_conf=dict(settings.spark.conf),
        spark_jars=list(settings.spark.jars),
    )
    resources = {
        "lake": lake,
        "io_manager": DeltaIOManager(lake=lake),
        "request": TableRequest.configure_at_launch(),
        "brt_feed": BrtFeedResource(url=settings.brt_url, buffer=settings.brt_buffer, landing=settings.landing),
        # Plain records: they hold secrets, and what is configured in Dagster is shown in its pages.
        "airbyte": AirbyteApi.of(settings),
        "orders": OrderSources.of(settings),
        "warehouse": warehouse_of(settings),
        "ml": MlResource(tracking_uri=settings.model_registry, holidays=settings.holidays),
    }
    return {**resources, **(overrides or {})}
