"""A lease on a table in an object store, where there are no locks that end with a process.

An object next to the table says who works on it. Its holder writes it again every few seconds; who waits takes it over when it
has not changed for a while, by the waiter's own clock, so clocks need not agree. Every step is a put that fails when somebody
else was first. Like the lock of a folder it saves wasted work and nothing depends on it: what keeps a table right is the
fence in the commit.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lakehouse.core.errors import BusyError, StoreError
from lakehouse.core.store import files

#: Not data to Delta's readers and cleaners: the name begins with an underscore.
NAME = "_lakehouse_lease"
_BEAT, _DEAD = 5.0, 20.0


@contextmanager
def lease(folder: str, *, wait: float) -> Iterator[None]:
    """Hold a table's lease for the block.

    Raises:
        BusyError: another process still held it after `wait` seconds.
        StoreError: the store does not answer, or refuses.
    """
    uri = f"{folder}/{NAME}"
    me = {"id": uuid.uuid4().hex, "process": os.getpid(), "host": socket.gethostname()}
    tag = _take(uri, me, wait=wait)
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(uri, me, tag, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        # Not when it was taken over meanwhile. Between this look and the removal it may be, which costs the other its courtesy.
        with suppress(FileNotFoundError, StoreError):
            if json.loads(files.read(uri)).get("id") == me["id"]:
                files.remove([uri])


def _take(uri: str, me: dict[str, object], *, wait: float) -> str:
    deadline = time.monotonic() + wait
    seen, since = "", time.monotonic()
    while True:
        if (tag := files.put_if(uri, _content(me), tag=None)) is not None:
            return tag
        with suppress(FileNotFoundError):
            found = files.tag(uri)
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > _DEAD and (tag := files.put_if(uri, _content(me), tag=seen)) is not None:
                return tag
        if time.monotonic() > deadline:
            raise BusyError(
                f"{uri.rpartition('/')[0]} is being written by another run{_owner(uri)}; waited {wait:.0f} s.",
                remedy="Wait for that run to end, or end it, and start this one again.",
            )
        time.sleep(0.2)


def _renew(uri: str, me: dict[str, object], tag: str, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(StoreError, FileNotFoundError):  # it may answer at the next beat
            renewed = files.put_if(uri, _content(me), tag=tag)
            if renewed is None:  # taken over
                return
            tag = renewed


def _content(me: dict[str, object]) -> bytes:
    return json.dumps({**me, "at": time.time()}).encode()


def _owner(uri: str) -> str:
    with suppress(FileNotFoundError, StoreError, ValueError):
        owner = json.loads(files.read(uri))
        return f" (process {owner['process']} on {owner['host']})"
    return ""
