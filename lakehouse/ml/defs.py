"""What ml gives to the code location."""

import dagster as dg

from lakehouse.ml.assets import ASSETS
from lakehouse.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=list(ASSETS))
