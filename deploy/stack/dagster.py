"""Dagster: the code server, the webserver with the daemon, and the metrics that are served beside them."""

import json
import shutil
import socket
from pathlib import Path

from deploy.stack import postgres
from deploy.stack.part import PROJECT, Env, Part, absent_module, get

_PATIENCE = 300  # with a load of 14 on two cores it took 114 s

_QUESTION = """{ instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } }
                 workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"""


def _prepare(home: Path, env: Env) -> None:
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    shutil.copy2(PROJECT / "deploy" / "dagster.yaml", home / "dagster" / "dagster.yaml")


def _settings(home: Path, env: Env) -> dict[str, str]:
    return {
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_POSTGRES_URL": postgres.url(env, "dagster"),
        "DAGSTER_LOGS_BUCKET": "dagster-logs",
    }


def _code_answers(env: Env) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(env["STACK_CODE_PORT"])), timeout=5).close()
    except OSError:
        return False
    return True  # it listens only when the definitions are loaded, or when it can say why they are not


def _dagster_answers(env: Env) -> bool:
    """The UI serves, the location loaded without an error, and every daemon had a heartbeat since the processes started."""
    reply = get(f"http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}/graphql", body={"query": _QUESTION})
    data = (json.loads(reply).get("data") if reply else None) or {}
    if not data.get("instance") or not data.get("workspaceOrError"):
        return False
    entries = data["workspaceOrError"].get("locationEntries", [])
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    since = float(env.get("STACK_STARTED", "0"))
    return bool(entries) and all(
        [
            *[(entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries],
            *[d["healthy"] and d["lastHeartbeatTime"] >= since for d in daemons if d["required"]],
        ]
    )


def _metrics_answer(env: Env) -> bool:
    return get(f"http://127.0.0.1:{env['STACK_METRICS_PORT']}/health") is not None


CODE = Part(
    ("code",),
    ("CODE",),
    _code_answers,
    patience=_PATIENCE,
    children_stay=True,  # a run's worker finishes without its code server (lakehouse/runtime/launcher.py)
    prepare=_prepare,
    needs=("s3", "postgres"),
)
DAGSTER = Part(
    ("webserver", "daemon"),
    ("WEBSERVER",),
    _dagster_answers,
    patience=_PATIENCE,
    prepare=_prepare,
    needs=("code", "s3", "postgres"),
    settings=_settings,
    offers=lambda env: {"LAKEHOUSE_UI_URL": f"http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}"},
    lacks=lambda: absent_module("dagster_postgres"),
)
METRICS = Part(("metrics",), ("METRICS",), _metrics_answer, prepare=_prepare, needs=("code", "s3", "postgres"))
