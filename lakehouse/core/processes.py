"""Processes by their ids, from Linux's /proc: who lives, who descends from whom, how all of them are ended, which port is free.
Also how often this process looks for garbage, by how long it lives.

Standard library only: `deploy/stack/` uses it too. A process is known by its id and by when it started, which tells it from
a later one that got the same number.
"""

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Seconds that those have who are told to end after the one that began them has not passed it on.
_REST_SECONDS = 5.0
_PYTHONS_GARBAGE = gc.get_threshold()


def short_lived() -> None:
    """Look for garbage rarely: imports make hundreds of thousands of objects that stay, and looking is a tenth of a short run."""
    gc.set_threshold(100_000, 50, 100)


def long_lived() -> None:
    """Python's own garbage collection again: what suits a short command would let a server grow."""
    gc.set_threshold(*_PYTHONS_GARBAGE)


def why_taken(port: int) -> str:
    """Why nothing can listen on a port of 127.0.0.1; empty when something can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    return ""


def alive() -> dict[int, tuple[int, int]]:
    """Every live process: its parent, and when it started in ticks since boot."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if fields[0] not in "ZX":
            found[int(stat.parent.name)] = (int(fields[1]), int(fields[19]))
    return found


def family(started: Mapping[int, int]) -> dict[int, int]:
    """Of the processes that were started, those that live, and their descendants: `{id: when it started}`."""
    living = alive()
    members = {pid: start for pid, start in started.items() if pid in living and living[pid][1] == start}
    while more := {pid: start for pid, (parent, start) in living.items() if parent in members and pid not in members}:
        members |= more
    return members


def adopt_orphans() -> None:
    """Let descendants of this process whose parent ends become its own children, so that `family` still finds them."""
    import ctypes

    subreaper = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
    if ctypes.CDLL(None, use_errno=True).prctl(subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "This kernel does not let a process adopt orphans (prctl)")


def end(started: Mapping[int, int], *, leaders: Iterable[int], patience: float, ask: signal.Signals = signal.SIGTERM) -> int:
    """End processes and their descendants; how many there were. None of them is left.

    Args:
        leaders: they are asked first, and have `patience` seconds to end what they began. What is left then is asked itself,
            and killed after five seconds more.
        ask: the signal by which the leaders are asked.
    """
    members = family(started)
    count = len(members)
    if first := [pid for pid in leaders if pid in members]:
        _tell(first, ask)
        members = _wait(members, until_gone=first, seconds=patience)
    _tell(members, signal.SIGTERM)
    members = _wait(members, until_gone=members, seconds=_REST_SECONDS)
    while members:
        _tell(members, signal.SIGKILL)
        time.sleep(0.2)
        members = family(members)
    return count


def _wait(members: Mapping[int, int], *, until_gone: Iterable[int], seconds: float) -> dict[int, int]:
    awaited, deadline = set(until_gone), time.monotonic() + seconds
    left = family(members)
    while awaited & set(left) and time.monotonic() < deadline:
        time.sleep(0.2)
        left = family(left)
    return left


def _tell(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, number)
