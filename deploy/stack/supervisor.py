"""`python -m deploy.stack.supervisor <home> <part ...>`: every process of these parts, started again whenever it ends.

    this process ── one supervisor a line of the Procfile ── the process and what it starts

A supervisor waits until the parts answer that its process needs, starts it, and pauses after its end: 1, 2, 4 … 60 seconds.
It is a process of its own, so nothing that ends ends two parts. SIGTERM ends them all with their descendants.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from deploy.stack.part import PROJECT, Env
from deploy.stack.parts import PARTS
from deploy.stack.state import State, answers, read, write
from lakehouse.core.processes import adopt_orphans, alive, end, family, why_taken

PROCFILE = PROJECT / "deploy" / "Procfile"
#: Seconds that a process has to end what it began when the stack is stopped.
STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_FORK = multiprocessing.get_context("fork")  # the modules are loaded once, and their memory is shared


@dataclass(frozen=True)
class Line:
    """A line of the Procfile with what its part declares.

    Args:
        ports: on which it listens, by the variable that sets each.
        stop: the signal that asks it to end.
        children_stay: what it began goes on after its end.
    """

    name: str
    command: str
    ports: Mapping[str, int] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM
    children_stay: bool = False


class Supervisor:
    """Runs one line for as long as the stack is up.

    Args:
        unmet: the parts that the line needs and that do not answer now.
    """

    def __init__(self, home: Path, line: Line, env: Env, *, unmet: Callable[[], Sequence[str]] = tuple) -> None:
        self._home, self._line, self._env, self._unmet = home, line, env, unmet
        before = read(home, line.name)
        own = {os.getpid(): alive()[os.getpid()][1]}
        self._before = before.process if before else {}
        self._state = replace(before, supervisor=own) if before else State(own)

    def run(self) -> NoReturn:
        adopt_orphans()
        signal.signal(signal.SIGTERM, _leave)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            if self._before:
                end(self._before, leaders=(), patience=0)
                self._pause("its supervisor was killed")
            while True:
                self._wait_for_needs()
                self._pause(self._why_no_start() or self._run_once())
        finally:
            self._end_all()

    def _wait_for_needs(self) -> None:
        while waits := tuple(self._unmet()):
            if waits != self._state.waits:
                self._report(replace(self._state, waits=waits))
            time.sleep(_LOOK_SECONDS)
        self._report(replace(self._state, waits=()))

    def _why_no_start(self) -> str:
        for variable, port in self._line.ports.items():
            if why_taken(port):
                return f"port {port} is taken: stop what listens there, or set another {variable} in {self._home}/env"
        return ""

    def _run_once(self) -> str:
        """Run it until it ends, and what it left behind too; how it ended."""
        now = time.time()
        try:
            with log_of(self._home, self._line.name).open("ab") as log:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", self._line.command],
                    cwd=PROJECT,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            return f"it cannot be started: {error}"
        started = alive().get(process.pid, (0, 0))[1]
        self._report(self._state.started({process.pid: started}, now))
        code = process.wait()
        if not self._line.children_stay:
            end(self._descendants(), leaders=(), patience=0)
        _reap()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def _pause(self, problem: str) -> None:
        now = time.time()
        self._report(self._state.failed(problem, now))
        pause = self._state.since - now
        _log(f"{self._line.name}: {problem}; next start in {pause:.0f} s")
        time.sleep(pause)

    def _report(self, state: State) -> None:
        self._state = state
        try:
            write(self._home, self._line.name, state)
        except OSError as error:  # a full disk must not end the part
            _log(f"{self._line.name}: its state cannot be written: {error}")

    def _descendants(self) -> dict[int, int]:
        members = family(self._state.supervisor)
        return {pid: start for pid, start in members.items() if pid != os.getpid()}

    def _end_all(self) -> None:
        end(self._descendants(), leaders=self._state.process, patience=STOP_SECONDS, ask=self._line.stop)


def _log(message: str) -> None:
    with contextlib.suppress(OSError):  # the log is on the same disk
        print(f"{time.strftime('%F %T')} {message}", flush=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise SystemExit


def _reap() -> None:
    """Take the exit codes of adopted processes, so that none stays a zombie."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def log_of(home: Path, process: str) -> Path:
    return home / "log" / f"{process}.log"


def lines(env: Env, parts: Sequence[str]) -> dict[str, list[Line]]:
    """The lines of the Procfile that these parts are, by part. A part's first process listens on its ports."""
    commands = dict(line.split(": ", 1) for line in PROCFILE.read_text().splitlines())
    found = {}
    for part in parts:
        spec = PARTS[part]
        variables = [f"STACK_{port}_PORT" for port in spec.ports]
        ports = {variable: int(env[variable]) for variable in variables}
        found[part] = [
            Line(name, commands[name], ports if name == spec.processes[0] else {}, spec.stop, spec.children_stay)
            for name in spec.processes
        ]
    return found


def _unmet(home: Path, part: str, env: Env) -> list[str]:
    return [need for need in PARTS[part].needs if not answers(home, PARTS[need], env)]


def main(home: Path, parts: Sequence[str]) -> None:
    """Run a supervisor for each line until SIGTERM comes; one that is gone is replaced."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a supervisor takes it when it is ready to
    env = dict(os.environ)
    owned = [(part, line) for part, own in lines(env, parts).items() for line in own]
    running: dict[str, multiprocessing.process.BaseProcess] = {}
    try:
        while True:
            for part, line in owned:
                if line.name not in running or not running[line.name].is_alive():
                    running[line.name] = _FORK.Process(target=_supervise, args=(home, part, line, env))
                    running[line.name].start()
            if signal.sigtimedwait({signal.SIGTERM}, 1.0):
                break
    finally:
        for process in running.values():
            process.terminate()


def _supervise(home: Path, part: str, line: Line, env: Env) -> None:
    Supervisor(home, line, env, unmet=lambda: _unmet(home, part, env)).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
