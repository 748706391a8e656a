"""`lakehouse impact`: what a change does to the graph.

Compares with the commit at which head left base, as a pull request does. Each side is described by a process of its own, which
sees nothing of this one's environment.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from lakehouse.commands.impact import describe
from lakehouse.commands.impact.changes import Impact, compare, needs_trial
from lakehouse.commands.impact.text import render
from lakehouse.commands.instance.show import busy
from lakehouse.commands.options import Json
from lakehouse.core.errors import DeclarationError
from lakehouse.settings import project_folder

app = typer.Typer()
#: A description takes a quarter of a minute on two cores.
_SECONDS = 600


@app.command()
def impact(
    base: Annotated[str, typer.Option(metavar="REF", help="what is there")] = "main",
    head: Annotated[str, typer.Option(metavar="REF", help="what is to come; the working tree without it")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="for a pull request")] = False,
    as_json: Json = False,
    fail_on_breaking: Annotated[bool, typer.Option("--fail-on-breaking", help="exit code 1 when something breaks")] = False,
) -> int:
    """Compare two git refs: what of the graph is added, removed or changed, what is downstream of that, and what breaks."""
    if markdown and as_json:
        raise DeclarationError("The impact is printed as Markdown or as JSON.", remedy="Give one of --markdown and --json.")
    project = project_folder()
    fork, name = _fork(project, base, head)
    to = head or "the working tree"
    with busy(f"Reading {name} and {to}"):
        found = between(project, fork, head)
    if as_json:
        print(json.dumps({"base": name, "head": to, "breaking": found.breaking, **asdict(found)}, indent=1))
    else:
        print(render(found, base=name, head=to, markdown=markdown), end="")
    return 1 if fail_on_breaking and found.breaking else 0


def between(project: Path, base: str, head: str) -> Impact:
    """The impact of one ref on another; an empty `head` is the working tree.

    Raises:
        DeclarationError: a side cannot be described.
    """
    with TemporaryDirectory(prefix="lakehouse-impact-") as folder:
        work = Path(folder)
        before = _checkout(project, base, work / "base")
        after = _checkout(project, head, work / "head") if head else project
        old = _described(before, work / "base.json", base)
        new = _described(after, work / "head.json", head or "the working tree")
        trial = None
        if needs_trial(old, new):
            (work / "sources.json").write_text(json.dumps(new["sources"]))
            trial = _described(before, work / "trial.json", base, work / "sources.json")
        return compare(old, new, trial=trial)


def _fork(project: Path, base: str, head: str) -> tuple[str, str]:
    """The commit at which head left base, and what to call it."""
    for ref in filter(None, (base, head)):
        _commit(project, ref)
    done = _git(project, "merge-base", base, head or "HEAD")
    fork = done.stdout.decode().strip() or _commit(project, base)  # without a common commit: base itself
    where = ", where HEAD is" if not head and _commit(project, "HEAD") == _commit(project, base) else ""
    return fork, f"{base} ({fork[:9]}{where})"


def _commit(project: Path, ref: str) -> str:
    done = _git(project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode:
        raise DeclarationError(
            f"There is no git ref {ref[:80]!r} in {project}.",
            remedy="Name a branch, tag or commit: make impact BASE=main; a shallow clone needs git fetch --unshallow.",
        )
    return done.stdout.decode().strip()


def _checkout(project: Path, ref: str, folder: Path) -> Path:
    """The project as it was at a ref, in a folder."""
    done = _git(project, "archive", "--format=tar", _commit(project, ref))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(project: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    git = shutil.which("git")
    if git is None:
        raise DeclarationError("There is no git on this machine.", remedy="Install git.")
    return subprocess.run([git, "-C", str(project), *words], capture_output=True, check=False)


def _described(checkout: Path, out: Path, ref: str, *given: Path) -> dict[str, Any]:
    """What `describe.py` says of a checkout, in production, where every schedule is on."""
    command = [sys.executable, "-P", str(Path(describe.__file__).resolve()), str(out), *map(str, given)]
    home = str(out.parent)
    own = {"HOME": home, "LAKEHOUSE_ENV": "prod", "LAKEHOUSE_ROOT": f"{home}/lake", "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=own, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode or not out.is_file():
        reported = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:300]
        raise DeclarationError(
            f"{ref} cannot be described: {reported.rstrip('.')}.",
            remedy="Fix its lakehouse/definitions.py, or name another ref.",
        )
    found: dict[str, Any] = json.loads(out.read_text())
    return found
