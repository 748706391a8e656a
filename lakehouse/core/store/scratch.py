"""Scratch: a folder of this machine that goes with the work that it was made for."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lakehouse.core.errors import BusyError
from lakehouse.core.store.storage import lock


@contextmanager
def scratch(spill: str) -> Iterator[str]:
    """A folder below `spill` that goes with the block. What killed processes left there goes first: nobody holds it."""
    with ExitStack() as stack:
        with lock(spill):  # so that nobody takes a folder for abandoned between its making and its lock
            for left in Path(spill).iterdir():
                with suppress(BusyError), lock(str(left), wait=0):
                    shutil.rmtree(left, ignore_errors=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=spill, ignore_cleanup_errors=True))
            stack.enter_context(lock(folder))
        yield folder
