"""The map: which layers there are, in the order in which data flows, and how they become one Dagster code location.

    landing ─▶ bronze ─▶ silver ─▶ gold ─▶ warehouse, ml ─▶ reports
    observability looks at all of them, maintenance after them

Every layer is a package: its first lines are its contract, its `defs.py` has `build_defs(settings)`. Jobs and schedules that
span layers are in `automation.py`, resources in `resources.py`, the environment in `settings/`.
"""

import importlib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from lakehouse import automation
from lakehouse.resources import build_resources
from lakehouse.runtime.dagster_private import PLAN_LOGGER, end_what_cannot_go_on
from lakehouse.runtime.freshness import freshness_of
from lakehouse.runtime.logs import console_logger
from lakehouse.runtime.subjects import subjects_of
from lakehouse.settings import Settings, load_settings
from lakehouse.tables import ALL, SUBJECTS

# Data versions of outputs and owners of jobs are beta in this Dagster; a line about it at every use helps nobody.
for beta in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=beta)
# It warns of every blocking check of a step that was skipped: eight lines a minute for the captures between two exports.
logging.getLogger(PLAN_LOGGER).setLevel(logging.ERROR)
end_what_cannot_go_on()

FLOW = ("landing", "bronze", "silver", "gold", "warehouse", "ml", "reports")
#: Reads every layer; no layer reads it, but for the marts over `ops/run_metrics`.
AROUND = ("observability", "maintenance")

#: On the floor above this one, so it is loaded by name, and only when LAKEHOUSE_EXAMPLES asks for it.
EXAMPLES = "lakehouse.examples.assets"


def build_defs(settings: Settings, *, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The whole code location for one set of settings."""
    handed: Mapping[str, Any] = {"observability": {"jobs": automation.JOBS}}
    layers = [
        importlib.import_module(f"lakehouse.{name}.defs").build_defs(settings, **handed.get(name, {}))
        for name in (*FLOW, *AROUND)
    ]
    if settings.examples:
        layers.append(importlib.import_module(EXAMPLES).build_defs(settings))
    shared = dg.Definitions(
        jobs=automation.jobs(),
        schedules=automation.schedules(settings),
        resources=build_resources(settings, overrides=resource_overrides),
        loggers={"console": console_logger(settings)},
        executor=dg.in_process_executor,  # a process per step costs 3.5 s a step and buys nothing here
    )
    merged = dg.Definitions.merge(*layers, shared)
    policy, subject = freshness_of(ALL), subjects_of(merged, ALL, SUBJECTS)
    return merged.map_asset_specs(func=lambda asset: subject(policy(asset)))


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs(load_settings())
