"""The job `mlops` over a lake and a registry of the test's own: who becomes champion, and what happens when something is wrong.

Kills and two runs at once are in `faults/test_model_kills.py`, a real server in `stack/test_mlflow.py`.
"""

import json
import shutil
import socket
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.observability.announce import Announcer
from lakehouse_tests.ml.conftest import DAYS, START, MlLake, errors, jumping, steady

pytest.importorskip("skops", reason="the extra ml is not installed")
pytestmark = pytest.mark.usefixtures("few_recipes")


def check(result) -> dg.AssetCheckEvaluation:
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "gate"]
    return found


def test_the_first_version_becomes_champion_and_a_second_run_on_the_same_data_changes_nothing(ml_lake: MlLake):
    ml_lake.gold(steady())
    first = ml_lake.run()
    assert first.success, errors(first)
    assert ml_lake.champion() == 1 and check(first).passed
    (decision,) = ml_lake.decisions()
    assert decision["promovido"] and decision["campeao_antes"] is None and decision["ganho_ingenuo"] > 0.1
    forecast = ml_lake.rows("ml/previsao_vendas")
    assert [row["horizonte"] for row in forecast] == list(range(1, 29)) and {row["versao"] for row in forecast} == {1}
    assert all(row["baixo"] < row["previsto"] < row["alto"] for row in forecast if row["previsto"])
    assert {row["data"].weekday() for row in forecast if not row["previsto"]} == {5}
    (event,) = [row for row in ml_lake.rows("ops/events") if row["kind"] == "model_promoted"]
    assert json.loads(event["payload"])["versao"] == 1

    before = ml_lake.versions()
    again = ml_lake.run()
    assert again.success, errors(again)
    assert ml_lake.champion() == 1 and [v.number for v in ml_lake.registry.versions()] == [1]
    assert [row["motivo"] for row in ml_lake.decisions()][1:] == ["refused: version 1 is the champion already"]
    assert check(again).passed and ml_lake.registry.alias("previous") is None
    moved = {table for table, version in ml_lake.versions().items() if version != before.get(table)}
    assert moved == {"ops/model_decisions", "ml/evaluation"}  # there is a champion to compare with now
    before = ml_lake.versions()
    assert ml_lake.run().success
    assert {table for table, version in ml_lake.versions().items() if version != before[table]} == {"ops/model_decisions"}


def test_a_version_names_its_data_and_features_made_again_from_it_hash_the_same(ml_lake: MlLake):
    from lakehouse.core.names import TableRef
    from lakehouse.ml.assets import recompute
    from lakehouse.ml.features import FEATURES
    from lakehouse.ml.registry import versions_in_use

    ml_lake.gold(steady())
    result = ml_lake.run()
    gold = ml_lake.versions()["gold/vendas_diarias"]
    (version,) = ml_lake.registry.versions()
    tags = version.tags
    assert tags["dagster_run_id"] == result.run_id and tags["seed"] == "20260"
    assert len(tags["git_commit"].removesuffix("+changes")) in (0, 40)
    assert json.loads(tags["features"]) == list(FEATURES)
    assert version.document("inputs")["gold/vendas_diarias"] == gold
    ml_lake.gold(jumping())  # gold goes on
    lake, ml = ml_lake.resources
    assert recompute(lake, ml, version) == tags["features_hash"]
    used = versions_in_use(ml.registry, lake.storage)
    assert used[TableRef("gold", "vendas_diarias")] == {gold} and TableRef("ml", "features") in used
    shutil.rmtree(Path(ml_lake.uri("gold/vendas_diarias")))
    ml_lake.gold(steady())  # another table of that name
    assert TableRef("gold", "vendas_diarias") not in versions_in_use(ml.registry, lake.storage)

    client = ml.registry.open()
    (run,) = client.search_runs([client.get_experiment_by_name("previsao_vendas").experiment_id])
    assert run.data.tags["dagster_run_id"] == result.run_id and run.info.status == "FINISHED"
    assert run.data.metrics["candidato_7.wape"] < run.data.metrics["ingenuo_7.wape"]
    assert {file.path for file in client.list_artifacts(run.info.run_id, "plots")} == {"plots/folds.svg", "plots/importance.svg"}


