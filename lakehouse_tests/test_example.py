"""The graph as an example of orchestration: more than ten steps with retries, and what happens when a retry does not help."""

import re

import dagster as dg
import pytest

from lakehouse.automation import JOBS
from lakehouse.definitions import build_defs
from lakehouse.settings import Settings, project_folder
from lakehouse_tests.conftest import of_another_table

README = (project_folder() / "README.md").read_text()


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs(Settings(env="prod"))


@pytest.mark.parametrize("name", [job.name for job in JOBS])
def test_every_step_of_every_job_is_tried_again(definitions, name):
    for step in definitions.resolve_job_def(name).nodes:
        policy = step.definition.retry_policy
        assert policy is not None, step.name
        assert policy.max_retries >= 1, step.name
        assert policy.delay, step.name
        assert policy.jitter is not None, step.name  # two that failed together do not come back together


def test_the_readme_counts_the_steps_of_its_examples_and_each_has_ten_or_more(definitions):
    output = {name: int(steps) for name, steps in re.findall(r"`(\w+)` \((\d+) steps\)", README)}
    assert set(output) == {"medallion_etl", "pedidos", "brt_capture"}
    steps = {name: [step.name for step in definitions.resolve_job_def(name).nodes] for name in output}
    assert output == {name: sum(not of_another_table(step) for step in found) for name, found in steps.items()}
    assert min(output.values()) >= 10


def test_what_cannot_be_had_after_its_retries_is_done_without(definitions):
    """A channel that stays down: its check fails without blocking, and production goes on with the other."""
    graph = definitions.resolve_asset_graph()
    for channel in ("pedidos_api", "pedidos_db"):
        spec = graph.get_check_spec(dg.AssetCheckKey(dg.AssetKey(["landing", channel]), "extracted"))
        assert not spec.blocking
    assert [source.when_down for source in Settings(env="prod").sources if source.name.startswith("pedidos")] == [
        "degraded",
        "degraded",
    ]
    capture = definitions.resolve_job_def("brt_capture")
    optional = {step.name for step in capture.nodes if not all(out.is_required for out in step.definition.output_defs)}
    assert {"landing__brt_csv", "bronze__brt_gps", "silver__brt_gps"} <= optional  # skipped until there is something to do


def test_the_readmes_first_screen_has_a_picture_of_the_ui():
    first_screen = "\n".join(README.splitlines()[:24])
    (picture,) = re.findall(r"!\[[^]]*UI\]\(([^)]+\.png)\)", first_screen)
    assert (project_folder() / picture).read_bytes().startswith(b"\x89PNG")
