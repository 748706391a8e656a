"""Spark computes what DuckDB computes: the contract of the session, casts and expressions value by value, silver row by row.

The tests of values and of silver are DuckDB's own, collected here once more with Spark's session and Spark's lake.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from lakehouse.core.engines import Spark, spark_session
from lakehouse.core.engines.spark import SparkSession
from lakehouse_tests.conftest import Lake
from lakehouse_tests.core.test_engine_values import (  # noqa: F401 - collected here too
    test_a_calculated_value_that_cannot_be_is_marked_and_the_others_stand,
    test_a_column_that_a_file_lacks_is_null_and_files_may_differ,
    test_a_comparison_that_cannot_be_made_is_marked_too,
    test_a_failed_write_leaves_nothing_behind,
    test_a_record_becomes_one_json_object,
    test_casts,
    test_columns_may_be_called_like_keywords,
    test_later_values_may_read_earlier_ones,
    test_no_rows_make_no_file,
    test_null_stays_null_in_every_type,
    test_python_values_come_back,
)
from lakehouse_tests.silver.test_orders import *  # noqa: F403
from lakehouse_tests.silver.test_refresh import *  # noqa: F403

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module", autouse=True)
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One Spark application for all of this file: sessions share it while one is open."""
    spill = tmp_path_factory.mktemp("spark") / "spill"
    with spark_session(memory_limit="2GB", spill=str(spill), spark=Spark(master="local[2]")) as session:
        assert session.spark.version
        yield session


@pytest.fixture
def session(application: SparkSession, tmp_path: Path) -> Iterator[SparkSession]:
    with spark_session(memory_limit="2GB", spill=str(tmp_path / "spill"), spark=Spark(master="local[2]")) as opened:
        yield opened


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, engine="spark")
