"""The dbt project from Python: its manifest, and one in-process invocation in a scratch folder.

In process a build of all marts takes 0.6 s; as a command it takes 8 s, most of it imports (dbt-core 1.11, 2 cores).
"""

import hashlib
import json
import os
import pickle  # nosec B403 # see kept()
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from lakehouse.core.errors import LakehouseError
from lakehouse.settings import derived_folder, project_folder, shipped

T = TypeVar("T")
PROFILE, DATABASE = "lakehouse", "scratch"
#: Folders in which a process is parsing; renamed to the digest of what was parsed when it is done.
_PARSING = ".parse-"


class DbtError(LakehouseError):
    """dbt itself failed: the project does not parse, or a model does not run."""


def project_dir() -> Path:
    """The folder with `dbt_project.yml`."""
    return shipped("dbt_project")


def target_dir() -> Path:
    """Where what follows from the project is kept: in the checkout beside it; what is installed is not written to."""
    project = project_dir()
    folder = project / "target" if project == project_folder() / "dbt_project" else derived_folder() / "dbt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakehouseError(
            f"{folder} cannot be made: {error.strerror}.", remedy="Set DAGSTER_HOME to a folder that this user may write."
        ) from error
    return folder


def ensure_manifest() -> dict[str, Any]:
    """The project's manifest, parsed again when a file of the project changed since.

    Raises:
        DbtError: the project does not parse.
    """
    project = project_dir()
    return _manifest(project, _digest(project))


def dbt_project() -> Any:
    """The project as dagster-dbt's `DbtProject`, with the manifest of its files as they are now."""
    from dagster_dbt import DbtProject

    ensure_manifest()
    project = project_dir()
    return DbtProject(project, target_path=target_dir() / _digest(project), profiles_dir=project)


@cache
def _manifest(project: Path, digest: str) -> dict[str, Any]:
    cached = target_dir()
    target = cached / digest
    path = target / "manifest.json"
    if not path.is_file():
        parsed = _parse(cached)
        for old in cached.iterdir():
            if old != target and not old.name.startswith(_PARSING):
                shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
        try:
            parsed.rename(target)
        except OSError:  # another process parsed the same files first
            shutil.rmtree(parsed)
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def cached(name: str, make: Callable[[], T], *, by: str) -> T:
    """What follows from the manifest as it is now: made once, and kept beside it.

    Args:
        by: what else decides it, such as the version of the library that makes it.
    """
    folder = target_dir()
    path = folder / _digest(project_dir()) / f"{name}-{hashlib.sha256(by.encode()).hexdigest()[:16]}.pickle"
    with suppress(OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, TypeError):
        found: T = pickle.loads(path.read_bytes())  # nosec B301 # written below, beside the manifest that is trusted as well
        return found
    made = make()
    with suppress(OSError), tempfile.TemporaryDirectory(prefix=_PARSING, dir=folder) as own:
        Path(own, path.name).write_bytes(pickle.dumps(made))
        Path(own, path.name).replace(path)
    return made


def _digest(project: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(project.rglob("*")):
        inside = path.relative_to(project)
        if path.is_file() and inside.parts[0] not in ("target", "logs", "dbt_packages"):
            digest.update(f"{inside}\x00".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _parse(cached: Path) -> Path:
    target = Path(tempfile.mkdtemp(prefix=_PARSING, dir=cached))
    with tempfile.TemporaryDirectory() as scratch:
        write_profile(Path(scratch), memory_limit="1GB")
        invoke(["parse", "--no-partial-parse"], scratch=Path(scratch), target=target)
    return target


def write_profile(scratch: Path, *, memory_limit: str, folders: Sequence[str] = ()) -> Path:
    """Write a profile whose database is a file in `scratch`, and return that file's path.

    Args:
        folders: those whose files models may read, besides `scratch`; all others are closed to them.
    """
    database = scratch / f"{DATABASE}.duckdb"
    output = {
        "type": "duckdb",
        "path": str(database),
        "schema": "staging",
        "keep_open": False,
        "threads": max(os.cpu_count() or 1, 1),
        "config_options": {"memory_limit": memory_limit, "temp_directory": str(scratch / "spill")},
        "plugins": [{"module": "lakehouse.gold.confined", "config": {"folders": [*folders, str(scratch)]}}],
    }
    profile = {PROFILE: {"target": DATABASE, "outputs": {DATABASE: output}}}
    (scratch / "profiles.yml").write_text(json.dumps(profile))  # JSON is YAML
    return database


def invoke(arguments: Sequence[str], *, scratch: Path, target: Path, manifest: Mapping[str, Any] | None = None) -> list[Any]:
    """Run one dbt command in process and return its results (none for `parse`).

    Raises:
        DbtError: dbt ended without results; failing models and tests are results.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest

    given = Manifest.from_dict(manifest) if manifest is not None else None
    fixed = ["--project-dir", str(project_dir()), "--profiles-dir", str(scratch), "--target-path", str(target)]
    quiet = ["--quiet", "--no-use-colors", "--log-level-file", "none", "--log-path", str(scratch)]
    quiet += [] if arguments[0] == "parse" else ["--no-write-json"]
    try:
        outcome = dbtRunner(manifest=given).invoke([*arguments, *fixed, *quiet])
    finally:
        DuckDBConnectionManager.close_all_connections()  # it keeps the file open for the next run of this process
    if outcome.exception is not None:
        reported = " ".join(str(outcome.exception).split())  # the first line is only the kind of error
        raise DbtError(
            f"dbt {arguments[0]} failed: {reported.rstrip('.')}.",
            remedy="Fix the model or yml file that it names and run it again.",
        ) from outcome.exception
    return list(getattr(outcome.result, "results", None) or [])
