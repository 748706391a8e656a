"""What a part of the stack is, and what the modules of the parts share: folders, questions over HTTP, commands."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

Env = Mapping[str, str]


class StackError(Exception):
    """What is wrong, and what to do about it."""


def _nothing(home: Path, env: Env) -> None:
    """A part that needs nothing before it starts."""


def _no_values(home: Path, env: Env) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Part:
    """One part of the stack.

    Args:
        processes: its lines of the Procfile.
        ports: the variables of its ports, without `STACK_` and `_PORT`; the first process listens on them.
        answers: whether it serves.
        patience: seconds that it may take to answer, from its start.
        stop: the signal that asks its processes to end.
        children_stay: what its processes began goes on after their end.
        prepare: what is done before it starts, once; the part's folder is below the first argument.
        needs: the parts that run before it.
        settings: variables of the stack's processes that follow from the environment file, whether the part runs or not.
        offers: variables that lead whoever uses the stack to the part, when it runs.
        lacks: what this machine does not have for it: program or module, and what delivers it.
        packages: Debian's packages for programs of that name, when these are not there.
        fetch: gets what no package of Debian delivers.
    """

    processes: tuple[str, ...]
    ports: tuple[str, ...]
    answers: Callable[[Env], bool]
    patience: int = 120
    stop: signal.Signals = signal.SIGTERM
    children_stay: bool = False
    prepare: Callable[[Path, Env], None] = _nothing
    needs: tuple[str, ...] = ()
    settings: Callable[[Path, Env], dict[str, str]] = _no_values
    offers: Callable[[Env], dict[str, str]] = lambda env: {}
    lacks: Callable[[], dict[str, str]] = dict
    packages: Callable[[], Mapping[str, str]] = dict
    fetch: Callable[[], None] = lambda: None


def default_home() -> Path:
    return Path(os.environ.get("STACK_HOME") or PROJECT / ".stack").absolute()


def tools() -> Path:
    return Path(os.environ.get("STACK_TOOLS") or PROJECT / ".stack" / "tools").absolute()


def run(command: Sequence[str], *, stdin: str | None = None) -> str:
    """What a command prints.

    Raises:
        StackError: it failed; the message holds the end of what it wrote.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise StackError(f"{' '.join(command[:8])} failed: {' '.join(last)}")
    return done.stdout


def get(url: str, *, body: object = None) -> str | None:
    """The answer to a request, None when there is none."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return str(reply.read().decode())
    except (OSError, ValueError, HTTPException):
        return None


def absent(programs: Mapping[str, str]) -> dict[str, str]:
    """Those of `{program or its path: what delivers it}` that are not there."""
    return {name: package for name, package in programs.items() if not (shutil.which(name) or Path(name).exists())}


def absent_module(module: str) -> dict[str, str]:
    return {} if importlib.util.find_spec(module) else {f"python module {module}": "an extra of pyproject.toml"}
