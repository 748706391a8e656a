"""`make doctor`: is everything that the settings name there, and does it keep what the lake relies on?"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lakehouse.core import files
from lakehouse.core.doctor import probe
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import LAYERS
from lakehouse.settings import Settings, load_settings


@dataclass(frozen=True)
class Finding:
    """What was found of one part. `empty` and `note` are no fault; `WRONG` is one."""

    state: Literal["ok", "empty", "note", "WRONG"]
    said: str

    @property
    def line(self) -> str:
        return f"{self.state:6} {self.said}"


def examine() -> int:
    """Print a line per part; 1 when one is not as it must be."""
    return shown(places(load_settings()))


def shown(found: Iterator[Finding]) -> int:
    """Print findings as they come, faults to stderr; 1 when there was one."""
    wrong = 0
    for finding in found:
        fault = finding.state == "WRONG"
        print(finding.line, file=sys.stderr if fault else sys.stdout)
        wrong += fault
    return int(bool(wrong))


def places(settings: Settings) -> Iterator[Finding]:
    """The places of the lake, of landed files, of what does not fit in memory; and the engine."""
    named = {"LAKEHOUSE_ROOT": settings.storage.root}
    named |= {
        f"LAKEHOUSE_{name.upper()}_ROOT": settings.storage.layers[name] for name in LAYERS if name in settings.storage.layers
    }
    for setting, place in named.items():
        try:
            yield Finding("ok", f"{setting} {place}: {probe(place)}")
        except LakehouseError as error:
            yield Finding("WRONG", f"{setting} {error}")
    try:
        landed = len(files.listing(f"{settings.landing}/raw", below=True))
        yield Finding("ok" if landed else "empty", f"LAKEHOUSE_LANDING {settings.landing}/raw: {landed:,} files")
    except LakehouseError as error:
        yield Finding("WRONG", f"LAKEHOUSE_LANDING {error}")
    spill = Path(settings.spill)
    try:
        spill.mkdir(parents=True, exist_ok=True)
        yield Finding("ok", f"{spill}: {shutil.disk_usage(spill).free / 1e9:,.1f} GB free for what does not fit in memory")
    except OSError as error:
        yield Finding("WRONG", f"{spill} cannot be made: {error.strerror}. Mend its permissions, or set LAKEHOUSE_ROOT.")
    yield Finding("ok", f"engine {settings.engine}, memory limit {settings.memory_bound}")
