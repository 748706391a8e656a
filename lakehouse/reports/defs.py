"""What reports gives to the code location."""

import dagster as dg

from lakehouse.reports.brt import brt_report
from lakehouse.reports.modelo import modelo_report
from lakehouse.reports.vendas import vendas_report
from lakehouse.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[vendas_report, brt_report, modelo_report])