@pytest.mark.stack
def test_a_recipe_that_must_win_is_promoted_one_that_must_lose_is_refused_and_rollback_goes_back(ml_lake: MlLake, monkeypatch):
    from lakehouse.ml import decisions

    ml_lake.gold(steady())
    assert ml_lake.run(recipe="nivel_56").success and ml_lake.champion() == 1
    losing = ml_lake.run(recipe="nivel_7")
    assert losing.success and ml_lake.champion() == 1, "it looks back a week only, on a level that does not move"
    assert check(losing).passed and "against the champion's recipe" in ml_lake.decisions()[-1]["motivo"]
    assert ml_lake.decisions()[-1]["ganho_campeao"] < 0

    ml_lake.gold(jumping())
    assert ml_lake.run(recipe="nivel_7").success
    assert ml_lake.champion() == 3 and ml_lake.registry.alias("previous").number == 1
    assert ml_lake.decisions()[-1]["promovido"] and ml_lake.decisions()[-1]["ganho_campeao"] > 0.02
    assert {row["versao"] for row in ml_lake.rows("ml/previsao_vendas")} == {3}

    lake, ml = ml_lake.resources
    with lake.session() as session:
        now, before = decisions.rollback(ml.registry, session, lake.storage, run_id="by-hand", announce=Announcer())
    assert (now.number, before.number) == (1, 3)
    assert ml_lake.champion() == 1 and ml_lake.registry.alias("previous").number == 3
    assert ml_lake.decisions()[-1]["motivo"] == "rolled back from version 3"
    assert ml_lake.run("previsao_vendas", "acuracia_previsao").success
    assert {row["versao"] for row in ml_lake.rows("ml/previsao_vendas")} == {1}
    assert ml_lake.run(recipe="nivel_7").success
    assert ml_lake.champion() == 1 and "was rolled back" in ml_lake.decisions()[-1]["motivo"]
    with lake.session() as session:  # and back again
        assert decisions.rollback(ml.registry, session, lake.storage, run_id="again", announce=Announcer())[0].number == 3


def test_a_candidate_spoiled_on_purpose_is_refused_and_fails_nothing_else(ml_lake: MlLake, monkeypatch):
    from sklearn.dummy import DummyRegressor

    from lakehouse.ml import models

    monkeypatch.setitem(models.BUILDERS, "nivel", lambda *_: DummyRegressor(strategy="constant", constant=0.7))
    ml_lake.gold(steady())
    result = ml_lake.run()
    assert result.success, errors(result)
    found = check(result)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert ml_lake.champion() is None and len(ml_lake.registry.versions()) == 1
    assert not ml_lake.decisions()[0]["promovido"] and not ml_lake.rows("ml/previsao_vendas")
    assert not [row for row in ml_lake.rows("ops/events") if row["kind"] == "model_promoted"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (lambda: steady(100), "266 are needed"),
        (lambda: [*steady(), steady()[0]], "twice"),
        (lambda: [{**row, "receita": "-5.0000"} for row in steady()], "positive revenue"),
    ],
    ids=["too few days", "a day twice", "negative"],
)
def test_data_that_nothing_can_be_learned_from_fail_the_run_in_one_sentence_and_the_champion_stays(
    ml_lake: MlLake, rows, expected
):
    ml_lake.gold(rows())
    result = ml_lake.run()
    assert not result.success and expected in errors(result)
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert ml_lake.champion() is None and not ml_lake.decisions()


@pytest.mark.slow
def test_a_constant_series_is_refused_by_the_gate(ml_lake: MlLake):
    ml_lake.gold([{**row, "receita": "1000.0000"} for row in steady()])
    result = ml_lake.run()
    assert result.success, errors(result)
    assert ml_lake.champion() is None and "varies" in ml_lake.decisions()[0]["motivo"]


@pytest.mark.stack
def test_a_champion_whose_artifact_vanished_fails_the_forecast_clearly_and_the_next_run_replaces_it(ml_lake: MlLake):
    ml_lake.gold(steady())
    assert ml_lake.run().success
    (version,) = ml_lake.registry.versions()
    shutil.rmtree(ml_lake.root / "mlflow" / "artifacts")
    scoring = ml_lake.run("previsao_vendas")
    assert not scoring.success
    assert "The artifact of previsao_vendas version 1 cannot be read" in errors(scoring)
    assert "make rollback-model" in errors(scoring)
    assert ml_lake.run().success
    assert ml_lake.champion() == 2 and ml_lake.registry.alias("previous") is None
    assert ml_lake.decisions()[-1]["campeao_antes"] == 1
    assert {row["versao"] for row in ml_lake.rows("ml/previsao_vendas")} == {2}
    assert version.tags["fingerprint"] == ml_lake.registry.alias("champion").tags["fingerprint"]


