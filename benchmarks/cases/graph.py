"""What the cases run of the asset graph, and which tables each of them finds there: data that `python -m benchmarks --check`
resolves against the definitions, so that a case is seen to break when the graph changes and not when it is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GraphRun:
    """A job, or a selection of assets. What it reads and does not make is in `given`, or `after` makes it."""

    job: str = ""
    select: str = ""
    given: tuple[str, ...] = ()
    after: str = ""


#: As `benchmarks/bare_job.py` makes them.
MARTS = ("vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto", "clientes_rfm")

MEDALLION = GraphRun(job="medallion_etl")
SALES_MARTS = GraphRun(
    select=" or ".join(f'key:"gold/{name}"' for name in MARTS),
    given=("silver/vendas", "silver/produtos", "silver/clientes"),
)
SMALL = GraphRun(select='key:"silver/produtos"', after=MEDALLION.job)
BRT_CAPTURE = GraphRun(job="brt_capture")
MLOPS = GraphRun(job="mlops", after=MEDALLION.job)

RUNS = (MEDALLION, SALES_MARTS, SMALL, BRT_CAPTURE, MLOPS)
