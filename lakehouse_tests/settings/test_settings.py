"""Settings: what the environment may say, what follows from it, and that the three lists of variables agree."""

import os
import re
from pathlib import Path

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import LAYERS, TableRef
from lakehouse.settings import Settings, light, load_env_file, load_settings, project_folder
from lakehouse.settings import settings as module
from lakehouse.tables import SETTINGS
from lakehouse.tables.pedidos import PEDIDOS_API, PEDIDOS_DB

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """An environment that says nothing of the lakehouse."""
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_") or name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")]:
        monkeypatch.delenv(name)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAKEHOUSE_ENV", "production"),
        ("LAKEHOUSE_ENGINE", "pandas"),
        ("LAKEHOUSE_SPARK_MASTER", "here"),
        ("LAKEHOUSE_SPARK_MASTER", "spark://host"),
        ("LAKEHOUSE_SPARK_CONF", "executor.memory=1g"),
        ("LAKEHOUSE_SPARK_CONF", "spark.ui.enabled"),
        ("LAKEHOUSE_MEMORY_LIMIT", "4"),
        ("LAKEHOUSE_MEMORY_LIMIT", "lots"),
        ("LAKEHOUSE_MEMORY_LIMIT", "0GB"),
        ("LAKEHOUSE_LOG_FORMAT", "xml"),
        ("LAKEHOUSE_BRT_URL", "ftp://host/brt"),
        ("LAKEHOUSE_BRT_URL", "file://folder"),
        ("LAKEHOUSE_BRT_BUFFER", "0"),
        ("LAKEHOUSE_BRT_BUFFER", "ten"),
        ("LAKEHOUSE_BRT_BOX", "-23.1,-22.7,-43.8"),
        ("LAKEHOUSE_BRT_BOX", "-22.7,-23.1,-43.8,-43.1"),
        ("LAKEHOUSE_LANDING_ROOT", "/landed"),
        ("LAKEHOUSE_HOLIDAYS", "Brasil"),
        ("MLFLOW_TRACKING_URI", "./mlruns"),
        ("MLFLOW_TRACKING_URI", "sqlite:///relative.db"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(DeclarationError, match=rf"{name}\b") as caught:
        load_settings()
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize("variable", ["LAKEHOUSE_ROOT", "LAKEHOUSE_BRONZE_ROOT", "LAKEHOUSE_LANDING"])
def test_a_location_that_is_neither_a_folder_nor_in_a_bucket_is_refused_before_anything_is_written(monkeypatch, variable):
    monkeypatch.setenv(variable, "ftp://host/prefix")
    settings = load_settings()
    with pytest.raises(DeclarationError, match="ftp://host"):
        settings.storage.uri(TableRef("bronze", "vendas"))


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    unset = load_settings()
    for name in ("ENV", "ROOT", "LANDING", "ENGINE", "MEMORY_LIMIT", "LOG_FORMAT", "REAL_DATA", "BRONZE_ROOT"):
        monkeypatch.setenv(f"LAKEHOUSE_{name}", "")
    assert load_settings() == unset


def test_the_environment_is_read_anew_each_time(monkeypatch):
    assert load_settings().env == "dev"
    for env in ("staging", "prod", "dev"):
        monkeypatch.setenv("LAKEHOUSE_ENV", env)
        assert load_settings().env == env


# --- places ----------------------------------------------------------------------------------------------------------


def test_relative_locations_count_from_the_project_and_not_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKEHOUSE_GOLD_ROOT", "elsewhere/gold")
    settings = load_settings()
    assert settings.storage.root == f"{PROJECT}/data/lake"
    assert settings.landing == f"{PROJECT}/data/lake/landing"
    assert settings.storage.uri(TableRef("gold", "vendas_diarias")) == f"{PROJECT}/elsewhere/gold/vendas_diarias"


def test_landing_follows_the_root_until_it_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("LAKEHOUSE_ROOT", f"{tmp_path}/lake/")
    assert load_settings().landing == f"{tmp_path}/lake/landing"
    monkeypatch.setenv("LAKEHOUSE_LANDING", f"{tmp_path}/airbyte/")
    assert load_settings().landing == f"{tmp_path}/airbyte"
    assert load_settings().storage.landed_path("raw/vendas/a") == f"{tmp_path}/airbyte/raw/vendas/a"


def test_a_layer_with_a_root_of_its_own_has_its_tables_directly_below_it_and_the_others_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("LAKEHOUSE_ROOT", f"{tmp_path}/lake")
    monkeypatch.setenv("LAKEHOUSE_BRONZE_ROOT", f"{tmp_path}/fast/")
    storage = load_settings().storage
    assert storage.uri(TableRef("bronze", "vendas")) == f"{tmp_path}/fast/vendas"
    for layer in set(LAYERS) - {"bronze"}:
        assert storage.uri(TableRef(layer, "vendas")) == f"{tmp_path}/lake/{layer}/vendas"


@pytest.mark.parametrize("silver", ["fast", "lake/bronze"])
def test_two_layers_never_share_a_folder(monkeypatch, tmp_path, silver):
    monkeypatch.setenv("LAKEHOUSE_ROOT", f"{tmp_path}/lake")
    if silver == "fast":
        monkeypatch.setenv("LAKEHOUSE_BRONZE_ROOT", f"{tmp_path}/fast")
    monkeypatch.setenv("LAKEHOUSE_SILVER_ROOT", f"{tmp_path}/{silver}")
    with pytest.raises(DeclarationError, match="LAKEHOUSE_SILVER_ROOT gives bronze and silver the same folder"):
        load_settings()


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAKEHOUSE_ROOT", "~/lake")
    assert load_settings().storage.root == f"{tmp_path}/lake"


def test_memory_is_sixty_percent_of_the_machine_unless_it_is_set(monkeypatch):
    monkeypatch.setattr(module, "memory_bytes", lambda: 10_000_000_000)
    assert load_settings().memory_bound == "6000MB"
    monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", "1.5GB")
    assert load_settings().memory_bound == "1.5GB"


@pytest.mark.parametrize("version", [2, 1])
def test_in_a_container_it_is_sixty_percent_of_its_limit(monkeypatch, tmp_path, version):
    files = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    files[2 - version].write_text("1000000000\n")
    monkeypatch.setattr(light, "_CONTAINER_LIMITS", files)
    assert load_settings().memory_bound == "600MB"
    files[2 - version].write_text("max\n" if version == 2 else "9223372036854771712\n")  # without a limit
    assert load_settings().memory_bound != "600MB"


def test_spark_has_its_master_its_settings_and_the_jars_that_were_fetched(monkeypatch, tmp_path):
    assert (load_settings().spark.master, load_settings().spark.conf) == ("local[*]", {})
    monkeypatch.setenv("LAKEHOUSE_ENGINE", "spark")
    monkeypatch.setenv("LAKEHOUSE_SPARK_MASTER", "spark://a:7077,b:7077")
    monkeypatch.setenv("LAKEHOUSE_SPARK_CONF", "spark.executor.memory=4g; spark.driver.extraJavaOptions=-Da=b;")
    monkeypatch.setattr(module, "project_folder", lambda: tmp_path)
    (tmp_path / ".stack" / "jars").mkdir(parents=True)
    (tmp_path / ".stack" / "jars" / "delta.jar").touch()
    spark = load_settings().spark
    assert spark.master == "spark://a:7077,b:7077" and spark.jars == (f"{tmp_path}/.stack/jars/delta.jar",)
    assert spark.conf == {"spark.executor.memory": "4g", "spark.driver.extraJavaOptions": "-Da=b"}


def test_models_are_registered_below_data_unless_a_registry_is_named(monkeypatch):
    assert load_settings().model_registry == f"sqlite:///{PROJECT}/data/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    monkeypatch.setenv("LAKEHOUSE_HOLIDAYS", "none")
    assert load_settings().model_registry == "http://127.0.0.1:5000" and load_settings().holidays == "none"
    assert Settings(mlflow_uri="sqlite:////a/b.db").model_registry == "sqlite:////a/b.db"


# --- .env and Dagster's home -----------------------------------------------------------------------------------------


def test_the_box_of_the_positions_is_a_setting_and_the_declared_one_its_default(monkeypatch):
    from lakehouse.tables import ALL
    from lakehouse.tables.spec import InRange

    assert load_settings().tables == ALL
    monkeypatch.setenv("LAKEHOUSE_BRT_BOX", "-24,-22,-44,-42.5")
    (brt,) = [spec for spec in load_settings().tables if spec.name == "brt_gps"]
    bounds = {rule.name: (rule.minimum, rule.maximum) for rule in brt.row_rules if isinstance(rule, InRange)}
    assert bounds == {"range_latitude": (-24, -22), "range_longitude": (-44, -42.5)}
    assert [spec for spec in load_settings().tables if spec.name != "brt_gps"] == [s for s in ALL if s.name != "brt_gps"]


def test_the_env_file_states_what_the_environment_does_not(monkeypatch, tmp_path):
    monkeypatch.setattr(light, "project_folder", lambda: tmp_path)
    (tmp_path / ".env").write_text(f"DAGSTER_HOME={tmp_path}\nLAKEHOUSE_ENV=prod\nLAKEHOUSE_ROOT=from_file\n")
    monkeypatch.setenv("LAKEHOUSE_ENV", "staging")
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that monkeypatch takes back what the file sets
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("LAKEHOUSE_ROOT", "")
    monkeypatch.delenv("LAKEHOUSE_ROOT")
    load_env_file()
    assert (load_settings().env, load_settings().root, os.environ["DAGSTER_HOME"]) == ("staging", "from_file", str(tmp_path))


@pytest.mark.parametrize("home", ["", "relative", "/nowhere/at/all"])
def test_without_a_home_for_dagster_nothing_starts_and_the_message_states_what_to_do(monkeypatch, tmp_path, home):
    monkeypatch.setattr(light, "project_folder", lambda: tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", home)
    with pytest.raises(DeclarationError, match=r"DAGSTER_HOME .*make setup"):
        load_env_file()


# --- the lists agree -------------------------------------------------------------------------------------------------


def _variables() -> set[str]:
    """What the code reads: the fields of Settings, landing under its short name, layers, and what Dagster's instance is."""
    aliased = {str(field.validation_alias): name for name, field in Settings.model_fields.items() if field.validation_alias}
    own = set(Settings.model_fields) - {"layer_roots", "declared", *aliased.values()}
    return {
        *aliased,
        *(one.name for one in SETTINGS),
        *(f"LAKEHOUSE_{name.removesuffix('_dir').upper()}" for name in own),
        "DAGSTER_HOME",
        "DAGSTER_LOGS_BUCKET",
    }


def test_code_example_and_docs_name_the_same_variables_with_the_same_defaults():
    example = (project_folder() / ".env.example").read_text()
    docs = (project_folder() / "docs" / "settings.md").read_text()
    shown = dict(re.findall(r"^# ([A-Z_]+)=(\S*)", example, flags=re.MULTILINE))
    told = {name: default for name, default in re.findall(r"^\| `([A-Z_<>]+)` \| (.*?) \|", docs, flags=re.MULTILINE)}
    # The store's own variables are read by the libraries.
    assert set(shown) - {"LAKEHOUSE_BRONZE_ROOT", "AWS_ENDPOINT_URL"} == _variables()
    assert {name for name in told if "<LAYER>" not in name} - {"AWS_ENDPOINT_URL"} == _variables()
    for name, field in Settings.model_fields.items():
        variable = f"LAKEHOUSE_{name.upper()}"
        if isinstance(field.default, str) and field.default:
            assert shown[variable] == field.default
            assert told[variable].strip("` ") == field.default


def test_the_example_lists_the_layers_that_may_have_a_root():
    line = next(line for line in (project_folder() / ".env.example").read_text().splitlines() if "LAKEHOUSE_BRONZE_ROOT" in line)
    named = {word.lower() for word in re.findall(r"\b[A-Z]{3,}\b", line.partition("#")[2].partition("=")[2])}
    assert named <= set(LAYERS)
    assert {"silver", "gold", "ops", "quarantine", "reports"} <= named


# --- environments ----------------------------------------------------------------------------------------------------


def test_each_environment_has_a_record_of_its_own_and_there_is_no_other():
    from lakehouse.settings.environments import PROFILES

    assert set(PROFILES) == {"dev", "staging", "prod"}
    assert [PROFILES[env].samples for env in ("dev", "staging", "prod")] == [True, False, False]
    for env in ("staging", "prod"):
        _, api, database = Settings(env=env).sources
        assert (api.retry.times, api.retry.seconds) == (3, 60)
        assert (database.retry.times, database.retry.seconds) == (2, 30)
        assert (api.request_seconds, api.timeout.total_seconds(), api.cache) == (30, 300, 3600)
    with pytest.raises(KeyError):
        PROFILES["test"]


def test_a_variable_changes_what_it_names_of_the_environments_record_and_nothing_else(monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_ENV", "prod")
    monkeypatch.setenv("LAKEHOUSE_PEDIDOS_API_RETRY_SECONDS", "7")
    monkeypatch.setenv("LAKEHOUSE_PEDIDOS_CHANNEL_DOWN", "fail")
    _, api, database = load_settings().sources
    assert (api.retry.times, api.retry.seconds, api.when_down) == (3, 7, "fail")
    assert database.retry == Settings(env="prod").sources[2].retry


@pytest.mark.parametrize(
    "name", ["LAKEHOUSE_PEDIDOS_CHANNEL_DOWN", "LAKEHOUSE_PEDIDOS_API_RETRIES", "LAKEHOUSE_WAREHOUSE_CHUNKSIZE"]
)
def test_a_value_that_cannot_be_is_refused_by_its_variables_name(monkeypatch, name):
    monkeypatch.setenv(name, "-1")
    with pytest.raises(DeclarationError, match=name):
        load_settings()


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_outside_dev_nothing_stands_in_for_a_source_that_is_not_named(env):
    from lakehouse.landing.assets.systems import Systems

    systems = Systems.of(Settings(env=env))
    with pytest.raises(DeclarationError, match="LAKEHOUSE_PEDIDOS_API_URL is not set"), systems.opened(PEDIDOS_API):
        pass
    with pytest.raises(DeclarationError, match="LAKEHOUSE_PEDIDOS_DB_URL is not set"), systems.opened(PEDIDOS_DB):
        pass


def test_secrets_of_the_orders_and_the_warehouse_are_shown_nowhere(monkeypatch):
    from lakehouse.resources import build_resources

    monkeypatch.setenv("LAKEHOUSE_PEDIDOS_API_TOKEN", "s3cret-token")
    monkeypatch.setenv("LAKEHOUSE_PEDIDOS_DB_URL", "postgresql://u:s3cret-db@h/d")
    monkeypatch.setenv("LAKEHOUSE_WAREHOUSE_URL", "postgresql://u:s3cret-dw@h/d")
    settings = load_settings()
    assert settings.warehouse.endswith("u:s3cret-dw@h/d")
    assert "s3cret" not in repr(settings) + repr(build_resources(settings))


# --- monitoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "secret"),
    [
        ("SMTP_URL", "http://u:hunter2@h", "hunter2"),
        ("HEARTBEAT_URL", "hunter2.example", "hunter2"),
        ("ALERT_EMAILS", "nobody", ""),
        ("KAFKA_BOOTSTRAP", "broker", ""),
        ("KAFKA_TOPICS", "a:b:c", ""),
        ("SLACK_URL", "slack.com", ""),
        ("UI_URL", "ftp://h", ""),
        ("PROBE_URLS", "http://h,h2", ""),
    ],
)
def test_what_monitoring_cannot_use_is_refused_by_name_and_no_secret_is_repeated(monkeypatch, variable, value, secret):
    monkeypatch.setenv(f"LAKEHOUSE_{variable}", value)
    with pytest.raises(DeclarationError, match=f"LAKEHOUSE_{variable} is .*write ") as caught:
        load_settings()
    assert not secret or secret not in str(caught.value)


def test_what_monitoring_needs_is_read_and_its_secrets_are_not_shown(monkeypatch):
    given = {
        "LAKEHOUSE_SMTP_URL": "smtp://a%40b.c:hunter2@mail:587",
        "LAKEHOUSE_SLACK_TOKEN": "xoxb-hunter2",
        "LAKEHOUSE_HEARTBEAT_URL": "https://hc.example/hunter2",
        "LAKEHOUSE_WAREHOUSE_URL": "postgresql://u:hunter2@h/warehouse",
        "LAKEHOUSE_ALERT_EMAILS": "a@b.c, d@e.f",
        "LAKEHOUSE_KAFKA_BOOTSTRAP": "h1:9092,h2:9092",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.smtp_url.get_secret_value() == given["LAKEHOUSE_SMTP_URL"]
    assert settings.databases["warehouse"].get_secret_value() == given["LAKEHOUSE_WAREHOUSE_URL"]
    assert settings.mlflow_uri == given["MLFLOW_TRACKING_URI"]
    assert module.listed(settings.alert_emails) == ["a@b.c", "d@e.f"]
    assert "hunter2" not in repr(settings)
