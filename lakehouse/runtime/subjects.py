"""Subjects: the groups of the graph in Dagster's pages are what tables are about (`vendas`, `pedidos`, `brt`, `ml`, `ops`).

A declared table is of the file of `lakehouse/tables/` that declares it; what is made of tables of one subject is of that one. The
layer is the first part of an asset's key and its tag `layer`: `tag:layer=gold`, `key:"gold/*"`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg

from lakehouse.core.names import DELTA_LAYERS, LAYERS
from lakehouse.tables.spec import TableSpec, history_ref

LAYER = "layer"
#: Where the layer itself is the subject.
_OWN = ("ml", "ops")
#: Tags of what is about the lake itself, or about models, whatever it reads.
_BY_TAG = {"slo": "ops", "upkeep": "ops", "ml": "ml"}
#: What is made of several subjects.
SEVERAL = "lake"


def subjects_of(
    definitions: dg.Definitions, specs: Sequence[TableSpec], modules: Mapping[str, str]
) -> Callable[[dg.AssetSpec], dg.AssetSpec]:
    """Gives every asset its subject as the group, its layer as a tag, and its name in SQL.

    Args:
        definitions: all of the graph, since a mart is of the subject of what it reads.
        modules: by name of a table the subject that declares it.
    """
    assets = {asset.key: asset for asset in _assets(definitions)}
    declared = {key: modules.get(spec.name, spec.name) for spec in specs for key in _keys(spec)}
    found: dict[dg.AssetKey, str] = {}

    def subject(key: dg.AssetKey) -> str:
        if key not in found:
            found[key] = ""  # what is reached again on the way to its own inputs decides nothing
            found[key] = _subject(key)
        return found[key]

    def _subject(key: dg.AssetKey) -> str:
        layer, asset = key.path[0], assets.get(key)
        tags = asset.tags if asset is not None else {}
        by_tag = [_BY_TAG.get(tag, tag) for tag in tags if tag in _BY_TAG or (layer == "landing" and tag in modules.values())]
        if key in declared or layer in _OWN or by_tag:
            return declared.get(key) or (layer if layer in _OWN else by_tag[0])
        if asset is None or (asset.group_name and asset.group_name not in LAYERS):
            return asset.group_name or SEVERAL if asset is not None else ""
        read = {subject(dep.asset_key) for dep in asset.deps} - {""}
        read = read - set(_OWN) or read  # a mart may also read measurements
        return read.pop() if len(read) == 1 else SEVERAL

    def described(asset: dg.AssetSpec) -> dg.AssetSpec:
        layer = asset.key.path[0]
        named = {"dagster/table_name": ".".join(asset.key.path)} if layer in DELTA_LAYERS and len(asset.key.path) == 2 else {}
        return asset.replace_attributes(
            group_name=subject(asset.key), tags={**asset.tags, LAYER: layer}, metadata={**asset.metadata, **named}
        )

    return described


def _assets(definitions: dg.Definitions) -> Iterator[dg.AssetSpec]:
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetSpec):
            yield asset
        elif isinstance(asset, dg.AssetsDefinition):
            yield from asset.specs


def _keys(spec: TableSpec) -> list[dg.AssetKey]:
    """The assets of a declared table."""
    refs = [spec.silver, history_ref(spec), *(ref for part in spec.parts for ref in (part.bronze, part.landing, part.quarantine))]
    return [dg.AssetKey(ref.key) for ref in refs]
