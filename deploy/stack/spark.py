"""Spark: a standalone master with two workers, from the package pyspark."""

import importlib.util
import json
from pathlib import Path

from deploy.stack.part import Env, Part, absent, absent_module, get

_JAVA = {"java": "default-jre-headless"}


def installed() -> bool:
    return importlib.util.find_spec("pyspark") is not None


def _answers(env: Env) -> bool:
    state = get(f"http://127.0.0.1:{env['STACK_SPARK_UI_PORT']}/json/")
    return state is not None and json.loads(state).get("aliveworkers") == 2


def _settings(home: Path, env: Env) -> dict[str, str]:
    spark = importlib.util.find_spec("pyspark")
    return {
        "SPARK_HOME": str(Path(spark.origin).parent) if spark and spark.origin else "",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


SPARK = Part(
    ("spark-master", "spark-worker-1", "spark-worker-2"),
    ("SPARK", "SPARK_UI"),
    _answers,
    settings=_settings,
    offers=lambda env: {"LAKEHOUSE_SPARK_MASTER": f"spark://127.0.0.1:{env['STACK_SPARK_PORT']}"},
    lacks=lambda: {**absent(_JAVA), **absent_module("pyspark")},
    packages=lambda: _JAVA,
)
