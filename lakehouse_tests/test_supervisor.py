"""The supervisor of the stack with small programs: what ends starts again with pauses, and one that does not come up is named.

With the real parts: `lakehouse_tests/stack/test_parts.py`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.stack import launcher
from deploy.stack.environment import write_env
from deploy.stack.kafka import JAR
from deploy.stack.part import Part, StackError
from deploy.stack.parts import PARTS
from deploy.stack.state import STABLE_SECONDS, State, read, write
from lakehouse.core.processes import alive, end, family
from lakehouse.settings import project_folder

# --- pauses and reports ----------------------------------------------------------------------------------------------


def test_each_end_doubles_the_pause_up_to_a_minute_and_a_process_that_was_stable_begins_anew():
    state, pauses, looping = State({1: 1}), [], []
    for now in range(8):
        state = state.started({2: 2}, now).failed("exit code 3", now + 0.5)
        pauses.append(state.since - now - 0.5)
        looping.append(state.is_looping(now + 0.5))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert looping == [False, False, True, True, True, True, True, True]
    state = state.started({2: 2}, 100)
    assert state.is_looping(101) and not state.is_looping(100 + STABLE_SECONDS)
    again = state.failed("exit code 3", 100 + STABLE_SECONDS)
    assert (again.since - 100 - STABLE_SECONDS, again.failures, again.starts) == (1, 1, 9)
    for _ in range(10_000):
        again = again.failed("port 1 is taken", 0)
    assert again.since == 60


def test_a_report_tells_why_it_ended_how_often_and_when_it_starts_again():
    state = State({1: 1})
    assert replace(state, waits=("s3", "code")).report(0) == "waits for s3, code; restarts: 0"
    assert state.started({2: 2}, 0).report(5) == ""
    ended = state.started({2: 2}, 0).failed("exit code 3", 0)
    assert ended.report(0) == "starts in 1 s; restarts: 0; last problem: exit code 3"
    assert ended.started({2: 2}, 1).report(5) == "runs for 4 s; restarts: 1; last problem: exit code 3"
    third = ended.failed("exit code 3", 1).failed("killed by signal 9", 3)
    assert third.report(4) == "starts in 3 s; crash looping (3 in a row), restarts: 0; last problem: killed by signal 9"


def test_a_state_is_read_as_it_was_written_and_an_absent_one_is_none(tmp_path):
    state = State({1: 10}, {2: 20}, since=1.5, starts=2, failures=1, problem="exit code 3", waits=("s3",))
    write(tmp_path, "daemon", state)
    assert read(tmp_path, "daemon") == state
    assert read(tmp_path, "code") is None


# --- one process -----------------------------------------------------------------------------------------------------

#: A supervisor with short pauses; it needs the part `need` until the file of that name is there.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from deploy.stack import state, supervisor
from lakehouse.core import processes
state.LONGEST_PAUSE, supervisor.STOP_SECONDS, processes._REST_SECONDS = 0.1, 0.4, 0.3
home, line = Path(sys.argv[1]), json.loads(sys.argv[2])
line["stop"] = signal.Signals(line.get("stop", 15))
unmet = lambda: [] if "need" not in sys.argv or (home / "need").exists() else ["need"]
supervisor.Supervisor(home, supervisor.Line("part", **line), os.environ, unmet=unmet).run()
"""


class Supervised:
    """A supervisor of one line, and what it reports."""

    def __init__(self, home: Path, *more: str, **line: object) -> None:
        self.home = home
        (home / "log").mkdir(exist_ok=True)
        with (home / "log" / "supervisor.log").open("w") as log:
            self.own = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(home), json.dumps(line), *more], cwd=project_folder(), stdout=log, stderr=log
            )
        self.members = {self.own.pid: alive()[self.own.pid][1]}

    def until(self, fits: Callable[[State], bool]) -> State:
        return until(lambda: (state := read(self.home, "part")) and fits(state) and state)

    @property
    def log(self) -> str:
        return (self.home / "log" / "part.log").read_text()

    def end(self) -> None:
        members = family(self.members)
        self.own.terminate()
        self.own.wait(timeout=30)
        assert family(members) == {}


