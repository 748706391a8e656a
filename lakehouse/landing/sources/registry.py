"""Source systems at work: what is asked of each kind, registered by the declaration's type.

    SourceSystem ─▶ extract(system, work) ─▶ Extraction: what has landed of each of its streams

Here: one function a kind. Not here: how each is asked (`rest_streams.py`, `database.py`, `kafka.py`), how what it delivers lands
exactly once (`extract.py`), retries (the asset's policy).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatch
from pathlib import Path
from typing import Any

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import DeclarationError
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.sources import database_streams, kafka, rest_streams, schemas
from lakehouse.landing.sources.cursors import cursor
from lakehouse.landing.sources.extract import Landed
from lakehouse.landing.sources.window import Window
from lakehouse.tables.spec import Database, KafkaTopic, RestApi, SourceSystem


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one extraction has to work with. The caller has the lock of every stream's folder.

    Args:
        declared: the system as it is declared, which knows what its settings are called.
        sample: the URL stands in for one that is not set, and is another every time.
        cache: the system's folder of this machine for what may be used again.
        deadline: `time.monotonic()` by which it ends.
        window: what a person asked for instead of what is new.
        target: the folder in which its one stream lands instead of its own; empty for its own.
    """

    storage: Storage
    session: DuckDBSession
    declared: SourceSystem
    sample: bool
    cache: str
    deadline: float
    window: Window = field(default_factory=Window)
    target: str = ""

    @property
    def setting(self) -> str:
        """What messages call the system's URL."""
        return self.declared.address

    def since(self, landed: list[LandedFile]) -> datetime | None:
        """From when on a stream with these landed files is asked; None for everything."""
        return self.window.begin(cursor(landed), overlap=self.declared.overlap)

    def scratch(self, folder: str) -> Path:
        """A new folder of this machine for one stream's files, which the session may read."""
        made = Path(self.session.folder, "staged", folder)
        made.mkdir(parents=True)
        return made


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What an extraction left in landing, by stream; `metadata` is the kind's own."""

    streams: Mapping[str, Landed]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@singledispatch
def extract(system: SourceSystem, work: Work) -> Extraction:
    """Ask a source system for what is new, and land it.

    Args:
        system: with the values of its settings.

    Raises:
        DeclarationError: nothing is registered for systems of this type.
        SourceDownError: worth another try; SourceRefusedError: not.
    """
    raise DeclarationError(
        f"Source systems of the type {type(system).__name__} are declared, and nothing asks them.",
        remedy="Register a function for it in lakehouse/landing/sources/registry.py.",
    )


@extract.register
def _rest(system: RestApi, work: Work) -> Extraction:
    found, metadata = rest_streams.take(system, work)
    return Extraction(streams=found, metadata=metadata)


@extract.register
def _database(system: Database, work: Work) -> Extraction:
    found = database_streams.take(system, work)
    return Extraction(streams=found, metadata={"source": ", ".join(found)})


@extract.register
def _kafka(system: KafkaTopic, work: Work) -> Extraction:
    limit = system.max_seconds if system.max_seconds is not None else 0.8 * system.timeout.total_seconds()
    with schemas.decoder(system, work.declared, deadline=work.deadline) as decode:
        topic = kafka.topic_of(system, setting=work.setting, decode=decode, shared=not work.target)
        taken = kafka.take(topic, work.storage, work.scratch(topic.folder), stop=min(work.deadline, time.monotonic() + limit))
    positions = {str(number): at for number, at in taken.positions.items()}
    figures = {"epoch": taken.epoch, "behind": taken.behind, "lost": taken.lost, "committed": taken.committed}
    return Extraction(
        streams={system.name: taken.landed},
        metadata={"source": f"{topic.name} at {topic.bootstrap}", "cursor": positions, **figures},
    )
