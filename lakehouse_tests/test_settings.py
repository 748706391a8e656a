"""Settings: what the environment may say, what follows from it, and that the three lists of variables agree."""

import os
import re
from pathlib import Path

import pytest

from lakehouse import settings as module
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import LAYERS, TableRef
from lakehouse.settings import Settings, load_env_file, load_settings, project_folder

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """An environment that says nothing of the lakehouse."""
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_") or name == "DAGSTER_HOME"]:
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
        ("LAKEHOUSE_LANDING_ROOT", "/landed"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(DeclarationError, match=rf"{name}\b") as caught:
        load_settings()
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize("variable", ["LAKEHOUSE_ROOT", "LAKEHOUSE_BRONZE_ROOT", "LAKEHOUSE_LANDING"])
def test_a_place_that_is_neither_a_folder_nor_in_a_bucket_is_refused_before_anything_is_written(monkeypatch, variable):
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


def test_relative_places_count_from_the_project_and_not_from_the_working_directory(monkeypatch, tmp_path):
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
    monkeypatch.setattr(module, "_memory_bytes", lambda: 10_000_000_000)
    assert load_settings().memory_bound == "6000MB"
    monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", "1.5GB")
    assert load_settings().memory_bound == "1.5GB"


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


# --- .env and Dagster's home -----------------------------------------------------------------------------------------


def test_the_env_file_says_what_the_environment_does_not(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "project_folder", lambda: tmp_path)
    (tmp_path / ".env").write_text(f"DAGSTER_HOME={tmp_path}\nLAKEHOUSE_ENV=prod\nLAKEHOUSE_ROOT=from_file\n")
    monkeypatch.setenv("LAKEHOUSE_ENV", "staging")
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that monkeypatch takes back what the file sets
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("LAKEHOUSE_ROOT", "")
    monkeypatch.delenv("LAKEHOUSE_ROOT")
    load_env_file()
    assert (load_settings().env, load_settings().root, os.environ["DAGSTER_HOME"]) == ("staging", "from_file", str(tmp_path))


@pytest.mark.parametrize("home", ["", "relative", "/nowhere/at/all"])
def test_without_a_home_for_dagster_nothing_starts_and_the_message_says_what_to_do(monkeypatch, tmp_path, home):
    monkeypatch.setattr(module, "project_folder", lambda: tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", home)
    with pytest.raises(DeclarationError, match=r"DAGSTER_HOME .*make setup"):
        load_env_file()


# --- the lists agree -------------------------------------------------------------------------------------------------


def _variables() -> set[str]:
    """What the code reads: the fields of Settings, landing under its short name, layers, and what Dagster's instance is."""
    others = ("layer_roots", "databases", "mlflow_uri")
    fields = {f"LAKEHOUSE_{name.removesuffix('_dir').upper()}" for name in Settings.model_fields if name not in others}
    services = {"LAKEHOUSE_WAREHOUSE_URL", "MLFLOW_TRACKING_URI"}
    return {*fields, *services, "DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "DAGSTER_LOGS_BUCKET"}


def test_code_example_and_docs_name_the_same_variables_with_the_same_defaults():
    example = (project_folder() / ".env.example").read_text()
    docs = (project_folder() / "docs" / "settings.md").read_text()
    shown = dict(re.findall(r"^# ([A-Z_]+)=(\S*)", example, flags=re.MULTILINE))
    told = {name: default for name, default in re.findall(r"^\| `([A-Z_<>]+)` \| (.*?) \|", docs, flags=re.MULTILINE)}
    # The store's own variables are read by the libraries.
    assert set(shown) - {"LAKEHOUSE_BRONZE_ROOT", "AWS_ENDPOINT_URL"} == _variables()
    assert {name for name in told if "<LAYER>" not in name} == _variables()
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
