"""What landing gives to the code location."""

import dagster as dg

from lakehouse.landing.assets.connectors import connector_assets, connector_checks
from lakehouse.landing.assets.feeds import feed_assets
from lakehouse.landing.assets.systems import system_assets
from lakehouse.landing.assets.topics import topic_checks
from lakehouse.landing.lag import lag_sensors
from lakehouse.landing.readers.registry import landing
from lakehouse.landing.sensor import landing_sensor
from lakehouse.settings import Settings
from lakehouse.tables import parts


def build_defs(settings: Settings) -> dg.Definitions:
    found = [(part, landing(part.origin, settings.storage)) for part in parts()]
    streams = {part.landing: (part, files) for part, files in found if not part.origin.made_by}
    assets = [
        dg.AssetSpec(
            ref.key,
            group_name="landing",
            description=files.description,
            kinds={*files.kinds},
            owners=list(spec.owners),
            tags=dict.fromkeys(spec.tags, ""),
            metadata={"dagster/uri": files.location},
        )
        for ref, (spec, files) in streams.items()
    ]
    made = [*connector_assets(), *feed_assets(), *system_assets(settings)]
    return dg.Definitions(
        assets=[*assets, *made],
        asset_checks=[*connector_checks(), *topic_checks()],
        sensors=[landing_sensor(settings), *lag_sensors(settings)],
    )
