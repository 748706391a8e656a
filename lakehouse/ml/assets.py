"""The assets of the job `mlops`.

    gold/vendas_diarias ─▶ features ─▶ candidate ─▶ evaluation ─▶ registered_model
                                                    ─▶ promotion ─▶ previsao_vendas ─▶ acuracia_previsao

Each reads a table, calls a pure function and returns a table; what MLflow keeps goes through `registry.py`. A version is known by
the hash of its features, its recipe and this code, so nothing is carried from step to step but tables.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.delta import Snapshot, open_existing
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.storage import Storage, hold
from lakehouse.core.writes import Write
from lakehouse.io_manager import Unchanged
from lakehouse.lake import LakeResource
from lakehouse.ml.backtest import FOLDS
from lakehouse.ml.features import COLUMNS as FEATURE_COLUMNS
from lakehouse.ml.gate import Gate
from lakehouse.ml.resource import MlResource
from lakehouse.ml.scoring import ACCURACY, FORECAST
from lakehouse.ml.series import CHECKS
from lakehouse.settings import project_folder
from lakehouse.steps import RETRY, check_results, check_specs, code_version, failures, findings_info, standing_findings

if TYPE_CHECKING:
    from lakehouse.ml.features import Frame
    from lakehouse.ml.registry import Version

GATE = Gate()
DAILY = TableRef("gold", "vendas_diarias")
FEATURES, CANDIDATE, EVALUATION = (TableRef("ml", name) for name in ("features", "candidate", "evaluation"))
FORECASTS, ACCURACIES = TableRef("ml", "previsao_vendas"), TableRef("ml", "acuracia_previsao")
#: What decides what the features and the model are; gate and scoring do not.
_CODE = ("series.py", "features.py", "recipes.py", "models.py", "backtest.py")


def _sources(*names: str) -> str:
    here = Path(__file__).parent
    return code_version(*[(here / name).read_text() for name in names])


MODEL_CODE = _sources(*_CODE)


def _asset(ref: TableRef, description: str, **given: Any) -> Any:
    common: dict[str, Any] = {"group_name": "ml", "owners": ["team:dados"], "tags": {"ml": ""}, "retry_policy": RETRY}
    code = given.pop("code", _sources(*_CODE, "assets.py"))
    return dg.asset(key=ref.key, description=description, code_version=code, **common, **given)


def _rows(frame: Any) -> list[dict[str, Any]]:
    return frame.collect(backend="pyarrow").rows(named=True)


def _frame(features: Any) -> "Frame":
    from lakehouse.ml.features import from_rows

    return from_rows(features.select(*FEATURE_COLUMNS).collect(backend="pyarrow").rows())


def _now(storage: Storage, ref: TableRef) -> Snapshot:
    found = open_existing(storage.uri(ref))
    if found is None:
        raise BrokenTableError(f"There is no table {ref}.", remedy=f"Materialise {ref} first.")
    return found


def _as_it_was(storage: Storage, ref: TableRef, run_id: str) -> dict[str, Any]:
    """Our metadata of a table's commit by this run, else of its newest: another run may have written since."""
    snapshot = _now(storage, ref)
    mine = [entry for entry in snapshot.commit_info(since=max(snapshot.version - 20, -1)) if entry.get("run_id") == run_id]
    return mine[-1] if mine else snapshot.last_info()


def _write(
    storage: Storage, ref: TableRef, rows: list[dict[str, Any]], columns: Mapping[str, str], info: Mapping[str, str]
) -> Write | Unchanged:
    """Replace a table, unless its newest commit says the same of itself."""
    found = open_existing(storage.uri(ref))
    last = found.last_info() if found else {}
    if found is not None and all(last.get(name) == value for name, value in info.items()):
        return Unchanged(found.version)
    return Write(frame=lambda session: session.table(rows, columns), columns=columns, mode="overwrite", info=info)


