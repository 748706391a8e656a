"""Deadlines: a call that must not take longer than so many seconds, whatever it hangs in.

A thread is enough where the call gives up the interpreter while it waits. delta-rs holds it while it waits for an object
store, so that is called in a process of its own, which is killed.
"""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from lakehouse.core.errors import LakehouseError

T = TypeVar("T")


class TooLateError(LakehouseError):
    """A call did not end within its time; it was abandoned."""


def within(seconds: float, call: Callable[[], T], *, what: str) -> T:
    """The result of the call, or its error, or after so many seconds `TooLateError`; then its thread is left to itself."""
    return side_by_side({what: call}, seconds=seconds)[what]()


def side_by_side(calls: Mapping[str, Callable[[], T]], *, seconds: float) -> dict[str, Callable[[], T]]:
    """Make all calls at once and wait `seconds` for all together. Each outcome is a function that returns or raises it."""
    done: queue.Queue[tuple[str, Callable[[], T]]] = queue.Queue()

    def work(name: str, call: Callable[[], T]) -> None:
        try:
            value = call()
        except Exception as caught:  # noqa: BLE001 - it is the outcome, and raised where that is asked for
            error = caught
            done.put((name, lambda: _raise(error)))
        else:
            done.put((name, lambda: value))

    for name, call in calls.items():
        threading.Thread(target=work, args=(name, call), daemon=True, name=f"probe {name}").start()

    deadline = time.monotonic() + seconds
    out: dict[str, Callable[[], T]] = {}
    while len(out) < len(calls):
        try:
            name, outcome = done.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            break
        out[name] = outcome
    late = TooLateError(f"There was no answer within {seconds:g} s.", remedy="Look at it: it takes connections and hangs.")
    return {name: out.get(name, lambda: _raise(late)) for name in calls}


def in_process(module: str, document: str, *, seconds: float) -> str:
    """What `python -m module` prints when it is given this text; the process is killed after so many seconds.

    Raises:
        TooLateError: it was.
        LakehouseError: it failed; the message is the last line of what it said.
    """
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(command, input=document, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise TooLateError(f"There was no answer within {seconds:g} s.", remedy="Look whether the store answers.") from None
    if done.returncode:
        reported = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LakehouseError(f"The process that looked at the tables failed: {reported}.", remedy="Run it again.")
    return done.stdout


def _raise(error: Exception) -> T:  # type: ignore[type-var]
    raise error
