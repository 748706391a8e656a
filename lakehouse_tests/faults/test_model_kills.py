"""Models and kills: the process is killed with -9 at each place between a version and its alias, and two runs go at once.

Each run is a process of its own. A place is a call of the registry, or of the table of decisions; the process ends before it or
after it. The next run must find one version, one champion, one promotion in `ops/model_decisions` and one event.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.settings import project_folder
from lakehouse_tests.ml.conftest import MlLake, empty_registry, ml_lake, steady

pytest.importorskip("skops", reason="the extra ml is not installed")
pytestmark = pytest.mark.faults
__all__ = ["empty_registry", "ml_lake"]

_RUN = """
import os, signal, sys
import dagster as dg
from lakehouse.definitions import build_defs
from lakehouse.ml import decisions, recipes, registry
from lakehouse.settings import Settings

root, function, moment = sys.argv[1:]
recipes.RECIPES = recipes.RECIPES[:2]
owner = registry.Registry if hasattr(registry.Registry, function) else decisions
if function != "nowhere":
    original = getattr(owner, function)
    def killed(*given, **named):
        if moment == "after":
            original(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, function, killed)
settings = Settings(root=root, mlflow_uri=f"sqlite:///{root}/mlflow/mlflow.db", holidays="none")
with dg.DagsterInstance.ephemeral() as instance:
    result = build_defs(settings).resolve_job_def("mlops").execute_in_process(instance=instance, raise_on_error=False)
sys.exit(0 if result.success else 1)
"""


def start(lake: MlLake, function: str = "nowhere", moment: str = "before") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(lake.root), function, moment]
    environment = {**os.environ, "PYTHONPATH": str(project_folder())}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]", *, code: int = 0) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output[-3000:]


def one_consistent_champion(lake: MlLake) -> None:
    assert [version.number for version in lake.registry.versions()] == [1]
    assert lake.champion() == 1 and lake.registry.alias("previous") is None
    assert lake.registry.usable(lake.registry.alias("champion"))
    assert [row["versao"] for row in lake.decisions() if row["promovido"]] == [1]
    assert [row["kind"] for row in lake.rows("ops/events")].count("model_promoted") == 1
    assert {row["versao"] for row in lake.rows("ml/previsao_vendas")} == {1}


@pytest.mark.parametrize(
    ("function", "moment"),
    [("register", "before"), ("register", "after"), ("point", "before"), ("point", "after"), ("write", "after")],
)
def test_a_kill_between_registration_and_promotion_leaves_one_champion_after_the_next_run(
    ml_lake: MlLake, function: str, moment: str
) -> None:
    ml_lake.gold(steady())
    finish(start(ml_lake, function, moment), code=-9)
    if (function, moment) in (("register", "after"), ("point", "before")):
        assert ml_lake.champion() is None and len(ml_lake.registry.versions()) == 1
    finish(start(ml_lake))
    one_consistent_champion(ml_lake)


def test_two_runs_at_once_make_one_version_and_one_champion(ml_lake: MlLake, tmp_path: Path) -> None:
    ml_lake.gold(steady())
    both = [start(ml_lake), start(ml_lake)]
    for process in both:
        finish(process)
    one_consistent_champion(ml_lake)
    assert len(ml_lake.decisions()) == 2
