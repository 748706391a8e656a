"""Reports: self-contained pages for people who open a file.

Here: one asset per report and the page that it renders.
Comes from: gold, ml, and the ledger and checks of the layers before it. Goes to: `<root>/reports/<name>/<date>/index.html`.
Never: computes a figure that a mart should hold; loads anything from the network.
Rerun: the same figures on the same day are the same bytes, and the file is left untouched.
"""

import dagster as dg

from lakehouse.reports.brt import brt_report
from lakehouse.reports.modelo import modelo_report
from lakehouse.reports.vendas import vendas_report
from lakehouse.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[vendas_report, brt_report, modelo_report])
