"""The images: built, checked, measured, and what is in them as a CycloneDX file.

deploy/Dockerfile ─▶ localhost/lakehouse, lakehouse-spark, lakehouse-dashboard ─▶ definitions load ─▶ sizes, <image>.cdx.json
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Sequence

from deploy.containers.debian import BASE, build_base, build_servers
from deploy.containers.engine import HOME, Engine, find
from deploy.stack.part import PROJECT, StackError

#: The targets of deploy/Dockerfile, and what each is called.
IMAGES = {
    "base": "localhost/lakehouse:latest",
    "ml": "localhost/lakehouse-ml:latest",
    "spark": "localhost/lakehouse-spark:latest",
    "dashboard": "localhost/lakehouse-dashboard:latest",
}
#: Label of the digest of requirements.lock: which dependencies an image has.
LOCK_LABEL = "lakehouse.lock"
_ONCE = ("--rm", "--network", "none", "--no-healthcheck")
_LOAD = "from lakehouse import definitions, settings; definitions.build_defs(settings.load_settings()).resolve_asset_graph()"


def lock_digest() -> str:
    return hashlib.sha256((PROJECT / "requirements.lock").read_bytes()).hexdigest()


def released(prefix: str, tag: str) -> dict[str, str]:
    """The images of a release, by the variable of the compose file: `<prefix>/lakehouse:<tag>` and its like."""
    variables = {"STACK_IMAGE": "base", "STACK_ML_IMAGE": "ml", "STACK_DASHBOARD_IMAGE": "dashboard"}
    names = {
        variable: IMAGES[target].removeprefix("localhost/").removesuffix(":latest") for variable, target in variables.items()
    }
    return {variable: f"{prefix}/{name}:{tag}" for variable, name in names.items()}


def build(engine: Engine, names: Sequence[str] = (), *, base: str = "") -> None:
    """Build images, load the definitions in each, and print sizes and times.

    Args:
        names: targets of deploy/Dockerfile, all without one.
        base: the image to begin with; `debian` makes one from Debian's packages, and the servers with it.

    Raises:
        StackError: an image cannot be built, or the definitions do not load in it.
    """
    if wrong := [name for name in names if name not in IMAGES]:
        raise StackError(f"There is no image {wrong[0]!r}: use some of {' '.join(IMAGES)}.")
    options = _options(engine)
    if base == "debian":
        build_base(engine)
        base = BASE
        began = time.monotonic()
        build_servers(engine, *options, "--build-arg", f"BASE_IMAGE={BASE}")
        print(f"servers of deploy/compose.yaml: {time.monotonic() - began:.0f} s", flush=True)
    if base:
        options += ["--build-arg", f"BASE_IMAGE={base}"]
    options += ["--build-arg", f"REVISION={_revision()}", "--build-arg", f"LOCK={lock_digest()}"]
    for target in names or IMAGES:
        began, image = time.monotonic(), IMAGES[target]
        file = str(PROJECT / "deploy" / "Dockerfile")
        engine.run("build", *options, "--file", file, "--target", target, "--tag", image, str(PROJECT))
        built = time.monotonic() - began
        check(engine, image)
        write_sbom(engine, image)
        print(f"{image}: {size(engine, image) / 1e6:.0f} MB, built in {built:.0f} s", flush=True)


def why_not(names: Sequence[str]) -> str:
    """Why containers of these targets cannot be started here, with these dependencies; empty when they can."""
    try:
        engine = find()
    except StackError as error:
        return str(error)
    for image in (IMAGES[target] for target in names):
        if not engine.has_image(image):
            return f"There is no image {image}: make image."
        label = f'{{{{index .Config.Labels "{LOCK_LABEL}"}}}}'
        if engine.run("image", "inspect", "--format", label, image) != lock_digest():
            return f"{image} does not have the dependencies of requirements.lock: make image."
    return ""


def check(engine: Engine, image: str) -> None:
    """Load the definitions in a container as it will run: its user, nothing to write but its volumes, no network.

    Raises:
        StackError: they do not load.
    """
    engine.run("run", *_ONCE, "--read-only", image, "python", "-c", _LOAD)


def size(engine: Engine, image: str) -> int:
    """Bytes of an image with all its layers."""
    return int(engine.run("image", "inspect", "--format", "{{.Size}}", image))


def write_sbom(engine: Engine, image: str) -> None:
    """What is in an image, as CycloneDX: Python's packages, which its build has listed, and Debian's."""
    document = json.loads(engine.run("run", *_ONCE, image, "cat", "/usr/share/lakehouse/sbom.cdx.json"))
    query = "${Package}\\t${Version}\\t${Architecture}\\n"
    lines = engine.run("run", *_ONCE, image, "dpkg-query", "--show", f"--showformat={query}").splitlines()
    for name, version, machine in (line.split("\t") for line in lines):
        url = f"pkg:deb/debian/{name}@{version}?arch={machine}"
        document["components"].append({"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url})
    HOME.mkdir(parents=True, exist_ok=True)
    name = image.rpartition("/")[2].partition(":")[0]
    (HOME / f"{name}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")


def _options(engine: Engine) -> list[str]:
    """Options of every build: where pip finds certificates of this machine's own, and podman's form with health checks."""
    options = ["--format", "docker", "--quiet"] if engine.name == "podman" else ["--quiet"]
    if ca := os.environ.get("SSL_CERT_FILE"):
        arguments = [part for name in ("SSL_CERT_FILE", "PIP_CERT") for part in ("--build-arg", f"{name}=/run/ca.pem")]
        options += ["--secret", f"id=ca,src={ca}", *arguments]
    return options


def _revision() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