def test_a_registry_that_does_not_answer_is_asked_again_and_then_reported_by_name(ml_lake: MlLake, monkeypatch):
    from lakehouse.ml import registry

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    waited: list[float] = []
    monkeypatch.setattr(registry.time, "sleep", waited.append)
    monkeypatch.setattr(MlLake, "settings", property(lambda self: plain(self).model_copy(update={"mlflow_uri": url})))
    ml_lake.gold(steady())
    result = ml_lake.run()
    assert not result.success and f"MLflow at {url} does not answer" in errors(result)
    assert "MLFLOW_TRACKING_URI" in errors(result) and len(waited) >= 3
    assert not ml_lake.decisions()


plain = MlLake.settings.fget


@pytest.mark.slow
def test_a_run_that_fails_before_the_version_is_made_registers_nothing(ml_lake: MlLake, monkeypatch):
    from lakehouse.ml import registry

    def broken(self, model_uri, **given):
        raise registry.RegistryError("MLflow stopped.", remedy="Start it.")

    ml_lake.gold(steady())
    with monkeypatch.context() as patch:
        patch.setattr(registry.Registry, "register", broken)
        failed = ml_lake.run()
    assert not failed.success and "MLflow stopped" in errors(failed)
    assert ml_lake.registry.versions() == [] and ml_lake.champion() is None
    assert ml_lake.run().success and ml_lake.champion() == 1


def test_forecasts_are_compared_with_what_came(ml_lake: MlLake):
    ml_lake.gold(steady())
    assert ml_lake.run().success and ml_lake.rows("ml/acuracia_previsao") == []
    ml_lake.gold(steady(DAYS + 10))
    assert ml_lake.run("features", "previsao_vendas", "acuracia_previsao").success
    rows = ml_lake.rows("ml/acuracia_previsao")
    assert [row["data"] for row in rows] == [START + timedelta(DAYS + n) for n in range(10)]
    real = {row["data"]: float(row["receita"]) for row in ml_lake.rows("gold/vendas_diarias")}
    assert all(row["real"] == pytest.approx(real.get(row["data"], 0.0)) for row in rows)
    assert len({row["origem"] for row in ml_lake.rows("ml/previsao_vendas")}) == 2


# --- what is loaded --------------------------------------------------------------------------------------------------


def _saved(folder: Path, model: object, *, form: str = "skops") -> Path:
    import pickle

    import skops.io

    folder.mkdir()
    (folder / "MLmodel").write_text(
        json.dumps({"flavors": {"sklearn": {"pickled_model": "model.x", "serialization_format": form}}})
    )
    (folder / "model.x").write_bytes(pickle.dumps(model) if form == "pickle" else skops.io.dumps(model))
    return folder


def test_loading_refuses_pickle_and_types_that_are_not_ours_whatever_the_artifact_declares(tmp_path):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import FunctionTransformer

    from lakehouse.ml.models import RevenueModel
    from lakehouse.ml.registry import ModelGoneError, UntrustedModelError, read_model

    model = RevenueModel()
    model.learner_ = Ridge()
    assert isinstance(read_model(_saved(tmp_path / "ours", model), "m"), RevenueModel)
    with pytest.raises(UntrustedModelError, match="is saved as pickle"):
        read_model(_saved(tmp_path / "pickle", model, form="pickle"), "m")
    model.learner_ = FunctionTransformer(shutil.rmtree)
    foreign = _saved(tmp_path / "foreign", model)
    document = json.loads((foreign / "MLmodel").read_text())
    document["flavors"]["sklearn"]["skops_trusted_types"] = ["shutil.rmtree", "shutil._RmtreeType"]
    (foreign / "MLmodel").write_text(json.dumps(document))
    with pytest.raises(UntrustedModelError, match=r"types that are not trusted: .*shutil"):
        read_model(foreign, "m")
    with pytest.raises(UntrustedModelError, match="Ridge, not a model of ours"):
        read_model(_saved(tmp_path / "ridge", Ridge()), "m")
    (tmp_path / "ours" / "model.x").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelGoneError, match="cannot be read"):
        read_model(tmp_path / "ours", "m")


# --- without the extra -----------------------------------------------------------------------------------------------


def test_without_the_extra_the_job_states_what_installs_it(ml_lake: MlLake, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else found(name, *a))
    ml_lake.gold(steady())
    result = ml_lake.run()
    assert not result.success
    assert "The forecast needs mlflow, which is not installed. Run make trigger JOB=mlops" in errors(result)
