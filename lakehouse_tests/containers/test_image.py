"""The image as it runs: its user, what it may write, its size, and `medallion_etl` in it, without network and servers."""

import json
import os
import shutil

import pytest

from deploy.containers import image
from deploy.containers.engine import HOME, find
from lakehouse.sample.landing import write_sample_landing

MOST_BYTES = 900e6


@pytest.fixture(scope="module")
def engine():
    if why := image.why_not(("base",)):
        pytest.skip(why)
    return find()


def test_the_image_is_small_has_its_labels_and_runs_as_a_user_that_is_not_root(engine):
    name = image.IMAGES["base"]
    assert image.size(engine, name) <= MOST_BYTES
    (found,) = json.loads(engine.run("image", "inspect", name))
    assert found["Config"]["User"] == "1000:0"
    assert found["Config"]["Labels"]["org.opencontainers.image.revision"] != "unknown"
    assert "socket.create_connection" in json.dumps(found)  # its health check; podman and docker have it in different parts
    assert engine.run("run", *image._ONCE, name, "id", "-u") == "1000"


def test_what_is_in_it_is_listed_with_versions_of_python_and_of_debian():
    bill = json.loads((HOME / "lakehouse.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    urls = {component.get("purl", "") for component in bill["components"]}
    assert len([url for url in urls if url.startswith("pkg:pypi/dagster")]) > 3
    assert len([url for url in urls if url.startswith("pkg:deb/")]) > 50


def test_the_job_runs_in_it_on_a_root_that_nobody_writes_and_without_network(engine, tmp_path):
    """What was taken out of the image to make it small is not missed."""
    truth = write_sample_landing(tmp_path / "landing", lines=3000)
    for folder in ("lake", "home"):
        (tmp_path / folder).mkdir()
    shutil.copy2(image.PROJECT / "dagster.yaml", tmp_path / "home")
    for folder, _, names in os.walk(tmp_path):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
            shutil.chown(path, 1000, 0) if os.getuid() == 0 else None
    settings = {"LAKEHOUSE_ROOT": "/work/lake", "LAKEHOUSE_LANDING": "/work/landing", "DAGSTER_HOME": "/work/home"}
    options = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    mounts = ["--volume", f"{tmp_path}:/work", "--tmpfs", "/tmp"]
    command = ["lakehouse", "trigger", "medallion_etl"]
    engine.run("run", *image._ONCE, "--read-only", *options, *mounts, image.IMAGES["base"], *command)
    from deltalake import DeltaTable

    gold = DeltaTable(str(tmp_path / "lake" / "gold" / "vendas_diarias")).to_pyarrow_table()
    assert sum(gold["linhas"].to_pylist()) == truth.lines - truth.deleted
