"""Freshness: how old the newest materialisation of every asset may be, from the specs, over the whole graph in one place.

Bronze and silver have their spec's window. What is made of them is to be as fresh as the freshest table of its pipeline (its
tags), else as what it reads; what is made by the hour or the week has its schedule and some time more.

Each table's freshness is decided by one of two (docs/decisions/0078). Where its spec bounds the age of its events,
`ops/table_health` does, and the table has no policy; elsewhere Dagster does by the policy, and `ops/table_health` repeats it.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import dagster as dg

from lakehouse.tables.spec import TableSpec

#: Of assets with these tags: hourly, and weekly.
_BY_TAG = {"slo": timedelta(hours=3), "ml": timedelta(days=8)}


def with_freshness(definitions: dg.Definitions, specs: Sequence[TableSpec]) -> dg.Definitions:
    """The definitions, each asset with its policy."""
    return definitions.map_asset_specs(func=freshness_of(specs))


def freshness_of(specs: Sequence[TableSpec]) -> Callable[[dg.AssetSpec], dg.AssetSpec]:
    """Gives every materialisable asset of a table with a window its policy, unless its events decide."""
    windows: dict[dg.AssetKey, timedelta] = {}
    by_events = {dg.AssetKey(spec.silver.key) for spec in specs if spec.health.max_event_age is not None}
    by_tag = dict(_BY_TAG)
    for spec in specs:
        if spec.freshness is not None:
            keys = [spec.silver.key, *(part.bronze.key for part in spec.parts)]
            windows.update(dict.fromkeys(map(dg.AssetKey, keys), spec.freshness))
            by_tag |= {tag: min(by_tag.get(tag, spec.freshness), spec.freshness) for tag in spec.tags}

    def policy(asset: dg.AssetSpec) -> dg.AssetSpec:
        window = windows.get(asset.key)
        if window is None and asset.freshness_policy is None:
            own = [by_tag[tag] for tag in asset.tags if tag in by_tag]
            inputs = [windows[dep.asset_key] for dep in asset.deps if dep.asset_key in windows]
            window = min(own or inputs, default=max(windows.values(), default=None))
        if window is None or asset.freshness_policy is not None or asset.key in by_events:
            return asset
        return asset.replace_attributes(freshness_policy=dg.FreshnessPolicy.time_window(fail_window=window))

    return policy
