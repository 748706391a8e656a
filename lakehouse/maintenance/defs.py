"""What maintenance gives to the code location."""

import dagster as dg

from lakehouse.maintenance.assets import maintenance_assets
from lakehouse.maintenance.protect import PINS
from lakehouse.reports.manutencao import manutencao_report
from lakehouse.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    pins = dg.AssetSpec(
        PINS.key,
        group_name="ops",
        description="Versions of tables that somebody wants kept, with the reason.",
        kinds={"deltalake"},
        owners=["team:dados"],
    )
    return dg.Definitions(assets=[*maintenance_assets(settings), manutencao_report, pins])
