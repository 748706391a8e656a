"""Fetching what a machine lacks: Debian's packages first, then what each part fetches itself (Go, Maven)."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.stack.environment import write_env
from deploy.stack.part import StackError, absent
from deploy.stack.parts import PARTS, chosen, missing


def install(home: Path, names: Sequence[str] = ()) -> None:
    """Fetch what the parts need, and write the environment file.

    Raises:
        StackError: a package cannot be installed here, or something is missing afterwards.
    """
    parts = chosen(names)
    wanted = sorted({package for part in parts for package in absent(PARTS[part].packages()).values()})
    if wanted:
        _apt_get(wanted)
    for part in parts:
        PARTS[part].fetch()
    print(f"settings and passwords: {write_env(home)}")
    if lacks := missing(parts):
        raise StackError(f"Still missing: {', '.join(lacks)}.")


def _apt_get(packages: Sequence[str]) -> None:
    if not (os.getuid() == 0 and shutil.which("apt-get")):
        raise StackError(f"Install {', '.join(packages)} with your package manager (as root on Debian this does it).")
    print(f"apt-get install {' '.join(packages)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=True, env=quiet, stdout=subprocess.DEVNULL)
