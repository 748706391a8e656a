"""Settings: the only reader of the environment.

Every variable is `LAKEHOUSE_<FIELD>`; the defaults run on a laptop. `load_settings()` is called by whoever builds
definitions or runs a command, never at import. Paths that are not absolute are taken from the project's folder.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lakehouse.core.engines.session import Spark
from lakehouse.core.errors import DeclarationError
from lakehouse.core.kafka import is_address
from lakehouse.core.names import LAYERS, Engine, is_remote
from lakehouse.core.store import durability
from lakehouse.core.store.durability import Durability
from lakehouse.core.store.storage import Storage
from lakehouse.settings.declared import Values, from_environment, resolved
from lakehouse.settings.environments import PROFILES, Profile
from lakehouse.settings.light import allow_http, memory_bytes, project_folder, read_env_file
from lakehouse.tables import ALL, PUBLISHED, SETTINGS, SOURCES
from lakehouse.tables.brt import BRT_GPS, Box, within
from lakehouse.tables.spec import Setting, SourceSystem, TableSpec
from lakehouse.tables.spec.job import Environment

#: What a message about a wrong value must not repeat.
_SECRET = ("LAKEHOUSE_SMTP_URL", "LAKEHOUSE_SLACK_TOKEN", "LAKEHOUSE_HEARTBEAT_URL", "MLFLOW_TRACKING_URI")


def shipped(name: str) -> Path:
    """A file or folder beside the package in the checkout, which a wheel carries inside of it (`pyproject.toml`)."""
    inside = Path(__file__).resolve().parents[1] / name
    return inside if inside.exists() else project_folder() / name


def _memory(value: str) -> str:
    if value and not re.fullmatch(r"[1-9]\d*(\.\d+)?\s?(MB|GB|MiB|GiB)", value):
        raise ValueError("write a size such as 4GB or 800MB")
    return value


def _master(value: str) -> str:
    if not re.fullmatch(r"local(\[[^\]]+\])?|spark://[^/,:]+:\d+(,[^/,:]+:\d+)*|yarn|k8s://.+", value):
        raise ValueError("write local[*], spark://host:port, yarn or k8s://...")
    return value


def _pairs(value: str) -> dict[str, str]:
    parts = [part.strip() for part in value.split(";") if part.strip()]
    return {key.strip(): given.strip() for key, _, given in (part.partition("=") for part in parts)}


def _spark_conf(value: str) -> str:
    if wrong := [key for key, given in _pairs(value).items() if not key.startswith("spark.") or not given]:
        raise ValueError(f"write spark.<name>=<value>, separated by semicolons ({wrong[0]!r} is none)")
    return value


def _box(value: str) -> str:
    try:
        Box(*map(float, value.split(",")))
    except (TypeError, ValueError, DeclarationError):
        raise ValueError("write south,north,west,east in degrees, e.g. -23.1,-22.7,-43.8,-43.1") from None
    return value


def _holidays(value: str) -> str:
    if value != "none" and not re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", value):
        raise ValueError("write a country such as BR, with a region such as GB-ENG, or none")
    return value


def _registry(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/]+.*|sqlite:////.+|(postgresql|mysql)(\+\w+)?://.+", value):
        raise ValueError(
            "write http://host:port, sqlite:////absolute/file.db or a database URL; folders (./mlruns) have no registry"
        )
    return value.rstrip("/")


def _http(value: str) -> str:
    if value and not re.match(r"https?://[^/\s]+", value):
        raise ValueError("write http://host/path or https://host/path")
    return value


def _secret_http(value: SecretStr) -> SecretStr:
    _http(value.get_secret_value())
    return value


def _smtp(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not re.fullmatch(r"smtps?://([^@/\s]+@)?[^@/:\s]+(:\d+)?/?", value.get_secret_value()):
        raise ValueError("write smtp://user:password@host:587 (STARTTLS) or smtps://...; percent-encode user and password")
    return value


def _emails(value: str) -> str:
    if wrong := [address for address in listed(value) if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", address)]:
        raise ValueError(f"write addresses separated by commas ({wrong[0]!r} is none)")
    return value


def _servers(value: str) -> str:
    if wrong := [server for server in listed(value) if not is_address(server)]:
        raise ValueError(f"write host:port, separated by commas ({wrong[0]!r} is none)")
    return value


def _topics(value: str) -> str:
    if wrong := [t for t in listed(value) if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}(:[A-Za-z0-9._-]{1,249}(:\d{1,15})?)?", t)]:
        raise ValueError(f"write topic, topic:group or topic:group:bound, separated by commas ({wrong[0]!r} is none)")
    return value


def _urls(value: str) -> str:
    for url in listed(value):
        _http(url)
    return value


def listed(value: str) -> list[str]:
    """The parts of a value that is separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def field_of(one: Setting) -> str:
    """The field of `Settings` that has a declared setting's variable, where there is one; its name as an argument otherwise."""
    return one.name.removeprefix("LAKEHOUSE_").lower()


