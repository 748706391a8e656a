"""Maintenance: what keeps the tables small, readable and safe, and proves it.

Here: pins, optimise, vacuum, audit, backup and its proof, restore, rollback, and the job that does the weekly part.
Comes from: every Delta table of the lake, models' and backups' versions. Goes to: `ops/` tables, LAKEHOUSE_BACKUP_ROOT, a report.
Never: changes a row unasked; removes a file that a kept version needs; says that a backup is good without restoring it.
Rerun: what was done is left alone; what was cut off is finished.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from lakehouse.settings import Settings


def build_defs(settings: "Settings") -> "dg.Definitions":
    import dagster as dg  # not above: the pure modules of this package need no Dagster

    from lakehouse.maintenance.assets import maintenance_assets
    from lakehouse.maintenance.protect import PINS
    from lakehouse.reports.manutencao import manutencao_report

    pins = dg.AssetSpec(
        PINS.key,
        group_name="ops",
        description="Versions of tables that somebody wants kept, with the reason.",
        kinds={"deltalake"},
        owners=["team:dados"],
    )
    return dg.Definitions(assets=[*maintenance_assets(settings), manutencao_report, pins])