def until(found):
    deadline = time.monotonic() + 30
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return answer


@pytest.fixture
def supervise(tmp_path) -> Iterator[Callable[..., Supervised]]:
    begun = []

    def one(command: str, *more: str, **line: object) -> Supervised:
        begun.append(Supervised(tmp_path, *more, command=command, **line))
        return begun[-1]

    yield one
    for each in begun:
        end(each.members, leaders=(), patience=0)
        each.own.wait()


def test_a_process_that_ends_starts_again_and_its_exit_code_and_its_output_are_there(supervise):
    one = supervise("echo hello; echo trouble >&2; exit 3")
    state = one.until(lambda state: state.failures >= 4)
    assert state.is_looping(time.time()) and state.starts >= 4 and state.problem == "exit code 3"
    assert one.log.startswith("hello\ntrouble\nhello\n")
    assert "part: exit code 3; next start in" in (one.home / "log" / "supervisor.log").read_text()
    one.end()


def test_a_killed_process_starts_again_and_what_it_left_behind_is_ended_first(supervise):
    """A child in a session of its own, too: it could have the port."""
    one = supervise("setsid sleep 611 & sleep 612 & exec sleep 613")
    first = one.until(lambda state: state.process)
    until(lambda: len(family(one.members)) == 4)
    left = family(first.process)
    (pid,) = first.process
    os.kill(pid, signal.SIGKILL)
    second = one.until(lambda state: state.starts == 2)
    assert second.problem == "killed by signal 9" and list(second.process) != [pid]
    until(lambda: len(family(one.members)) == 4)
    assert family(left) == {}
    assert not [line for line in _stats(one.own.pid) if ") Z " in line]  # an adopted process is waited for when it has ended
    one.end()


def test_the_children_of_one_that_may_outlive_it_stay_and_are_ended_with_the_stack(supervise):
    one = supervise("sleep 621 & exec sleep 622", children_stay=True)
    first = one.until(lambda state: state.process)
    until(lambda: len(family(one.members)) == 3)
    (pid,) = first.process
    os.kill(pid, signal.SIGKILL)
    one.until(lambda state: state.starts == 2)
    until(lambda: len(family(one.members)) == 4)
    one.end()


def _stats(parent: int) -> list[str]:
    found = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [line for line in found if line.rpartition(")")[2].split()[1] == str(parent)]


def test_a_process_starts_when_what_it_needs_answers(supervise):
    one = supervise("exec sleep 631", "need")
    assert one.until(lambda state: state.waits).waits == ("need",)
    assert not one.until(lambda state: True).process
    (one.home / "need").touch()
    assert one.until(lambda state: state.process).waits == ()
    one.end()


def test_a_port_that_is_taken_is_named_and_the_process_starts_when_it_is_free(supervise):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        one = supervise("exec sleep 641", ports={"STACK_PART_PORT": port})
        state = one.until(lambda state: state.failures >= 3)
        assert state.starts == 0 and state.is_looping(time.time())
        assert state.problem.startswith(f"port {port} is taken: ") and "STACK_PART_PORT in " in state.problem
    assert one.until(lambda state: state.process).starts == 1
    one.end()


def test_the_end_asks_by_the_parts_own_signal_and_kills_what_does_not_hear(supervise):
    polite = supervise("trap 'echo asked; exit' INT; while true; do sleep 0.1; done", stop=2)
    polite.until(lambda state: state.process)
    time.sleep(0.3)  # the trap is set
    polite.end()
    assert polite.log == "asked\n"
    deaf = supervise("trap '' TERM INT; while true; do sleep 0.1; done")
    deaf.until(lambda state: state.process and state.supervisor == deaf.members)
    time.sleep(0.3)
    deaf.end()


def test_a_state_that_cannot_be_written_ends_nothing(supervise, tmp_path):
    (tmp_path / "state").write_text("a file where a folder should be")
    one = supervise("echo started; exit 3")
    until(lambda: (tmp_path / "log" / "part.log").exists() and one.log.count("started") >= 3)
    assert one.own.poll() is None
    assert "its state cannot be written" in (tmp_path / "log" / "supervisor.log").read_text()
    one.end()


