"""Starting and stopping the parts. Processes are known by their ids and by when they started, kept in `pids.json`."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.stack.environment import environment
from deploy.stack.part import PROJECT, Env, StackError
from deploy.stack.parts import PARTS, chosen, missing
from lakehouse.core.processes import alive, end, family, why_taken

ANSWER_SECONDS = 120  # a cold start of everything takes 40 s on two cores
STOP_SECONDS = 20  # honcho kills after 5 s what does not stop when asked


def up(home: Path, names: Sequence[str] = (), *, outlive: bool = True) -> dict[str, str]:
    """Start the parts and what they need; return their environment when every one answers.

    Args:
        outlive: they go on when this process ends; otherwise they are stopped then, however it ends (on Linux).

    Raises:
        StackError: something is missing, a port is taken, or a part does not answer; what was started is stopped again.
    """
    parts = chosen(names)
    if family(_recorded(home)):
        raise StackError("The stack runs already: make stack-status says what answers, make stack-down stops it.")
    if lacks := missing(parts):
        listed = ", ".join(f"{program} ({package})" for program, package in lacks.items())
        raise StackError(f"Missing: {listed}. Run make stack-install.")
    env = environment(home, parts)
    for port in [port for part in parts for port in PARTS[part].ports]:
        _refuse_taken(f"STACK_{port}_PORT", int(env[f"STACK_{port}_PORT"]), home)
    (home / "log").mkdir(parents=True, exist_ok=True)
    for part in parts:
        PARTS[part].prepare(home, env)
    env["STACK_STARTED"] = str(time.time())
    processes = [process for part in parts for process in PARTS[part].processes]
    honcho = [sys.executable, "-m", "honcho", "start", "--no-colour", "-d", str(PROJECT), "-f", "deploy/Procfile"]
    with (home / "log" / "honcho.log").open("w") as log:
        process = subprocess.Popen(
            [*_ends_with_parent(outlive=outlive), *honcho, "-e", str(home / "env"), *processes],
            cwd=PROJECT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    own = alive()[process.pid][1]
    (home / "pids.json").write_text(json.dumps({process.pid: own}))
    try:
        wait(home, parts, env, ended=lambda: process.poll() is not None)
    except BaseException:
        down(home)
        raise
    (home / "pids.json").write_text(json.dumps(family({process.pid: own})))
    (home / "parts").write_text(" ".join(parts))
    return env


def _ends_with_parent(*, outlive: bool) -> list[str]:
    """The kernel tells honcho, which stops its children."""
    return [] if outlive or not shutil.which("setpriv") else ["setpriv", "--pdeathsig", "TERM"]


def _refuse_taken(variable: str, port: int, home: Path) -> None:
    if why_taken(port):
        raise StackError(f"Port {port} is taken: set another {variable} in {home}/env.")


def wait(home: Path, parts: Sequence[str], env: Env, *, ended: Callable[[], bool] = lambda: False) -> None:
    """Return when every one of the parts answers.

    Raises:
        StackError: a part does not answer in time, or `ended` says that a process did.
    """
    began, waiting = time.monotonic(), list(parts)
    while True:
        for part in list(waiting):
            if PARTS[part].answers(env):
                waiting.remove(part)
                print(f"{part:10} answers after {time.monotonic() - began:.1f} s", flush=True)
        if not waiting:
            return
        if ended() or time.monotonic() - began > ANSWER_SECONDS:
            if ended():
                raise StackError(_first_ended(home))
            logs = [f"{home}/log/{process}.log" for part in waiting for process in PARTS[part].processes]
            raise StackError(f"No answer within {ANSWER_SECONDS} s from {', '.join(waiting)}. Read {', '.join(logs)}.")
        time.sleep(0.5)


def _first_ended(home: Path) -> str:
    """honcho stops everything when one process ends, and says which one was the first."""
    log = home / "log" / "honcho.log"
    found = re.search(r"\| (\S+)\.1 stopped \(rc=(-?\d+)\)", log.read_text())
    if not found:
        return f"The stack ended. Read {log}."
    return f"{found[1]} ended with exit code {found[2]}, which stops all. Read {home}/log/{found[1]}.log."


def down(home: Path) -> int:
    """Stop what `up` started; how many processes there were. None of them is left."""
    recorded = _recorded(home)
    # honcho passes it on to its children's groups; without it they are told one by one
    count = end(recorded, leaders=list(recorded)[:1], patience=STOP_SECONDS)
    for name in ("pids.json", "parts"):
        (home / name).unlink(missing_ok=True)
    return count


def started(home: Path) -> list[str]:
    """The parts that `up` started."""
    return (home / "parts").read_text().split() if (home / "parts").exists() else []


def status(home: Path) -> bool:
    """Print which part answers; whether all do that were started."""
    parts = started(home)
    if not parts or not family(_recorded(home)):
        print("the stack is down")
        return False
    env = environment(home, parts)
    answers = {part: PARTS[part].answers(env) for part in parts}
    for part, good in answers.items():
        ports = ", ".join(env[f"STACK_{port}_PORT"] for port in PARTS[part].ports)
        print(f"{part:10} {'answers' if good else 'DOES NOT ANSWER':16} 127.0.0.1:{ports}")
    return all(answers.values())


def _recorded(home: Path) -> dict[int, int]:
    file = home / "pids.json"
    return {int(pid): start for pid, start in json.loads(file.read_text()).items()} if file.exists() else {}
