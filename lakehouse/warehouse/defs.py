"""What warehouse gives to the code location."""

import dagster as dg

from lakehouse.settings import Settings
from lakehouse.warehouse.assets import warehouse_assets, warehouse_check, warehouse_targets
from lakehouse.warehouse.notice import orders_notice


def build_defs(settings: Settings) -> dg.Definitions:
    targets = warehouse_targets(settings)
    return dg.Definitions(assets=[*warehouse_assets(targets), orders_notice()], asset_checks=[warehouse_check(targets)])
