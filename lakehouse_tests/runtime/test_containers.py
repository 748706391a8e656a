"""The launcher of runs in containers: what a container is given, whose run is whose, what a killed one is called.

With real containers: `lakehouse_tests/containers/`.
"""

import re
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from lakehouse.automation import JOBS
from lakehouse.core.errors import DeclarationError
from lakehouse.runtime import containers
from lakehouse.runtime.containers import ContainerRunLauncher
from lakehouse.runtime.launcher import WatchedRunLauncher
from lakehouse.runtime.limits import CPUS_TAG, MEMORY_TAG, limits
from lakehouse.settings import project_folder

OVERLAY = project_folder() / "deploy" / "containers" / "instance.yaml"
VARIABLES = {
    "STACK_IMAGE": "localhost/lakehouse:latest",
    "STACK_ML_IMAGE": "localhost/lakehouse-ml:latest",
    "STACK_NETWORK": "host",
    "STACK_RUN_VOLUME": "/home/secrets:/run/secrets:ro",
}


@dg.op
def _nothing() -> None:
    """A step."""


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """An instance as the image has it, but with its history in a folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text(OVERLAY.read_text())
    with pytest.MonkeyPatch.context() as environment:
        for name, value in VARIABLES.items():
            environment.setenv(name, value)
        with dg.DagsterInstance.from_config(str(home)) as own:
            yield own


def run_of(instance, job: str, **tags: str) -> dg.DagsterRun:
    definition = dg.GraphDefinition(job, node_defs=[_nothing]).to_job(name=job)
    return instance.create_run_for_job(definition, tags={tag.replace("__", "/"): value for tag, value in tags.items()})


def test_the_images_instance_has_this_launcher_and_all_else_of_the_production_instance():
    whole, overlay = (yaml.safe_load(path.read_text()) for path in (project_folder() / "deploy" / "dagster.yaml", OVERLAY))
    assert set(overlay) == {"run_launcher"} <= set(whole)
    assert set(overlay["run_launcher"]["config"]["processes"]) | set(overlay["run_launcher"]["config"]["images"]) <= {
        job.name for job in JOBS
    }


def test_a_container_is_as_large_as_the_tags_of_its_run_and_writes_nothing(instance, tmp_path, monkeypatch):
    (tmp_path / "LAKEHOUSE_SLACK_TOKEN").write_text("secret")
    monkeypatch.setattr(containers, "SECRETS", tmp_path)
    monkeypatch.setenv("LAKEHOUSE_SLACK_TOKEN", "secret")
    monkeypatch.setenv("LAKEHOUSE_ROOT", "s3://lake")
    monkeypatch.setenv("HOME_OF_NOBODY", "x")
    run = run_of(instance, "medallion_etl", lakehouse__memory="3g", lakehouse__cpus="1.5")
    context = instance.run_launcher.get_container_context(run)
    given = context.container_kwargs
    assert (given["mem_limit"], given["memswap_limit"], given["nano_cpus"]) == ("3g", "3g", 1_500_000_000)
    assert given["read_only"] is True
    assert given["volumes"] == ["/home/secrets:/run/secrets:ro"]
    assert context.networks == ["host"]
    assert "LAKEHOUSE_ROOT" in context.env_vars
    assert {"LAKEHOUSE_SLACK_TOKEN", "HOME_OF_NOBODY"} & set(context.env_vars) == set()


def test_the_runs_of_a_job_go_to_its_image_and_those_of_captures_to_the_code_server(instance):
    launcher = instance.run_launcher
    assert type(launcher) is ContainerRunLauncher
    found = {job: launcher._launcher_of(run_of(instance, job)) for job in ("medallion_etl", "mlops", "brt_capture")}
    assert found["medallion_etl"] is None
    assert (type(found["mlops"]), found["mlops"].image) == (ContainerRunLauncher, VARIABLES["STACK_ML_IMAGE"])
    assert type(found["brt_capture"]) is WatchedRunLauncher


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"ExitCode": 137, "OOMKilled": True},
            r"needed more memory than its limit, 2g, .* the tag lakehouse/memory of job",
        ),
        ({"ExitCode": 137, "OOMKilled": False}, r"was killed\. Where that was for its memory limit, 2g: raise the tag"),
    ],
)
def test_a_container_that_was_killed_fails_its_run_with_a_sentence_that_names_the_tag(instance, monkeypatch, state, message):
    container = SimpleNamespace(status="exited", attrs={"State": state})
    monkeypatch.setattr(ContainerRunLauncher, "_get_container", lambda self, run: container)
    run = run_of(instance, "medallion_etl", docker__container_id="abc")
    health = instance.run_launcher.check_run_worker_health(run)
    assert health.status.value == "FAILED"
    assert re.search(message, str(health.msg))
    assert instance.run_launcher.get_run_worker_debug_info(run) == health.msg


@pytest.mark.parametrize(("status", "code", "result"), [("running", 0, "RUNNING"), ("exited", 1, "FAILED")])
def test_a_container_that_was_not_killed_is_dagster_dockers(instance, monkeypatch, status, code, result):
    container = SimpleNamespace(status=status, attrs={"State": {"ExitCode": code}})
    monkeypatch.setattr(ContainerRunLauncher, "_get_container", lambda self, run: container)
    run = run_of(instance, "medallion_etl", docker__container_id="abc")
    assert instance.run_launcher.check_run_worker_health(run).status.value == result
    assert instance.run_launcher.get_run_worker_debug_info(run) is None


@pytest.mark.parametrize("tags", [{MEMORY_TAG: "4 GB"}, {MEMORY_TAG: "0g"}, {CPUS_TAG: "many"}, {CPUS_TAG: "0"}])
def test_a_tag_that_is_no_size_is_an_error_that_shows_one(tags):
    with pytest.raises(DeclarationError, match=r"The tag lakehouse/(memory|cpus) is .* Write "):
        limits(tags)


def test_the_sales_have_four_gigabytes():
    sizes = {job.name: limits(job.size) for job in JOBS}
    assert sizes["medallion_etl"] == ("4g", 2.0)
    assert sizes["monitoring"] == ("2g", 2.0)
