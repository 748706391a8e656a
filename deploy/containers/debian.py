"""Images from Debian's, Go's and Maven's packages, for where no image registry is reached: `make image BASE=debian`.

`localhost/lakehouse-debian` takes the place of `python:3.12-slim`; `deploy/servers/Dockerfile` builds S3, PostgreSQL and Kafka
on it, with the programs that `make stack-install` fetches and the variables that the images of deploy/compose.yaml take.
"""

import os
import shutil
import subprocess
from pathlib import Path

from deploy.containers.engine import HOME, Engine
from deploy.stack import kafka, s3
from deploy.stack.part import PROJECT, StackError, tools

BASE = "localhost/lakehouse-debian:latest"
SERVERS = ("s3", "postgres", "kafka")
_INCLUDE = "python3,python3-venv,ca-certificates,tzdata,netbase"
_WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def server_image(name: str) -> str:
    return f"localhost/lakehouse-{name}:latest"


def build_base(engine: Engine) -> None:
    """Debian with Python, of this machine's release: some 130 MB. It takes two to three minutes, once.

    Raises:
        StackError: mmdebstrap is missing or failed.
    """
    if engine.has_image(BASE):
        return
    if not shutil.which("mmdebstrap"):
        raise StackError("A base from Debian's packages needs mmdebstrap: run make image-tools.")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    print(f"mmdebstrap {suite}: {_INCLUDE}", flush=True)
    HOME.mkdir(parents=True, exist_ok=True)
    archive = HOME / "debian.tar"
    exclude = [f"--dpkgopt=path-exclude={pattern}" for pattern in _WITHOUT]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_INCLUDE}", *exclude, suite, str(archive)]
    if subprocess.run(command, check=False, env={**os.environ, "TMPDIR": str(HOME)}).returncode:
        raise StackError(f"mmdebstrap could not make {suite}: see what it printed above.")
    engine.run("import", "--change", f"ENV PATH={_PATH}", "--change", 'CMD ["/bin/bash"]', str(archive), BASE, quiet=True)
    archive.unlink()


def build_servers(engine: Engine, *options: str) -> None:
    """S3, PostgreSQL and Kafka as images.

    Args:
        options: of the build, for every server.

    Raises:
        StackError: a package cannot be fetched, or an image cannot be built.
    """
    s3.S3.fetch()
    kafka.KAFKA.fetch()
    context = HOME / "servers"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(PROJECT / "deploy" / "servers", context)
    shutil.copy2(tools() / "bin" / "versitygw", context / "versitygw")
    shutil.copytree(tools() / "kafka", context / "kafka", ignore=shutil.ignore_patterns("*.properties"))
    for name in SERVERS:
        engine.run("build", *options, "--target", name, "--tag", server_image(name), str(context), quiet=True)
    shutil.rmtree(context)
