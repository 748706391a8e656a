"""The code location as Dagster's webserver and daemon know it, loaded in this process: its schedules, sensors and assets.

What is switched on is kept in the instance under the location's name, the repository's and its own, which are the same for
`make start`, `make dev` and `make stack` (`workspace.yaml`, `deploy/workspace.yaml`). So none of them has to run for this.
"""

from typing import TYPE_CHECKING

import dagster as dg

from lakehouse.runtime import dagster_private

if TYPE_CHECKING:
    from lakehouse.runtime.dagster_private import RemoteRepository

MODULE, NAME = "lakehouse.definitions", "lakehouse"


def repository(instance: dg.DagsterInstance) -> "RemoteRepository":
    """The definitions of this environment.

    Raises:
        LakehouseError: a setting or a declaration is wrong.
    """
    return dagster_private.repository(instance, module=MODULE, location=NAME)
