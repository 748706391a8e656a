"""Dagster assets that do nothing: what a run costs before anything of ours takes part (cases `cli` and `warm`)."""

import dagster as dg

COUNT = 12


def _asset(number: int) -> dg.AssetsDefinition:
    @dg.asset(name=f"trivial_{number}", deps=[f"trivial_{number - 1}"] if number > 1 else [])
    def trivial() -> None:
        return None

    return trivial


defs = dg.Definitions(assets=[_asset(n) for n in range(1, COUNT + 1)], executor=dg.in_process_executor)
