"""`make start` and `make stop`: Dagster's webserver and daemon in the background, for this DAGSTER_HOME.

    <DAGSTER_HOME>/started.json       process ids with their starts, port; whose daemon it was
    <DAGSTER_HOME>/log/<process>.log  what each of them says

Each loads the definitions in a child of its own, as `make dev` does; runs are children of those. The stack has its own
launcher (deploy/stack/): where its Dagster uses this instance, nothing is started beside it.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.commands.instance import graphql
from lakehouse.commands.instance.show import busy
from lakehouse.core.errors import LakehouseError
from lakehouse.core.processes import alive, end, family, why_taken
from lakehouse.core.text import one_line, span
from lakehouse.runtime.dagster_private import DAEMON_MODULE
from lakehouse.settings import dagster_home, load_settings, process_environment, project_folder, shipped

if TYPE_CHECKING:  # stop needs no Dagster
    from dagster import DagsterInstance

#: On two cores with a load of 14 it took 114 s.
ANSWER_SECONDS = 300.0
#: The daemon ends its threads, and the webserver its code server.
_STOP_SECONDS = 15.0
#: A daemon writes a heartbeat every 30 s.
_HEARTBEAT_SECONDS = 60.0
_LOG_BYTES = 10_000_000


class ProcessError(LakehouseError):
    """What was to be started or stopped is not as it must be for that."""


@dataclass(frozen=True)
class Started:
    """What `start` has left behind: `leaders` by name, `pids` with when they started, `daemons` by their own ids."""

    port: int = 0
    at: float = 0.0
    leaders: dict[str, int] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    daemons: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lives(self) -> dict[str, int]:
        """Those of the leaders that live."""
        members = family(self.pids)
        return {name: pid for name, pid in self.leaders.items() if pid in members}


def recorded(home: Path) -> Started:
    """What was started last for this home; whether it lives is another question."""
    file = home / "started.json"
    if not file.exists():
        return Started()
    found: dict[str, Any] = json.loads(file.read_text())
    return Started(**{**found, "pids": {int(pid): begun for pid, begun in found["pids"].items()}})


def begin(port: int) -> Started:
    """Start both.

    Raises:
        ProcessError: they run already, here or in the stack; the port is taken; or they do not come up, and are stopped again.
    """
    from dagster import DagsterInstance

    settings, home = load_settings(), dagster_home()
    settings.storage.reach()
    with _alone(home):
        before = recorded(home)
        if lives := before.lives:
            names = " and ".join(f"{name} (process {pid})" for name, pid in lives.items())
            raise ProcessError(f"{names} run already, at {before.url}.", remedy="make status shows them, make stop stops them.")
        _refuse_stack(home)
        if why_taken(port):
            raise ProcessError(
                f"Port {port} is taken, perhaps by make dev or make stack.", remedy="Stop that, or give another PORT."
            )
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(shipped("dagster.yaml"), home / "dagster.yaml")
        with DagsterInstance.get() as instance:  # makes its databases, which two processes must not do at once
            _refuse_other_daemon(instance, before)
        _stop(home)  # what a leader has left behind that was killed
        ui = {} if settings.ui_url else {"LAKEHOUSE_UI_URL": f"http://127.0.0.1:{port}"}
        started = _launch(home, port, process_environment(PYTHONUNBUFFERED="1", **ui))
        try:
            with busy("Waiting until the webserver answers and the daemon works"):
                _wait(started)
        except BaseException:
            _stop(home)
            _store(home, Started(daemons=_daemons(since=started.at)))
            raise
        return _store(home, replace(started, pids=family(started.pids), daemons=_daemons(since=started.at)))


def finish() -> int:
    """Stop what was started for this home, and its children; how many processes that were."""
    home = dagster_home()
    with busy("Waiting until webserver and daemon have ended"), _alone(home):
        return _stop(home)


def _daemons(*, since: float) -> list[str]:
    """The ids of daemons with a heartbeat since that instant."""
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        beats = instance.get_daemon_heartbeats().values()
        return sorted({beat.daemon_id for beat in beats if beat.daemon_id and beat.timestamp >= since})


def _launch(home: Path, port: int, environment: dict[str, str]) -> Started:
    workspace = ["--workspace", str(shipped("workspace.yaml"))]
    commands = {
        "webserver": ["-m", "dagster_webserver", "--host", "127.0.0.1", "--port", str(port), *workspace],
        "daemon": ["-m", DAEMON_MODULE, "run", *workspace],
    }
    # Dagster's commands let a .env of their working directory win over the environment, which has been read already.
    # Without a checkout relative places are below the working directory.
    folder = home if (project_folder() / "pyproject.toml").is_file() else project_folder()
    started = Started(port, time.time())
    (home / "log").mkdir(exist_ok=True)
    for name, arguments in commands.items():
        log = home / "log" / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("a") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        started.leaders[name] = process.pid
        started.pids[process.pid] = alive().get(process.pid, (0, 0))[1]
        _store(home, started)  # after each, so that a start that is killed leaves nobody unknown
    return started


def _wait(started: Started) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        if ended := set(started.leaders) - set(started.lives):
            raise ProcessError(f"The {min(ended)} ended: {_last_word(min(ended))}.", remedy=f"Read {_log(min(ended))}.")
        try:
            answer = graphql.ask(started.url, graphql.READY)
        except graphql.WebserverError:
            answer = None
        if answer is not None:
            if wrong := graphql.load_errors(answer):
                reported = one_line(wrong[0]).rstrip(".")
                raise ProcessError(
                    f"The definitions do not load: {reported}.", remedy=f"Fix that; {_log('webserver')} has all of it."
                )
            if graphql.is_ready(answer, since=started.at):
                return
        if time.monotonic() > deadline:
            raise ProcessError(
                f"{started.url} did not answer within {ANSWER_SECONDS:.0f} s with a daemon that works.",
                remedy=f"Read {_log('webserver')} and {_log('daemon')}.",
            )
        time.sleep(0.5)


def _stop(home: Path) -> int:
    before = recorded(home)
    count = end(before.pids, leaders=before.leaders.values(), patience=_STOP_SECONDS)
    if before.pids:
        _store(home, Started(daemons=before.daemons))
    return count


def _refuse_stack(home: Path) -> None:
    if "dagster" in stack_parts(home):
        raise ProcessError(
            "The stack runs Dagster on this instance.", remedy="make stack-status shows it, make stack-down stops it."
        )


def stack_parts(home: Path) -> list[str]:
    """The parts of the stack that keeps this instance (deploy/stack/), when it is up."""
    pids, parts = home.parent / "pids.json", home.parent / "parts"
    if not (pids.exists() and parts.exists()):
        return []
    return parts.read_text().split() if family({int(pid): at for pid, at in json.loads(pids.read_text()).items()}) else []


def _refuse_other_daemon(instance: "DagsterInstance", before: Started) -> None:
    """Two daemons on one instance would both start what is due."""
    beats = [beat for beat in instance.get_daemon_heartbeats().values() if beat.daemon_id not in before.daemons]
    newest = max((beat.timestamp for beat in beats), default=0.0)
    if time.time() - newest < _HEARTBEAT_SECONDS:
        age = span(datetime.now(UTC) - datetime.fromtimestamp(newest, tz=UTC))
        raise ProcessError(
            f"Another daemon works for this instance: it had a heartbeat {age} ago.",
            remedy="Stop it (make dev, make stack-down); if it is gone already, try again in a minute.",
        )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One start or stop at a time. The kernel's lock ends with the process."""
    handle = os.open(home / "started.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ProcessError("Another start or stop is under way here.", remedy="Wait until it has ended.") from None
    finally:
        os.close(handle)


def _store(home: Path, started: Started) -> Started:
    new = home / "started.json.new"
    new.write_text(json.dumps(asdict(started)))
    new.replace(home / "started.json")
    return started


def _log_folder() -> Path:
    return dagster_home() / "log"


def _log(name: str) -> Path:
    return _log_folder() / f"{name}.log"


def _last_word(name: str) -> str:
    lines = _log(name).read_text(errors="replace").strip().splitlines()[-1:]
    return one_line(lines[0]).rstrip(".") if lines else "it printed nothing"
