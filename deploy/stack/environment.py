"""The environment of the stack: the file with its ports and passwords, and what follows from it for every process."""

import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.stack.part import PROJECT, StackError, tools
from deploy.stack.parts import PARTS

EXAMPLE = PROJECT / "deploy" / "stack.env.example"


def write_env(home: Path, ports: Mapping[str, int] | None = None) -> Path:
    """The environment file, with passwords of its own; one that is there stays as it is, but for passwords that it is older
    than."""
    target = home / "env"
    if target.exists():
        known = assignments(target)
        new = [name for name, value in assignments(EXAMPLE).items() if value == "random" and name not in known]
        with target.open("a") as file:
            file.writelines(f"{_filled(f'{name}=random', {})}\n" for name in new)
    else:
        lines = [_filled(line, ports or {}) for line in EXAMPLE.read_text().splitlines()]
        home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
    return target


def _filled(line: str, ports: Mapping[str, int]) -> str:
    name, _, value = line.partition("=")
    return f"{name}={secrets.token_urlsafe(24)}" if value == "random" else f"{name}={ports[name]}" if name in ports else line


def environment(home: Path, parts: Iterable[str]) -> dict[str, str]:
    """The environment of every process: this one's, the file's, and what follows from both for the parts that run.

    Raises:
        StackError: there is no environment file.
    """
    file = home / "env"
    if not file.exists():
        raise StackError(f"There is no {file}: run make stack-install.")
    # Dagster's commands let a .env of their working directory win over the environment; the Procfile starts them elsewhere.
    own = {name: value for name, value in assignments(PROJECT / ".env").items() if name != "DAGSTER_HOME"}
    new = {name: value for name, value in assignments(EXAMPLE).items() if value != "random"}  # ports that the file is older than
    env = {
        **new,
        **own,
        **os.environ,
        **assignments(file),
        "STACK_HOME": str(home),
        "STACK_PROJECT": str(PROJECT),
        "STACK_TOOLS": str(tools()),
        "STACK_BIN": str(Path(sys.executable).parent),
        "PYTHONUNBUFFERED": "1",
    }
    for part in PARTS.values():
        env |= part.settings(home, env)
    return env | {name: value for part in parts for name, value in PARTS[part].offers(env).items()}


def assignments(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}
