"""Dagster assets and checks that do nothing: what a run costs before anything of ours takes part (cases `cli` and `warm`)."""

from collections.abc import Iterator

import dagster as dg


def build(*, assets: int, checks: int) -> dg.Definitions:
    """A chain of assets that do nothing, with so many checks in all, each of them passed."""
    return dg.Definitions(
        assets=[_asset(n, checks * n // assets - checks * (n - 1) // assets) for n in range(1, assets + 1)],
        executor=dg.in_process_executor,
    )


def _asset(number: int, checks: int) -> dg.AssetsDefinition:
    name = f"trivial_{number}"
    specs = [dg.AssetCheckSpec(f"check_{n}", asset=name) for n in range(checks)]

    @dg.asset(name=name, deps=[f"trivial_{number - 1}"] if number > 1 else [], check_specs=specs)
    def trivial() -> Iterator[dg.Output[None] | dg.AssetCheckResult]:
        for spec in specs:
            yield dg.AssetCheckResult(passed=True, check_name=spec.name)
        yield dg.Output(None)

    return trivial


defs = build(assets=1, checks=0)
