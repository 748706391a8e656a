"""More of DuckDB's own tests on Spark, half a minute and more each; `test_spark.py` takes the same ways.

python -m pytest -m 'slow and spark' -n 0 lakehouse_tests/core/engines/test_spark_long.py
"""

from typing import Any

import pytest

from lakehouse_tests.conftest import Lake
from lakehouse_tests.core.engines.test_spark import _application, lake  # noqa: F401
from lakehouse_tests.silver import test_elements
from lakehouse_tests.silver.test_elements import (  # noqa: F401
    test_elements_of_every_record_that_is_appended_are_rows,
    test_one_bad_element_refuses_its_record_whole_and_a_better_rule_takes_it_in,
)
from lakehouse_tests.silver.test_observed import (  # noqa: F401
    test_a_position_that_is_sent_again_is_one_row_that_states_how_often,
)

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.mark.parametrize("seed", range(3))
def test_elements_land_each_in_an_order_of_its_own(lake: Lake, make_lake: Any, seed: int) -> None:  # noqa: F811
    test_elements.test_landings_each_in_an_order_of_its_own(lake, make_lake, seed)
