"""The list of the parts, in the order in which they start. A new part is its module and a line here."""

from collections.abc import Iterable, Sequence

from deploy.stack import spark
from deploy.stack.dagster import CODE, DAGSTER, METRICS
from deploy.stack.kafka import KAFKA
from deploy.stack.mariadb import MARIADB
from deploy.stack.mlflow import MLFLOW
from deploy.stack.part import Part, StackError
from deploy.stack.postgres import POSTGRES
from deploy.stack.s3 import S3

PARTS: dict[str, Part] = {
    "s3": S3,
    "postgres": POSTGRES,
    "kafka": KAFKA,
    "mariadb": MARIADB,
    "mlflow": MLFLOW,
    "spark": spark.SPARK,
    "code": CODE,
    "dagster": DAGSTER,
    "metrics": METRICS,
}


def chosen(names: Sequence[str]) -> list[str]:
    """The parts of that name and what they need, or all that are installed, in the order of PARTS; MariaDB where it is named.

    Raises:
        StackError: there is no part of that name.
    """
    for name in names:
        if name not in PARTS:
            raise StackError(f"There is no part {name!r}: use some of {' '.join(PARTS)}.")
    if not names:
        names = [name for name in PARTS if name != "mariadb" and (name != "spark" or spark.installed())]
    wanted = {*names, *[need for name in names for need in PARTS[name].needs]}
    return [name for name in PARTS if name in wanted]


def missing(parts: Iterable[str]) -> dict[str, str]:
    """What these parts need and this machine does not have, with the package that delivers it."""
    return {name: package for part in parts for name, package in PARTS[part].lacks().items()}
