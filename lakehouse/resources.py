"""Resources: what assets are given to work with, bound here once.

`lake` says where tables are and opens engine sessions; `io_manager` hands frames to assets and commits what they return;
`request` lets one run ask for one table (job `bronze_to_silver`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakehouse.io_manager import DeltaIOManager
from lakehouse.lake import LakeResource
from lakehouse.settings import Settings


class TableRequest(dg.ConfigurableResource):
    """Which table a run of `bronze_to_silver` is for, and where it goes; empty means every table, to its own place."""

    source_table: str = ""
    target_table: str = ""


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
    )
    resources = {"lake": lake, "io_manager": DeltaIOManager(lake=lake), "request": TableRequest.configure_at_launch()}
    return {**resources, **(overrides or {})}
