"""The dashboard as a person sees it: served by its own command, in headless Chromium, wide and narrow, light and dark.

`LAKEHOUSE_SCREENSHOTS=<folder> make test-browser` keeps what the pages looked like.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lakehouse.dashboard.pages.app import PAGES
from lakehouse.observability import routing
from lakehouse.reports.page import PALETTE
from lakehouse_tests.conftest import with_parent

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
SIZES = {"desktop": (1400, 1000), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(filled, tmp_path_factory):
    """Where the dashboard of the small lake is."""
    work = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "LAKEHOUSE_ROOT": filled.storage.root, "LAKEHOUSE_LANDING": "", "DAGSTER_HOME": str(work)}
    command = with_parent(sys.executable, "-m", "lakehouse", "dashboard", "--port", str(port))
    server = subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline and server.poll() is None, "no dashboard"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_every_page_fits_asks_nobody_else_and_has_the_colours_of_the_theme(browser, address, size, scheme):
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    try:
        for _, title, _, path in PAGES:
            page.goto(f"{address}/{path}")
            page.locator("h1", has_text=title).wait_for()
            page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
            page.locator("[data-testid=stHtml]").first.wait_for()
            assert page.locator("[data-testid=stException]").count() == 0, title
            main = page.locator("[data-testid=stMain]")
            assert main.evaluate("it => it.scrollWidth <= it.clientWidth"), title
            shown = page.locator(f".lh img.{'wide' if size == 'desktop' else 'narrow'}")
            if path in ("vendas", "brt", "modelos"):
                shown.first.wait_for()
                assert shown.first.evaluate("it => it.complete && it.naturalWidth > 0"), title
            red, green, blue = (int(PALETTE["paper"][scheme == "dark"][at : at + 2], 16) for at in (1, 3, 5))
            background = page.locator("[data-testid=stApp]").evaluate("it => getComputedStyle(it).backgroundColor")
            assert background == f"rgb({red}, {green}, {blue})"
            _save(page, f"dashboard-{path or 'visao'}-{size}-{scheme}")
        assert {url for url in asked if not url.startswith((address, "ws://127.0.0.1", "data:", "blob:"))} == set()
        assert dialogs == []
    finally:
        page.close()


def test_a_silence_is_typed_on_a_phone_and_stored(browser, address, filled):
    page = browser.new_page(viewport={"width": 390, "height": 844}, locale="pt-BR")
    page.set_default_timeout(60_000)
    try:
        page.goto(f"{address}/alertas")
        page.get_by_role("textbox", name="Chave").fill("check:silver/vendas:*")
        page.get_by_role("textbox", name="Motivo").fill("recarga")
        page.get_by_role("button", name="Silenciar").click()
        page.get_by_text("incidentes abertos que ele cala: 1").wait_for()
        (silence,) = routing.load(filled.storage).silences
        assert (silence.keys, silence.reason) == ("check:silver/vendas:*", "recarga")
        page.get_by_text("em silêncio").first.wait_for()
    finally:
        page.close()


def _save(page, name: str) -> None:
    folder = os.environ.get("LAKEHOUSE_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
