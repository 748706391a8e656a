"""The ML resource: where models are registered and whose holidays are known; and MLflow's run of a Dagster run.

`tracking` is dagster-mlflow's own resource. It imports MLflow, which takes seconds, so it is made when a model is saved.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from lakehouse.ml.registry import Registry
    from lakehouse.ml.series import Plan


@dataclass(frozen=True, kw_only=True)
class MlResource:
    """Where MLflow is, and the plan of the forecast.

    A plain record: the URI of a database has a password, and Dagster's pages show what a `ConfigurableResource` has.
    """

    tracking_uri: str = field(repr=False)
    holidays: str

    @property
    def registry(self) -> "Registry":
        from lakehouse.ml.registry import Registry

        return Registry(self.tracking_uri)

    @property
    def plan(self) -> "Plan":
        from lakehouse.ml.series import Plan

        return Plan(holidays="" if self.holidays == "none" else self.holidays)

    @contextmanager
    def tracking(self, context: dg.AssetExecutionContext | dg.InitResourceContext) -> Iterator[Any]:
        """MLflow's run of this Dagster run: found by its tag when a step is tried again, ended with the block."""
        from dagster_mlflow import mlflow_tracking

        from lakehouse.ml.registry import EXPERIMENT

        self.registry.experiment()
        config = {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": self.tracking_uri, "env": {}, "extra_tags": {}}
        with dg.build_resources(
            {"mlflow": mlflow_tracking},
            instance=context.instance,
            resource_config={"mlflow": {"config": config}},
            dagster_run=context.run,
            log_manager=context.log,
        ) as resources:
            mlflow = resources.mlflow
            try:
                yield mlflow
            except BaseException:
                mlflow.end_run(status="FAILED")
                raise
            mlflow.end_run()
