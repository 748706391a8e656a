"""Resources: what assets are given to work with, bound here once.

`lake` says where tables are and opens engine sessions (Spark's by dagster-pyspark's resource); `io_manager`
hands frames to assets and commits what they return; `request` lets one run ask for one table (job `bronze_to_silver`), and
`extraction` ask source systems for everything or a window; `<feed>_feed` says where a captured feed is, `airbyte` where syncs
are, `systems` what else is asked outside the lake;
`warehouse` is the SQL database that tables are published to, `ml` says where models are registered; `announce` keeps what a
layer has to tell others.

`spark`, `s3`, `mlflow` and `dbt` are the integrations' own, for the assets of whoever builds on this: under the names and with
the methods that their documentation has, and with this lake's settings. A run imports their libraries when one of its assets
asks for them (docs/decisions/0070). They have no configuration, so Dagster's pages show no secret.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core.errors import DeclarationError, install
from lakehouse.gold.project import dbt_project
from lakehouse.landing.assets.airbyte_server import AirbyteApi
from lakehouse.landing.assets.feeds import feed_resources
from lakehouse.landing.assets.systems import Systems
from lakehouse.landing.request import ExtractionRequest
from lakehouse.ml.resource import MlResource
from lakehouse.observability.announce import Announcer
from lakehouse.runtime.io_manager import DeltaIOManager
from lakehouse.runtime.lake import LakeResource
from lakehouse.settings import Settings
from lakehouse.silver.request import TableRequest
from lakehouse.warehouse.assets import warehouse_of


def build_resources(settings: Settings, *, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every resource of the code location. `overrides` replaces some, for tests."""
    storage = settings.storage
    lake = LakeResource(
        root=storage.root,
        landing=storage.landing,
        layers=dict(storage.layers),
        base=storage.base.root if storage.base is not None else "",
        engine=settings.engine,
        memory_limit=settings.memory_bound,
        spill=settings.spill,
        environment=settings.env,
        connectors=settings.connectors_folder,
        spark_master=settings.spark.master,
        spark_conf=dict(settings.spark.conf),
        spark_jars=list(settings.spark.jars),
    )
    resources = {
        "lake": lake,
        "io_manager": DeltaIOManager(lake=lake),
        "request": TableRequest.configure_at_launch(),
        "extraction": ExtractionRequest.configure_at_launch(),
        **feed_resources(settings),
        # Plain records: they hold secrets, and what is configured in Dagster is shown in its pages.
        "airbyte": AirbyteApi.of(settings),
        "systems": Systems.of(settings),
        "warehouse": warehouse_of(settings),
        "announce": Announcer(),
        "ml": MlResource(tracking_uri=settings.model_registry, holidays=settings.holidays),
        "spark": spark,
        "s3": s3_in(settings.aws_region),
        "mlflow": mlflow,
        "dbt": dbt,
    }
    return {**resources, **(overrides or {})}


# --- the integrations' own ---------------------------------------------------------------------------------------------


class SparkApplication:
    """What dagster-pyspark's `PySparkResource` has: the Spark session, started when it is first asked for."""

    def __init__(self, lake: LakeResource, stack: ExitStack) -> None:
        self._lake, self._stack = lake, stack
        self._session: Any = None

    @property
    def spark_session(self) -> Any:
        """The lake's Spark session: the application that a silver table with engine `spark` runs on."""
        if self._session is None:
            with _from_extra("spark"):
                self._session = self._stack.enter_context(self._lake.session(engine="spark"))
        return self._session.spark

    @property
    def spark_context(self) -> Any:
        return self.spark_session.sparkContext


@dg.resource(
    required_resource_keys={"lake"},
    description="The lake's Spark session, as dagster-pyspark's PySparkResource: `spark.spark_session` (extra `spark`).",
)
def spark(context: dg.InitResourceContext) -> Iterator[SparkApplication]:
    with ExitStack() as stack:
        yield SparkApplication(context.resources.lake, stack)


def s3_in(region: str) -> dg.ResourceDefinition:
    """The resource `s3`, in the region of AWS_REGION, or in boto3's own where that is not set."""

    @dg.resource(description="dagster-aws's S3Resource, with the environment's server, region, credentials (extra `production`).")
    def s3(context: dg.InitResourceContext) -> Any:
        with _from_extra("production"):
            from dagster_aws.s3 import S3Resource

            # boto3 reads AWS_ENDPOINT_URL and the credentials itself, so they are in no configuration. AWS_REGION it does not:
            # its own name for a region is AWS_DEFAULT_REGION.
            return S3Resource(region_name=region or None)

    return s3


@dg.resource(
    required_resource_keys={"ml"},
    description="dagster-mlflow's tracking: the MLflow run of this Dagster run, in the lake's model registry (extra `ml`).",
)
def mlflow(context: dg.InitResourceContext) -> Iterator[Any]:
    with ExitStack() as stack:
        with _from_extra("ml"):
            tracked = stack.enter_context(context.resources.ml.tracking(context))
        yield tracked
        run = context.run
        if run is not None and context.instance is not None:
            failed = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
            tracked.end_run(status="FAILED" if failed else "FINISHED")


@dg.resource(description="dagster-dbt's DbtCliResource on the lakehouse's dbt project; gold itself runs dbt in process.")
def dbt(context: dg.InitResourceContext) -> Any:
    from dagster_dbt import DbtCliResource

    # Of this environment: the first `dbt` on the path may be another one, or none.
    return DbtCliResource(project_dir=dbt_project(), dbt_executable=str(Path(sys.executable).with_name("dbt")))


@contextmanager
def _from_extra(extra: str) -> Iterator[None]:
    """Name the extra that brings a package which is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DeclarationError(f"The resource needs {error.name}, which is not installed.", remedy=f"{install(extra)}.") from None
