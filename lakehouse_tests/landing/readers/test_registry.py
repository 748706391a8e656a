"""Every declared type of source has its function, and what has none is refused before anything is read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from lakehouse.core.errors import DeclarationError
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing import sensor
from lakehouse.landing.readers.registry import landing, owned
from lakehouse.settings import Settings
from lakehouse.tables.spec import AirbyteStream, Column, DeltaSource, PlainFiles, Source, TableSpec
from lakehouse_tests.conftest import Lake


@dataclass(frozen=True)
class Fax(Source):
    name: str

    @property
    def asset(self) -> str:
        return self.name


def spec(source: Source) -> TableSpec:
    return TableSpec(name="itens", source=source, columns=(Column("id", "bigint"),), key=("id",), order=("id",))


def test_the_registered_types_are_those_that_are_declared() -> None:
    declared = {kind for kind in Source.__subclasses__() if kind.__module__ == Source.__module__}
    assert set(landing.registry) - {object} == declared == {AirbyteStream, DeltaSource, PlainFiles}


def test_a_type_that_nothing_reads_is_refused_when_definitions_load(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.landing import defs

    monkeypatch.setattr(defs, "parts", lambda: (spec(Fax("fax")),))
    with pytest.raises(DeclarationError, match=r"type Fax are declared.+Register a function"):
        defs.build_defs(Settings(root=str(lake.folder)))


def test_only_files_below_landing_are_this_lakes(lake: Lake) -> None:
    path = lake.land("itens", "a", [{"id": 1}])
    assert [file.path for file in owned(AirbyteStream("itens"), lake.storage)] == [f"raw/itens/{path.name}"]
    assert owned(DeltaSource(str(lake.folder / "outro"), "outro"), lake.storage) == []


def test_the_sensors_cursor_is_that_of_earlier_versions(lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another digest of the same files would ask for a run that has nothing to do, in every installation."""
    pedidos, brt = spec(AirbyteStream("pedidos")), spec(AirbyteStream("brt", made_by="brt_csv"))
    itens = (spec(AirbyteStream("itens", folder="loja/itens")), spec(AirbyteStream("outro", folder="loja/itens")))
    monkeypatch.setattr(sensor, "parts", lambda: (pedidos, brt, *itens))
    settings = Settings(root=str(lake.folder / "lake"), landing_dir=str(lake.folder / "landing"))
    for stream in ("pedidos", "brt", "loja/itens"):
        lake.land(stream, "a", [{"id": 1}])
    settings.storage.complete("pedidos", 3)
    expected = hashlib.sha256()
    for folder, generation in (("loja/itens", 0), ("pedidos", 3)):
        expected.update(f"{folder}\x00{generation}\n".encode())
        for file in settings.storage.landed(folder):
            assert isinstance(file, LandedFile)
            expected.update(f"{file.path}\x00{file.version}\n".encode())
    assert sensor.listing_digest(settings) == (expected.hexdigest()[:32], 2)
