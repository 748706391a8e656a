"""MLflow's tracking server, on PostgreSQL and S3."""

from pathlib import Path

from deploy.stack import postgres
from deploy.stack.part import Env, Part, absent_module, get


def _answers(env: Env) -> bool:
    return get(f"http://127.0.0.1:{env['STACK_MLFLOW_PORT']}/health") == "OK"


def _settings(home: Path, env: Env) -> dict[str, str]:
    return {"MLFLOW_BACKEND_STORE_URI": postgres.url(env, "mlflow")}


MLFLOW = Part(
    ("mlflow",),
    ("MLFLOW",),
    _answers,
    patience=300,  # it imports for minutes on a busy machine
    needs=("s3", "postgres"),
    settings=_settings,
    offers=lambda env: {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{env['STACK_MLFLOW_PORT']}"},
    lacks=lambda: absent_module("mlflow"),
)
