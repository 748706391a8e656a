"""What bronze gives to the code location."""

import dagster as dg

from lakehouse.bronze.assets import bronze_asset
from lakehouse.settings import Settings
from lakehouse.tables import parts


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[bronze_asset(part) for part in parts()])
