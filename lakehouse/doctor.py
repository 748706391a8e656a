"""`make doctor`: is everything that the settings name there, and does it keep what the lake relies on?"""

import shutil
import sys
from pathlib import Path

from lakehouse.core import files
from lakehouse.core.doctor import probe
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import LAYERS
from lakehouse.settings import load_settings


def examine() -> int:
    """Print a line per part; 1 when one is not as it must be."""
    settings = load_settings()
    places = {"LAKEHOUSE_ROOT": settings.storage.root}
    places |= {
        f"LAKEHOUSE_{name.upper()}_ROOT": settings.storage.layers[name] for name in LAYERS if name in settings.storage.layers
    }
    wrong = 0
    for setting, place in places.items():
        try:
            print(f"ok     {setting} {place}: {probe(place)}")
        except LakehouseError as error:
            wrong += 1
            print(f"WRONG  {setting} {error}", file=sys.stderr)
    try:
        landed = len(files.listing(f"{settings.landing}/raw", below=True))
        print(f"{'ok   ' if landed else 'empty'}  LAKEHOUSE_LANDING {settings.landing}/raw: {landed:,} files")
    except LakehouseError as error:
        wrong += 1
        print(f"WRONG  LAKEHOUSE_LANDING {error}", file=sys.stderr)
    spill = Path(settings.spill)
    spill.mkdir(parents=True, exist_ok=True)
    print(f"ok     {spill}: {shutil.disk_usage(spill).free / 1e9:,.1f} GB free for what does not fit in memory")
    print(f"ok     engine {settings.engine}, memory limit {settings.memory_bound}")
    return int(bool(wrong))
