"""The integrations' resources: shown by name, made when they are asked for, with this lake's settings and no secret."""

import builtins
import json
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.gold.project import dbt_project
from lakehouse.resources import build_resources
from lakehouse.runtime.dagster_private import repository
from lakehouse.settings import Settings

NAMES = ("spark", "s3", "mlflow", "dbt")
SECRET = "c4n4ry"


def run(asset: dg.AssetsDefinition, root: Path, **settings) -> dg.ExecuteInProcessResult:
    return dg.materialize([asset], resources=build_resources(Settings(root=str(root), **settings)), raise_on_error=False)


def test_the_resources_page_shows_them_with_a_description_and_no_secret(monkeypatch):
    """As the webserver has them. Nothing that is configured anywhere has a password, of the registry's database neither."""
    for name in ("MLFLOW_TRACKING_URI", "LAKEHOUSE_WAREHOUSE_URL"):
        monkeypatch.setenv(name, f"postgresql://user:{SECRET}@db.example.org/registry")
    for name in ("AWS_SECRET_ACCESS_KEY", "LAKEHOUSE_PEDIDOS_API_TOKEN", "LAKEHOUSE_AIRBYTE_PASSWORD", "LAKEHOUSE_SLACK_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    with dg.DagsterInstance.ephemeral() as instance:
        shown = {each.name: each for each in repository(instance, module="lakehouse.definitions", location="l").get_resources()}
    assert {name for name in NAMES if len(shown[name].description or "") > 20} == set(NAMES)
    assert shown["lake"].configured_values["engine"] == '"duckdb"'
    for resource in shown.values():
        output = [str(value) for value in resource.configured_values.values()]
        output += [str(field) for field in resource.config_field_snaps]
        assert SECRET not in json.dumps(output), resource.name


def test_an_asset_of_a_users_own_has_an_s3_client_for_the_environments_server(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-south-2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    seen = {}

    @dg.asset
    def own(s3: dg.ResourceParam[object]) -> None:
        from dagster_aws.s3 import S3Resource

        assert isinstance(s3, S3Resource)
        client = s3.get_client()
        seen["url"] = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
        seen["region"] = client.meta.region_name
        assert SECRET not in repr(s3)

    assert run(own, tmp_path).success
    assert seen["url"].startswith("http://127.0.0.1:9/b/k?")
    assert seen["region"] == "eu-south-2"


def test_an_asset_of_a_users_own_logs_to_the_lakes_model_registry(tmp_path):
    """The run of MLflow ends with the Dagster run, as failed when a step of it has failed."""
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"

    @dg.asset(required_resource_keys={"mlflow"})
    def own(context: dg.AssetExecutionContext) -> None:
        context.resources.mlflow.log_params({"learner": "mine"})

    @dg.asset(required_resource_keys={"mlflow"})
    def broken(context: dg.AssetExecutionContext) -> None:
        raise dg.Failure("no")

    good, bad = (run(asset, tmp_path, mlflow_uri=uri) for asset in (own, broken))
    assert (good.success, bad.success) == (True, False)
    import mlflow

    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(output_format="list", search_all_experiments=True)
    found = {each.data.tags["dagster_run_id"]: each for each in runs}
    assert {name: found[result.run_id].info.status for name, result in {"good": good, "bad": bad}.items()} == {
        "good": "FINISHED",
        "bad": "FAILED",
    }
    assert found[good.run_id].data.params == {"learner": "mine"}


def test_an_asset_of_a_users_own_asks_the_dbt_project_by_dagster_dbts_resource(tmp_path):
    seen = {}

    @dg.asset
    def own(dbt: dg.ResourceParam[object]) -> None:
        command = ["--quiet", "ls", "--resource-type", "model", "--output", "name"]
        seen["ok"] = dbt.cli(command, target_path=tmp_path / "target").wait().is_successful()
        manifest = json.loads(dbt_project().manifest_path.read_text())
        seen["models"] = {node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "model"}

    assert run(own, tmp_path).success
    assert seen["ok"]
    assert "vendas_diarias" in seen["models"]


@pytest.mark.parametrize(("name", "package", "extra"), [("s3", "dagster_aws", "production"), ("mlflow", "dagster_mlflow", "ml")])
def test_without_the_package_the_definitions_load_and_the_run_that_asks_states_which_extra(
    tmp_path, monkeypatch, name, package, extra
):
    real = builtins.__import__

    def without(module, *given, **named):
        if module.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(module, *given, **named)

    @dg.asset(required_resource_keys={name})
    def own() -> None:
        raise AssertionError("it has no resource")

    monkeypatch.setattr(builtins, "__import__", without)
    result = run(own, tmp_path, mlflow_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    assert not result.success
    output = [str(event.event_specific_data) for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE"]
    output += [str(event) for event in result.all_events if event.is_failure]
    assert any(f"The resource needs {package}, which is not installed." in text and f".[{extra}]" in text for text in output)


@pytest.mark.spark
def test_the_resource_is_the_application_that_the_lakes_engine_uses(tmp_path):
    pytest.importorskip("pyspark")
    seen = {}

    @dg.asset
    def own(spark: dg.ResourceParam[object], lake: dg.ResourceParam[object]) -> None:
        seen["id"] = spark.spark_context.applicationId
        assert spark.spark_session.range(3).count() == 3
        with lake.session(engine="spark") as session:
            seen["same"] = session.spark.sparkContext.applicationId
        assert spark.spark_session.range(3).count() == 3, "it goes on when another session ends"

    assert run(own, tmp_path, spark_master="local[1]").success
    assert seen["id"] == seen["same"]
    from pyspark import SparkContext

    assert SparkContext._active_spark_context is None, "it ends with the run"