def test_the_next_supervisor_of_a_killed_one_ends_its_process_before_it_starts_another(supervise):
    first = supervise("exec sleep 651")
    before = first.until(lambda state: state.process)
    first.own.kill()
    first.own.wait()
    assert family(before.process)
    second = supervise("exec sleep 651")
    after = second.until(lambda state: state.starts == 2)
    assert family(before.process) == {} and family(after.process)
    assert after.problem == "its supervisor was killed"
    second.end()


# --- the stack -------------------------------------------------------------------------------------------------------

HEALTHY = """#!{python}
import http.server, os
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["STACK_S3_PORT"])), Health).serve_forever()
"""
BROKER = """#!{python}
import os, socket
with socket.create_server(("127.0.0.1", int(os.environ["STACK_KAFKA_PORT"]))) as server:
    while True:
        with server.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"1234")
"""


class Fakes:
    """A stack of S3 and Kafka whose programs are small ones."""

    def __init__(self, folder: Path) -> None:
        self.home, self.tools = folder / "home", folder / "tools"
        for made in (self.tools / "bin", self.tools / "kafka", self.home / "kafka" / "data"):
            made.mkdir(parents=True)
        (self.tools / "kafka" / JAR).touch()
        (self.home / "kafka" / "data" / "meta.properties").touch()
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            ports = {}
            for name, each in (("S3", one), ("KAFKA", two), ("KAFKA_CONTROLLER", three)):
                each.bind(("127.0.0.1", 0))
                ports[f"STACK_{name}_PORT"] = each.getsockname()[1]
        write_env(self.home, ports)
        self.program("versitygw", HEALTHY)

    def program(self, name: str, text: str) -> None:
        new = self.tools / "bin" / f"{name}.new"
        new.write_text(text.format(python=sys.executable))
        new.chmod(0o755)
        new.replace(self.tools / "bin" / name)

    def pid(self, process: str) -> int:
        state = read(self.home, process)
        assert state is not None and state.process
        return next(iter(state.process))


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Iterator[Fakes]:
    own = Fakes(tmp_path)
    monkeypatch.setenv("STACK_TOOLS", str(own.tools))
    monkeypatch.setenv("PATH", f"{own.tools / 'bin'}:{os.environ['PATH']}")
    yield own
    launcher.down(own.home)


def test_a_part_that_crash_loops_is_named_with_its_log_while_the_other_runs_and_comes_up_when_it_is_fixed(fakes, capsys):
    fakes.program("java", "#!/bin/sh\necho no memory >&2\nexit 3\n")
    with pytest.raises(StackError, match=r"1 of 2 parts did not come up; the others run") as caught:
        launcher.up(fakes.home, ["s3", "kafka"])
    log = fakes.home / "log" / "kafka.log"
    assert f"\n  kafka: kafka ended 3 times in a row: exit code 3. Read {log}.\n" in str(caught.value)
    assert "no memory" in log.read_text()
    s3 = fakes.pid("s3")
    capsys.readouterr()
    assert not launcher.status(fakes.home)
    printed = capsys.readouterr().out
    assert "s3         answers " in printed and "kafka      DOES NOT ANSWER" in printed
    assert "crash looping (3 in a row), restarts: 2; last problem: exit code 3; log: " in printed
    with pytest.raises(StackError, match="runs already"):
        launcher.up(fakes.home, ["s3"])
    fakes.program("java", BROKER)
    until(lambda: launcher.status(fakes.home))
    assert fakes.pid("s3") == s3


