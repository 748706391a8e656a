"""The assets of the job `mlops`.

    gold/vendas_diarias ─▶ features ─▶ candidate ─▶ evaluation ─▶ registered_model
                                                    ─▶ promotion ─▶ previsao_vendas ─▶ acuracia_previsao

Each reads a table, calls a pure function and returns a table; what MLflow keeps goes through `registry.py`. A version is known by
the hash of its features, its recipe and this code, so nothing is carried from step to step but tables.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.table.inputs import require_input
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write
from lakehouse.ml.backtest import FOLDS
from lakehouse.ml.features import COLUMNS as FEATURE_COLUMNS
from lakehouse.ml.promotion import promotion, registered_model
from lakehouse.ml.resource import MlResource
from lakehouse.ml.scoring import ACCURACY, FORECAST
from lakehouse.ml.series import CHECKS
from lakehouse.ml.steps import (
    ACCURACIES,
    CANDIDATE,
    DAILY,
    EVALUATION,
    FEATURES,
    FEATURES_CODE,
    FORECASTS,
    MODEL_CODE,
    SCORING_CODE,
    commit_of,
    features_of,
    markdown_table,
    ml_asset,
    replace_table,
    rows_of_frame,
)
from lakehouse.runtime.io_manager import Unchanged
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import check_results, check_specs, code_version, failures, standings
from lakehouse.runtime.view import viewed

if TYPE_CHECKING:
    from lakehouse.ml.registry import Version


# --- data --------------------------------------------------------------------------------------------------------------


@ml_asset(
    FEATURES,
    "What was known at the end of each day about the 28 days after it: calendar, holidays, levels and lags by day of trade.",
    ins={"vendas_diarias": dg.AssetIn(key=DAILY.key)},
    check_specs=check_specs(FEATURES.key, CHECKS.items()),
    kinds={"deltalake", "numpy"},
    metadata={"primary_key": "origem, data"},
    code=FEATURES_CODE,
)
def features(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource], vendas_diarias: Any
) -> Iterator[Any]:
    from lakehouse.ml import features as build
    from lakehouse.ml import series
    from lakehouse.ml.registry import need_extra

    with failures():
        need_extra()
        found = series.build(rows_of_frame(vendas_diarias.select("data", "linhas", "receita")), ml.plan)
        frame = build.build(found, ml.plan)
        findings = series.checks(found)
        gold = require_input(viewed(context, lake), DAILY)
        # With the id: a table that was made anew begins at version 0 again.
        facts = {"features_hash": build.fingerprint(frame)}
        made = Provenance(input_ids={str(DAILY): gold.id}, findings=standings(findings), facts=facts)
        yield dg.Output(
            replace_table(lake.storage, FEATURES, build.to_rows(frame), FEATURE_COLUMNS, made),
            metadata={
                "days": len(found),
                "days_of_trade": int(found.traded.sum()),
                "from": str(found.start),
                "to": str(found.last),
                "features_hash": facts["features_hash"],
            },
        )
        yield from check_results(FEATURES.key, findings)


class CandidateConfig(dg.Config):
    """Which recipe is the candidate; empty lets the older folds choose."""

    recipe: str = ""


@ml_asset(
    CANDIDATE,
    "Every recipe on the folds that are not reported; the best of them is the candidate.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    kinds={"deltalake", "scikitlearn"},
    code=MODEL_CODE,
)
def candidate(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ml: dg.ResourceParam[MlResource],
    config: CandidateConfig,
    features: Any,
) -> dg.Output[Any]:
    from lakehouse.ml import backtest, recipes
    from lakehouse.ml.features import fingerprint

    with failures():
        tried = [recipes.recipe_named(config.recipe)] if config.recipe else recipes.RECIPES
        frame = features_of(features)
        best, rows = backtest.choose(frame, ml.plan, tried)
        scores = {}
        for recipe in tried:
            wapes = [row["wape"] for row in rows if row["receita_modelo"] == recipe.name]
            scores[recipe.name] = sum(wapes) / len(wapes)
        info = {
            "recipe": best.to_json(),
            "features_hash": fingerprint(frame),
            "tried": json.dumps([recipe.name for recipe in tried]),
            "code": MODEL_CODE,
        }
        listed = [{"recipe": name, "wape": value} for name, value in sorted(scores.items(), key=lambda pair: pair[1])]
        context.log.info("The candidate is %s: WAPE %.4f on the choosing folds.", best.name, scores[best.name])
        return dg.Output(
            replace_table(lake.storage, CANDIDATE, rows, FOLDS, Provenance(facts=info)),
            metadata={
                "recipe": best.name,
                "preview": markdown_table(listed, {"recipe": "recipe", "wape": "WAPE, choosing folds"}),
            },
        )


@ml_asset(
    EVALUATION,
    "Rolling-origin backtest at 7 and 28 days: candidate, champion's recipe fitted again, and seasonal naive, on the same folds.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[CANDIDATE.key],
    kinds={"deltalake", "scikitlearn"},
    code=MODEL_CODE,
)
def evaluation(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource], features: Any
) -> dg.Output[Any]:
    from lakehouse.ml import backtest
    from lakehouse.ml.decisions import readable
    from lakehouse.ml.features import fingerprint
    from lakehouse.ml.recipes import Recipe

    with failures():
        frame, plan = features_of(features), ml.plan
        recipe = Recipe.from_json(commit_of(viewed(context, lake), CANDIDATE).provenance.facts["recipe"])
        registry = ml.registry
        named = registry.alias("champion")
        champion = readable(registry, named)
        if named is not None and champion is None:
            context.log.warning(
                "The champion, version %s, cannot be used; the candidate need only beat seasonal naive.", named.number
            )
        found = backtest.evaluate(frame, plan, candidate=recipe, champion=champion.recipe if champion else None)
        numbers = backtest.summary(found.rows)
        info = {
            "recipe": recipe.to_json(),
            "features_hash": fingerprint(frame),
            "champion": str(champion.number) if champion else "",
            "interval": json.dumps(found.interval),
            "numbers": json.dumps(numbers),
            "code": MODEL_CODE,
        }
        for name, figures in numbers.items():
            context.log.info(
                "%s: WAPE %.4f ± %.4f (%.3f to %.3f over %.0f folds), bias %+.1f %%",
                name, figures["wape"], figures["wape_dp"], figures["wape_min"], figures["wape_max"], figures["folds"],
                100 * figures["vies"],
            )  # fmt: skip
        short = sorted(
            (row for row in found.rows if row["horizonte"] == plan.short), key=lambda row: (row["origem"], row["modelo"])
        )
        mine, naive = (numbers[f"{name}_{plan.short}"] for name in ("candidato", "ingenuo"))
        return dg.Output(
            replace_table(lake.storage, EVALUATION, found.rows, FOLDS, Provenance(facts=info)),
            metadata={
                "recipe": recipe.name,
                "wape_7": mine["wape"],
                "wape_7_naive": naive["wape"],
                "wape_7_spread": f"{mine['wape_min']:.3f} to {mine['wape_max']:.3f}, sd {mine['wape_dp']:.3f}",
                "gain_over_naive": 1 - mine["wape"] / naive["wape"] if naive["wape"] else 0.0,
                "mae_7": mine["mae"],
                "bias_7": mine["vies"],
                "coverage_7": mine["cobertura"],
                "wape_28": numbers[f"candidato_{plan.horizon}"]["wape"],
                "coverage_28": numbers[f"candidato_{plan.horizon}"]["cobertura"],
                "preview": markdown_table(short, {"origem": "origin", "modelo": "model", "wape": "WAPE, 7 days", "vies": "bias"}),
            },
        )


# --- the forecast ------------------------------------------------------------------------------------------------------


@ml_asset(
    FORECASTS,
    "Daily revenue of the next 28 days by the champion, with interval, model version and origin. One forecast per origin.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[["ml", "promotion"]],
    output_required=False,
    kinds={"deltalake", "mlflow"},
    metadata={"primary_key": "origem, data"},
    code=SCORING_CODE,
)
def previsao_vendas(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource], features: Any
) -> Iterator[Any]:
    from lakehouse.ml.scoring import score

    with failures():
        champion = ml.registry.alias("champion")
        if champion is None:
            context.log.warning("There is no champion, so there is no forecast: no candidate has passed the gate yet.")
            return
        model = ml.registry.load(champion)
        own = {
            "versao": champion.number,
            "receita_modelo": champion.recipe.name if champion.recipe else "",
            "run_id_treino": champion.tags["dagster_run_id"],
        }
        rows = [{**row, **own} for row in score(model, features_of(features), champion.document("interval"), ml.plan)]
        found = open_existing(lake.storage.uri(FORECASTS))
        stored: list[dict[str, Any]] = []
        if found is not None and found.files:
            with lake.session() as session:
                every = session.rows(session.read(found.paths(), FORECAST))
            stored = [dict(zip(FORECAST, row, strict=True)) for row in every if row[0] == rows[0]["origem"]]
        if found is not None and sorted(stored, key=lambda row: row["data"]) == rows:
            output: Any = Unchanged(found.version)
        else:
            write = Write(
                frame=lambda session: session.table(rows, FORECAST), columns=FORECAST, mode="merge", key=("origem", "data")
            )
            output = write
        names = {"data": "day", "previsto": "forecast", "baixo": "low", "alto": "high"}
        yield dg.Output(
            output,
            metadata={
                "model_version": champion.number,
                "origin": str(rows[0]["origem"]),
                "next_7_days": sum(row["previsto"] for row in rows[: ml.plan.short]),
                "preview": markdown_table(rows[:14], names),
            },
        )


@ml_asset(
    ACCURACIES,
    "Every forecast whose day has come, beside what came.",
    ins={"previsao_vendas": dg.AssetIn(key=FORECASTS.key), "vendas_diarias": dg.AssetIn(key=DAILY.key)},
    kinds={"deltalake"},
    metadata={"primary_key": "origem, data"},
    code=SCORING_CODE,
)
def acuracia_previsao(
    context: dg.AssetExecutionContext, lake: LakeResource, previsao_vendas: Any, vendas_diarias: Any
) -> dg.Output[Any]:
    from lakehouse.ml.scoring import accuracy, wape

    with failures():
        revenue = {row["data"]: float(row["receita"]) for row in rows_of_frame(vendas_diarias.select("data", "receita"))}
        rows = accuracy(rows_of_frame(previsao_vendas), revenue)
        info = {"content": code_version(*[tuple(row.values()) for row in rows])}
        figures: dict[str, Any] = {"days_compared": len(rows)}
        if (error := wape(rows)) is not None:
            figures["wape"] = error
        return dg.Output(replace_table(lake.storage, ACCURACIES, rows, ACCURACY, Provenance(facts=info)), metadata=figures)


ASSETS = (features, candidate, evaluation, registered_model, promotion, previsao_vendas, acuracia_previsao)


def recompute(lake: LakeResource, ml: dg.ResourceParam[MlResource], version: "Version") -> str:
    """The hash of a version's features, made again from the Delta version of gold that it was made from."""
    from lakehouse.ml import features as build
    from lakehouse.ml import series

    at = version.document("inputs")[str(DAILY)]
    snapshot = open_existing(lake.storage.uri(DAILY), version=int(at))
    if snapshot is None:
        raise BrokenTableError(f"There is no table {DAILY}.", remedy="Restore it from a backup.")
    names = ("data", "linhas", "receita")
    with lake.duckdb() as session:
        found = session.rows(session.read(snapshot.paths(), snapshot.columns).select(*names))
    frame = build.build(series.build([dict(zip(names, row, strict=True)) for row in found], ml.plan), ml.plan)
    return build.fingerprint(frame)
