"""A layer of another commit is loaded in the way that the commit has, and what breaks in it is reported."""

import sys

import pytest

import lakehouse
from lakehouse.commands.impact.describe import _layer
from lakehouse.settings import Settings

BUILD = "import dagster as dg\n\n\ndef build_defs(settings):\n    return dg.Definitions()\n"


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package `lakehouse.room`."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.setattr(lakehouse, "__path__", [*lakehouse.__path__, str(tmp_path)])
    yield folder
    for name in [name for name in sys.modules if name.startswith("lakehouse.room")]:
        del sys.modules[name]


@pytest.mark.parametrize("module", ["defs", "__init__"])
def test_a_layer_has_its_definitions_in_defs_and_earlier_in_itself(room, module):
    (room / f"{module}.py").write_text(BUILD)
    layers = []
    _layer("room", Settings(), layers)
    assert len(layers) == 1


@pytest.mark.parametrize("missing", ["not_installed", "lakehouse.room.assets"])
def test_a_module_that_the_definitions_lack_is_named(room, missing):
    (room / "__init__.py").write_text(BUILD)
    (room / "defs.py").write_text(f"import {missing}\n")
    with pytest.raises(ModuleNotFoundError, match=missing):
        _layer("room", Settings(), [])
