"""Landing: files as delivered.

Here: one external asset per stream, and the sensor that sees new files.
Comes from: whoever writes `<landing>/raw/<stream>/` (Airbyte, dlt, a person).
Goes to: bronze. Never: modifies, moves or removes a landed file.
Rerun: looking again is free; a run is requested only when the listing changed.
"""

import dagster as dg

from lakehouse.landing.sensor import landing_sensor
from lakehouse.settings import Settings
from lakehouse.tables import ALL


def build_defs(settings: Settings) -> dg.Definitions:
    streams = {spec.landing: spec for spec in ALL}
    assets = [
        dg.AssetSpec(
            ref.key,
            group_name="landing",
            description=f"Files of the stream {ref.table}, as delivered.",
            kinds={"airbyte"},
            owners=list(spec.owners),
            metadata={"dagster/uri": f"{settings.landing}/raw/{ref.table}"},
        )
        for ref, spec in streams.items()
    ]
    return dg.Definitions(assets=assets, sensors=[landing_sensor(settings)])
