"""The UI as a person uses it: `dagster dev` on a small sample, driven in headless Chromium.

`LAKEHOUSE_SCREENSHOTS=<folder> make test-browser` keeps what the pages looked like.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lakehouse.sample.landing import write_sample_landing

pytestmark = pytest.mark.browser
PROJECT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """The address of a UI over a small, already materialised sample lake."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    work = tmp_path_factory.mktemp("ui")
    home = work / "dagster"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    write_sample_landing(work / "lake" / "landing", lines=5_000)
    environment = {**os.environ, "LAKEHOUSE_ROOT": str(work / "lake"), "DAGSTER_HOME": str(home), "LAKEHOUSE_LANDING": ""}
    subprocess.run([sys.executable, "-m", "lakehouse", "trigger", "medallion_etl"], cwd=PROJECT, env=environment, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dagster = Path(sys.executable).with_name("dagster")
    # Not in the project's folder: what its .env says would go before this environment.
    server = subprocess.Popen(
        [dagster, "dev", "-m", "lakehouse.definitions", "--host", "127.0.0.1", "--port", str(port)], cwd=work, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def page(ui):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def test_the_graph_shows_the_subjects_as_groups(page, ui):
    page.goto(f"{ui}/asset-groups/")
    for group in ("vendas", "pedidos", "brt", "ml", "ops"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.keyboard.press("Alt+e")
    _save(page, "graph")


def test_the_smoke_test_of_a_release_finds_this_ui_well(ui):
    command = [sys.executable, str(PROJECT / "deploy" / "smoke.py"), ui, "--wait", "120"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{ui} is well.\n"), done.stderr


def test_every_rule_of_a_table_is_a_check_with_a_result(page, ui):
    page.goto(f"{ui}/assets/silver/vendas?view=checks")
    page.get_by_text("Checks (16)").wait_for()
    page.get_by_text("not_null_descricao").first.wait_for()
    page.get_by_text("Succeeded").first.wait_for()
    _save(page, "checks")


def test_a_table_materialised_from_the_ui_appears_as_a_successful_run(page, ui):
    page.goto(f"{ui}/runs")
    page.get_by_text("medallion_etl").first.wait_for()
    page.goto(f"{ui}/assets/gold/vendas_diarias")
    page.get_by_text("Materialize", exact=True).first.click()
    page.get_by_text("Starting run").or_(page.get_by_text("Launched run")).first.wait_for()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        page.goto(f"{ui}/runs")
        page.get_by_text("Success").first.wait_for()
        row = page.locator("text=vendas_diarias")
        if row.count() and not page.get_by_text("In progress (1)").count() and page.get_by_text("Success").count() >= 2:
            break
        time.sleep(2)
    else:
        pytest.fail("the run did not end in success")
    _save(page, "runs")


def test_the_report_is_previewed_on_its_asset(page, ui):
    page.goto(f"{ui}/assets/reports/vendas")
    page.get_by_text("preview").first.wait_for()
    page.get_by_text("2017-01").first.wait_for()
    _save(page, "report")


def _save(page, name: str) -> None:
    folder = os.environ.get("LAKEHOUSE_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/server_info", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"no UI at {address} after two minutes")
