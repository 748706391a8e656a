"""`make branch NAME=x`: a lake of one's own over this one, to try a change on real tables; `make branch-drop NAME=x` ends it.

    eval "$(make -s branch NAME=x)"     the shell is in the branch: what is computed goes there, what it lacks is read here
    make materialize SELECT='…'         marts of the branch over the tables of the lake
    make branch-drop NAME=x

A branch is a folder of this machine: tables, landing, Dagster's history, warehouse, registry of models, backups. The lake is
never written. Alerts, schedules and Kafka are off in it.
"""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.settings import Settings, load_settings, project_folder

app = typer.Typer()
_MARK = "branch.json"
Name = Annotated[str, typer.Argument(help="its name: small letters, digits, underscores")]


@app.command()
def branch(name: Name) -> int:
    """Make a branch of the lake, and print what a shell must export to be in it."""
    settings, folder = load_settings(), folder_of(name)
    if settings.base_root:
        raise DeclarationError(
            "This shell is in a branch already, and a branch reads one lake.", remedy="Open a new shell, and make it there."
        )
    if settings.layer_roots:
        raise DeclarationError(
            f"The layers {', '.join(settings.layer_roots)} have roots of their own, and a branch reads one.",
            remedy="Put the lake below one root: LAKEHOUSE_ROOT.",
        )
    root, mark = settings.storage.root, folder / _MARK
    if mark.exists() and (known := json.loads(mark.read_text())["base"]) != root:
        raise DeclarationError(f"The branch {name} is one of {known}.", remedy="Give another NAME, or end it: make branch-drop.")
    (folder / "dagster").mkdir(parents=True, exist_ok=True)
    shutil.copy(project_folder() / "dagster.yaml", folder / "dagster" / "dagster.yaml")
    mark.write_text(json.dumps({"base": root}))
    for variable, value in exports(settings, folder).items():
        print(f"export {variable}={shlex.quote(value)}")
    print(f"# The branch {name} reads {root} and is written to {folder}.", file=sys.stderr)
    return 0


@app.command("branch-drop")
def branch_drop(name: Name) -> int:
    """Remove a branch with all that was computed in it."""
    folder = folder_of(name)
    if not (folder / _MARK).exists():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{_MARK}"))
        raise DeclarationError(f"There is no branch {name}.", remedy=f"There are: {', '.join(known) or 'none'}.")
    if load_settings().storage.root.startswith(f"{folder}/"):
        print("This shell is in it: close the shell, or unset LAKEHOUSE_ROOT and LAKEHOUSE_BASE_ROOT.", file=sys.stderr)
    shutil.rmtree(folder)
    print(f"The branch {name} is gone.")
    return 0


def folder_of(name: str) -> Path:
    """Where a branch is.

    Raises:
        DeclarationError: the name cannot be a folder's.
    """
    return project_folder() / "data" / "branches" / check_name(name, "name of a branch")


def exports(settings: Settings, folder: Path) -> dict[str, str]:
    """The environment of a branch."""
    return {
        "LAKEHOUSE_ROOT": f"{folder}/lake",
        "LAKEHOUSE_BASE_ROOT": settings.storage.root,
        "LAKEHOUSE_LANDING": f"{folder}/lake/landing",
        "LAKEHOUSE_WAREHOUSE_URL": f"sqlite:///{folder}/warehouse.db",
        "LAKEHOUSE_BACKUP_ROOT": f"{folder}/backup",
        "LAKEHOUSE_KAFKA_BOOTSTRAP": "",
        "LAKEHOUSE_ENV": "dev",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow/mlflow.db",
        "DAGSTER_HOME": f"{folder}/dagster",
    }
