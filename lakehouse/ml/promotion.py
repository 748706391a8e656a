"""The assets of the job `mlops` that decide: the candidate as a version in MLflow, and the gate that makes it champion.

    ml/evaluation ─▶ registered_model ─▶ promotion ─▶ alias `champion`, ops/model_decisions

Belongs here: what registers and promotes. Does not: features, backtest and forecast (`assets.py`); the margins (`gate.py`).
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import lock
from lakehouse.core.table.inputs import require_input
from lakehouse.core.table.provenance import Commit
from lakehouse.core.table.snapshot import open_existing
from lakehouse.ml.backtest import FOLDS
from lakehouse.ml.gate import Gate
from lakehouse.ml.resource import MlResource
from lakehouse.ml.series import CHECKS
from lakehouse.ml.steps import (
    EVALUATION,
    FEATURES,
    GATE_CODE,
    MODEL_CODE,
    commit_of,
    features_of,
    ml_asset,
)
from lakehouse.runtime.announce import Announce
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import check_specs, code_version, failures, standing_findings
from lakehouse.runtime.view import viewed
from lakehouse.settings import project_folder

if TYPE_CHECKING:
    from lakehouse.ml.features import Frame
    from lakehouse.ml.registry import Version

GATE = Gate()


# --- the registry ------------------------------------------------------------------------------------------------------


def version_fingerprint(info: Mapping[str, Any], seed: int) -> str:
    """What a version is known by: its features, its recipe and the code that makes it from them."""
    from lakehouse.ml.recipes import Recipe

    return code_version(info["features_hash"], Recipe.from_json(info["recipe"]).made, MODEL_CODE, seed)


@ml_asset(
    TableRef("ml", "registered_model"),
    "The candidate fitted to everything that is known, as a version in MLflow; the same data and recipe are the same version.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[EVALUATION.key],
    kinds={"mlflow", "scikitlearn"},
    io_manager_key=None,
    code=MODEL_CODE,
)
def registered_model(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource], features: Any
) -> dg.MaterializeResult:
    from lakehouse.ml.decisions import LOCK
    from lakehouse.ml.features import fingerprint

    with failures():
        storage, registry = viewed(context, lake), ml.registry
        frame = features_of(features)
        evaluated = commit_of(storage, EVALUATION)
        info = evaluated.provenance.facts
        if fingerprint(frame) != info["features_hash"]:
            raise BrokenTableError(
                "ml/features has changed since ml/evaluation tested the candidate.", remedy="Run mlops again, alone."
            )
        known = version_fingerprint(info, ml.plan.seed)
        with lock(storage.uri(LOCK)):
            version = registry.find(known)
            unchanged = version is not None
            if version is None:
                version = _register(context, lake, ml=ml, frame=frame, evaluated=evaluated, known=known)
    return dg.MaterializeResult(
        metadata={
            "version": version.number,
            "nothing_to_do": unchanged,
            "recipe": version.tags["recipe"],
            "inputs": version.document("inputs"),
            "features_hash": version.tags["features_hash"],
            "mlflow": registry.uri,
        }
    )


def _register(
    context: dg.AssetExecutionContext, lake: LakeResource, *, ml: MlResource, frame: "Frame", evaluated: Commit, known: str
) -> "Version":
    from lakehouse.ml import models, plots
    from lakehouse.ml.features import FEATURES as NAMES
    from lakehouse.ml.recipes import Recipe
    from lakehouse.ml.registry import code_commit, save_model

    info, plan, storage = evaluated.provenance.facts, ml.plan, viewed(context, lake)
    recipe = Recipe.from_json(info["recipe"])
    table, made = require_input(storage, FEATURES), commit_of(storage, FEATURES)
    model = models.fit(recipe, frame, at=frame.last, seed=plan.seed)
    recent = frame.known(frame.last)
    recent = recent.where(recent.origin > frame.last - 56)
    shares = models.importance(model, recent, seed=plan.seed)
    numbers: Mapping[str, Mapping[str, float]] = json.loads(info["numbers"])
    tags = {
        "fingerprint": known,
        "recipe": recipe.to_json(),
        "inputs": json.dumps({**made.provenance.inputs, str(FEATURES): made.version}),
        "input_ids": json.dumps({**made.provenance.input_ids, str(FEATURES): table.id}),
        "features_hash": info["features_hash"],
        "features": json.dumps(NAMES),
        "interval": info["interval"],
        "importance": json.dumps({name: round(share, 4) for name, share in list(shares.items())[:12]}),
        "origin": str(frame.last),
        "seed": str(plan.seed),
        "holidays": plan.holidays,
        "code": MODEL_CODE,
        "git_commit": code_commit(project_folder()),
        "dagster_run_id": context.run.run_id,
    }
    with ml.tracking(context) as mlflow:
        mlflow.log_params({"learner": recipe.learner, "level": recipe.level, "strength": recipe.strength, "seed": plan.seed})
        mlflow.log_metrics({f"{model_}.{name}": value for model_, figures in numbers.items() for name, value in figures.items()})
        mlflow.set_tags({name: tags[name] for name in ("inputs", "features_hash", "git_commit")})
        rows = _rows_of(lake, EVALUATION, FOLDS, evaluated)
        mlflow.log_text(plots.folds(rows, plan.short), "plots/folds.svg")
        mlflow.log_text(plots.importance(shares), "plots/importance.svg")
        uri, model_id = save_model(mlflow, model, frame.at(frame.last).x[:7])
        version = ml.registry.register(uri, run_id=mlflow.active_run().info.run_id, model_id=model_id, tags=tags)
    context.log.info("Registered version %s (%s).", version.number, recipe.name)
    return version


def _rows_of(lake: LakeResource, ref: TableRef, columns: Mapping[str, str], commit: Commit) -> list[dict[str, Any]]:
    """A small table as a commit made it."""
    found = open_existing(lake.storage.uri(ref), version=commit.version)
    with lake.duckdb() as session:
        return session.dicts(session.read(found.paths() if found else [], columns), *columns)


# --- the gate ----------------------------------------------------------------------------------------------------------


@ml_asset(
    TableRef("ml", "promotion"),
    "The gate: the alias `champion` moves to the candidate if it beats seasonal naive and the champion's recipe by the margins.",
    deps=[["ml", "registered_model"], EVALUATION.key],
    check_specs=check_specs(
        ["ml", "promotion"],
        [("gate", "The candidate passed the data checks and beats seasonal naive; whether it was promoted is in the metadata.")],
    ),
    kinds={"mlflow"},
    io_manager_key=None,
    code=GATE_CODE,
)
def promotion(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource], announce: dg.ResourceParam[Announce]
) -> dg.MaterializeResult:
    from lakehouse.ml import decisions
    from lakehouse.ml.gate import decide

    with failures(), lake.session() as session:
        storage, registry, plan, run_id = viewed(context, lake), ml.registry, ml.plan, context.run.run_id
        info = commit_of(storage, EVALUATION).provenance.facts
        with lock(storage.uri(decisions.LOCK)):
            decisions.finalise(registry, session, storage, announce=announce)
            version = registry.find(version_fingerprint(info, plan.seed))
            if version is None:
                raise BrokenTableError(
                    "The candidate of ml/evaluation is not registered.", remedy="Run mlops again, from ml/features on."
                )
            named = registry.alias("champion")
            champion = decisions.readable(registry, named)
            decision = decide(
                GATE,
                json.loads(info["numbers"]),
                short=plan.short,
                horizon=plan.horizon,
                champion=bool(info["champion"]),
                findings=standing_findings(storage.uri(FEATURES), CHECKS),
            )
            decision = decision.unless(_barred(version, champion, info))
            row = decisions.record(version, decision, before=named, run_id=run_id)
            decisions.carry_out(registry, session, storage, version, row, predecessor=champion, announce=announce)
            now = registry.alias("champion")
    context.log.info("Version %s: %s.", version.number, decision.reason)
    figures: dict[str, Any] = {
        "decision": decision.reason,
        "promoted": decision.promote,
        "version": version.number,
        "champion": now.number if now else 0,
        **{
            name: value
            for name, value in (("gain_over_naive", decision.over_naive), ("gain_over_champion", decision.over_champion))
            if value is not None
        },
    }
    return dg.MaterializeResult(
        metadata=figures,
        check_results=[
            dg.AssetCheckResult(
                passed=decision.sound,
                check_name="gate",
                severity=dg.AssetCheckSeverity.WARN,
                metadata={
                    **figures,
                    "needed_over_naive": GATE.over_naive,
                    "needed_over_champion": GATE.over_champion,
                    "numbers": dg.MetadataValue.json(dict(decision.numbers)),
                },
            )
        ],
    )


def _barred(version: "Version", champion: "Version | None", info: Mapping[str, Any]) -> str:
    """Why this version cannot be promoted whatever its numbers are, or nothing."""
    if champion is not None and champion.number == version.number:
        return f"refused: version {version.number} is the champion already"
    if version.tags.get("rolled_back"):
        return f"refused: version {version.number} was rolled back; other data, another recipe or other code make another version"
    if (str(champion.number) if champion else "") != info["champion"]:
        return "refused: the champion has changed since it was evaluated; run mlops again"
    return ""
