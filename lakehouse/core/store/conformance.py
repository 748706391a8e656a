"""Does a place keep what the lake relies on? In an object store: that of several puts of one new object just one succeeds.

Delta's commits are such puts. A store that lets the second one replace the first loses acknowledged commits without a word
(`rclone serve s3` did up to 1.70: 7 of 49 in an experiment), so tables are not begun there.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from lakehouse.core.errors import LakehouseError, StoreError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files

_ROUNDS, _WRITERS = 5, 8


@cache
def check_store(bucket: str) -> None:
    """Probe a bucket, once per process. A place on this machine needs no probe.

    Raises:
        StoreError: two puts of one object both succeeded; or the store does not answer, or refuses.
    """
    probe(bucket)


def probe(location: str) -> str:
    """Write, read and remove below a place, and say what was found.

    Raises:
        StoreError: as `check_store`.
        LakehouseError: the folder cannot be written.
    """
    if not is_remote(location):
        return _probe_folder(location)
    folder = f"{location.rstrip('/')}/_lakehouse_probe_{uuid.uuid4().hex}"
    names = [f"{folder}/{number}" for number in range(_ROUNDS + 1)]
    try:
        if not files.put(names[0], b"first", new=True) or files.read(names[0]) != b"first":
            raise StoreError(f"{location} does not give back what was written.", remedy="Look at the store's own log.")
        if files.put(names[0], b"second", new=True) or files.read(names[0]) != b"first":
            raise _unsafe(location, "the second of two puts of one object replaced the first")
        with ThreadPoolExecutor(_WRITERS) as pool:
            for name in names[1:]:
                won = sum(pool.map(lambda number, name=name: files.put(name, b"%d" % number, new=True), range(_WRITERS)))
                if won != 1:
                    raise _unsafe(location, f"of {_WRITERS} puts of one object at once {won} succeeded")
    finally:
        files.remove(names)
    return f"a second put is refused, and of {_WRITERS} at once one wins ({_ROUNDS} rounds)"


def _probe_folder(location: str) -> str:
    name = f"{location.rstrip('/')}/.lakehouse_probe_{uuid.uuid4().hex}"
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"first")
        Path(name).unlink()
    except OSError as error:
        raise LakehouseError(
            f"{location} cannot be written: {error.strerror}.", remedy="Fix its permissions, or set LAKEHOUSE_ROOT."
        ) from error
    return "can be written"


def _unsafe(location: str, what: str) -> StoreError:
    return StoreError(
        f"Tables cannot be kept in {location}: {what}, so commits would be lost.",
        remedy="Upgrade the store to a release with conditional writes (If-None-Match), or use one that has them: Amazon S3, "
        "or versitygw.",
    )
