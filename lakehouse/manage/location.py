"""The code location as Dagster's webserver and daemon know it, loaded in this process: its schedules, sensors and assets.

What is switched on is kept in the instance under the location's name, the repository's and its own, which are the same for
`make start`, `make dev` and `make stack` (`workspace.yaml`, `deploy/workspace.yaml`). So none of them has to run for this.
"""

import sys
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.remote_representation.external import RemoteRepository

MODULE, NAME = "lakehouse.definitions", "lakehouse"


def repository(instance: dg.DagsterInstance) -> "RemoteRepository":
    """The definitions of this environment.

    Raises:
        LakehouseError: a setting or a declaration is wrong.
    """
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE)
    location = InProcessCodeLocationOrigin(target, location_name=NAME).create_location(instance)
    return next(iter(location.get_repositories().values()))
