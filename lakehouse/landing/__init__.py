"""Landing: files as delivered.

Here: one external asset per stream of others and the sensor that sees new files; the assets that land feeds, orders and
    connectors' records themselves, or have an Airbyte server land them.
Comes from: whoever writes `<landing>/raw/<stream>/` (Airbyte, a person), the Delta table of a `DeltaSource`, an API, a database.
Goes to: bronze. Never: modifies, moves or removes a landed file.
Rerun: looking again is free; a run is requested only when the listing changed. What landed before does not land again.
"""

import dagster as dg

from lakehouse.landing.connectors import connector_assets, connector_checks
from lakehouse.landing.pedidos import order_assets
from lakehouse.landing.sensor import landing_sensor
from lakehouse.settings import Settings
from lakehouse.tables import parts
from lakehouse.tables.spec import AirbyteStream, DeltaSource, TableSpec

_DESCRIPTIONS = {
    AirbyteStream: "Files of the stream {}, as delivered.",
    DeltaSource: "The Delta table {} of another writer.",
}


def build_defs(settings: Settings) -> dg.Definitions:
    from lakehouse.landing.brt import brt_assets

    streams = {part.landing: part for part in parts() if not part.origin.made_by}
    assets = [
        dg.AssetSpec(
            ref.key,
            group_name="landing",
            description=_DESCRIPTIONS[type(spec.origin)].format(ref.table),
            kinds={"airbyte"} if isinstance(spec.origin, AirbyteStream) else {"deltalake"},
            owners=list(spec.owners),
            tags=dict.fromkeys(spec.tags, ""),
            metadata={"dagster/uri": _place(settings, spec)},
        )
        for ref, spec in streams.items()
    ]
    made = [*connector_assets(), *brt_assets(), *order_assets(settings)]
    return dg.Definitions(assets=[*assets, *made], asset_checks=connector_checks(), sensors=[landing_sensor(settings)])


def _place(settings: Settings, spec: TableSpec) -> str:
    return spec.origin.uri if isinstance(spec.origin, DeltaSource) else f"{settings.landing}/raw/{spec.origin.folder}"