def _table_md(rows: list[dict[str, Any]], names: Mapping[str, str]) -> dg.MetadataValue:
    lines = ["| " + " | ".join(names.values()) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{row[name]:,.3f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return dg.MetadataValue.md("\n".join(lines))


# --- data --------------------------------------------------------------------------------------------------------------


@_asset(
    FEATURES,
    "What was known at the end of each day about the 28 days after it: calendar, holidays, levels and lags by day of trade.",
    ins={"vendas_diarias": dg.AssetIn(key=DAILY.key)},
    check_specs=check_specs(FEATURES.key, CHECKS.items()),
    kinds={"deltalake", "numpy"},
    metadata={"primary_key": "origem, data"},
    code=_sources("series.py", "features.py"),
)
def features(context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource, vendas_diarias: Any) -> Iterator[Any]:
    from lakehouse.ml import features as build
    from lakehouse.ml import series
    from lakehouse.ml.registry import need_extra

    with failures():
        need_extra()
        found = series.build(_rows(vendas_diarias.select("data", "linhas", "receita")), ml.plan)
        frame = build.build(found, ml.plan)
        findings = series.checks(found)
        gold = _now(lake.storage, DAILY)
        # With the id: a table that was made anew begins at version 0 again.
        info = {
            "features_hash": build.fingerprint(frame),
            "input_ids": json.dumps({str(DAILY): gold.id}),
            **findings_info(findings),
        }
        yield dg.Output(
            _write(lake.storage, FEATURES, build.to_rows(frame), FEATURE_COLUMNS, info),
            metadata={
                "days": len(found),
                "days_of_trade": int(found.traded.sum()),
                "from": str(found.start),
                "to": str(found.last),
                "features_hash": info["features_hash"],
            },
        )
        yield from check_results(FEATURES.key, findings)


class CandidateConfig(dg.Config):
    """Which recipe is the candidate; empty lets the older folds choose."""

    recipe: str = ""


@_asset(
    CANDIDATE,
    "Every recipe on the folds that are not reported; the best of them is the candidate.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    kinds={"deltalake", "scikitlearn"},
    code=MODEL_CODE,
)
def candidate(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource, config: CandidateConfig, features: Any
) -> dg.Output[Any]:
    from lakehouse.ml import backtest, recipes
    from lakehouse.ml.features import fingerprint

    with failures():
        tried = [recipes.recipe_named(config.recipe)] if config.recipe else recipes.RECIPES
        frame = _frame(features)
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
            _write(lake.storage, CANDIDATE, rows, FOLDS, info),
            metadata={"recipe": best.name, "preview": _table_md(listed, {"recipe": "recipe", "wape": "WAPE, choosing folds"})},
        )


@_asset(
    EVALUATION,
    "Rolling-origin backtest at 7 and 28 days: candidate, champion's recipe fitted again, and seasonal naive, on the same folds.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[CANDIDATE.key],
    kinds={"deltalake", "scikitlearn"},
    code=MODEL_CODE,
)
def evaluation(context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource, features: Any) -> dg.Output[Any]:
    from lakehouse.ml import backtest
    from lakehouse.ml.decisions import readable
    from lakehouse.ml.features import fingerprint
    from lakehouse.ml.recipes import Recipe

    with failures():
        frame, plan = _frame(features), ml.plan
        recipe = Recipe.from_json(_as_it_was(lake.storage, CANDIDATE, context.run.run_id)["recipe"])
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
            _write(lake.storage, EVALUATION, found.rows, FOLDS, info),
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
                "preview": _table_md(short, {"origem": "origin", "modelo": "model", "wape": "WAPE, 7 days", "vies": "bias"}),
            },
        )


# --- the registry ------------------------------------------------------------------------------------------------------


def version_fingerprint(info: Mapping[str, Any], seed: int) -> str:
    """What a version is known by: its features, its recipe and the code that makes it from them."""
    from lakehouse.ml.recipes import Recipe

    return code_version(info["features_hash"], Recipe.from_json(info["recipe"]).made, MODEL_CODE, seed)


