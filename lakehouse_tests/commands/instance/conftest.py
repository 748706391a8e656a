"""An instance and a lake of the test's own, named by the environment as for a command."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.commands.instance import location
from lakehouse.settings import project_folder

_load = location.repository


@cache
def _loaded(environment: str) -> Any:
    """The definitions of an environment take seconds to load, and no test here changes them."""
    with dg.DagsterInstance.ephemeral() as instance:
        return _load(instance)


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laptop's instance with its databases, which take longer to make than to copy."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(project_folder() / "dagster.yaml", folder)
    with dg.DagsterInstance.from_config(str(folder)):
        return folder


@pytest.fixture
def home(empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME, with the laptop's instance."""
    folder = tmp_path / "stack" / "dagster"
    shutil.copytree(empty_home, folder)
    for name in [name for name in os.environ if name.startswith(("LAKEHOUSE_", "AWS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets LAKEHOUSE_ENV; `dev` until then."""

    def use(name: str) -> None:
        monkeypatch.setenv("LAKEHOUSE_ENV", name)
        monkeypatch.setattr(location, "repository", lambda instance: _loaded(name))

    use("dev")
    return use


@pytest.fixture
def instance(environment: Callable[[str], None]) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as found:
        yield found
