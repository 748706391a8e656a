"""What gold gives to the code location."""

import dagster as dg

from lakehouse.gold.assets import gold_assets
from lakehouse.gold.project import ensure_manifest
from lakehouse.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[gold_assets(ensure_manifest())])
