"""The program that builds and runs containers: podman, else docker; and what it needs on a machine with few rights."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack.part import PROJECT, StackError

#: What is built and written here, which git ignores.
HOME = PROJECT / ".stack" / "containers"
#: Debian's packages of `make image-tools`: runc, since crun wants more rights than a container of this kind has.
PACKAGES = ("podman", "runc", "netavark", "mmdebstrap")
_SYS_RESOURCE = 24  # the capability by which limits are raised (capabilities(7))


@dataclass(frozen=True)
class Engine:
    """A program with Docker's commands.

    Args:
        name: `podman` or `docker`.
        env: variables that its processes need beside this one's.
    """

    name: str
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, check: bool = True, quiet: bool = False) -> str:
        """Run one command, and return what it printed.

        Args:
            quiet: what it writes to stderr is not shown, but part of the error.

        Raises:
            StackError: it failed, and `check` is not False.
        """
        done = subprocess.run(
            [self.name, *arguments],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if check and done.returncode:
            last = " ".join((done.stderr or "").strip().splitlines()[-3:])
            raise StackError(f"{self.name} {' '.join(arguments[:6])} failed (exit code {done.returncode}). {last}".strip())
        return done.stdout.strip()

    def has_image(self, name: str) -> bool:
        found = subprocess.run(
            [self.name, "image", "inspect", name], env={**os.environ, **self.env}, capture_output=True, check=False
        )
        return found.returncode == 0


def find() -> Engine:
    """podman, else a docker whose daemon answers.

    Raises:
        StackError: there is neither.
    """
    if shutil.which("podman"):
        return Engine("podman", _podman_env(HOME))
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return Engine("docker")
    raise StackError(
        "Containers need podman, or docker with its daemon, and there is neither. "
        "Run make image-tools (Debian, as root), or install one with your package manager."
    )


def install_tools() -> None:
    """Install podman and what it needs.

    Raises:
        StackError: this is not Debian, or not root.
    """
    if wanted := [package for package in PACKAGES if not shutil.which(package) and not Path("/usr/lib/podman", package).exists()]:
        if not (os.getuid() == 0 and shutil.which("apt-get")):
            raise StackError(f"Install {', '.join(wanted)} with your package manager (as root on Debian this does it).")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)
    print(Engine("podman", _podman_env(HOME)).run("--version"))


def is_restricted(status: str) -> bool:
    """Whether /proc/self/status is that of a root without CAP_SYS_RESOURCE: a root inside of a container, for example."""
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return os.getuid() == 0 and not effective >> _SYS_RESOURCE & 1


def _podman_env(home: Path) -> dict[str, str]:
    """Podman's configuration where a root may not raise limits: runc, limits that are not raised, no network of its own."""
    if not is_restricted(Path("/proc/self/status").read_text()):
        return {}
    lines: Sequence[str] = (
        "[containers]",
        'netns = "host"',
        'default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]',
        "[engine]",
        'runtime = "runc"',
        'events_logger = "file"',
        'cgroup_manager = "cgroupfs"',
    )
    home.mkdir(parents=True, exist_ok=True)
    file = home / "containers.conf"
    file.write_text("\n".join(lines) + "\n")
    return {"CONTAINERS_CONF": str(file)}