class Settings(BaseSettings):
    """What may differ between two installations of the same code."""

    model_config = SettingsConfigDict(
        env_prefix="LAKEHOUSE_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    env: Environment = "dev"
    root: str = "data/lake"
    base_root: str = ""
    landing_dir: str = ""
    engine: Engine = "duckdb"
    memory_limit: Annotated[str, AfterValidator(_memory)] = ""
    spark_master: Annotated[str, AfterValidator(_master)] = "local[*]"
    spark_conf: Annotated[str, AfterValidator(_spark_conf)] = ""
    connectors: str = "connectors"
    airbyte_url: Annotated[str, AfterValidator(_http)] = ""
    airbyte_client_id: str = ""
    airbyte_client_secret: SecretStr = SecretStr("")
    airbyte_user: str = ""
    airbyte_password: SecretStr = SecretStr("")
    airbyte_poll_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 10
    brt_box: Annotated[str, AfterValidator(_box)] = "-23.1,-22.7,-43.8,-43.1"
    log_format: Literal["text", "json"] = "text"
    kafka_bootstrap: Annotated[str, AfterValidator(_servers)] = ""
    kafka_topics: Annotated[str, AfterValidator(_topics)] = ""
    kafka_max_lag: Annotated[int, Field(ge=0)] = 10_000
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp)] = SecretStr("")
    alert_emails: Annotated[str, AfterValidator(_emails)] = ""
    slack_token: SecretStr = SecretStr("")
    slack_channel: str = ""
    slack_url: Annotated[str, AfterValidator(_http)] = "https://slack.com/api/"
    heartbeat_url: Annotated[SecretStr, AfterValidator(_secret_http)] = SecretStr("")
    ui_url: Annotated[str, AfterValidator(_http)] = ""
    probe_urls: Annotated[str, AfterValidator(_urls)] = ""
    real_data: str = "../shared/data"
    golden_tables: str = ""
    warehouse_url: SecretStr = SecretStr("")
    warehouse_schema: str = ""
    warehouse_chunksize: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    warehouse_lock_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    warehouse_tables: str = ""
    holidays: Annotated[str, AfterValidator(_holidays)] = "BR"
    vacuum_hours: Annotated[int, Field(ge=24, le=720)] = 168
    replay_days: Annotated[int, Field(ge=0, le=365)] = 14
    history_days: Annotated[int, Field(ge=7, le=3650)] = 90
    measurement_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    backup_root: str = "data/backup"
    backup_keep: Annotated[int, Field(ge=1, le=1000)] = 4
    backup_proof: Literal["changed", "whole"] = "changed"
    mlflow_uri: Annotated[str, AfterValidator(_registry)] = Field(default="", validation_alias="MLFLOW_TRACKING_URI")
    aws_region: str = Field(default="", validation_alias="AWS_REGION")
    durability: Durability = "power"
    examples: bool = False
    layer_roots: Mapping[str, str] = {}
    dagster_postgres_url: SecretStr = Field(default=SecretStr(""), validation_alias="DAGSTER_POSTGRES_URL")
    #: By name, what the settings of declarations are.
    declared: Values = Values()

    @model_validator(mode="before")
    @classmethod
    def _with_declared(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take the settings of declarations from the environment, or, as the fields, by their name without the prefix."""
        named = {}
        for one in SETTINGS:
            name = field_of(one)
            named[one.name] = given.get(name) if name in cls.model_fields else given.pop(name, None)
        return {**given, "declared": from_environment(SETTINGS, os.environ, given=named)}

    @field_validator("root", "base_root", "landing_dir", "real_data", "backup_root")
    @classmethod
    def _trimmed(cls, value: str) -> str:
        return value.strip().rstrip("/") if value.strip() != "/" else "/"

    @property
    def landing(self) -> str:
        """Absolute folder that holds `raw/<stream>/`."""
        return _absolute(self.landing_dir) if self.landing_dir else f"{_absolute(self.root)}/landing"

    @property
    def storage(self) -> Storage:
        layers = {layer: _absolute(location) for layer, location in self.layer_roots.items()}
        base = Storage(root=_absolute(self.base_root), landing=f"{_absolute(self.base_root)}/landing") if self.base_root else None
        return Storage(root=_absolute(self.root), landing=self.landing, layers=layers, base=base)

    @property
    def memory_bound(self) -> str:
        """The engine's memory limit: as set, else 60 % of what this machine or its container has."""
        return self.memory_limit or f"{int(memory_bytes() * 0.6 / 1_000_000)}MB"

    @property
    def model_registry(self) -> str:
        """MLflow's tracking URI: as set, else a database on this machine."""
        return self.mlflow_uri or f"sqlite:///{_absolute('data/mlflow')}/mlflow.db"

    @property
    def backups(self) -> str:
        """Where backups are kept: an absolute folder, or a place in a bucket."""
        return _absolute(self.backup_root)

    @property
    def spark(self) -> Spark:
        """Where Spark runs, with the jars that `make spark-jars` has fetched."""
        jars = tuple(map(str, sorted((project_folder() / ".stack" / "jars").glob("*.jar"))))
        return Spark(master=self.spark_master, conf=_pairs(self.spark_conf), jars=jars)

    @property
    def connectors_folder(self) -> str:
        """Where Airbyte's connectors have their virtual environments, and their secrets."""
        return _absolute(self.connectors)

    @property
    def airbyte_apis(self) -> tuple[str, str]:
        """The Airbyte server's public API, and the one that tells more of a job; of Airbyte's own cloud, or of another's."""
        url = self.airbyte_url.rstrip("/")
        if re.fullmatch(r"https://(cloud|api)\.airbyte\.com(/.*)?", url):
            return "https://api.airbyte.com/v1", "https://cloud.airbyte.com/api/v1"
        return f"{url}/api/public/v1", f"{url}/api/v1"

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        """Every declared table, with the thresholds that these settings give its rules."""
        box = Box(*map(float, self.brt_box.split(",")))
        return tuple(within(spec, box) if spec.name == BRT_GPS.name else spec for spec in ALL)

    @property
    def spill(self) -> str:
        """Folder of this machine for intermediate results that do not fit in memory, and for copies from an object store."""
        return f"{_absolute('data' if is_remote(self.root) else self.root)}/.spill"

    @property
    def cache(self) -> str:
        """Folder of this machine for what was fetched within the hour."""
        return f"{_absolute('data' if is_remote(self.root) else self.root)}/.cache"

    @property
    def warehouse(self) -> str:
        """The SQL database's URL; a SQLite file beside the lake unless one is named."""
        own = f"sqlite:///{_absolute('data' if is_remote(self.root) else self.root)}/warehouse.db"
        return self.warehouse_url.get_secret_value() or own

    @property
    def databases(self) -> dict[str, SecretStr]:
        """The databases whose health is looked at, where they are PostgreSQL's."""
        named = {"postgres": self.dagster_postgres_url, "warehouse": self.warehouse_url}
        return {part: url for part, url in named.items() if url.get_secret_value()}

    @property
    def published(self) -> tuple[str, ...]:
        """The tables that the warehouse has, as `layer/table`."""
        return tuple(filter(None, map(str.strip, self.warehouse_tables.split(",")))) or PUBLISHED

    @property
    def profile(self) -> Profile:
        """What the environment decides."""
        return PROFILES[self.env]

    @property
    def sources(self) -> tuple[SourceSystem, ...]:
        """Every declared source system, with the values of its settings; what is secret is a `SecretStr`."""
        return tuple(resolved(system, self.declared, self.env) for system in SOURCES)


def load_settings() -> Settings:
    """Read the environment, and let this process write as durably as it says.

    Raises:
        DeclarationError: a variable has a value that it cannot have; the message names the variable.
    """
    allow_http()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported, which else calls home
    roots = {layer: os.environ[name] for layer in LAYERS if os.environ.get(name := f"LAKEHOUSE_{layer.upper()}_ROOT")}
    landing = os.environ.get("LAKEHOUSE_LANDING", "")
    if "landing" in roots:
        raise DeclarationError(
            "LAKEHOUSE_LANDING_ROOT is not a setting.", remedy="Set LAKEHOUSE_LANDING to the folder that holds raw/<stream>/."
        )
    try:
        settings = Settings(layer_roots=roots, landing_dir=landing)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        name = field if field.isupper() else "LAKEHOUSE_" + field.removesuffix("_dir").upper()
        given = "not what it should be" if name in _SECRET else repr(first["input"])
        raise DeclarationError(
            f"{name} is {given}: {first['msg']}.",
            remedy="Fix it in the environment or in .env; .env.example lists every setting.",
        ) from None
    own = {layer: f"LAKEHOUSE_{layer.upper()}_ROOT" for layer in roots}
    folders: dict[str, str] = {}
    for layer in LAYERS:
        folder = _absolute(roots.get(layer) or f"{settings.root}/{layer}")
        other = folders.setdefault(folder, layer)
        if other != layer:
            raise DeclarationError(
                f"{own.get(layer) or own[other]} gives {other} and {layer} the same folder, {folder}.",
                remedy="Every layer needs one of its own.",
            )
    if settings.base_root and _absolute(settings.base_root) == _absolute(settings.root):
        raise DeclarationError(
            "LAKEHOUSE_BASE_ROOT is the lake itself.", remedy="Give LAKEHOUSE_ROOT a folder of its own: make branch NAME=x."
        )
    durability.use(settings.durability)
    return settings


def load_env_file() -> None:
    """Take what `.env` says and the environment does not, as Dagster's own commands do, and check that Dagster has a home."""
    read_env_file()
    home = os.environ.get("DAGSTER_HOME", "")
    if not home:
        raise DeclarationError(
            "DAGSTER_HOME is not set, so there is no Dagster instance to run in.",
            remedy="Run make setup, which writes it to .env, or export it.",
        )
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise DeclarationError(
            f"DAGSTER_HOME is {home!r}, which is not an absolute folder that exists.",
            remedy="Make the folder and run make setup, or export another one.",
        )


def dagster_home() -> Path:
    """The folder of Dagster's instance, which `load_env_file` has looked at."""
    return Path(os.environ["DAGSTER_HOME"])


def _absolute(location: str) -> str:
    return location if is_remote(location) else str((project_folder() / Path(location).expanduser()).absolute())