@_asset(
    TableRef("ml", "registered_model"),
    "The candidate fitted to everything that is known, as a version in MLflow; the same data and recipe are the same version.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[EVALUATION.key],
    kinds={"mlflow", "scikitlearn"},
    io_manager_key=None,
    code=MODEL_CODE,
)
def registered_model(
    context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource, features: Any
) -> dg.MaterializeResult:
    from lakehouse.ml.decisions import LOCK
    from lakehouse.ml.features import fingerprint

    with failures():
        storage, registry = lake.storage, ml.registry
        frame = _frame(features)
        info = _as_it_was(storage, EVALUATION, context.run.run_id)
        if fingerprint(frame) != info["features_hash"]:
            raise BrokenTableError(
                "ml/features has changed since ml/evaluation judged the candidate.", remedy="Run mlops again, alone."
            )
        known = version_fingerprint(info, ml.plan.seed)
        with hold(storage.uri(LOCK)):
            version = registry.find(known)
            unchanged = version is not None
            if version is None:
                version = _register(context, lake, ml=ml, frame=frame, info=info, known=known)
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
    context: dg.AssetExecutionContext, lake: LakeResource, *, ml: MlResource, frame: "Frame", info: Mapping[str, Any], known: str
) -> "Version":
    from lakehouse.ml import models, plots
    from lakehouse.ml.features import FEATURES as NAMES
    from lakehouse.ml.recipes import Recipe
    from lakehouse.ml.registry import code_commit, save_model

    plan, recipe, storage = ml.plan, Recipe.from_json(info["recipe"]), lake.storage
    table = _now(storage, FEATURES)
    made = _as_it_was(storage, FEATURES, context.run.run_id)
    model = models.fit(recipe, frame, at=frame.last, seed=plan.seed)
    recent = frame.known(frame.last)
    recent = recent.where(recent.origin > frame.last - 56)
    shares = models.importance(model, recent, seed=plan.seed)
    numbers: Mapping[str, Mapping[str, float]] = json.loads(info["numbers"])
    tags = {
        "fingerprint": known,
        "recipe": recipe.to_json(),
        "inputs": json.dumps({**json.loads(made["inputs"]), str(FEATURES): made["version"]}),
        "input_ids": json.dumps({**json.loads(made["input_ids"]), str(FEATURES): table.id}),
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
        rows = _rows_of(lake, EVALUATION, FOLDS, info)
        mlflow.log_text(plots.folds(rows, plan.short), "plots/folds.svg")
        mlflow.log_text(plots.importance(shares), "plots/importance.svg")
        uri, model_id = save_model(mlflow, model, frame.at(frame.last).x[:7])
        version = ml.registry.register(uri, run_id=mlflow.active_run().info.run_id, model_id=model_id, tags=tags)
    context.log.info("Registered version %s (%s).", version.number, recipe.name)
    return version


def _rows_of(lake: LakeResource, ref: TableRef, columns: Mapping[str, str], info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A small table as it was at the version that a commit's metadata are of."""
    found = open_existing(lake.storage.uri(ref), version=int(info["version"]))
    with lake.duckdb() as session:
        rows = session.rows(session.read(found.paths() if found else [], columns))
    return [dict(zip(columns, row, strict=True)) for row in rows]


# --- the gate ----------------------------------------------------------------------------------------------------------


@_asset(
    TableRef("ml", "promotion"),
    "The gate: the alias `champion` moves to the candidate if it beats seasonal naive and the champion's recipe by the margins.",
    deps=[["ml", "registered_model"], EVALUATION.key],
    check_specs=check_specs(
        ["ml", "promotion"],
        [("gate", "The candidate passed the data checks and beats seasonal naive; whether it was promoted is in the metadata.")],
    ),
    kinds={"mlflow"},
    io_manager_key=None,
    code=_sources("gate.py", "decisions.py"),
)
def promotion(context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource) -> dg.MaterializeResult:
    from lakehouse.ml import decisions
    from lakehouse.ml.gate import decide

    with failures(), lake.session() as session:
        storage, registry, plan, run_id = lake.storage, ml.registry, ml.plan, context.run.run_id
        info = _as_it_was(storage, EVALUATION, run_id)
        with hold(storage.uri(decisions.LOCK)):
            decisions.settle(registry, session, storage)
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
            decisions.carry_out(registry, session, storage, version, row, keep=champion)
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


# --- the forecast ------------------------------------------------------------------------------------------------------


@_asset(
    FORECASTS,
    "Daily revenue of the next 28 days by the champion, with interval, model version and origin. One forecast per origin.",
    ins={"features": dg.AssetIn(key=FEATURES.key)},
    deps=[["ml", "promotion"]],
    output_required=False,
    kinds={"deltalake", "mlflow"},
    metadata={"primary_key": "origem, data"},
    code=_sources("scoring.py"),
)
def previsao_vendas(context: dg.AssetExecutionContext, lake: LakeResource, ml: MlResource, features: Any) -> Iterator[Any]:
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
        rows = [{**row, **own} for row in score(model, _frame(features), champion.document("interval"), ml.plan)]
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
                "preview": _table_md(rows[:14], names),
            },
        )


@_asset(
    ACCURACIES,
    "Every forecast whose day has come, beside what came.",
    ins={"previsao_vendas": dg.AssetIn(key=FORECASTS.key), "vendas_diarias": dg.AssetIn(key=DAILY.key)},
    kinds={"deltalake"},
    metadata={"primary_key": "origem, data"},
    code=_sources("scoring.py"),
)
def acuracia_previsao(
    context: dg.AssetExecutionContext, lake: LakeResource, previsao_vendas: Any, vendas_diarias: Any
) -> dg.Output[Any]:
    from lakehouse.ml.scoring import accuracy, wape

    with failures():
        revenue = {row["data"]: float(row["receita"]) for row in _rows(vendas_diarias.select("data", "receita"))}
        rows = accuracy(_rows(previsao_vendas), revenue)
        info = {"content": code_version(*[tuple(row.values()) for row in rows])}
        figures: dict[str, Any] = {"days_compared": len(rows)}
        if (error := wape(rows)) is not None:
            figures["wape"] = error
        return dg.Output(_write(lake.storage, ACCURACIES, rows, ACCURACY, info), metadata=figures)


ASSETS = (features, candidate, evaluation, registered_model, promotion, previsao_vendas, acuracia_previsao)


def recompute(lake: LakeResource, ml: MlResource, version: "Version") -> str:
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
