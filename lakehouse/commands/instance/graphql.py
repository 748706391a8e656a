"""Questions to Dagster's webserver by GraphQL, as other tools ask them (docs/commands.md)."""

from typing import Any

import requests

from lakehouse.core.errors import LakehouseError

_SECONDS = 10
READY = """{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } }
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } } } } } }"""


class WebserverError(LakehouseError):
    """The webserver does not answer, or refuses the question."""


def ask(ui: str, query: str, **variables: Any) -> Any:
    """The data of the answer.

    Args:
        ui: where the webserver is, e.g. `http://127.0.0.1:3000`.

    Raises:
        WebserverError: there is no answer, or an error in its place.
    """
    try:
        reply = requests.post(f"{ui}/graphql", json={"query": query, "variables": variables}, timeout=_SECONDS)
        answer = reply.json()
    except requests.RequestException as error:
        raise WebserverError(f"{ui} does not answer.", remedy="Run make start, or make status.") from error
    if not isinstance(answer, dict) or answer.get("errors") or "data" not in answer:
        raise WebserverError(f"{ui} refuses the question.", remedy="Look at its log.")
    return answer["data"]


def load_errors(answer: Any) -> list[str]:
    """Why code locations did not load, from the answer to `READY`; none while they load."""
    entries = answer["workspaceOrError"].get("locationEntries", [])
    found = [entry["locationOrLoadError"] or {} for entry in entries]
    return [each["message"] for each in found if each.get("__typename") == "PythonError"]


def is_ready(answer: Any, *, since: float) -> bool:
    """Whether every code location is loaded and every daemon had a heartbeat since that instant."""
    entries = answer["workspaceOrError"].get("locationEntries", [])
    daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    loaded = [(entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries]
    beating = [d["healthy"] and (d["lastHeartbeatTime"] or 0) >= since for d in daemons if d["required"]]
    return bool(loaded) and all([*loaded, *beating])
