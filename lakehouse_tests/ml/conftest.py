"""A lake with a daily mart of the test's own, an MLflow database of its own, and the job `mlops` over both.

The series are synthetic where a test needs a known answer: `daily` makes one from a level per day. MLflow's tables take seconds
to make, so they are made once and copied.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.definitions import build_defs
from lakehouse.settings import Settings, load_settings

Row = dict[str, Any]
START = date(2023, 1, 2)  # a Monday
DAYS = 301  # to a Sunday
DAILY = {
    "data": "date",
    "pedidos": "bigint",
    "clientes": "bigint",
    "linhas": "bigint",
    "quantidade": "bigint",
    "receita": "decimal(38,4)",
}


def daily(
    levels: Sequence[float], *, noise: float = 0.3, seed: int = 2, closed: Callable[[date], bool] | None = None
) -> list[Row]:
    """A row per day of trade: level by weekday by noise; Saturdays are closed unless `closed` says otherwise."""
    import numpy as np

    drawn = np.random.default_rng(seed).normal(size=len(levels))
    shut = closed or (lambda day: day.weekday() == 5)
    rows = []
    for at, level in enumerate(levels):
        day = START + timedelta(at)
        if not shut(day):
            value = level * (1.0, 1.2, 1.1, 1.3, 1.0, 1.0, 0.5)[day.weekday()] * float(np.exp(noise * drawn[at]))
            rows.append(
                {"data": day, "pedidos": 80, "clientes": 60, "linhas": 1000, "quantidade": 5000, "receita": f"{value:.4f}"}
            )
    return rows


def steady(days: int = DAYS, **given: Any) -> list[Row]:
    """A level that does not move: what looks back furthest forecasts best."""
    return daily([30_000.0] * days, **given)


def jumping(days: int = DAYS, **given: Any) -> list[Row]:
    """A level that jumps up and down every three weeks: what looks back least forecasts best."""
    return daily([30_000.0 if at // 21 % 2 else 90_000.0 for at in range(days)], **given)


@dataclass
class MlLake:
    """A lake whose only gold table is the test's."""

    root: Path

    @property
    def settings(self) -> Settings:
        return Settings(root=str(self.root), mlflow_uri=f"sqlite:///{self.root}/mlflow/mlflow.db", holidays="none")

    @property
    def definitions(self) -> dg.Definitions:
        return build_defs(self.settings)

    @property
    def resources(self) -> tuple[Any, Any]:
        found = self.definitions.resources or {}
        return found["lake"], found["ml"]

    @property
    def registry(self) -> Any:
        return self.resources[1].registry

    def gold(self, rows: list[Row]) -> None:
        write = Write(frame=lambda session: session.table(rows, DAILY), columns=DAILY, mode="overwrite")
        with self.session() as session:
            commit_staged(stage_write(session, self.uri("gold/vendas_diarias"), write))

    def session(self) -> Any:
        return duckdb_session(memory_limit="1GB", spill=str(self.root / ".spill"), folders=[str(self.root)])

    def uri(self, table: str) -> str:
        layer, name = table.split("/")
        return self.settings.storage.uri(TableRef(layer, name))  # type: ignore[arg-type]

    def run(self, *only: str, recipe: str = "") -> dg.ExecuteInProcessResult:
        """The job, or some of its assets; `recipe` is the candidate's."""
        config = {"ops": {"ml__candidate": {"config": {"recipe": recipe}}}} if recipe else {}
        keys = [dg.AssetKey(["ml", name]) for name in only] or None
        with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
            warnings.simplefilter("ignore")
            definitions = self.definitions
            name = "mlops" if keys is None else "__ASSET_JOB"
            job = definitions.resolve_job_def("mlops") if name == "mlops" else definitions.resolve_implicit_global_asset_job_def()
            return job.execute_in_process(instance=instance, run_config=config, asset_selection=keys, raise_on_error=False)

    def rows(self, table: str) -> list[Row]:
        from deltalake import DeltaTable

        if open_existing(self.uri(table)) is None:
            return []
        found: list[Row] = DeltaTable(self.uri(table)).to_pyarrow_table().to_pylist()
        return found

    def versions(self) -> dict[str, int]:
        from deltalake import DeltaTable

        return {
            str(log.parent.relative_to(self.root)): DeltaTable(str(log.parent)).version() for log in self.root.rglob("_delta_log")
        }

    def decisions(self) -> list[Row]:
        return sorted(self.rows("ops/model_decisions"), key=lambda row: row["decidido_em"])

    def champion(self) -> int | None:
        found = self.registry.alias("champion")
        return found.number if found else None


def errors(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(e.event_specific_data.error.to_string() for e in result.all_events if e.is_step_failure)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_settings()  # MLflow's telemetry is off before it is imported
    pytest.importorskip("mlflow", reason="the extra ml is not installed")
    from lakehouse.ml.registry import Registry

    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder}/mlflow.db").open()
    return folder / "mlflow.db"


@pytest.fixture
def ml_lake(tmp_path: Path, empty_registry: Path) -> MlLake:
    root = tmp_path / "lake"
    (root / "mlflow").mkdir(parents=True)
    shutil.copy(empty_registry, root / "mlflow" / "mlflow.db")
    return MlLake(root)


@pytest.fixture
def few_recipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the trees, which take seconds to fit a hundred times."""
    from lakehouse.ml import recipes

    fast = tuple(recipe for recipe in recipes.RECIPES if recipe.learner == "nivel")
    monkeypatch.setattr(recipes, "RECIPES", (*fast, recipes.Recipe(name="nivel_7", learner="nivel", level=7)))
    yield