def test_a_part_is_waited_for_by_its_own_patience_and_another_server_on_its_port_is_not_it(fakes, monkeypatch):
    fakes.program("java", "#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setitem(PARTS, "kafka", replace(PARTS["kafka"], patience=1))
    began = time.monotonic()
    with pytest.raises(StackError, match=rf"kafka: no answer within 1 s. Read {fakes.home}/log/kafka.log"):
        launcher.up(fakes.home, ["s3", "kafka"])
    assert 1 <= time.monotonic() - began < 20
    launcher.down(fakes.home)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = (fakes.home / "env").read_text()
        lines = [f"STACK_S3_PORT={port}" if line.startswith("STACK_S3_PORT=") else line for line in text.splitlines()]
        (fakes.home / "env").write_text("\n".join(lines))
        with pytest.raises(StackError, match=f"s3 ended 3 times in a row: port {port} is taken: .*another STACK_S3_PORT in "):
            launcher.up(fakes.home, ["s3"])


def test_the_end_of_one_process_or_of_a_supervisor_changes_no_other_and_down_ends_all_of_them_and_only_them(fakes, capsys):
    fakes.program("java", BROKER)
    launcher.up(fakes.home, ["s3", "kafka"])
    s3, kafka = fakes.pid("s3"), fakes.pid("kafka")
    os.kill(s3, signal.SIGKILL)
    until(lambda: (state := read(fakes.home, "s3")) and state.starts == 2 and state.process and launcher.status(fakes.home))
    assert fakes.pid("kafka") == kafka
    state = read(fakes.home, "s3")
    assert state is not None
    os.kill(next(iter(state.supervisor)), signal.SIGKILL)
    until(lambda: (state := read(fakes.home, "s3")) and state.starts == 3 and state.process and launcher.status(fakes.home))
    assert fakes.pid("kafka") == kafka
    assert re.search(r"s3 runs for \d+ s; restarts: 2; last problem: its supervisor was killed", capsys.readouterr().out)

    other = subprocess.Popen(["sleep", "60"])
    begun = launcher._recorded(fakes.home)
    assert len(family(begun)) == 5
    os.kill(next(iter(launcher._main(fakes.home))), signal.SIGKILL)  # the others run on
    until(lambda: len(family(begun)) == 4)
    assert not launcher.status(fakes.home)
    assert "The supervisor was killed: make stack-down" in capsys.readouterr().out
    assert launcher.down(fakes.home) == 4
    assert family(begun) == {} and other.poll() is None
    other.kill()
    other.wait()


def test_a_part_that_needs_one_that_does_not_come_up_is_named_with_it(tmp_path, monkeypatch):
    own = {os.getpid(): alive()[os.getpid()][1]}
    for name, needs in (("broken", ()), ("needs", ("broken",)), ("works", ())):
        monkeypatch.setitem(PARTS, name, Part((name,), (), lambda env: True, needs=needs))
    state = State(own)
    write(tmp_path, "broken", state.failed("exit code 3", time.time()).failed("exit code 3", time.time()))
    write(tmp_path, "needs", replace(state, waits=("broken",)))
    write(tmp_path, "works", state.started(own, time.time()))
    broken = read(tmp_path, "broken")
    assert broken is not None
    write(tmp_path, "broken", broken.failed("exit code 3", time.time()))
    with pytest.raises(StackError, match=r"2 of 3 parts did not come up.*\n  broken: .*\n  needs: it waits for broken\.\n"):
        launcher.wait(tmp_path, ["broken", "needs", "works"], {})
    with pytest.raises(StackError, match=r"\n  broken: no disk\n  needs: it waits for broken\.\n"):
        launcher.wait(tmp_path, ["broken", "needs", "works"], {}, failed={"broken": "no disk"})
    with pytest.raises(StackError, match=r"The supervisor ended\. Read .*supervisor\.log"):
        launcher.wait(tmp_path, ["needs"], {}, ended=lambda: True)


def test_a_part_that_cannot_be_prepared_is_named_and_the_others_start(fakes, monkeypatch):
    def refuse(home, env):
        raise StackError("The folder is closed.")

    monkeypatch.setitem(PARTS, "kafka", replace(PARTS["kafka"], prepare=refuse))
    with pytest.raises(
        StackError, match=r"\n  kafka: The folder is closed\. Correct that, then make stack-down and make stack\."
    ):
        launcher.up(fakes.home, ["s3", "kafka"])
    assert fakes.pid("s3")
