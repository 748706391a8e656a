"""What silver gives to the code location."""

import dagster as dg

from lakehouse.settings import Settings
from lakehouse.silver.assets import history_asset, silver_asset


def build_defs(settings: Settings) -> dg.Definitions:
    histories = [history_asset(spec) for spec in settings.tables if spec.history]
    return dg.Definitions(assets=[*(silver_asset(spec) for spec in settings.tables), *histories])
