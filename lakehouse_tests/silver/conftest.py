"""One Spark application for all tests of a module: starting one takes longer than what they compute."""

import pytest


@pytest.fixture(autouse=True)
def _one_application(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("spark"):
        request.getfixturevalue("spark_application")
