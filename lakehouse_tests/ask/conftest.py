"""A small lake with a table that has a personal column, and connections to it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from lakehouse.ask.catalogue import Catalogue, catalogue_of
from lakehouse.ask.connection import LakeConnection
from lakehouse.settings import Settings
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Filled, Lake

PESSOAS = TableSpec(
    name="pessoas",
    source=AirbyteStream("pessoas"),
    columns=(
        Column("id", "bigint"),
        Column("nome", "string", personal=True),
        Column("idade", "bigint", personal=True),
        Column("cidade", "string"),
        Column("em", "timestamp"),
    ),
    key=("id",),
    order=("em",),
)
#: As it was declared later: with a column that no file has yet.
WIDER = replace(PESSOAS, columns=(*PESSOAS.columns, Column("bairro", "string")))
PEOPLE = [
    {"id": 1, "nome": "Ana", "idade": 30, "cidade": "Rio", "em": "2026-01-01T00:00:00Z"},
    {"id": 2, "nome": None, "idade": None, "cidade": "Niterói", "em": "2026-01-01T00:00:00Z"},
]

Connect = Callable[..., LakeConnection]


def two_people(lake: Lake) -> None:
    lake.land("pessoas", "a", [*PEOPLE, {"id": "no number", "nome": "Bia", "em": "2026-01-01T00:00:00Z"}])
    lake.run(PESSOAS)


@pytest.fixture
def people(lake: Lake, fill_once: Filled) -> Lake:
    return fill_once(lake, two_people)


@pytest.fixture
def catalogue(people: Lake, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setattr("lakehouse.settings.settings.ALL", (PESSOAS,))
    root = people.storage.root
    return catalogue_of(Settings(root=root, landing_dir=people.storage.landing, memory_limit="500MB"))


@pytest.fixture
def connect(catalogue: Catalogue) -> Iterator[Connect]:
    """Connections to the lake, with the arguments of `LakeConnection`; closed with the test."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(LakeConnection(catalogue, **given))
