"""What of the environment is known without loading the settings, which takes half a second: folders, `.env`, and a stamp.

The stamp is one text for all that settings and declarations follow from. It changes when a file of the code that computes them
does, when `.env` does, and when a variable does that has the lake's location or its memory. Standard library, and python-dotenv.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

#: Of this package, what is executed to know a setting or a declaration.
_CODE = ("settings", "tables", "core", "ask")
#: Secrets are in none of them.
_VARIABLES = re.compile(r"LAKEHOUSE_(ENV|ROOT|LANDING|MEMORY_LIMIT|BRT_BOX|[A-Z]+_ROOT)")
#: What the container of this process may use, in bytes or `max`, in version 2 and 1 of Linux's control groups.
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def project_folder() -> Path:
    """The checkout, or the working directory when the package was installed without one."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def derived_folder() -> Path:
    """A folder of this user for what follows from the code, where the code's own folder is not to be written."""
    home = os.environ.get("DAGSTER_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "lakehouse"


def settings_file() -> Path:
    """Where this installation's settings are: `.env`, which git ignores."""
    return project_folder() / ".env"


def process_environment(**more: str) -> dict[str, str]:
    """The environment of a process that is to have this one's settings."""
    return {**os.environ, **more}


def read_env_file() -> None:
    """Take what `.env` has and the environment does not, as Dagster's own commands do."""
    from dotenv import load_dotenv

    load_dotenv(settings_file())


def allow_http() -> None:
    """Let the libraries reach a store without TLS where the environment names one: they want it twice."""
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")


def memory_bytes() -> int:
    """What this machine or its container has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in _CONTAINER_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def stamp() -> str:
    """A digest of the variables, the files by size and time of change, the memory, the place and the Python."""
    package = Path(__file__).resolve().parents[1]
    parts = [sys.version, str(package), str(project_folder()), str(memory_bytes()), _seen(settings_file())]
    parts += sorted(f"{name}={value}" for name, value in os.environ.items() if _VARIABLES.fullmatch(name))
    parts += [_seen(file) for folder in _CODE for file in sorted((package / folder).rglob("*.py"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _seen(file: Path) -> str:
    try:
        found = file.stat()
    except FileNotFoundError:
        return f"{file} is not there"
    return f"{file} {found.st_size} {found.st_mtime_ns}"
