"""Docker's socket, by which the daemon starts a container for each run: the engine's own, or one that podman serves here.

Who may write to it may do anything on this machine: it is handed to the daemon and to the webserver that operators use, no other.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from deploy.containers.engine import Engine
from deploy.stack.part import StackError
from lakehouse.core.processes import alive, end, family

DOCKER, PODMAN = Path("/var/run/docker.sock"), Path("/run/podman/podman.sock")
_WAIT_SECONDS = 15


def serve(engine: Engine, home: Path) -> dict[str, str]:
    """The variables of the compose file that name the socket and the group that may write to it.

    Raises:
        StackError: podman serves none.
    """
    if engine.name == "docker":
        return _variables(DOCKER)
    if PODMAN.is_socket():  # systemd's podman.socket
        return _variables(PODMAN)
    socket = home / "engine.sock"
    if not (family(_recorded(home)) and socket.is_socket()):
        _start(engine, home, socket)
    return _variables(socket)


def _start(engine: Engine, home: Path, socket: Path) -> None:
    socket.unlink(missing_ok=True)
    with (home / "engine.log").open("ab") as log:
        process = subprocess.Popen(
            [engine.name, "system", "service", "--time=0", f"unix://{socket}"],
            env={**os.environ, **engine.env},
            cwd=home,  # with version 1 of control groups conmon leaves a file `oom` there
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _WAIT_SECONDS
    while not socket.is_socket():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackError(f"podman does not serve {socket}: read {home}/engine.log.")
        time.sleep(0.1)
    socket.chmod(0o660)
    (home / "engine.json").write_text(json.dumps({process.pid: alive()[process.pid][1]}))


def stop(home: Path) -> None:
    """End what `serve` started."""
    end(_recorded(home), leaders=(), patience=5)
    for name in ("engine.json", "engine.sock"):
        (home / name).unlink(missing_ok=True)


def _variables(socket: Path) -> dict[str, str]:
    return {"STACK_SOCKET": str(socket), "STACK_SOCKET_GROUP": str(socket.stat().st_gid if socket.exists() else 0)}


def _recorded(home: Path) -> dict[int, int]:
    file = home / "engine.json"
    return {int(pid): start for pid, start in json.loads(file.read_text()).items()} if file.exists() else {}
