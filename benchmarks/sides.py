"""The command of a case whose sides read the same input: `make <input> <rows>`, or `ours|bare <input> <folder>`."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

Side = Callable[[str, Path], dict[str, object]]


def command(arguments: Sequence[str], *, make: Callable[[str, int], None], ours: Side, bare: Side) -> int:
    """Make the input, or do one side in an empty folder and print what it was as JSON."""
    what, source, more = arguments
    if what == "make":
        make(source, int(more))
        return 0
    folder = Path(more)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(json.dumps({"ours": ours, "bare": bare}[what](source, folder)))
    return 0
