"""Freshness: how old the newest materialisation of every asset may be, from the specs, over the whole graph in one place.

Bronze and silver have their spec's window. What is made of several tables (gold, reports) is to be as fresh as the one that
must be freshest; service levels are computed hourly and are late after three. Event time is another matter: `ops/table_health`.
"""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from lakehouse.tables.spec import TableSpec

_SLO = timedelta(hours=3)


def with_freshness(definitions: dg.Definitions, specs: Sequence[TableSpec]) -> dg.Definitions:
    """The definitions, every materialisable asset of a table with a window having its policy."""
    windows: dict[dg.AssetKey, timedelta] = {}
    for spec in specs:
        if spec.freshness is not None:
            keys = [spec.silver.key, *(part.bronze.key for part in spec.parts)]
            windows.update(dict.fromkeys(map(dg.AssetKey, keys), spec.freshness))

    def policy(asset: dg.AssetSpec) -> dg.AssetSpec:
        window = windows.get(asset.key)
        if asset.key.path[0] in ("gold", "reports"):
            inputs = [windows[dep.asset_key] for dep in asset.deps if dep.asset_key in windows]
            window = _SLO if "slo" in asset.tags else min(inputs or windows.values(), default=None)
        if window is None or asset.freshness_policy is not None:
            return asset
        return asset.replace_attributes(freshness_policy=dg.FreshnessPolicy.time_window(fail_window=window))

    return definitions.map_asset_specs(func=policy)
