"""`make materialize SELECT='*'` over an empty lake while sources do not answer: it ends by itself, and names what failed."""

import shutil
import signal
from collections.abc import Iterator
from itertools import combinations

import pytest

from lakehouse.commands import foreground
from lakehouse.settings import project_folder
from lakehouse_tests.conftest import few

NOBODY = "127.0.0.1:9"
SOURCES = {
    "brt": {"LAKEHOUSE_BRT_URL": f"http://{NOBODY}/gps"},
    "api": {"LAKEHOUSE_PEDIDOS_API_URL": f"http://{NOBODY}", "LAKEHOUSE_PEDIDOS_API_RETRIES": "0"},
    "database": {"LAKEHOUSE_PEDIDOS_DB_URL": f"postgresql://u:p@{NOBODY}/x"},
    "driver": {"LAKEHOUSE_PEDIDOS_DB_URL": f"mysql://u:p@{NOBODY}/x"},  # whose client is not installed
}
PAIRS = [pair for pair in combinations(SOURCES, 2) if pair != ("database", "driver")]


@pytest.fixture
def bounded() -> Iterator[None]:
    """A run that never ends fails the test. Dagster notes ^C and SIGTERM for later, but not this signal."""

    def over(*_: object) -> None:
        raise TimeoutError("The run did not end by itself.")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(180)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.stack
@pytest.mark.parametrize("pair", few(PAIRS, PAIRS[0], PAIRS[-1]), ids="-".join)
def test_with_two_sources_down_the_whole_graph_ends_and_what_failed_is_named(pair, tmp_path, monkeypatch, capsys, bounded):
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(project_folder() / "dagster.yaml", home)
    for name, value in {"DAGSTER_HOME": str(home), "LAKEHOUSE_ROOT": str(tmp_path / "lake")}.items():
        monkeypatch.setenv(name, value)
    for source in pair:
        for name, value in SOURCES[source].items():
            monkeypatch.setenv(name, value)
    assert foreground.materialize("*") == 1
    reported = capsys.readouterr().err
    named = {"brt": "brt_captura", "api": "pedidos_api", "database": "pedidos_db", "driver": "pedidos_db"}
    assert all(f"landing/{named[source]}" in reported or f"landing__{named[source]}" in reported for source in pair)
