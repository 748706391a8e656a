"""Starting and stopping the parts. Processes are known by their ids and by when they started, in `pids.json` and `state/`."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.stack.environment import environment
from deploy.stack.part import PROJECT, Env, Part, StackError
from deploy.stack.parts import PARTS, chosen, missing
from deploy.stack.state import State, answers, read_all
from deploy.stack.supervisor import STOP_SECONDS, log_of
from lakehouse.core.processes import alive, end, family

_LOOK_SECONDS = 0.5


def up(home: Path, names: Sequence[str] = (), *, outlive: bool = True) -> dict[str, str]:
    """Start the parts and what they need; return their environment when every one answers.

    Args:
        outlive: they go on when this process ends; otherwise they are stopped then, however it ends (on Linux).

    Raises:
        StackError: something is missing, and nothing was started; or a part does not come up, and the others run.
    """
    parts = chosen(names)
    if family(_recorded(home)):
        raise StackError("The stack runs already: make stack-status says what answers, make stack-down stops it.")
    if lacks := missing(parts):
        listed = ", ".join(f"{program} ({package})" for program, package in lacks.items())
        raise StackError(f"Missing: {listed}. Run make stack-install.")
    env = environment(home, parts)
    down(home)  # the files of one that ended with the machine
    (home / "log").mkdir(parents=True, exist_ok=True)
    unprepared = _prepare(home, parts, env)
    (home / "parts").write_text(" ".join(parts))
    supervisor = _supervise(home, [part for part in parts if part not in unprepared], env, outlive=outlive)
    try:
        wait(home, parts, env, failed=unprepared, ended=lambda: supervisor.poll() is not None)
    except StackError:
        raise
    except BaseException:
        down(home)
        raise
    return env


def _prepare(home: Path, parts: Sequence[str], env: Env) -> dict[str, str]:
    """Prepare each part; those that failed, and why."""
    failed = {}
    for part in parts:
        try:
            PARTS[part].prepare(home, env)
        except StackError as error:
            failed[part] = f"{error} Correct that, then make stack-down and make stack."
    return failed


def _supervise(home: Path, parts: Sequence[str], env: Env, *, outlive: bool) -> subprocess.Popen[bytes]:
    ends_with_parent = [] if outlive or not shutil.which("setpriv") else ["setpriv", "--pdeathsig", "TERM"]
    with (home / "log" / "supervisor.log").open("w") as log:
        process = subprocess.Popen(
            [*ends_with_parent, sys.executable, "-m", "deploy.stack.supervisor", str(home), *parts],
            cwd=PROJECT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (home / "pids.json").write_text(json.dumps({process.pid: alive()[process.pid][1]}))
    return process


def wait(
    home: Path, parts: Sequence[str], env: Env, *, failed: Mapping[str, str] = {}, ended: Callable[[], bool] = lambda: False
) -> None:
    """Return when every one of the parts answers.

    Args:
        failed: those that are not waited for, and why.
        ended: whether the process is gone that supervises them.

    Raises:
        StackError: some do not come up, each within its patience; the message names them.
    """
    began, waiting = time.monotonic(), [part for part in parts if part not in failed]
    begun, failed = dict[str, float](), dict(failed)
    while waiting:
        if ended():
            raise StackError(f"The supervisor ended. Read {home}/log/supervisor.log, then make stack-down and make stack.")
        for part in list(waiting):
            states = read_all(home, PARTS[part].processes)
            if not any(state.waits for state in states.values()):
                begun.setdefault(part, time.monotonic())
            if answers(home, PARTS[part], env):
                print(f"{part:10} answers after {time.monotonic() - began:.1f} s", flush=True)
            elif why := _why_not(home, PARTS[part], states, since=begun.get(part), failed=failed):
                failed[part] = why
                print(f"{part:10} does not come up", flush=True)
            else:
                continue
            waiting.remove(part)
        time.sleep(_LOOK_SECONDS if waiting else 0)
    if failed:
        listed = "".join(f"\n  {part}: {why}" for part, why in failed.items())
        raise StackError(
            f"{len(failed)} of {len(parts)} parts did not come up; the others run.{listed}\n"
            "A part comes up by itself once its cause is gone: make stack-status shows it, make stack-down stops all."
        )


def _why_not(home: Path, part: Part, states: Mapping[str, State], *, since: float | None, failed: Mapping[str, str]) -> str:
    """Why a part is not waited for any longer; empty as long as it may still come up."""
    if absent := [need for need in part.needs if need in failed]:
        return f"it waits for {', '.join(absent)}."
    for name, state in states.items():
        if state.is_looping(time.time()):
            return f"{name} ended {state.failures} times in a row: {state.problem}. Read {log_of(home, name)}."
    if since is not None and time.monotonic() - since > part.patience:
        logs = ", ".join(str(log_of(home, name)) for name in part.processes)
        return f"no answer within {part.patience} s. Read {logs}."
    return ""


def down(home: Path) -> int:
    """Stop what `up` started; how many processes there were. None of them is left."""
    states = _states(home).values()
    # each supervisor ends its own process; one that was killed left its process in its state
    leaders = [*list(_main(home))[:1], *(pid for state in states for pid in state.supervisor)]
    count = end(_recorded(home), leaders=leaders, patience=3 * STOP_SECONDS)
    for name in ("pids.json", "parts"):
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "state", ignore_errors=True)
    return count


def started(home: Path) -> list[str]:
    """The parts that `up` started."""
    return (home / "parts").read_text().split() if (home / "parts").exists() else []


def status(home: Path) -> bool:
    """Print which part answers, and of each process what is not as it should be; whether all do that were started."""
    parts = started(home)
    if not parts or not family(_recorded(home)):
        print("the stack is down")
        return False
    env, good = environment(home, parts), True
    for part in parts:
        serves = answers(home, PARTS[part], env)
        good = good and serves
        ports = ", ".join(env[f"STACK_{port}_PORT"] for port in PARTS[part].ports)
        print(f"{part:10} {'answers' if serves else 'DOES NOT ANSWER':16} 127.0.0.1:{ports}")
        for name, state in read_all(home, PARTS[part].processes).items():
            if report := state.report(time.time()):
                print(f"           {name} {report}; log: {log_of(home, name)}")
    if not family(_main(home)):
        print("The supervisor was killed: make stack-down, then make stack.")
        good = False
    return good


def _main(home: Path) -> dict[int, int]:
    file = home / "pids.json"
    return {int(pid): start for pid, start in json.loads(file.read_text()).items()} if file.exists() else {}


def _states(home: Path) -> dict[str, State]:
    return read_all(home, [process for part in PARTS.values() for process in part.processes])


def _recorded(home: Path) -> dict[int, int]:
    """The main supervisor, each line's, and the processes."""
    found = _main(home)
    for state in _states(home).values():
        found |= state.supervisor | state.process
    return found
